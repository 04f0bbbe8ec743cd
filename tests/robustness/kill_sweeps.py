"""Kills a sweep's program, its workers and a cluster's scheduler at random moments.

After each kill every finished history is still there, unchanged and whole; a sweep that was ended
is started again. At the end every run is done, and none was run twice.

    python tests/robustness/kill_sweeps.py --moments 30
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kgrad.records.history import GradientHistory
from kgrad.records.sweep import Sweep

EPOCHS = 20
PROGRAM = """
import sys
from kgrad.experiments import Experiment, grid, replicates, run_sweep

if __name__ == "__main__":
    base = Experiment(units=8, samples=256, features=4, epochs={epochs})
    networks = grid(base, num_layers=[2, 3, 4, 5])
    runs = [run for one in networks for run in replicates(one, {seeds})]
    run_sweep(runs, sys.argv[1], sys.argv[2], verbose=0)
"""
ADDRESS = "tcp://127.0.0.1:{port}"


class Checked:
    """A sweep's finished runs, which must stay as they are.

    Args:
        folder: folder of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[int, int]] = {}  # run → inode and time of change

    @property
    def count(self) -> int:
        return len(self._files)

    def look(self) -> None:
        """Compare the finished runs with those seen before; read the new ones."""
        found = {
            path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in self._folder.glob("runs/*/*.jsonl")
        }
        for name, identity in self._files.items():
            if found.get(name) != identity:
                raise SystemExit(f"{name} was finished, and is lost or was run twice")
        for name in found.keys() - self._files.keys():
            history = GradientHistory.load(self._folder / "runs" / name[:2] / name)
            if len(history) != EPOCHS + 1:
                raise SystemExit(f"{name} has {len(history)} records, not {EPOCHS + 1}")
        self._files = found


def started(script: Path, folder: Path, engine: str) -> "subprocess.Popen[bytes]":
    """Start the program in a group of its own; the errors that it prints are expected."""
    command = [sys.executable, script, folder, engine]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for child in map(int, task.read_text().split()):
                found += [child, *children_of(child)]
    return found


def trains(checked: Checked, program: "subprocess.Popen[bytes]", more: int) -> None:
    """Wait until the program has finished more runs, or has ended."""
    goal = checked.count + more
    while program.poll() is None and checked.count < goal:
        time.sleep(0.05)
        checked.look()


def kill_clients(script: Path, folder: Path, engine: str, moments: int) -> Checked:
    """Kill the program, of which no process may be left."""
    checked = Checked(folder)
    for moment in range(moments):
        with started(script, folder, engine) as program:
            trains(checked, program, more=1)
            time.sleep(random.uniform(0, 1.5))
            if program.poll() is not None:
                raise SystemExit(f"ended with {program.poll()} after {moment} moments")
            family = children_of(program.pid)
            program.kill()
        gone_by = time.monotonic() + 15
        while any(Path(f"/proc/{pid}").exists() for pid in family):
            if time.monotonic() > gone_by:
                raise SystemExit("a worker outlived the program by 15 seconds")
            time.sleep(0.1)
        checked.look()
    return checked


def kill_workers(script: Path, folder: Path, moments: int) -> Checked:
    """Kill a process that trains, again and again; the same program goes on."""
    checked = Checked(folder)
    with started(script, folder, "processes") as program:
        for moment in range(moments):
            trains(checked, program, more=3)
            time.sleep(random.uniform(0, 0.5))
            while program.poll() is None and not (workers := workers_of(program.pid)):
                time.sleep(0.05)
            if program.poll() is not None:
                raise SystemExit(f"ended with {program.poll()} after {moment} moments")
            os.kill(random.choice(workers), signal.SIGKILL)
            checked.look()
        program.kill()
    return checked


def workers_of(pid: int) -> list[int]:
    """Return the processes that train for a program."""
    return [child for child in children_of(pid) if "spawn_main" in _command(child)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except FileNotFoundError:
        return ""


@contextmanager
def cluster(port: int, killed: list["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Start a scheduler, the first of `killed`, and two workers."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    address = ADDRESS.format(port=port)
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"]
    with ExitStack() as stack:
        processes = [
            subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], **quiet)
        ]
        processes += [
            subprocess.Popen([*worker, "--no-nanny", "--no-dashboard"], **quiet) for _ in range(2)
        ]
        for one in processes:
            stack.callback(one.wait)
            stack.callback(one.kill)
        killed[:] = processes[:1]
        yield


def kill_schedulers(script: Path, folder: Path, moments: int) -> Checked:
    """Kill the scheduler of a cluster; the program must end with an error by itself."""
    checked = Checked(folder)
    for moment in range(moments):
        killed: list[subprocess.Popen[bytes]] = []
        port = 18000 + moment
        with cluster(port, killed), started(script, folder, ADDRESS.format(port=port)) as program:
            trains(checked, program, more=1)
            time.sleep(random.uniform(0, 1.0))
            killed[0].kill()
            try:
                status = program.wait(60)
            except subprocess.TimeoutExpired:
                program.kill()
                raise SystemExit("the program waits for a scheduler that is gone") from None
            if status == 0 and len(Sweep(folder)) < len(Sweep(folder).planned):
                raise SystemExit("the program ended as if all were well")
        checked.look()
    return checked


def finish(script: Path, folder: Path, checked: Checked) -> None:
    """Run what is left; every run is then done, once, and nothing else is in the folder."""
    subprocess.run([sys.executable, script, folder, "processes"], check=True)
    checked.look()
    status = Sweep(folder).status()
    left = [*folder.rglob("*.part"), *folder.rglob(".*")]
    if status.left or status.failed or left:
        raise SystemExit(f"{status}, with {len(left)} unfinished files")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=30, help="of each kind")
    parser.add_argument("--seeds", type=int, default=60, help="per network, of which are four")
    parser.add_argument("--kinds", nargs="+", default=["client", "worker", "scheduler"])
    options = parser.parse_args()
    print(
        "| killed | moments | finished runs | lost, half or twice | time |\n|---|---|---|---|---|"
    )
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as place:
            script, folder = Path(place) / "program.py", Path(place) / "sweep"
            script.write_text(PROGRAM.format(epochs=EPOCHS, seeds=options.seeds))
            begun = time.perf_counter()
            if kind == "client":
                checked = kill_clients(script, folder, "processes", options.moments)
            elif kind == "worker":
                checked = kill_workers(script, folder, options.moments)
            else:
                checked = kill_schedulers(script, folder, options.moments)
            during = checked.count
            finish(script, folder, checked)
            minutes = (time.perf_counter() - begun) / 60
            print(
                f"| {kind} | {options.moments} | {checked.count}, of which {during} between kills "
                f"| 0 | {minutes:.0f} min |",
                flush=True,
            )


if __name__ == "__main__":
    main()
