"""Sweeps: the same bits on every engine, nothing finished lost or run twice, errors that stay."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import distributed
import numpy as np
import pytest
from deaths import end_process, no_check
from waiting import until

import kgrad.experiments.engines
from kgrad.experiments import Experiment, grid, replicates, run_experiment, run_sweep
from kgrad.experiments.sweeps import _Schedule, run_name
from kgrad.records.history import GradientHistory
from kgrad.records.sweep import Sweep

SMALL = Experiment(num_layers=2, units=4, samples=64, features=3, epochs=2)
RUNS = [run for network in grid(SMALL, num_layers=[2, 3]) for run in replicates(network, 2)]
SCRIPT = """\
from kgrad.experiments import Experiment, grid, replicates, run_sweep

if __name__ == "__main__":
    small = Experiment(num_layers=2, units=4, samples=256, features=3, epochs=EPOCHS)
    runs = [run for network in grid(small, num_layers=[2, 3]) for run in replicates(network, 3)]
    run_sweep(runs, FOLDER, "processes", verbose=0)
"""


def require_same_bits(sweep, experiments):
    histories = {run: GradientHistory.load(sweep.file(run)) for run in map(run_name, experiments)}
    for experiment in experiments:
        alone, one = run_experiment(experiment), histories[run_name(experiment)]
        for name in alone.statistics:
            np.testing.assert_array_equal(one[name], alone[name])
        np.testing.assert_array_equal(one.logs["loss"], alone.logs["loss"])
        assert one.metadata["experiment"]["seed"] == experiment.seed
        assert one.metadata["seconds"] > 0 and isinstance(one.metadata["findings"], list)


def changed(sweep):
    """Return run → when its history was written."""
    return {run: sweep.file(run).stat().st_mtime_ns for run in sweep.to_frame().index}


@pytest.fixture
def count_compiled(monkeypatch):
    """Count the trainings that are compiled in this process."""
    compiled = []

    class Counted(kgrad.experiments.engines.Compiled):
        def __init__(self, first):
            compiled.append(first.experiment)
            super().__init__(first)

    monkeypatch.setattr(kgrad.experiments.engines, "Compiled", Counted)
    monkeypatch.setattr("kgrad.experiments.sweep_tasks._compiled", {})
    return compiled


# ---- In this process -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["here", "an executor"])
def test_runs_are_those_of_run_experiment_and_networks_are_compiled_once(
    tmp_path, engine, count_compiled
):
    with ThreadPoolExecutor(1) as executor:
        chosen = "here" if engine == "here" else executor
        sweep = run_sweep(RUNS, tmp_path / "sweep", chosen, verbose=0)
    assert len(count_compiled) == 2
    require_same_bits(sweep, RUNS)
    assert str(sweep.status()) == "4 of 4 runs are done"
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.tmp"))


def test_a_finished_run_is_not_run_again_and_one_that_was_cut_off_is(tmp_path, monkeypatch):
    sweep = run_sweep(RUNS, tmp_path, verbose=0)
    before, lost = changed(sweep), sweep.file(run_name(RUNS[2]))
    lost.rename(lost.with_suffix(".jsonl.part"))
    lost.with_suffix(".jsonl.part").write_bytes(b'{"format": "kgrad-hist')
    run_sweep(RUNS, tmp_path, verbose=0)
    after = changed(sweep)
    assert {run for run in before if after[run] != before[run]} == {run_name(RUNS[2])}
    require_same_bits(sweep, [RUNS[2]])
    # Nothing is left: no engine is opened.
    monkeypatch.setattr("kgrad.experiments.lanes.opened", None)
    # A run is known whatever its name.
    run_sweep([replace(run, name="again") for run in RUNS], tmp_path, verbose=0)
    assert changed(sweep) == after


def test_what_a_kill_left_of_files_is_removed(tmp_path, monkeypatch):
    sweep = run_sweep(RUNS[:1], tmp_path, verbose=0)
    (done,) = tmp_path.glob("runs/*/*.jsonl")
    draft, part = done.with_name(f".{done.name}.123.tmp"), done.with_suffix(".jsonl.part")
    draft.write_text("half of it")
    part.write_text("killed after the history was in its place")
    sweep = run_sweep(RUNS[:2], tmp_path, verbose=0)
    assert not draft.exists() and not part.exists()
    assert tuple(sweep.status()) == (2, 0, 0)


def test_a_run_that_fails_leaves_its_traceback_and_the_next_sweep_tries_it_again(
    tmp_path, monkeypatch
):
    prepare = kgrad.experiments.engines.prepare

    def failing(experiment):
        if experiment.seed == 1:
            raise RuntimeError("no such luck")
        return prepare(experiment)

    monkeypatch.setattr(kgrad.experiments.engines, "prepare", failing)
    with pytest.warns(UserWarning, match=r"2 of 4 runs failed, such as .* seed 1 \(.*no such luck"):
        sweep = run_sweep(RUNS, tmp_path, verbose=0)
    assert tuple(sweep.status()) == (2, 2, 0)
    failed = json.loads(sweep.failure_file(run_name(RUNS[1])).read_text())
    assert failed["experiment"]["num_layers"] == 2 and failed["experiment"]["seed"] == 1
    assert "in failing" in failed["traceback"]
    assert set(sweep.to_frame()["error"]) == {"", "RuntimeError: no such luck"}
    monkeypatch.setattr(kgrad.experiments.engines, "prepare", prepare)
    sweep = run_sweep(RUNS, tmp_path, verbose=0)
    assert tuple(sweep.status()) == (4, 0, 0) and not sweep.failures()


def test_an_interrupt_ends_the_sweep_and_finished_runs_stay(tmp_path, monkeypatch):
    run = kgrad.experiments.engines.Compiled.run
    begun = []

    def interrupted(self, prepared, *arguments, **options):
        history = run(self, prepared, *arguments, **options)
        begun.append(prepared.experiment)
        if len(begun) == 2:
            history.metadata["interrupted"] = True
        return history

    monkeypatch.setattr(kgrad.experiments.engines.Compiled, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(RUNS, tmp_path, verbose=0)
    assert tuple(Sweep(tmp_path).status()) == (1, 0, 3)
    sweep = run_sweep(RUNS, tmp_path, verbose=0)
    assert tuple(sweep.status()) == (4, 0, 0) and len(begun) == 5
    require_same_bits(sweep, RUNS)


def test_a_run_that_diverged_is_finished(tmp_path):
    wild = replace(SMALL, dataset="regression", learning_rate=100.0, epochs=20)
    sweep = run_sweep([wild], tmp_path, verbose=0)
    row = sweep.to_frame().iloc[0]
    assert not np.isfinite(row["loss_last"]) and row["findings"] and row["error"] == ""


def test_a_disk_that_is_full_ends_the_sweep(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(GradientHistory, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run_sweep(RUNS, tmp_path, verbose=0)
    monkeypatch.undo()
    assert tuple(run_sweep(RUNS, tmp_path, verbose=0).status()) == (4, 0, 0)


# ---- What is refused before anything runs --------------------------------------------------------


@pytest.mark.parametrize(
    ("experiments", "options", "error", "message"),
    [
        ([], {}, ValueError, "must have at least one"),
        ([SMALL, replace(SMALL, name="other")], {}, ValueError, "must differ, received 'other'"),
        ([SMALL, "relu"], {}, TypeError, "received one with str"),
        ([replace(SMALL, activation="rleu")], {}, ValueError, "received 'rleu'"),
        ([replace(SMALL, seed=-1)], {}, ValueError, "seed must be"),
        ([replace(SMALL, units=lambda: 3)], {}, ValueError, "fields of text and numbers"),
        ([SMALL], {"engine": "dusk"}, ValueError, "received 'dusk'; did you mean 'dask'"),
        ([SMALL], {"engine": 2}, TypeError, "received int"),
        ([SMALL], {"engine": "tcp://127.0.0.1:1"}, ConnectionError, "that can be reached"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, experiments, options, error, message, monkeypatch):
    monkeypatch.setattr("kgrad.experiments.lanes._SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(error, match=message):
        run_sweep(experiments, tmp_path / "new", **options, verbose=0)
    assert not list(tmp_path.iterdir())


def test_a_missing_dask_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs Dask for clusters: pip install .*cluster"
    ):
        run_sweep([SMALL], tmp_path, "dask", verbose=0)


def test_two_sweeps_do_not_share_a_folder_at_once(tmp_path, monkeypatch):
    def second(*arguments, **options):
        with pytest.raises(ValueError, match="where another sweep runs"):
            run_sweep(RUNS, tmp_path, verbose=0)
        raise RuntimeError("tried")

    monkeypatch.setattr(kgrad.experiments.engines, "prepare", second)
    with pytest.raises(RuntimeError, match="tried"):
        run_sweep(RUNS, tmp_path, verbose=0)


def test_the_name_of_a_run_depends_on_what_is_trained():
    assert run_name(SMALL).endswith("-0") and run_name(replace(SMALL, seed=12)).endswith("-12")
    network = run_name(SMALL).rpartition("-")[0]
    for same in ({"seed": 3}, {"name": "x"}, {"learning_rate": 0.05}, {"samples": np.int64(64)}):
        assert run_name(replace(SMALL, **same)).rpartition("-")[0] == network, same
    for other in (
        {"units": (4, 4)},
        {"bias_initializer": "normal:0.1"},
        {"learning_rate": 0.06},
        {"probe": True},
        {"samples": None},
    ):
        assert run_name(replace(SMALL, **other)).rpartition("-")[0] != network, other
    # The hash of {}: no field with its default, of whatever version, is part of a name.
    assert run_name(Experiment()) == f"{hashlib.sha256(b'{}').hexdigest()[:16]}-0"
    whole, real = (replace(SMALL, learning_rate=rate) for rate in (1, 1.0))
    assert run_name(whole) == run_name(real)


def test_a_lane_keeps_to_its_network_then_begins_another_then_helps():
    schedule = _Schedule(["a-0", "a-1", "b-0", "b-1", "b-2", "b-3", "c-0"])
    assert schedule.next("", False) == ["a-0"]
    assert schedule.next("", False) == ["b-0"]
    assert schedule.next("a", False) == ["a-1"]
    assert schedule.next("a", False) == ["c-0"]  # one that nobody has begun
    assert schedule.next("c", False) == ["b-1"]  # the one with the most runs left
    schedule.put_back(["a-1"])
    assert schedule.next("b", True) == ["b-2", "b-3"]
    assert schedule.next("b", True) == ["a-1"]
    assert schedule.next("b", True) == []


# ---- Processes -----------------------------------------------------------------------------------


def killed_once_it_trains(folder, processes):
    """Kill one of the processes that `processes` returns once a run's journal appears."""

    def kill():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(folder.rglob("*.part")):
            time.sleep(0.01)
        for pid in processes()[:1]:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_processes_train_the_same_bits_and_a_killed_one_is_replaced(tmp_path):
    long = [replace(run, epochs=300) for run in RUNS]
    killer = killed_once_it_trains(
        tmp_path, lambda: [child.pid for child in multiprocessing.active_children()]
    )
    sweep = run_sweep(long, tmp_path, "processes", verbose=0)
    killer.join()
    assert tuple(sweep.status()) == (4, 0, 0)
    require_same_bits(sweep, long)


def test_a_run_that_always_ends_its_process_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("kgrad.experiments.sweeps.train", end_process)
    monkeypatch.setattr("kgrad.experiments.sweeps.check", no_check)
    with pytest.warns(UserWarning, match="1 of 1 runs failed"):
        sweep = run_sweep([SMALL], tmp_path, "processes", verbose=0)
    assert "its process was ended 3 times" in sweep.to_frame()["error"].iloc[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_the_program_ends_no_process_is_left_and_the_sweep_goes_on(tmp_path, number):
    folder, script = tmp_path / "sweep", tmp_path / "script.py"
    text = SCRIPT.replace("FOLDER", repr(str(folder)))
    script.write_text(text.replace("EPOCHS", "200"))
    with subprocess.Popen([sys.executable, script], start_new_session=True) as program:
        until(lambda: list(folder.glob("runs/*/*.jsonl")), seconds=120)
        children = processes_of(program.pid)
        os.kill(program.pid, number)  # Ctrl-C, which the children ignore, goes to them, too
    assert children
    until(lambda: not any(map(lives, children)), seconds=20)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*.jsonl")}
    assert before
    for path in before:
        assert len(GradientHistory.load(path)) == 201
    subprocess.run([sys.executable, script], check=True, timeout=180)
    assert tuple(Sweep(folder).status()) == (6, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def processes_of(session):
    """Return the processes of a session except its first, read from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and int(stat.parent.name) != session:
            found.append(int(stat.parent.name))
    return found


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- Dask ----------------------------------------------------------------------------------------


def test_a_cluster_of_two_workers_of_which_one_is_killed_trains_the_same_bits(tmp_path):
    long = [replace(run, epochs=300) for run in RUNS]
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        workers = list(client.run(os.getpid).values())
        killer = threading.Thread(target=kill_when_busy, args=(client, workers))
        killer.start()
        sweep = run_sweep(long, tmp_path, cluster.scheduler_address, verbose=0)
        killer.join()
        assert tuple(sweep.status()) == (4, 0, 0)
        require_same_bits(sweep, long)


def kill_when_busy(client, workers):
    """Kill a worker of a cluster while it trains."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        busy = [tasks for tasks in client.processing().values() if any("train" in t for t in tasks)]
        if busy:
            break
        time.sleep(0.02)
    os.kill(workers[0], signal.SIGKILL)
