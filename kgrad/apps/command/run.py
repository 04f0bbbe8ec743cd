"""`kgrad run`: train small networks or load their histories, then draw, tabulate and diagnose.

It is also the program `ann_gradient_visualization.py`.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kgrad.apps.command.main import exit_status, naming_options
from kgrad.apps.command.run_options import OPTIONS, experiments_of, parse
from kgrad.measure.backends import import_quietly

if TYPE_CHECKING:  # TensorFlow takes seconds to import: only after the options are read
    from matplotlib.figure import Figure

    from kgrad.apps.run_groups import RunGroup
    from kgrad.experiments import Prepared
    from kgrad.records.history import GradientHistory


def main(arguments: Sequence[str] | None = None, program: str = "kgrad run") -> int:
    """Run the program; returns its exit status: 0, 2 for bad input, 130 if interrupted."""
    options = parse(arguments, program)
    return exit_status(
        program,
        lambda: run(options),
        when_interrupted="interrupted; finished records are in the .jsonl files",
    )


def run(options: argparse.Namespace) -> int:
    """Train or load, then write and print the results."""
    folder = writable_folder(options.output)
    from kgrad.apps.command import run_tables
    from kgrad.apps.report.report import write_groups
    from kgrad.apps.run_groups import group_histories, read_groups
    from kgrad.records.history import load_runs

    prepared: dict[str, Prepared] = {}
    if options.load:
        histories, interrupted = list(load_runs(options.load).values()), False
    else:
        histories, prepared, interrupted = train(options, folder)
    named = {f"history {number}": one for number, one in enumerate(histories, start=1)}
    groups = read_groups(group_histories(named), prepared=prepared)
    run_tables.print_reasons(groups)
    files = [folder / "table.csv", folder / "findings.csv"]
    run_tables.write_runs(groups, files[0])
    run_tables.write_findings(groups, files[1])
    figures = draw(groups)
    for name, figure in figures.items():
        files.append(folder / f"{slug(name)}.{options.format}")
        figure.savefig(files[-1], dpi=150)
    files.append(folder / "report.html")
    write_groups(groups, files[-1])
    run_tables.print_runs(groups)
    run_tables.print_findings(groups)
    print(f"\nin {folder}: {', '.join(path.name for path in files)}")
    if options.show:
        from kgrad.figures.static import show

        show(figures.values())
    return 130 if interrupted else 0


def train(
    options: argparse.Namespace, folder: Path
) -> "tuple[list[GradientHistory], dict[str, Prepared], bool]":
    """Train what the options describe, each run with a journal in the folder.

    Returns:
        The histories; name → prepared experiment; whether Ctrl-C interrupted the training.
    """
    experiments = experiments_of(options)
    import_quietly("training")
    from kgrad.experiments import prepare, run_replicates

    with naming_options(OPTIONS):
        # All are prepared before the first is trained: bad input costs no training.
        prepared = [prepare(experiment) for experiment in experiments]
    by_name = {parts.experiment.name: parts for parts in prepared}
    histories: list[GradientHistory] = []
    alike = itertools.groupby(prepared, key=lambda parts: replace(parts.experiment, seed=0))
    for replicates in [list(group) for _, group in alike]:
        labels = [f"{parts.experiment.name}, seed {parts.experiment.seed}" for parts in replicates]
        journals = [folder / f"{slug(label)}.jsonl" for label in labels]
        start = time.perf_counter()
        # A second run into the same folder is a rerun: its figures and table replace the first's.
        runs = run_replicates(
            replicates, journals, int(sys.stderr.isatty()), journal_mode="replace"
        )
        for label, history in zip(labels, runs, strict=True):
            histories.append(history)
            loss, seconds = history.logs["loss"], time.perf_counter() - start
            print(f"{label}: loss {loss[0]:.4g} → {loss[-1]:.4g} in {seconds:.1f} s", flush=True)
            if history.metadata.get("interrupted"):
                return histories, by_name, True
            start = time.perf_counter()
    return histories, by_name, False


def draw(groups: "Sequence[RunGroup]") -> "dict[str, Figure]":
    """Draw all figures of the program, by file name."""
    import kgrad

    first = {group.name: group.histories[0] for group in groups}
    predictions = {group.name: group.prediction for group in groups if group.prediction}
    figures = {
        name: kgrad.plot_gradients(history, title=name, prediction=predictions.get(name))
        for name, history in first.items()
    }
    for name, history in first.items():
        if history.distributions.any():
            figures[f"{name}, distributions"] = kgrad.plot_distributions(history, title=name)
        if history.outputs:
            figures[f"{name}, activations"] = kgrad.plot_activations(history, title=name)
            graph = kgrad.flow_graph_from_history(history)
            figures[f"{name}, flow"] = kgrad.plot_flow_graph(graph, title=name)
    if len(first) > 1:
        figures["comparison"] = kgrad.plot_gradients(first, title="All runs on one scale")
    figures["depth"] = kgrad.plot_gradient_by_depth(first)
    replicated = {group.name: group.histories for group in groups if len(group.histories) > 1}
    if replicated:
        figures["seeds"] = kgrad.plot_seed_spread(replicated)
    if predictions:
        measured = {group.name: group.histories for group in groups if group.prediction}
        figures["prediction"] = kgrad.plot_prediction(measured, predictions)
    return figures


def writable_folder(name: str) -> Path:
    """Return the output folder, made if necessary and found to be writable.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the name is empty.
    """
    if not name:
        raise ValueError("--output must name a folder, received an empty name")
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"--output must name a folder that can be written, received {name!r} "
            f"({os.strerror(error.errno or 0)})"
        ) from error
    return folder


def slug(name: str) -> str:
    """Return a name as a file name: letters, digits and single hyphens."""
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in name.lower()).split())
