"""`GradientHistory` in memory and on disk, on numbers worked out by hand."""

import json
import math
import pickle
import re

import numpy as np
import pytest

import kgrad.history
from kgrad.history import GradientHistory, Weight
from kgrad.jsonl import LineWriter, read_lines

STATISTICS = (
    "mean_abs",
    "l2_norm",
    "max_abs",
    "zero_fraction",
    "nonfinite_steps",
    "weight_l2",
    "update_l2",
)
WEIGHTS = [
    Weight("a", "kernel", "a/kernel", (2, 3)),
    Weight("b", "kernel", "b/kernel", (3, 1)),
    Weight("a", "bias", "a/bias", (2,)),  # not beside its kernel: layers go by name
    Weight("c", "alpha", "c/alpha", ()),
]


def make_history(records=2):
    history = GradientHistory(WEIGHTS, STATISTICS, ["loss", "accuracy"], {"seed": 7})
    for r in range(records):
        values = {
            name: [100 * r + 10 * s + w for w in range(4)] for s, name in enumerate(STATISTICS)
        }
        history.append(r, 5 * r, values, {"loss": 0.5 - r, "accuracy": 0.25})
    return history


def one_record(statistic, values, **options):
    history = GradientHistory(WEIGHTS, [statistic])
    history.append(1, 1, {statistic: values}, **options)
    return history


def same(one, other):
    assert (one.weights, one.statistics) == (other.weights, other.statistics)
    assert one.metadata == other.metadata
    np.testing.assert_array_equal(one.epochs, other.epochs)
    np.testing.assert_array_equal(one.steps, other.steps)
    assert list(one.logs) == list(other.logs)
    for name in one.logs:
        np.testing.assert_array_equal(one.logs[name], other.logs[name])
    for name in one.statistics:
        np.testing.assert_array_equal(one[name], other[name])
        np.testing.assert_array_equal(one.by_layer(name), other.by_layer(name))


def test_the_three_axes():
    history = make_history()
    assert len(history) == 2
    assert history.layers == ("a", "b", "c")
    assert [w.size for w in history.weights] == [6, 3, 2, 1]
    assert history.epochs.tolist() == [0, 1]
    assert history.steps.tolist() == [0, 5]
    assert history.epochs.dtype == history.steps.dtype == np.int64
    assert history["max_abs"].tolist() == [[20, 21, 22, 23], [120, 121, 122, 123]]
    assert history["max_abs"].dtype == np.float64
    assert history.logs["loss"].tolist() == [0.5, -0.5]
    assert list(history.logs) == ["loss", "accuracy"]
    assert "2 records of 4 weights in 3 layers" in repr(history)


def test_without_records_the_axes_still_have_their_lengths():
    history = make_history(records=0)
    assert history["mean_abs"].shape == (0, 4)
    assert history.by_layer("mean_abs").shape == (0, 3)
    assert history.epochs.shape == history.logs["loss"].shape == (0,)
    assert len(history.to_frame()) == 0


def test_what_is_read_is_a_copy():
    history = make_history()
    values = np.ones(4)
    history.append(2, 6, dict.fromkeys(STATISTICS, values), {"loss": 0, "accuracy": 0})
    values[:] = 9
    history["mean_abs"][:] = 9
    history.logs["loss"][:] = 9
    assert history["mean_abs"][2].tolist() == [1, 1, 1, 1]
    assert history.logs["loss"][2] == 0


@pytest.mark.parametrize(
    ("statistic", "values", "expected"),
    [
        # a: 6 and 2 entries
        ("mean_abs", [1, 7, 5, 2], [(6 * 1 + 2 * 5) / 8, 7, 2]),
        ("zero_fraction", [0.5, 1, 0, 0], [3 / 8, 1, 0]),
        ("l2_norm", [3, 7, 4, 2], [5, 7, 2]),
        ("weight_l2", [5, 7, 12, 2], [13, 7, 2]),
        ("update_l2", [8, 7, 15, 2], [17, 7, 2]),
        ("max_abs", [3, 7, 4, 2], [4, 7, 2]),
        ("nonfinite_steps", [3, 7, 4, 2], [4, 7, 2]),
        # far from 1
        ("l2_norm", [3e-200, 0, 4e-200, 0], [5e-200, 0, 0]),
        ("l2_norm", [3e200, 0, 4e200, 0], [5e200, 0, 0]),
        # NaN and infinity are kept, in their own layer
        ("mean_abs", [math.nan, 1, 5, math.inf], [math.nan, 1, math.inf]),
        ("l2_norm", [3, math.inf, math.nan, 1], [math.nan, math.inf, 1]),
        ("max_abs", [3, 1, math.nan, math.inf], [math.nan, 1, math.inf]),
    ],
)
def test_by_layer_takes_a_layers_weights_as_one_vector(statistic, values, expected):
    actual = one_record(statistic, values).by_layer(statistic)
    np.testing.assert_allclose(actual, [expected], rtol=1e-14)


def test_by_layer_prefers_what_was_counted_by_layer():
    history = one_record(
        "nonfinite_steps", [1, 0, 1, 0], layer_values={"nonfinite_steps": [2, 0, 0]}
    )
    assert history.by_layer("nonfinite_steps").tolist() == [[2, 0, 0]]


def test_by_layer_has_no_rule_for_the_unknown():
    with pytest.raises(ValueError, match=r"^there is no rule .* for 'median'$"):
        one_record("median", [1, 2, 3, 4]).by_layer("median")


def test_to_frame_is_one_row_a_value():
    history = make_history()
    frame = history.to_frame()
    assert list(frame.columns) == [
        "record",
        "epoch",
        "step",
        "layer",
        "weight",
        "path",
        "statistic",
        "value",
    ]
    expected = [
        (r, r, 5 * r, weight.layer, weight.name, weight.path, name, 100 * r + 10 * s + w)
        for s, name in enumerate(STATISTICS)
        for r in range(2)
        for w, weight in enumerate(WEIGHTS)
    ]
    assert list(frame.itertuples(index=False, name=None)) == expected
    assert frame.index.tolist() == list(range(56))
    assert frame["value"].dtype == np.float64
    assert frame["record"].dtype == frame["epoch"].dtype == frame["step"].dtype == np.int64


def test_save_and_load(tmp_path):
    history = make_history()
    history.metadata |= {"text": "ü\n", "none": None, "list": [1, 2.5, {"x": True}]}
    history.save(tmp_path / "a.jsonl")
    loaded = GradientHistory.load(tmp_path / "a.jsonl")
    same(history, loaded)
    loaded.append(2, 10, dict.fromkeys(STATISTICS, [0] * 4), {"loss": 0, "accuracy": 0})
    loaded.save(str(tmp_path / "b.jsonl"))
    same(loaded, GradientHistory.load(str(tmp_path / "b.jsonl")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def test_every_float64_survives_the_file(tmp_path):
    numbers = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3]
    history = GradientHistory(
        [Weight(f"{i}", "w", f"{i}/w", (1,)) for i in range(len(numbers))],
        ["l2_norm", "nonfinite_steps"],
        ["loss"],
        {"largest": np.float32(0.5), "places": np.arange(3), "bad": math.inf},
    )
    for epoch, log in enumerate([math.nan, math.inf, -math.inf, np.float32(0.1)]):
        history.append(
            epoch,
            epoch,
            {"l2_norm": numbers, "nonfinite_steps": np.arange(8)},
            {"loss": log},
            {"nonfinite_steps": np.arange(8.0)},
        )
    history.save(tmp_path / "h.jsonl")
    loaded = GradientHistory.load(tmp_path / "h.jsonl")
    assert loaded["l2_norm"].tobytes() == history["l2_norm"].tobytes()
    assert loaded.logs["loss"].tobytes() == history.logs["loss"].tobytes()
    assert loaded.logs["loss"][3] == np.float64(np.float32(0.1))
    assert loaded.by_layer("nonfinite_steps").tolist() == [list(range(8))] * 4
    assert loaded.metadata == {"largest": 0.5, "places": [0, 1, 2], "bad": "Infinity"}

    def refuse(constant):
        raise AssertionError(f"{constant} is not standard JSON")

    for line in (tmp_path / "h.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize(
    ("weights", "statistics", "message"),
    [
        ([], ["mean_abs"], "a history needs at least one weight path, received none"),
        (WEIGHTS, [], "a history needs at least one statistic, received none"),
        (
            [WEIGHTS[0]] * 2,
            ["mean_abs"],
            "each weight path must be unique, received 'a/kernel' more than once",
        ),
        (
            WEIGHTS,
            ["l2_norm", "mean_abs", "l2_norm"],
            "each statistic must be unique, received 'l2_norm' more than once",
        ),
    ],
)
def test_names_are_unique(weights, statistics, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GradientHistory(weights, statistics)


def test_an_unknown_statistic_is_a_key_error():
    for read in (make_history().__getitem__, make_history().by_layer):
        with pytest.raises(KeyError, match=r"statistic 'mean' was not recorded; recorded were mea"):
            read("mean")


GOOD = {
    "epoch": 3,
    "step": 9,
    "values": {name: [1.0, 2, 3, 4] for name in STATISTICS},
    "logs": {"loss": 1.0, "accuracy": 0},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 0}, "epoch must be an integer of at least 1, received 0"),
        ({"step": 4}, "step must be an integer of at least 5, received 4"),
        ({"epoch": 1.0}, "epoch must be an integer of at least 1, received 1.0"),
        ({"step": "9"}, "step must be an integer of at least 5, received '9'"),
        ({"logs": {"loss": 1}}, "logs must name ['accuracy', 'loss'], received ['loss']"),
        (
            {"logs": {"loss": "low", "accuracy": 0}},
            "logs['loss'] must be 1 numbers, received ['low']",
        ),
        ({"values": {}}, f"values must name {sorted(STATISTICS)}, received []"),
        (
            {"values": GOOD["values"] | {"extra": [1] * 4}},
            f"values must name {sorted(STATISTICS)}, received {sorted((*STATISTICS, 'extra'))}",
        ),
        (
            {"values": GOOD["values"] | {"max_abs": [1, 2, 3]}},
            "values['max_abs'] must be 4 numbers, received [1, 2, 3]",
        ),
        (
            {"values": GOOD["values"] | {"max_abs": [1, 2, 3, None]}},
            "values['max_abs'] must be 4 numbers, received [1, 2, 3, None]",
        ),
        (
            {"values": GOOD["values"] | {"max_abs": [1, 2, 3, [4]]}},
            "values['max_abs'] must be 4 numbers, received [1, 2, 3, [4]]",
        ),
        (
            {"values": GOOD["values"] | {"max_abs": [[1, 2, 3, 4]]}},
            "values['max_abs'] must be 4 numbers, received [[1, 2, 3, 4]]",
        ),
        (
            {"values": GOOD["values"] | {"max_abs": [1, 2, 3, 10**400]}},
            f"values['max_abs'] must be 4 numbers, received {repr([1, 2, 3, 10**400])[:80]}",
        ),
        (
            {"layer_values": {"nonfinite_steps": [1, 2, 3]}},
            "layer_values must name [], received ['nonfinite_steps']",
        ),
    ],
)
def test_append_refuses_what_does_not_fit_and_stays_as_it_was(change, message):
    history = make_history()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        history.append(**GOOD | change)
    same(history, make_history())


def test_layer_values_have_one_number_a_layer():
    message = "layer_values['nonfinite_steps'] must be 3 numbers, received [1, 2, 3, 4]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        one_record("nonfinite_steps", [1, 2, 3, 4], layer_values={"nonfinite_steps": [1, 2, 3, 4]})


# ---- Files -------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "h.jsonl"
    make_history(records=3).save(path)
    return path


def edit(path, number, change):
    """Replace line `number` (1-based) by `change` of its JSON content, or by `change` itself."""
    lines = path.read_bytes().splitlines(keepends=True)
    if callable(change):
        content = json.loads(lines[number - 1])
        lines[number - 1] = json.dumps(change(content)).encode() + b"\n"
    else:
        lines[number - 1] = change
    path.write_bytes(b"".join(lines))


def without(key):
    return lambda content: {k: v for k, v in content.items() if k != key}


def having(**changes):
    return lambda content: content | changes


def values_of(name, row):
    return lambda content: content | {"values": content["values"] | {name: row}}


HEADER = "expected weights (each with layer, name, path, shape), statistics, logs and metadata"
RECORD = "expected a record with epoch, step, values, layer_values, logs"
MALFORMED = {
    "no JSON": (2, b"{nonsense}\n", "expected a JSON object, received b'{nonsense}'"),
    "blank": (3, b"\n", "expected a JSON object, received b''"),
    "a list": (2, b"[1, 2]\n", "expected a JSON object, received b'[1, 2]'"),
    "not UTF-8": (2, b"\xff\xfe\n", r"expected a JSON object, received b'\xff\xfe'"),
    "nested": (3, b"[" * 10**6 + b"\n", "expected a JSON object, received b'[[[[[[["),
    "other format": (1, having(format="x"), 'expected a header with "format": "kgrad-history"'),
    "no format": (1, without("format"), 'expected a header with "format": "kgrad-history"'),
    "future": (1, having(version=2), "expected format version 1, received 2: read the file with"),
    "no version": (1, without("version"), "expected format version 1, received None: read the"),
    "text version": (1, having(version="1"), "expected format version 1, received '1': read the"),
    "no weights": (1, without("weights"), HEADER),
    "no metadata": (1, without("metadata"), HEADER),
    "no logs": (1, without("logs"), HEADER),
    "weights null": (1, having(weights=None), HEADER),
    "weight without shape": (1, having(weights=[{"layer": "a", "name": "b", "path": "c"}]), HEADER),
    "weight no dict": (1, having(weights=["a"]), HEADER),
    "shape of text": (
        1,
        having(weights=[{"layer": "a", "name": "b", "path": "c", "shape": ["x"]}]),
        HEADER,
    ),
    "metadata a number": (1, having(metadata=3), HEADER),
    "statistics a string": (1, having(statistics="mean_abs"), HEADER),
    "logs a string": (1, having(logs="loss"), HEADER),
    "shape a string": (
        1,
        having(weights=[{"layer": "a", "name": "b", "path": "c", "shape": "23"}]),
        HEADER,
    ),
    "no weight": (1, having(weights=[]), "a history needs at least one weight path, received none"),
    "duplicate weight": (
        1,
        lambda c: c | {"weights": c["weights"][:1] * 2},
        "each weight path must be unique, received 'a/kernel' more than once",
    ),
    "duplicate statistic": (
        1,
        having(statistics=["l2_norm"] * 2),
        "each statistic must be unique, received 'l2_norm' more than once",
    ),
    "header twice": (2, lambda content: make_history().header(), RECORD),
    "no epoch": (3, without("epoch"), RECORD),
    "more than a record": (3, having(extra=1), RECORD),
    "epoch a float": (3, having(epoch=1.5), RECORD),
    "epoch a bool": (3, having(epoch=True), RECORD),
    "epoch beyond int64": (4, having(epoch=2**63), "epoch must be"),
    "values a list": (3, having(values=[]), RECORD),
    "time runs back": (4, having(step=4), "step must be an integer of at least 5, received 4"),
    "negative epoch": (2, having(epoch=-1), "epoch must be an integer of at least 0, received -1"),
    "statistic missing": (3, having(values={}), f"values must name {sorted(STATISTICS)}, received"),
    "too short": (
        3,
        values_of("max_abs", [1, 2]),
        "values['max_abs'] must be 4 numbers, received [1, 2]",
    ),
    "text": (
        3,
        values_of("max_abs", [1, 2, 3, "four"]),
        "values['max_abs'] must be 4 numbers, received [1, 2, 3, 'four']",
    ),
    "null": (
        3,
        values_of("max_abs", [1, 2, 3, None]),
        "values['max_abs'] must be 4 numbers, received [1, 2, 3, None]",
    ),
    "log missing": (4, having(logs={"loss": 1}), "logs must name ['accuracy', 'loss'], received"),
    "log of text": (
        4,
        having(logs={"loss": "x", "accuracy": 1}),
        "logs['loss'] must be 1 numbers, received ['x']",
    ),
    "layer value unknown": (
        3,
        having(layer_values={"max_abs": [1, 2, 3]}),
        "layer_values must name [], received ['max_abs']",
    ),
}


@pytest.mark.parametrize(("line", "change", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused_with_its_name_the_line_and_what_was_expected(
    file, line, change, message
):
    edit(file, line, change)
    start = f"{file}, line {line}: {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(start)}"):
        GradientHistory.load(file)


@pytest.mark.parametrize("depth", [50, 500, 900, 960, 990, 10_000])
def test_nesting_is_refused_at_every_depth(file, depth):
    row = b"[" * depth + b"]" * depth
    line = b'{"epoch": 1, "step": 5, "values": {"mean_abs": %b}, "layer_values": {}, "logs": {}}\n'
    edit(file, 3, line % row)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}, line 3: "):
        GradientHistory.load(file)
    # All names given, so that the row itself is looked at.
    names = b", ".join(b'"%b": %b' % (name.encode(), row) for name in STATISTICS)
    edit(file, 3, line.replace(b'"mean_abs": %b', names).replace(b"%b", b""))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}, line 3: "):
        GradientHistory.load(file)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\x80\x04\x95"])
def test_what_is_no_history_is_refused_at_line_1(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}, line 1: expected a "):
        GradientHistory.load(path)


def test_a_file_torn_anywhere_keeps_its_whole_lines(file):
    """Every length that a killed writer may leave behind the header."""
    content = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for length in range(ends[0], len(content) + 1):
        file.write_bytes(content[:length])
        # A line that lacks nothing but its newline is whole.
        records = sum(length >= end - 1 for end in ends[1:])
        loaded = GradientHistory.load(file)
        assert len(loaded) == records
        if length in ends:
            same(loaded, make_history(records))


def test_a_torn_header_is_refused(file):
    header = file.read_bytes().splitlines(keepends=True)[0]
    file.write_bytes(header[:-5])
    with pytest.raises(ValueError, match=r", line 1: expected a header"):
        GradientHistory.load(file)


def test_a_torn_line_is_ignored_only_at_the_end(file):
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:20] + b"\n" + lines[3])
    with pytest.raises(ValueError, match=r", line 3: expected a JSON object"):
        GradientHistory.load(file)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        GradientHistory.load(tmp_path / "none.jsonl")


class Bomb:
    """What it would write, were it ever unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))


def test_loading_executes_nothing(file, tmp_path):
    """Neither a pickle, nor Python in place of a number, nor a class named in the metadata."""
    target = str(tmp_path / "executed")
    pickled = pickle.dumps(Bomb(target))
    code = f"open({target!r}, 'w')"
    for line, change in {
        1: pickled + b"\n",
        2: json.dumps({"__reduce__": code}).encode() + b"\n",
        3: values_of("max_abs", [code] * 4),
    }.items():
        make_history(records=3).save(file)
        edit(file, line, change)
        with pytest.raises(ValueError, match=rf", line {line}: "):
            GradientHistory.load(file)
    make_history(records=3).save(file)
    metadata = {"class_name": "Lambda", "module": "builtins", "config": {"function": code}}
    edit(file, 1, having(metadata=metadata))
    assert GradientHistory.load(file).metadata == metadata
    assert not (tmp_path / "executed").exists()


# ---- Writing ------------------------------------------------------------------------------------


class Disk:
    """A raw file on a disk with `room` bytes left, which takes at most `chunk` at once."""

    def __init__(self, room, chunk):
        self.room, self.chunk, self.content = room, chunk, b""

    def write(self, data):
        taken = bytes(data[: min(self.chunk, self.room)])
        if not taken:
            raise OSError(28, "No space left on device")
        self.room -= len(taken)
        self.content += taken
        return len(taken)

    def close(self):
        pass


def test_a_partial_write_is_continued(tmp_path):
    writer = LineWriter(tmp_path / "x")
    writer.close()
    writer._file = Disk(room=1000, chunk=7)
    writer.write({"a": list(range(50)), "ü": math.nan})
    writer.write({"b": 2})
    (tmp_path / "x").write_bytes(writer._file.content)
    assert list(read_lines(tmp_path / "x")) == [{"a": list(range(50)), "ü": "NaN"}, {"b": 2}]


def test_a_disk_that_fills_up_is_an_os_error_and_keeps_whole_lines(tmp_path):
    writer = LineWriter(tmp_path / "x")
    writer.close()
    writer._file = Disk(room=20, chunk=9)
    writer.write({"a": 1})
    with pytest.raises(OSError, match="No space left"):
        writer.write({"b": list(range(50))})
    (tmp_path / "x").write_bytes(writer._file.content)
    assert list(read_lines(tmp_path / "x")) == [{"a": 1}]


def test_every_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    with LineWriter(tmp_path / "x") as writer:
        for number in range(3):
            writer.write({"n": number})
            assert (tmp_path / "x").read_bytes().count(b"\n") == number + 1
    writer.close()  # once more


def test_save_replaces_a_file_only_when_it_is_complete(file, monkeypatch):
    before = file.read_bytes()

    class Failing(LineWriter):
        lines = 0

        def write(self, content):
            assert file.read_bytes() == before
            self.lines += 1
            if self.lines == 2:
                raise OSError(28, "No space left on device")
            super().write(content)

    with monkeypatch.context() as patch:
        patch.setattr(kgrad.history, "LineWriter", Failing)
        with pytest.raises(OSError, match="No space left"):
            make_history(records=1).save(file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]

    history = make_history(records=1)
    history.metadata["model"] = object()  # no JSON type
    with pytest.raises(TypeError):
        history.save(file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]

    make_history(records=1).save(file)
    assert len(GradientHistory.load(file)) == 1


def test_save_where_nothing_can_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        make_history().save(tmp_path / "none" / "h.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        make_history().save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
