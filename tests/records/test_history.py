"""`GradientHistory` in memory and on disk, with expected numbers computed by hand."""

import json
import math
import pickle
import re
import time

import numpy as np
import pytest

import kgrad.records.history
from kgrad.records.distributions import LOG10_EDGES
from kgrad.records.files import LineWriter, read_lines
from kgrad.records.history import GradientHistory, Weight, load_runs

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
    history = GradientHistory(WEIGHTS, STATISTICS, {"seed": 7})
    for r in range(records):
        values = {
            name: [100 * r + 10 * s + w for w in range(4)] for s, name in enumerate(STATISTICS)
        }
        history.append(r, 5 * r, values, {"loss": 0.5 - r, "accuracy": 0.25})
    return history


def make_rich_history(records=4):
    """Return a history with distributions and activations in all records but the first."""
    history = GradientHistory(WEIGHTS, STATISTICS, outputs=("a", "b"))
    random = np.random.default_rng(3)
    for r in range(records):
        counts = random.integers(0, 3000, (4, 256)) * (random.random((4, 256)) < 0.05)
        counts[:2] = 0  # nothing sampled, and
        counts[1, [0, -1]] = 7, 3 * r  # nothing but special bins
        late = {
            "logs": {"loss": 1.5 * r} | ({"val_loss": 2.5} if r % 2 else {}),
            "activations": {"activation_mean": [r, math.nan], "signal_l2": [math.inf, -r]},
            "distributions": counts,
        }
        values = dict.fromkeys(STATISTICS, np.array([r, 1, 2, 3]))
        layer_values = {"nonfinite_steps": [1, 2, r]}
        history.append(r, r, values, layer_values=layer_values, **(late if r else {}))
    return history


def one_record(statistic, values, **options):
    history = GradientHistory(WEIGHTS, [statistic])
    history.append(1, 1, {statistic: values}, **options)
    return history


def same(one, other):
    assert (one.weights, one.statistics) == (other.weights, other.statistics)
    assert one.outputs == other.outputs
    assert one.metadata == other.metadata
    np.testing.assert_array_equal(one.epochs, other.epochs)
    np.testing.assert_array_equal(one.steps, other.steps)
    assert list(one.logs) == list(other.logs)
    for name in one.logs:
        np.testing.assert_array_equal(one.logs[name], other.logs[name])
    assert list(one.activations) == list(other.activations)
    for name in one.activations:
        np.testing.assert_array_equal(one.activations[name], other.activations[name])
    np.testing.assert_array_equal(one.distributions, other.distributions)
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
    assert history.epochs.shape == (0,)
    assert history.logs == history.activations == {}
    assert history.distributions.shape == (0, 4, 256)
    assert len(history.to_frame()) == len(history.activations_to_frame()) == 0


def test_names_of_outputs_are_unique_and_may_be_none():
    assert GradientHistory(WEIGHTS, ["mean_abs"]).outputs == ()
    with pytest.raises(ValueError, match=r"^each output must be unique, received 'a' more than on"):
        GradientHistory(WEIGHTS, ["mean_abs"], outputs=["a", "b", "a"])


def test_the_first_records_are_a_history_that_the_whole_does_not_lengthen():
    history = make_history(4)
    cut = history.first(2)
    history.append(4, 20, {name: [1, 2, 3, 4] for name in STATISTICS})
    assert (len(cut), len(history)) == (2, 5)
    assert cut.epochs.tolist() == [0, 1]
    np.testing.assert_array_equal(cut["mean_abs"], history["mean_abs"][:2])
    assert cut.logs["loss"].tolist() == [0.5, -0.5]


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
        ("clipped_l2", [3, 7, 4, 2], [5, 7, 2]),
        ("clipped_steps", [3, 7, 4, 2], [4, 7, 2]),
        ("first_nonfinite_step", [30, 7, 4, 0], [4, 7, 0]),
        ("first_nonfinite_step", [0, 7, 4, 2], [4, 7, 2]),
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


COUNTED = ("updates", "gradients_present")
NO = math.nan


def history_with_counts(statistic, updates, present, values):
    """Return a history with one record per row of the three tables."""
    history = GradientHistory(WEIGHTS, [statistic, *COUNTED])
    for r, rows in enumerate(zip(values, updates, present, strict=True)):
        history.append(r, r, dict(zip(history.statistics, rows, strict=True)))
    return history


@pytest.mark.parametrize(
    ("statistic", "values", "present", "expected"),
    [
        ("mean_abs", [1, 7, 5, 2], [1, 1, 1, 1], [(6 * 1 + 2 * 5) / 8, 7, 2]),
        ("mean_abs", [1, 7, NO, NO], [1, 1, 0, 0], [1, 7, NO]),
        ("mean_abs", [NO, 7, 5, 2], [0, 1, 3, 9], [5, 7, 2]),
        ("mean_abs", [NO, 7, NO, 2], [0, 1, 0, 9], [NO, 7, 2]),
        ("zero_fraction", [NO, 0, 0.5, 1], [0, 1, 1, 1], [0.5, 0, 1]),
        ("l2_norm", [3, NO, NO, 2], [1, 0, 0, 1], [3, NO, 2]),
        ("max_abs", [NO, 1, 4, 2], [0, 1, 1, 1], [4, 1, 2]),
        ("clipped_l2", [NO, 1, 4, 2], [0, 1, 1, 1], [4, 1, 2]),
        # NaN where there is a gradient is data
        ("mean_abs", [NO, 7, 5, 2], [1, 1, 1, 1], [NO, 7, 2]),
        ("mean_abs", [NO, NO, NO, 2], [0, 1, 2, 1], [NO, NO, 2]),
        ("l2_norm", [math.inf, NO, NO, 2], [1, 0, 0, 1], [math.inf, NO, 2]),
        # what needs no gradient is there without one
        ("weight_l2", [5, 7, 12, 2], [0, 0, 0, 0], [13, 7, 2]),
        ("update_l2", [0, 7, 15, 2], [0, 1, 1, 0], [15, 7, 2]),
        ("nonfinite_steps", [0, 0, 2, 0], [0, 0, 1, 1], [2, 0, 0]),
        ("clipped_steps", [0, 0, 2, 0], [0, 0, 1, 1], [2, 0, 0]),
    ],
)
def test_by_layer_leaves_out_weights_without_a_gradient(statistic, values, present, expected):
    # Between records with every gradient, so that each record has a choice of its own.
    every = [1, 1, 1, 1]
    history = history_with_counts(
        statistic, [[9] * 4] * 3, [every, present, every], [every, values, every]
    )
    actual = history.by_layer(statistic)
    np.testing.assert_allclose(actual[1], expected, rtol=1e-14)
    alone = one_record(statistic, every).by_layer(statistic)
    np.testing.assert_array_equal(actual[[0, 2]], np.concatenate([alone, alone]))


def test_counts_of_a_layer_are_those_of_its_weight_with_most():
    history = history_with_counts("mean_abs", [[4, 7, 5, 0]], [[4, 0, 1, 0]], [[1, NO, 1, NO]])
    assert history.by_layer("updates").tolist() == [[5, 7, 0]]
    assert history.by_layer("gradients_present").tolist() == [[4, 0, 0]]


def test_a_missing_gradient_has_a_reason():
    history = history_with_counts(
        "mean_abs",
        updates=[[4, 4, 4, 0], [0, 2, 0, 3]],
        present=[[4, 0, 0, 0], [0, 0, 0, 1]],
        values=[[NO, NO, NO, NO], [NO, NO, NO, 0]],
    )
    no_path, absent = "no path to the loss", "not updated"
    # The NaN of a/kernel in the first record, and the 0 of c/alpha in the last, are gradients.
    assert history.missing.tolist() == [
        ["", no_path, no_path, absent],
        [absent, no_path, absent, ""],
    ]
    assert history.missing_by_layer.tolist() == [["", no_path, absent], [absent, no_path, ""]]
    table = history.to_frame()
    assert list(table.columns)[-2:] == ["value", "missing"]
    told = table[table.statistic == "mean_abs"]
    assert told.missing.tolist() == [*history.missing.ravel()]
    assert (table[table.statistic.isin(COUNTED)].missing == "").all()


def test_without_counts_no_reason_is_known():
    history = one_record("mean_abs", [1, NO, 2, 0])
    assert history.missing.tolist() == [["", "", "", ""]]
    assert history.missing_by_layer.tolist() == [["", "", ""]]
    assert history.to_frame().missing.tolist() == [""] * 4


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
        "missing",
    ]
    expected = [
        (r, r, 5 * r, weight.layer, weight.name, weight.path, name, 100 * r + 10 * s + w, "")
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


def test_distributions_and_activations_survive_the_file(rich_file):
    loaded = GradientHistory.load(rich_file)
    same(loaded, make_rich_history())
    assert loaded.distributions[3, 1, [0, -1]].tolist() == [7, 9]
    assert loaded.distributions[3, 2:].any(axis=1).all()
    loaded.save(rich_file)
    same(loaded, GradientHistory.load(rich_file))


def test_distributions_are_small_on_disk(tmp_path):
    history = GradientHistory(WEIGHTS, ["mean_abs"])
    counts = np.zeros((4, 256), int)
    counts[0, [0, 97, 99, 255]] = 5, 3, 2, 1
    counts[3, 254] = 8
    history.append(1, 1, {"mean_abs": [0] * 4}, distributions=counts)
    history.save(tmp_path / "h.jsonl")
    record = json.loads((tmp_path / "h.jsonl").read_text().splitlines()[1])
    assert record["distributions"] == {
        "zeros": [5, 0, 0, 0],
        "first": [97, 1, 1, 254],
        "counts": [[3, 0, 2], [], [], [8]],
        "nonfinite": [1, 0, 0, 0],
    }
    # A view would keep all 256 in memory.
    assert all(row.base is None for row in history.record(0)["distributions"]["counts"])


def test_every_float64_survives_the_file(tmp_path):
    numbers = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3]
    history = GradientHistory(
        [Weight(f"{i}", "w", f"{i}/w", (1,)) for i in range(len(numbers))],
        ["l2_norm", "nonfinite_steps"],
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


def test_logs_are_free_and_nan_where_a_record_lacks_one():
    history = GradientHistory(WEIGHTS, ["mean_abs"])
    given = [
        {"loss": 3},
        {"loss": 2, "val_loss": 4},
        None,
        {"learning_rate": 0.1, "loss": math.inf},
    ]
    for r, logs in enumerate(given):
        history.append(1, r, {"mean_abs": [0] * 4}, logs)
    assert list(history.logs) == ["loss", "val_loss", "learning_rate"]
    nan = math.nan
    np.testing.assert_array_equal(history.logs["loss"], [3, 2, nan, math.inf])
    np.testing.assert_array_equal(history.logs["val_loss"], [nan, 4, nan, nan])
    np.testing.assert_array_equal(history.logs["learning_rate"], [nan, nan, nan, 0.1])
    assert history.logs["val_loss"].dtype == np.float64


def test_activations_are_nan_where_a_record_lacks_them():
    activations = make_rich_history(3).activations
    nan = math.nan
    assert list(activations) == ["activation_mean", "signal_l2"]
    np.testing.assert_array_equal(activations["activation_mean"], [[nan, nan], [1, nan], [2, nan]])
    np.testing.assert_array_equal(
        activations["signal_l2"], [[nan, nan], [math.inf, -1], [math.inf, -2]]
    )
    assert activations["signal_l2"].dtype == np.float64


def test_activations_to_frame_is_one_row_a_value():
    history = GradientHistory(WEIGHTS, ["mean_abs"], outputs=("in", "out"))
    for step, activations in [
        (4, {"signal_l2": [5, 6]}),
        (8, {"other": [7, 8], "signal_l2": [1, 2]}),
    ]:
        history.append(2, step, {"mean_abs": [0] * 4}, activations=activations)
    frame = history.activations_to_frame()
    assert list(frame.columns) == ["record", "epoch", "step", "output", "statistic", "value"]
    assert [tuple(row) for row in frame.fillna(-1).itertuples(index=False)] == [
        (0, 2, 4, "in", "signal_l2", 5),
        (0, 2, 4, "out", "signal_l2", 6),
        (1, 2, 8, "in", "signal_l2", 1),
        (1, 2, 8, "out", "signal_l2", 2),
        (0, 2, 4, "in", "other", -1),
        (0, 2, 4, "out", "other", -1),
        (1, 2, 8, "in", "other", 7),
        (1, 2, 8, "out", "other", 8),
    ]
    assert frame["value"].dtype == np.float64
    assert frame["record"].dtype == np.int64


def test_without_activations_their_frame_has_its_columns():
    frame = make_history().activations_to_frame()
    assert list(frame.columns) == ["record", "epoch", "step", "output", "statistic", "value"]
    assert len(frame) == 0


def test_distributions_are_what_was_given_and_zeros_for_a_record_without():
    history = GradientHistory(WEIGHTS, ["mean_abs"])
    given = np.random.default_rng(0).integers(0, 10**12, (4, 256))
    given[0], given[1, 3:-4], given[2, 1:-1] = 0, 0, 0
    small = np.eye(4, 256, 254, dtype=np.uint8)  # bins 254 and 255
    for epoch, counts in enumerate([given, None, small]):
        history.append(epoch, epoch, {"mean_abs": [0] * 4}, distributions=counts)
    kept, given[:] = given.copy(), 7
    assert history.distributions.dtype == np.int64
    np.testing.assert_array_equal(history.distributions, [kept, np.zeros((4, 256)), small])
    history.distributions[:] = 9
    np.testing.assert_array_equal(history.distributions[0], kept)


def test_the_edges_of_the_bins_are_those_of_float32s_exponent_field():
    """Checked with numbers spread over all of float32, and with both ends of every binade."""
    random = np.random.default_rng(1)
    mantissas = np.r_[0, 2**23 - 1, random.integers(0, 2**23, 20)]
    bits = (np.arange(1, 255)[:, None] << 23) + mantissas
    magnitudes = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    exact = 2.0 ** np.round(LOG10_EDGES[1:-1] / math.log10(2))  # what the rounded logarithm means
    bins = np.searchsorted(exact, magnitudes, side="right")
    np.testing.assert_array_equal(bins, np.arange(1, 255)[:, None] + 0 * mantissas)
    assert np.finfo(np.float32).tiny == exact[0]
    assert LOG10_EDGES.shape == (257,)
    np.testing.assert_allclose(LOG10_EDGES[[1, 127, 255]], [np.log10(exact[0]), 0, 128 * 0.30103])
    assert LOG10_EDGES[[0, -1]].tolist() == [-math.inf, math.inf]


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
        ({"logs": {3: 1}}, "logs must have strings as names, received [3]"),
        (
            {"logs": {"loss": "low", "accuracy": 0}},
            "logs['loss'] must be a number, received 'low'",
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


COUNTS = np.zeros((4, 256), dtype=int)


@pytest.mark.parametrize(
    ("group", "given", "message"),
    [
        (
            "distributions",
            COUNTS[:3],
            "distributions must be counts of shape (4, 256), "
            "received int64 of shape (3, 256), the least 0",
        ),
        (
            "distributions",
            COUNTS - 1,
            "distributions must be counts of shape (4, 256), "
            "received int64 of shape (4, 256), the least -1",
        ),
        (
            "distributions",
            COUNTS + 0.5,
            "distributions must be counts of shape (4, 256), "
            "received float64 of shape (4, 256), the least 0.5",
        ),
        (
            "distributions",
            COUNTS == 0,
            "distributions must be counts of shape (4, 256), received bool of shape (4, 256)",
        ),
        (
            "activations",
            {"signal_l2": [1, 2, 3]},
            "activations['signal_l2'] must be 2 numbers, received [1, 2, 3]",
        ),
        (
            "activations",
            {"signal_l2": ["1", 2]},
            "activations['signal_l2'] must be 2 numbers, received ['1', 2]",
        ),
        ("activations", {2: [1, 2]}, "activations must have strings as names, received [2]"),
    ],
)
def test_append_refuses_distributions_and_activations_that_do_not_fit(group, given, message):
    history = GradientHistory(WEIGHTS, ["mean_abs"], outputs=("in", "out"))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        history.append(1, 1, {"mean_abs": [1] * 4}, **{group: given})
    assert len(history) == 0


def test_layer_values_have_one_number_a_layer():
    message = "layer_values['nonfinite_steps'] must be 3 numbers, received [1, 2, 3, 4]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        one_record("nonfinite_steps", [1, 2, 3, 4], layer_values={"nonfinite_steps": [1, 2, 3, 4]})


# ---- Files -------------------------------------------------------------------------------------


@pytest.fixture
def rich_file(tmp_path):
    path = tmp_path / "rich.jsonl"
    make_rich_history().save(path)
    return path


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


HEADER = "expected weights (each with layer, name, path, shape), statistics, outputs and metadata"
RECORD = (
    "expected a record with epoch, step, values, layer_values, logs, activations, distributions"
)
MALFORMED_JSON = "expected a JSON object (JSON is malformed"
PACKED = (
    "expected distributions with zeros, first, counts and nonfinite, each with one entry per weight"
)
MALFORMED = {
    "no JSON": (
        2,
        b"{nonsense}\n",
        f"{MALFORMED_JSON}: object keys must be strings (byte 1)), received b'{{nonsense}}'",
    ),
    "blank": (3, b"\n", "expected a JSON object (Input data was truncated), received b''"),
    "a list": (
        2,
        b"[1, 2]\n",
        "expected a JSON object (Expected `object`, got `array`), received b'[1, 2]'",
    ),
    "not UTF-8": (
        2,
        b"\xff\xfe\n",
        rf"{MALFORMED_JSON}: invalid character (byte 0)), received b'\xff\xfe'",
    ),
    "nested": (
        3,
        b"[" * 10**6 + b"\n",
        "expected a JSON object (Expected `object`, got `array`), received b'[[[[[[[",
    ),
    "other format": (1, having(format="x"), 'expected a header with "format": "kgrad-history"'),
    "no format": (1, without("format"), 'expected a header with "format": "kgrad-history"'),
    "future": (1, having(version=2), "expected format version 1, received 2: read the file with"),
    "no version": (1, without("version"), "expected format version 1, received None: read the"),
    "version a bool": (
        1,
        having(version=True),
        "expected a header (Expected `int | str | null`, got `bool` - at `$.version`)",
    ),
    "deep version": (
        1,
        having(version=[[[]]]),
        "expected a header (Expected `int | str | null`, got `array` - at `$.version`)",
    ),
    "text version": (1, having(version="1"), "expected format version 1, received '1': read the"),
    "no weights": (1, without("weights"), HEADER),
    "no metadata": (1, without("metadata"), HEADER),
    "no outputs": (1, without("outputs"), HEADER),
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
    "outputs a string": (1, having(outputs="dense"), HEADER),
    "outputs of numbers": (1, having(outputs=[1]), HEADER),
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
    "duplicate output": (
        1,
        having(outputs=["out"] * 2),
        "each output must be unique, received 'out' more than once",
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
        "values['max_abs'] must be 4 numbers, received [1.0, 2.0]",
    ),
    "text": (
        3,
        values_of("max_abs", [1, 2, 3, "four"]),
        "values['max_abs'] must be 4 numbers, received [1.0, 2.0, 3.0, 'four']",
    ),
    "null": (
        3,
        values_of("max_abs", [1, 2, 3, None]),
        f"{RECORD} (Expected `float | str`, got `null` - at `$.values[...][3]`)",
    ),
    "logs a list": (4, having(logs=[1]), RECORD),
    "log of text": (
        4,
        having(logs={"loss": "x", "accuracy": 1}),
        "logs['loss'] must be a number, received 'x'",
    ),
    "activations a list": (2, having(activations=[1]), RECORD),
    "no activations": (2, without("activations"), RECORD),
    "distributions null": (2, having(distributions=None), RECORD),
    "activation of an unknown output": (
        2,
        having(activations={"signal_l2": [1]}),
        "activations['signal_l2'] must be 0 numbers, received [1.0]",
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


GOOD_PACKED = {
    "zeros": [0, 1, 2, 3],
    "first": [1, 1, 254, 100],
    "counts": [[], [5], [6], [7, 0, 8]],
    "nonfinite": [9, 0, 0, 0],
}
MALFORMED_PACKED = {
    "a name missing": ({k: v for k, v in GOOD_PACKED.items() if k != "first"}, PACKED),
    "a name too many": (GOOD_PACKED | {"extra": []}, "Object contains unknown field `extra`"),
    "a text for a column": (
        GOOD_PACKED | {"zeros": "0123"},
        "Expected `array`, got `str` - at `$.distributions.zeros`",
    ),
    "columns of unequal length": (GOOD_PACKED | {"zeros": [0, 1, 2]}, PACKED),
    "a float": (
        GOOD_PACKED | {"zeros": [0, 1, 2, 3.0]},
        "Expected `int`, got `float` - at `$.distributions.zeros[3]`",
    ),
    "a bool": (
        GOOD_PACKED | {"counts": [[], [True], [6], [7]]},
        "Expected `int`, got `bool` - at `$.distributions.counts[1][0]`",
    ),
    "a text": (
        GOOD_PACKED | {"counts": [[], ["5"], [6], [7]]},
        "Expected `int`, got `str` - at `$.distributions.counts[1][0]`",
    ),
    "a text for counts": (
        GOOD_PACKED | {"counts": [[], "5", [6], [7]]},
        "Expected `array`, got `str` - at `$.distributions.counts[1]`",
    ),
    "null": (
        GOOD_PACKED | {"counts": [[], None, [6], [7]]},
        "Expected `array`, got `null` - at `$.distributions.counts[1]`",
    ),
    "a negative count": (
        GOOD_PACKED | {"counts": [[], [-5], [6], [7]]},
        "Expected `int` >= 0 - at `$.distributions.counts[1][0]`",
    ),
    "beyond int64": (
        GOOD_PACKED | {"nonfinite": [0, 0, 0, 2**63]},
        "Expected `int` <= 9223372036854775807 - at `$.distributions.nonfinite[3]`",
    ),
    "in the bin of zeros": (
        GOOD_PACKED | {"first": [1, 0, 254, 100]},
        "expected counts of bins from 1 to 254, received 1 from bin 0",
    ),
    "negative first": (
        GOOD_PACKED | {"first": [1, -2, 254, 100]},
        "Expected `int` >= 0 - at `$.distributions.first[1]`",
    ),
    "in the bin of NaN": (
        GOOD_PACKED | {"counts": [[], [5], [6, 7], [8]]},
        "expected counts of bins from 1 to 254, received 2 from bin 254",
    ),
    "beyond the last bin": (
        GOOD_PACKED | {"first": [1, 1, 254, 10**30]},
        "Expected `int` <= 9223372036854775807 - at `$.distributions.first[3]`",
    ),
    "too few weights": (
        {name: column[:3] for name, column in GOOD_PACKED.items()},
        "distributions must be counts of shape (4, 256), received int64 of shape (3, 256)",
    ),
}


@pytest.mark.parametrize(
    ("content", "message"), MALFORMED_PACKED.values(), ids=list(MALFORMED_PACKED)
)
def test_malformed_distributions_are_refused(file, content, message):
    edit(file, 3, having(distributions=GOOD_PACKED))
    assert GradientHistory.load(file).distributions[1].sum(axis=1).tolist() == [9, 6, 8, 18]
    edit(file, 3, having(distributions=content))
    start = message if message.startswith("distributions must") else f"{RECORD} ({message}"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}, line 3: {start}')}"):
        GradientHistory.load(file)


def test_a_long_run_with_distributions_is_appended_saved_and_loaded_in_seconds(tmp_path):
    """As many weights as ResNet-50, over 100 records; the time grows linearly with records."""
    weights = [Weight(f"{i}", "kernel", f"{i}", (9, 9)) for i in range(161)]
    history = GradientHistory(weights, STATISTICS)
    counts = np.zeros((161, 256), int)
    counts[:, 80:120] = np.random.default_rng(0).integers(1, 4096, (161, 40))
    counts[:, 0] = 7
    rows = dict.fromkeys(STATISTICS, np.linspace(0, 1, 161))
    start = time.perf_counter()
    for step in range(100):
        history.append(1, step, rows, {"loss": 1.0}, distributions=counts)
    history.save(tmp_path / "h.jsonl")
    loaded = GradientHistory.load(tmp_path / "h.jsonl")
    assert time.perf_counter() - start < 3
    assert (tmp_path / "h.jsonl").stat().st_size < 7e6
    np.testing.assert_array_equal(loaded.distributions, history.distributions)


@pytest.mark.parametrize("depth", [50, 500, 900, 960, 990, 10_000])
def test_nesting_is_refused_at_every_depth_wherever_numbers_stand(rich_file, depth):
    row = "[" * depth + "]" * depth
    record = json.loads(rich_file.read_bytes().splitlines()[2])
    places = [("values", "max_abs"), ("layer_values", "nonfinite_steps"), ("logs", "loss")]
    places += [("activations", "activation_mean")]
    places += [("distributions", name) for name in ("zeros", "first", "counts", "nonfinite")]
    for group, name in places:
        assert name in record[group]
        line = json.dumps(record | {group: record[group] | {name: "HERE"}}).replace('"HERE"', row)
        edit(rich_file, 3, line.encode() + b"\n")
        with pytest.raises(ValueError, match=rf"^{re.escape(str(rich_file))}, line 3: "):
            GradientHistory.load(rich_file)


DEEP = {}
for _ in range(150):
    DEEP = {"a": [DEEP]}
WEIGHT = {"layer": "a", "name": "b", "path": "c", "shape": [2]}
TOO_MUCH = {
    "a long axis": (
        1,
        having(weights=[WEIGHT | {"shape": [2**53 + 1, 0]}]),
        f"{HEADER} (Expected `int` <= 9007199254740992 - at `$.weights[0].shape[0]`)",
    ),
    "an axis beyond float64": (
        1,
        having(weights=[WEIGHT | {"shape": [10**400]}]),
        f"{HEADER} (Expected `int` <= 9007199254740992 - at `$.weights[0].shape[0]`)",
    ),
    "a large product": (
        1,
        having(weights=[WEIGHT | {"shape": [2**27, 2**27]}]),
        f"{HEADER} (expected a weight of at most 9007199254740992 entries - at `$.weights[0]`)",
    ),
    "many axes": (
        1,
        having(weights=[WEIGHT | {"shape": [1] * 65}]),
        f"{HEADER} (Expected `array` of length <= 64 - at `$.weights[0].shape`)",
    ),
    "many weights": (
        1,
        having(weights=[WEIGHT] * 100_001),
        f"{HEADER} (Expected `array` of length <= 100000 - at `$.weights`)",
    ),
    "many statistics": (
        1,
        having(statistics=["a"] * 5_001),
        f"{HEADER} (Expected `array` of length <= 5000 - at `$.statistics`)",
    ),
    "many outputs": (
        1,
        having(outputs=["a"] * 100_001),
        f"{HEADER} (Expected `array` of length <= 100000 - at `$.outputs`)",
    ),
    "deep metadata": (
        1,
        having(metadata=DEEP),
        "metadata must be nested at most 100 levels deep, received more",
    ),
    "deeper metadata": (
        1,
        having(metadata={"a": "DEEPER"}),
        "expected a header, received a value that is nested too deeply",
    ),
    "many logs": (
        3,
        having(logs={f"{i}": 1 for i in range(5_001)}),
        f"{RECORD} (Expected `object` of length <= 5000 - at `$.logs`)",
    ),
    "half a surrogate pair": (
        1,
        having(metadata={"name": "\ud800, then more"}),
        MALFORMED_JSON,
    ),
}


@pytest.mark.parametrize(("line", "change", "message"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_would_take_too_much_memory_or_depth_is_refused(file, line, change, message):
    edit(file, line, change)
    deep = b"[" * 10_000 + b"]" * 10_000
    file.write_bytes(file.read_bytes().replace(b'"DEEPER"', deep))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}, line {line}: {message}')}"):
        GradientHistory.load(file)


@pytest.mark.parametrize("depth", [100, 500, 900, 950, 980, 990, 1_000, 200_000])
@pytest.mark.parametrize("place", ["metadata", "weights", "version", "extra"])
def test_a_header_that_is_nested_too_deeply_is_a_value_error(file, depth, place):
    edit(file, 1, lambda header: header | {place: {"a": "HERE"}})
    nested = b"[" * depth + b"]" * depth
    file.write_bytes(file.read_bytes().replace(b'"HERE"', nested))
    if place == "extra" and depth < 900:  # not read, so not limited by kgrad
        assert len(GradientHistory.load(file)) == 3
    elif place != "extra":
        with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}, line 1: "):
            GradientHistory.load(file)


def test_the_limits_themselves_are_accepted(file):
    metadata = {"levels": 1}
    for _ in range(98):
        metadata = {"a": metadata}
    largest = WEIGHT | {"shape": [2**26, 2**27]}
    edit(file, 1, having(weights=[largest], metadata=metadata, outputs=names(100_000)))
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    history = GradientHistory.load(file)
    assert history.weights[0].size == 2**53
    assert len(history.outputs) == 100_000
    history.save(file)
    same(history, GradientHistory.load(file))


def names(count):
    return [f"{i}" for i in range(count)]


def test_what_could_not_be_read_back_is_not_written(file):
    before = file.read_bytes()
    history = make_history()
    history.metadata["a"] = DEEP
    with pytest.raises(ValueError, match=r"^metadata must be nested at most 100 levels deep"):
        history.save(file)
    history.metadata["a"] = "\ud800"
    with pytest.raises(ValueError, match=r"^texts must be valid Unicode, received half a surrog"):
        history.save(file)
    assert file.read_bytes() == before
    history.metadata["a"] = "\U0001f600"  # two halves in JSON
    history.save(file)
    assert GradientHistory.load(file).metadata["a"] == "\U0001f600"


def test_names_that_differ_from_record_to_record_are_bounded():
    """Each name is a column over all records, so a small file could fill the memory."""
    history = GradientHistory(WEIGHTS, ["mean_abs"], outputs=["a"])
    values = {"mean_abs": [0] * 4}
    for i in range(5):
        history.append(i, i, values, {f"{1000 * i + j}": 1 for j in range(1000)})
    for group, given in (("logs", {"one more": 1}), ("activations", {name: [1] for name in MANY})):
        with pytest.raises(ValueError, match=f"^{group} must have at most 5000 names in all rec"):
            history.append(5, 5, values, **{group: given})
    assert len(history) == 5
    assert len(history.logs) == 5000
    assert history.activations == {}


MANY = names(5_001)


def test_a_line_without_an_end_is_refused(file, monkeypatch):
    monkeypatch.setattr("kgrad.records.files.MOST_LINE_BYTES", 3_000)
    assert len(GradientHistory.load(file)) == 3
    with file.open("ab") as journal:
        journal.write(b"{" + b" " * 3_000)
    with pytest.raises(ValueError, match=r", line 5: expected a line of at most 3,000 bytes$"):
        GradientHistory.load(file)


# Written by kgrad 0.1.
OLD = """\
{"format": "kgrad-history", "version": 1, "weights": [{"layer": "d\\u00e9", "name": "kernel", \
"path": "d/kernel", "shape": [20, 8]}, {"layer": "s", "name": "a", "path": "s/a", "shape": []}], \
"statistics": ["mean_abs", "nonfinite_steps"], "outputs": ["d"], "metadata": {"kgrad": "0.1.0", \
"graph": {"nodes": [{"id": "d", "kind": "Dense"}], "edges": []}, "seed": null, "lr": "NaN"}}
{"epoch": 0, "step": 0, "values": {"mean_abs": [0.02347286313101904, 5e-324], \
"nonfinite_steps": [0.0, 0.0]}, "layer_values": {"nonfinite_steps": [0.0, 0.0]}, "logs": {"loss": \
0.6931471805599453}, "activations": {}, "distributions": {}}
{"epoch": 1, "step": 4, "values": {"mean_abs": ["NaN", "Infinity"], "nonfinite_steps": [3.0, \
1.0]}, "layer_values": {"nonfinite_steps": [3.0, 1.0]}, "logs": {"loss": "Infinity", "acc": \
-0.0}, "activations": {"signal_l2": ["-Infinity"]}, "distributions": {"zeros": [5, 0], "first": \
[97, 254], "counts": [[3, 0, 2], [8]], "nonfinite": [1, 0]}}
"""


def test_a_file_of_the_first_version_is_read_and_written_again_byte_for_byte(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_bytes(OLD.encode())
    history = GradientHistory.load(path)
    assert history["mean_abs"][0].tolist() == [0.02347286313101904, 5e-324]
    assert history["mean_abs"][1].tolist()[1] == math.inf
    assert history.distributions[1, 0, [0, 97, 98, 99, 255]].tolist() == [5, 3, 0, 2, 1]
    assert history.layers == ("dé", "s")
    history.save(path)
    assert path.read_bytes() == OLD.encode()


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\x80\x04\x95"])
def test_what_is_no_history_is_refused_at_line_1(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}, line 1: expected a "):
        GradientHistory.load(path)


def test_a_file_torn_anywhere_keeps_its_whole_lines(file):
    """Tries every length that a killed writer may leave after the header."""
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
    """An object that writes a file if it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))


def test_loading_executes_nothing(file, tmp_path):
    """Tries a pickle, Python code in place of a number, and a class named in the metadata."""
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
    """A raw file on a disk with `room` bytes left that writes at most `chunk` bytes at once."""

    name = "run.jsonl"

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


def objects(path):
    return [json.loads(line) for line in read_lines(path)]


def test_a_partial_write_is_continued(tmp_path):
    writer = LineWriter(tmp_path / "x")
    writer.close()
    writer._file = Disk(room=1000, chunk=7)
    writer.write({"a": list(range(50)), "ü": math.nan})
    writer.write({"b": 2})
    (tmp_path / "x").write_bytes(writer._file.content)
    assert objects(tmp_path / "x") == [{"a": list(range(50)), "ü": "NaN"}, {"b": 2}]


def test_a_disk_that_fills_up_is_an_os_error_and_keeps_whole_lines(tmp_path):
    writer = LineWriter(tmp_path / "x")
    writer.close()
    writer._file = Disk(room=20, chunk=9)
    writer.write({"a": 1})
    with pytest.raises(OSError, match="No space left"):
        writer.write({"b": list(range(50))})
    (tmp_path / "x").write_bytes(writer._file.content)
    assert objects(tmp_path / "x") == [{"a": 1}]


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
        patch.setattr(kgrad.records.history, "LineWriter", Failing)
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


def test_runs_are_loaded_from_files_and_folders(tmp_path):
    folder, file, empty = tmp_path / "runs", tmp_path / "z.jsonl", tmp_path / "empty"
    for path in (folder, empty):
        path.mkdir()
    for path in (folder / "b.jsonl", folder / "a.jsonl", file):
        make_history(records=2).save(path)
    make_history(records=0).save(folder / "killed.jsonl")
    (folder / "notes.txt").write_text("not a history")
    runs = load_runs([file, str(folder)])
    assert list(runs) == [file, folder / "a.jsonl", folder / "b.jsonl"]
    assert [len(history) for history in runs.values()] == [2, 2, 2]
    for path in (empty, folder / "killed.jsonl"):
        with pytest.raises(ValueError, match=f"^no recorded run .* in {str(path)!r}$"):
            load_runs([file, path])
    with pytest.raises(FileNotFoundError):
        load_runs([tmp_path / "none.jsonl"])


def test_distributions_of_a_history_without_any_need_no_memory():
    history = GradientHistory([Weight("a", "k", "a/k", (2,))], ["mean_abs"])
    for i in range(5):
        history.append(i, i, {"mean_abs": [1.0]})
    assert not history.has_distributions
    assert history.distributions.shape == (5, 1, 256)
    assert history.distributions.strides == (0, 0, 0)
    assert not history.distributions.any()
    counts = np.zeros((1, 256), int)
    counts[0, 127] = 2
    history.append(5, 5, {"mean_abs": [1.0]}, distributions=counts)
    assert history.has_distributions
    assert history.distributions[:, 0, 127].tolist() == [0, 0, 0, 0, 0, 2]
