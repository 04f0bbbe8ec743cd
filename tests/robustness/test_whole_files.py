"""Every output is whole or as it was: a disk that fills up leaves yesterday's files."""

import os
import resource
import signal

import pytest

from kgrad.apps.command.main import main
from kgrad.apps.report import write_flow_graph, write_report
from kgrad.records.files import written_whole
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory, Weight


@pytest.fixture
def small_disk(monkeypatch):
    """Return a function after which no file can grow beyond some bytes, until the test ends."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.fixture
def history():
    made = GradientHistory([Weight("a", "kernel", "a/kernel", (2, 2))], ["mean_abs", "l2_norm"])
    for epoch in range(3):
        made.append(epoch, epoch, {"mean_abs": [1.0], "l2_norm": [1.0]}, {"loss": 1.0})
    return made


WRITERS = {
    "report.html": lambda history, path: write_report([history], path),
    "graph.html": lambda history, path: write_flow_graph(flow_graph_from_history(history), path),
    "saved.jsonl": lambda history, path: history.save(path),
    "graph.json": lambda history, path: command(history, path, "graph", "-o", str(path)),
    "graph.png": lambda history, path: command(history, path, "graph", "-o", str(path)),
}


def command(history, path, name, *options):
    """Run a command; its exit status for an error becomes the error."""
    run = path.with_name("run.jsonl")
    if main([name, str(run), *options]):
        raise OSError("failed")


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, history, small_disk, name, capsys):
    history.save(tmp_path / "run.jsonl")
    path = tmp_path / name
    path.write_text("yesterday's")
    WRITERS[name](history, path)  # what is imported, and matplotlib's cache, need room, too
    path.write_text("yesterday's")
    small_disk(100)
    with pytest.raises(OSError, match=f"{name}|failed"):
        WRITERS[name](history, path)
    small_disk(resource.RLIM_INFINITY)
    assert path.read_text() == "yesterday's"
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted({"run.jsonl", name})


def test_the_main_program_leaves_its_files_as_they_were(tmp_path, small_disk, capsys):
    out = tmp_path / "out"
    quick = ["--layers", "2", "--units", "4", "--epochs", "1", "--seeds", "1", "--samples", "64"]
    assert main(["run", *quick, "--activation", "relu", "--output", str(out)]) == 0
    before = {one.name: one.read_bytes() for one in out.rglob("*") if one.is_file()}
    (loaded,) = out.rglob("*.jsonl")
    small_disk(50)
    again = ["run", "--load", str(loaded), "--output", str(out), "--overwrite"]
    assert main(again) == 2
    assert f"File too large: '{out / 'table.csv'}'" in capsys.readouterr().err
    small_disk(resource.RLIM_INFINITY)
    assert {one.name: one.read_bytes() for one in out.rglob("*") if one.is_file()} == before


def test_a_link_stays_a_link_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with written_whole(link) as draft:
        draft.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with written_whole(tmp_path / "pipe") as draft:
        assert draft == tmp_path / "pipe"
