"""Times sweeps: processes against one process, Dask's own cost, resuming, and a large table.

Prints the table of docs/benchmarks.md. Each row says how it was measured.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from kgrad.experiments.experiment import Experiment, grid, replicates
from kgrad.experiments.sweeps import run_name, run_sweep
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.sweep import Sweep, begin_sweep, history_file

SMALL = Experiment(num_layers=2, units=4, samples=64, features=3, epochs=1)


def seconds_of(runs: list[Experiment], engine: str) -> float:
    """Return the time of a sweep in a program of its own, imports and all."""
    program = (
        "from kgrad.experiments import Experiment, run_sweep\n"
        "if __name__ == '__main__':\n"
        f"    run_sweep({runs!r}, {{folder!r}}, {engine!r}, verbose=0)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "program.py"
        script.write_text(program.format(folder=str(Path(folder) / "sweep")))
        start = time.perf_counter()
        subprocess.run([sys.executable, script], check=True)
        return time.perf_counter() - start


def against_one_process(rounds: int) -> None:
    base = replace(Experiment(), epochs=30, num_layers=10, units=64)
    networks = grid(base, learning_rate=[0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2])
    runs = [run for network in networks for run in replicates(network, 8)]
    times = [(seconds_of(runs, "here"), seconds_of(runs, "processes")) for _ in range(rounds)]
    here, processes = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(one / other for one, other in times)
    figures = f"here {here:.0f} s, processes {processes:.0f} s: {ratio:.2f}×"
    print(f"| 64 runs 10×64, 30 epochs | {figures} |")


def cost_of_dask(runs_of_a_second: int) -> None:
    """Compare the time that two workers have with the time that their runs take."""
    from distributed import Client, LocalCluster

    base = replace(Experiment(), units=64, num_layers=10, epochs=60)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        warm = replicates(base, range(1000, 1008))
        run_sweep(warm, Path(folder) / "warm", client, verbose=0)
        start = time.perf_counter()
        sweep = run_sweep(
            replicates(base, runs_of_a_second), Path(folder) / "sweep", client, verbose=0
        )
        wall = time.perf_counter() - start
        each = sweep.to_frame()["seconds"]
    cost = 2 * wall / each.sum() - 1
    print(f"| Dask's own cost, {len(each)} runs of {each.median():.2f} s | {cost:+.1%} |")


def resumed(count: int) -> None:
    runs = replicates(SMALL, count)
    with tempfile.TemporaryDirectory() as folder:
        _filled(Path(folder) / "sweep", runs)
        script = Path(folder) / "again.py"
        script.write_text(
            "from kgrad.experiments import Experiment, replicates, run_sweep\n"
            f"run_sweep(replicates({SMALL!r}, {count}), {str(Path(folder) / 'sweep')!r})\n"
        )
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, script], check=True)
            times.append(time.perf_counter() - start)
    figure = f"{statistics.median(times):.2f} s"
    print(f"| {count:,} runs resumed, all done; the whole program | {figure} |")


def large_table(networks: int, seeds: int) -> None:
    rates = [0.001 * (1 + i) for i in range(networks)]
    runs = [run for one in grid(SMALL, learning_rate=rates) for run in replicates(one, seeds)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep"
        _filled(path, runs)
        Sweep(path).to_frame()  # builds the index
        program = (
            "import time\nfrom kgrad import Sweep\nimport pandas\n"
            "start = time.perf_counter()\n"
            f"rows = len(Sweep({str(path)!r}).to_frame())\n"
            "print(time.perf_counter() - start)\n"
        )
        times, memory = [], 0.0
        for _ in range(5):
            done = subprocess.run(
                [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE
            )
            times.append(float(done.stdout))
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(
        f"| `to_frame()` of {len(runs):,} runs with the index "
        f"| {statistics.median(times):.2f} s, {memory:.0f} MB |"
    )


def _filled(folder: Path, runs: list[Experiment]) -> None:
    """Write a sweep whose runs all have the same made-up records."""
    weights = [Weight(f"hidden_{i}", "kernel", f"hidden_{i}/kernel", (4, 4)) for i in (1, 2)]
    made = GradientHistory(
        weights,
        ["mean_abs"],
        {"experiment": "EXPERIMENT", "findings": ["vanishing"], "seconds": 1.0, "started": "2026"},
    )
    for epoch in range(3):
        made.append(epoch, epoch, {"mean_abs": [1e-3, 1.0]}, {"loss": 1.0})
    text = made.to_bytes().decode()
    named = {run_name(run): asdict(run) for run in runs}
    begin_sweep(folder, named)
    for run, fields in named.items():
        file = history_file(folder, run)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace('"EXPERIMENT"', json.dumps(fields)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of here against processes")
    options = parser.parse_args()
    print("| | |\n|---|---|")
    large_table(12_500, 8)
    resumed(1_000)
    cost_of_dask(60)
    against_one_process(options.rounds)


if __name__ == "__main__":
    main()
