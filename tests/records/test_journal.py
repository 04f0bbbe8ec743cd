"""Following a file while it grows, and continuing one: no line is read twice, no record lost."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from kgrad.records.history import GradientHistory, Weight
from kgrad.records.journal import Journal, JournalWriter


def history_of(records: int) -> GradientHistory:
    history = GradientHistory([Weight("d", "kernel", "d/kernel", (2, 3))], ["mean_abs"])
    for epoch in range(records):
        history.append(epoch, 10 * epoch, {"mean_abs": [0.5**epoch]}, {"loss": 1.0 / (1 + epoch)})
    return history


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "whole.jsonl"
    history_of(6).save(path)
    return path.read_bytes().splitlines(keepends=True)


def test_a_file_is_read_as_it_grows_in_whole_lines_and_each_byte_once(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    journal = Journal(path)
    assert (journal.read(), journal.history) == (0, None)  # not there yet
    path.write_bytes(lines[0] + lines[1] + lines[2][:20])
    assert journal.read() == 1
    with path.open("r+b") as file:
        file.write(b"X" * len(lines[0]))  # what was read already is not looked at again
        file.seek(0, os.SEEK_END)
        file.write(lines[2][20:] + lines[3])
    assert journal.read() == 2
    assert journal.read() == 0
    np.testing.assert_array_equal(journal.history["mean_abs"][:, 0], [1, 0.5, 0.25])


def test_a_file_that_is_replaced_or_cut_is_read_anew(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(lines))
    journal = Journal(path)
    assert journal.read() == 6
    path.write_bytes(b"".join(lines[:3]))  # the same file, shorter
    assert journal.read() == 2
    assert len(journal.history) == 2
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"".join(lines))
    os.replace(other, path)  # longer, another file
    assert journal.read() == 6
    assert len(journal.history) == 6


def test_a_saved_file_is_finished_with_or_without_its_last_newline(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(lines)[:-1])
    journal = Journal(path)
    assert journal.read() == 5
    assert journal.finish() == 1
    assert len(journal.history) == 6
    path.write_bytes(b"".join(lines)[:-30])  # torn
    assert Journal(path).finish() == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"secret password\n", r"run.jsonl is no history, line 1: expected a JSON object"),
        (b'{"a": 1}\n', r'run.jsonl is no history, line 1: expected a header with "format"'),
        (b"[" * 100_000 + b"\n", r"run.jsonl is no history, line 1: expected a JSON object"),
        (None, r"run.jsonl is no history, line 3: epoch must be an integer of at least 3"),
    ],
)
def test_what_is_no_history_is_refused_without_showing_what_it_says(tmp_path, lines, content, said):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content or lines[0] + lines[4] + lines[1])
    with pytest.raises(ValueError, match=said) as caught:
        Journal(path).read()
    assert "secret" not in str(caught.value)


def test_a_folder_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        Journal(tmp_path).read()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a file"):
        Journal(tmp_path / "pipe").read()


def test_a_line_that_never_ends_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("kgrad.records.journal._MOST_BYTES", 100)
    path = tmp_path / "run.jsonl"
    path.write_bytes(json.dumps("x" * 1000).encode())
    journal = Journal(path)
    with pytest.raises(ValueError, match=r"run.jsonl is no history: line 1 never ends"):
        journal.finish()


# ---- Writing and continuing ----------------------------------------------------------------------


def history_like(names=("d",), shape=(2, 3), statistics=("mean_abs",), outputs=(), **metadata):
    """A history without records, of a model with one layer of each name."""
    weights = [Weight(name, "kernel", f"{name}/kernel", shape) for name in names]
    return GradientHistory(weights, statistics, metadata, outputs=outputs)


def graph_of(*names):
    return {"nodes": [{"id": name, "kind": "Dense"} for name in names]}


def append(writer, history, epoch, step, value=0.5):
    history.append(epoch, step, dict.fromkeys(history.statistics, [value] * len(history.weights)))
    writer.write(history.record(-1))


@pytest.fixture
def recorded(tmp_path):
    """A journal of four records: before training, and of three epochs with ten steps each."""
    path = tmp_path / "run.jsonl"
    writer = JournalWriter(path)
    history = writer.begin(history_like(every="epoch"))
    for epoch in range(4):
        append(writer, history, epoch, 10 * epoch, value=epoch)
    writer.close()
    return path


def continued(path, mode="continue", initial_epoch=0, steps_per_epoch=None, **described):
    """Continue a journal; returns the history, and closes the file."""
    described = {"every": "epoch"} | described
    writer = JournalWriter(path, mode, initial_epoch)
    try:
        return writer.begin(history_like(**described), steps_per_epoch)
    finally:
        writer.close()


def test_a_new_journal_is_what_save_writes(tmp_path, recorded):
    GradientHistory.load(recorded).save(tmp_path / "saved")
    assert recorded.read_bytes() == (tmp_path / "saved").read_bytes()


@pytest.mark.parametrize("given", [{}, {"mode": "continue"}, {"initial_epoch": 3}])
def test_a_file_without_a_record_is_begun_anew(tmp_path, given):
    path = tmp_path / "run.jsonl"
    for content in (b"", json.dumps(history_like(["old"]).header()).encode() + b"\n"):
        path.write_bytes(content)
        writer = JournalWriter(path, **given)
        assert writer.recorded is None
        append(writer, writer.begin(history_like()), 1, 10)
        writer.close()
        assert GradientHistory.load(path).layers == ("d",)


def test_records_are_refused_unless_the_training_resumes_or_asks(recorded):
    before = recorded.read_bytes()
    with pytest.raises(ValueError, match=r"run.jsonl' already has 4 records: name .*'replace' to"):
        JournalWriter(recorded)
    assert recorded.read_bytes() == before
    assert continued(recorded, "refuse", initial_epoch=3).epochs.tolist() == [0, 1, 2, 3]
    assert continued(recorded, "continue").epochs.tolist() == [0, 1, 2, 3]
    assert recorded.read_bytes().startswith(before)
    assert continued(recorded, "replace").epochs.tolist() == []
    assert len(recorded.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("mode", ["refuse", "continue"])
def test_another_file_is_refused_and_replaced_only_on_request(tmp_path, mode):
    path = tmp_path / "thesis.txt"
    path.write_text("Chapter 1\n")
    with pytest.raises(ValueError, match=r"recorded history, received another file \(.*thesis"):
        JournalWriter(path, mode)
    assert path.read_text() == "Chapter 1\n"
    continued(path, "replace")
    assert path.read_text().startswith('{"format"')


def test_a_torn_line_is_removed_and_a_missing_newline_added(recorded):
    whole = recorded.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for cut in range(1, len(last) + 1):
        recorded.write_bytes(whole[:-cut])
        writer = JournalWriter(recorded, "continue")
        history = writer.begin(history_like(every="epoch"))
        assert len(history) == (4 if cut == 1 else 3)
        append(writer, history, 4, 40)
        writer.close()
        assert GradientHistory.load(recorded).steps.tolist() == history.steps.tolist()
        assert history.steps[-1] == 40


@pytest.mark.parametrize(
    ("every", "initial_epoch", "steps_per_epoch", "kept", "epoch", "step"),
    [
        ("epoch", 0, 10, [0, 1, 2, 3], 3, 30),  # a further training
        ("epoch", 3, 10, [0, 1, 2, 3], 3, 30),
        ("epoch", 3, 13, [0, 1, 2, 3], 3, 30),  # other batches: the record knows the step
        ("epoch", 2, 10, [0, 1, 2], 2, 20),  # the last epoch is repeated
        ("epoch", 1, None, [0, 1], 1, 10),
        ("epoch", 5, 10, [0, 1, 2, 3], 5, 50),  # two epochs were not recorded
        ("epoch", 5, None, [0, 1, 2, 3], 5, 30),
        (4, 2, 12, [0, 1, 2], 2, 24),  # the record of step 20 was not at the end of the epoch
        (4, 2, None, [0, 1, 2], 2, 20),
    ],
)
def test_where_the_training_goes_on(
    recorded, every, initial_epoch, steps_per_epoch, kept, epoch, step
):
    recorded.write_bytes(
        recorded.read_bytes().replace(b'"every": "epoch"', b'"every": 4', every == 4)
    )
    history = continued(
        recorded,
        "refuse" if initial_epoch else "continue",
        initial_epoch,
        steps_per_epoch,
        every=every,
        seed=7,
    )
    assert history.epochs.tolist() == kept
    assert history["mean_abs"][:, 0].tolist() == kept
    expected = {"epoch": epoch, "step": step, "metadata": {"seed": 7}}
    assert history.metadata["resumed"] == [expected]
    loaded = GradientHistory.load(recorded)
    assert (loaded.epochs.tolist(), loaded.metadata) == (kept, history.metadata)
    assert recorded.read_bytes().count(b'"mean_abs": [') == 4  # the file keeps all


def test_what_training_repeats_supersedes_what_was_recorded(tmp_path, recorded):
    follower = Journal(recorded)
    assert follower.read() == 4
    before = follower.history
    with recorded.open("ab") as file:
        file.write(b'{"epoch": 4, "st')  # the process was killed
    assert follower.read() == 0
    writer = JournalWriter(recorded, initial_epoch=2)
    history = writer.begin(history_like(every="epoch"))
    append(writer, history, 3, 30, value=33)
    writer.close()
    assert follower.read() == 1
    assert follower.history is not before  # what was drawn of it is out of date
    for one in (history, follower.history, GradientHistory.load(recorded)):
        assert one["mean_abs"][:, 0].tolist() == [0, 1, 2, 33]
    history.save(tmp_path / "saved")
    saved = GradientHistory.load(tmp_path / "saved")
    assert saved.metadata == history.metadata
    np.testing.assert_array_equal(saved["mean_abs"], history["mean_abs"])
    continued(recorded, "continue")
    resumed = GradientHistory.load(recorded).metadata["resumed"]
    assert [(one["epoch"], one["step"]) for one in resumed] == [(2, 20), (3, 30)]


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            {"shape": (2, 4)},
            r"same weights: only the file has d/kernel \(2, 3\), only this training ",
        ),
        (
            {"names": ["e"]},
            r"only this training has e/kernel \(2, 3\); name another file, or pass ",
        ),
        ({"names": ["d", "e"]}, "only the file has none, only this training has e/kernel"),
        (
            {"statistics": ["mean_abs", "max_abs"]},
            "same statistics: .*only this training has max_a",
        ),
        (
            {"outputs": ["d"]},
            "same probed layers: only the file has none, only this training has d",
        ),
    ],
)
def test_other_weights_or_statistics_are_refused(recorded, described, message):
    before = recorded.read_bytes()
    with pytest.raises(ValueError, match=message) as raised:
        continued(recorded, **described)
    assert "\n" not in str(raised.value)
    assert recorded.read_bytes() == before


@pytest.mark.parametrize(
    ("there", "here", "is_same"),
    [
        (["dense", "dense_1"], ["dense_7", "dense_8"], True),  # Keras's numbers, a process later
        (["block_1"], ["block_2"], False),  # another part of the same model
        (["dense", "dense_1"], ["dense_1", "dense"], False),
        (["block_1/ffn"], ["block_1/head"], False),
    ],
)
def test_numbered_names_are_the_same_weights_at_the_same_place(tmp_path, there, here, is_same):
    path = tmp_path / "run.jsonl"
    everything = ["block_1", "block_2", "block_1/ffn", "block_1/head"]
    writer = JournalWriter(path)
    graph = graph_of(*(everything if there[0] in everything else there))
    append(writer, writer.begin(history_like(there, graph=graph)), 1, 10)
    writer.close()
    graph = graph_of(*(everything if here[0] in everything else sorted(here)))
    if is_same:
        assert continued(path, names=here, graph=graph).layers == tuple(there)
    else:
        with pytest.raises(ValueError, match="same weights"):
            continued(path, names=here, graph=graph)


HOLDER = """
import sys
from kgrad.records.journal import JournalWriter
writer = JournalWriter(sys.argv[1], "continue")
print("open", flush=True)
sys.stdin.read()
"""


def test_one_writer_at_a_time_has_a_file(recorded):
    message = "run.jsonl' is being written by another tracker: give each a file of its own"
    writer = JournalWriter(recorded, "continue")
    with pytest.raises(ValueError, match=message):
        JournalWriter(recorded, "replace")
    writer.close()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, recorded], stdin=pipe, stdout=pipe
    ) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ValueError, match=message):
            JournalWriter(recorded, "replace")
        other.kill()
    assert len(continued(recorded)) == 4


def test_a_training_that_ended_without_closing_its_file_loses_it_to_the_next(recorded):
    crashed = JournalWriter(recorded, "continue", owner="one model")
    history = crashed.begin(history_like(every="epoch"))
    assert len(continued(recorded)) == 4
    assert crashed.is_taken
    with pytest.raises(ValueError, match="is being written by another tracker"):
        append(crashed, history, 4, 40)
    assert len(GradientHistory.load(recorded)) == 4


def test_a_file_that_was_changed_in_between_is_refused(recorded):
    writer = JournalWriter(recorded, "continue")
    history = writer.begin(history_like(every="epoch"))
    writer.close()
    writer.reopen(history)
    append(writer, history, 4, 40)
    writer.close()
    with recorded.open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="was changed since this tracker last wrote to it"):
        writer.reopen(history)
    recorded.unlink()
    writer.reopen(history)  # removed: written again, as a whole
    append(writer, history, 5, 50)
    writer.close()
    assert GradientHistory.load(recorded).epochs.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"resumed": {"epoch": 1}}, "expected resumed with epoch, step, metadata"),
        ({"resumed": {"epoch": -1, "step": 0, "metadata": {}}}, "expected resumed with epoch"),
        ({"resumed": {"epoch": 1, "step": 0, "metadata": {}}, "a": 1}, "expected resumed"),
        ({"resumed": {"epoch": 1, "step": 9, "metadata": {}}}, "step must be an integer of at le"),
        ({"resumed": {"epoch": 1, "step": 99, "metadata": "x"}}, "expected resumed with epoch"),
    ],
)
def test_a_malformed_resumption_is_refused_with_its_line(recorded, line, message):
    with recorded.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
    with pytest.raises(ValueError, match=rf"run.jsonl, line 6: .*{message}"):
        GradientHistory.load(recorded)


# ---- A file that can no longer be written --------------------------------------------------------


class Disk:
    """Room for some more bytes in journals: writes beyond it fail as on a full disk."""

    def __init__(self, monkeypatch):
        self.room = sys.maxsize
        monkeypatch.setattr("kgrad.records.files.write_whole", self.write)

    def write(self, file, content):
        part = content[: self.room]
        self.room -= file.write(part)
        if len(part) < len(content):
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def begun(path):
    writer = JournalWriter(path)
    return writer, writer.begin(history_like())


def grow(writer, history, epoch):
    history.append(epoch, 10 * epoch, {"mean_abs": [epoch]}, {"loss": 1.0})
    writer.write_records(history)


def require_same(path, history):
    loaded = GradientHistory.load(path)
    assert loaded.epochs.tolist() == history.epochs.tolist()
    np.testing.assert_array_equal(loaded["mean_abs"], history["mean_abs"])


def test_a_record_of_which_only_the_newline_was_missing_is_written_once(tmp_path, disk):
    path = tmp_path / "run.jsonl"
    writer, history = begun(path)
    grow(writer, history, 0)
    line = path.read_bytes().splitlines()[-1]
    disk.room = len(line)  # of the next line all but the newline
    with pytest.warns(UserWarning, match="cannot be written"):
        grow(writer, history, 1)
    assert not path.read_bytes().endswith(b"\n")
    disk.room = sys.maxsize
    grow(writer, history, 2)
    require_same(path, history)
    disk.room = len(line)
    with pytest.warns(UserWarning, match="cannot be written"):
        grow(writer, history, 3)
    with pytest.warns(UserWarning, match="has 3 of 4 records"):
        disk.room = 0
        writer.finish(history)
    disk.room = sys.maxsize
    writer.reopen(history)
    writer.close()
    require_same(path, history)


def test_a_journal_that_was_taken_says_so(recorded):
    crashed = JournalWriter(recorded, "continue", owner="one model")
    history = crashed.begin(history_like(every="epoch"))
    JournalWriter(recorded, "continue", owner="another").close()
    history.append(4, 40, {"mean_abs": [1.0]})
    with pytest.raises(ValueError, match="is being written by another tracker"):
        crashed.write_records(history)


@pytest.mark.parametrize("room", [0, 1, 60, 300])
def test_on_a_full_disk_training_goes_on_and_what_is_missing_is_written_later(tmp_path, disk, room):
    path = tmp_path / "run.jsonl"
    writer, history = begun(path)
    grow(writer, history, 0)
    disk.room = room
    with pytest.warns(UserWarning, match=r"run.jsonl' cannot be written .*No space.*goes on"):
        for epoch in (1, 2, 3):
            grow(writer, history, epoch)  # one warning for all of them
    assert 1 <= len(GradientHistory.load(path)) <= 3  # whole records only
    disk.room = sys.maxsize
    grow(writer, history, 4)
    require_same(path, history)
    grow(writer, history, 5)
    writer.finish(history)
    require_same(path, history)


def test_the_end_says_what_could_not_be_written(tmp_path, disk):
    path = tmp_path / "run.jsonl"
    writer, history = begun(path)
    grow(writer, history, 0)
    disk.room = 10
    with pytest.warns(UserWarning, match="cannot be written"):
        grow(writer, history, 1)
    with pytest.warns(UserWarning, match=r"has 1 of 2 records.* history.save\(path\) writes all"):
        writer.finish(history)
    assert len(GradientHistory.load(path)) == 1
    disk.room = sys.maxsize
    writer.reopen(history)  # a second fit finds room again
    writer.close()
    require_same(path, history)


def test_a_file_or_a_folder_that_was_removed_is_noticed_and_made_again(tmp_path):
    path = tmp_path / "runs" / "run.jsonl"
    path.parent.mkdir()
    writer, history = begun(path)
    grow(writer, history, 0)
    shutil.rmtree(path.parent)
    with pytest.warns(UserWarning, match="cannot be written .*No such file"):
        grow(writer, history, 1)
    path.parent.mkdir()
    grow(writer, history, 2)
    require_same(path, history)
    path.unlink()
    grow(writer, history, 3)
    writer.finish(history)
    require_same(path, history)


def test_a_file_that_took_the_place_of_a_removed_one_is_left_alone(tmp_path):
    path = tmp_path / "run.jsonl"
    writer, history = begun(path)
    path.unlink()
    path.write_text("mine\n")
    with pytest.warns(UserWarning, match="another file has its name"):
        grow(writer, history, 0)
    with pytest.warns(UserWarning, match="has 0 of 1 records"):
        writer.finish(history)
    assert path.read_text() == "mine\n"
