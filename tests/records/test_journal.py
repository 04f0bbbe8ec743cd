"""Following a file: appended lines are read once, and files that are not histories are refused."""

import json
import os

import numpy as np
import pytest

from kgrad.records.history import GradientHistory, Weight
from kgrad.records.journal import Journal


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
