"""`kgrad run`: train small networks or load their histories, then draw, tabulate and diagnose.

It is also the program `ann_gradient_visualization.py`.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kgrad.apps.command.main import (
    exit_status,
    naming_options,
    require_existing,
    sentence_of,
)
from kgrad.apps.command.run_options import OPTIONS, experiments_of, parse
from kgrad.measure.backends import import_quietly
from kgrad.records.requirements import saying_what_to_install

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
    prepared: dict[str, Prepared] = {}
    loaded: dict[Path, GradientHistory] = {}
    histories: list[GradientHistory] = []
    interrupted = False
    if options.load:
        loaded, folder = load(options)
    else:
        histories, folder, prepared, interrupted = train(options)
    # What only the results need is imported after the options have been checked.
    from kgrad.apps.command import run_folder, run_tables
    from kgrad.apps.report.report import write_groups
    from kgrad.apps.run_groups import group_histories, named_by_file, read_groups
    from kgrad.records.files import written_whole

    named = named_by_file(loaded) | {str(number): one for number, one in enumerate(histories)}
    groups = read_groups(group_histories(named), prepared=prepared)
    run_tables.print_reasons(groups)
    files = [folder / "table.csv", folder / "findings.csv"]
    run_tables.write_runs(groups, files[0])
    run_tables.write_findings(groups, files[1])
    figures = draw(groups)
    for name, figure in figures.items():
        files.append(folder / f"{run_folder.slug(name)}.{options.format}")
        with written_whole(files[-1]) as draft:
            figure.savefig(draft, dpi=150, format=options.format)
    files.append(folder / "report.html")
    write_groups(groups, files[-1])
    run_tables.print_runs(groups)
    run_tables.print_findings(groups)
    print(f"\nin {folder}: {', '.join(path.name for path in files)}")
    if options.show:
        from kgrad.figures.static import show

        show(figures.values())
    return 130 if interrupted else 0


def load(options: argparse.Namespace) -> "tuple[dict[Path, GradientHistory], Path]":
    """Load recorded runs, and print one line for each.

    Returns:
        File → history; the folder to write into.
    """
    try:
        require_existing(options.load)
        from kgrad.records.history import load_runs

        histories = load_runs(options.load)
    except (OSError, ValueError) as error:
        raise ValueError(f"--load: {sentence_of(error)}") from error
    from kgrad.apps.command.run_folder import chosen_folder, runs_not_among

    folder, _ = chosen_folder(
        options.output, lambda one: runs_not_among(one, histories), options.overwrite
    )
    for path, history in histories.items():
        loss = history.logs.get("loss")
        change = "" if loss is None else f", loss {loss[0]:.4g} → {loss[-1]:.4g}"
        print(f"{path}: {len(history)} records{change}")
    return histories, folder


def train(
    options: argparse.Namespace,
) -> "tuple[list[GradientHistory], Path, dict[str, Prepared], bool]":
    """Train what the options describe, each run with a journal in the output folder.

    Returns:
        The histories; the folder; name → prepared experiment; whether Ctrl-C interrupted it.
    """
    experiments = experiments_of(options)
    from kgrad.experiments.checks import require_valid

    with naming_options(OPTIONS), saying_what_to_install("training"):
        for experiment in experiments:
            require_valid(experiment)
    from kgrad.apps.command.run_folder import (
        chosen_folder,
        journal_of,
        other_runs,
        recorded_runs,
        remove_runs,
    )

    is_own = options.output is None or not Path(options.output).exists()
    folder, others = chosen_folder(
        options.output, lambda one: other_runs(one, experiments), options.overwrite
    )
    import_quietly("training")
    from kgrad.experiments import prepare, run_replicates
    from kgrad.records.history import GradientHistory

    with naming_options(OPTIONS):
        # All are prepared before the first is trained: bad input costs no training.
        try:
            prepared = [prepare(experiment) for experiment in experiments]
        except Exception:
            with suppress(OSError):  # something is in it
                if is_own:
                    folder.rmdir()
            raise
    remove_runs(folder, others)
    recorded = recorded_runs(folder)
    by_name = {parts.experiment.name: parts for parts in prepared}
    histories: list[GradientHistory] = []
    alike = itertools.groupby(prepared, key=lambda parts: replace(parts.experiment, seed=0))
    for replicates in [list(group) for _, group in alike]:
        labels = [f"{parts.experiment.name}, seed {parts.experiment.seed}" for parts in replicates]
        journals = [journal_of(folder, parts.experiment) for parts in replicates]
        # What has a record there is a run of the very same experiment, maybe a finished one.
        writing = [new_file(path) if path in recorded else path for path in journals]
        start = time.perf_counter()
        runs = run_replicates(replicates, writing, int(sys.stderr.isatty()), journal_mode="replace")
        for label, journal, file, history in zip(labels, journals, writing, runs, strict=True):
            if history.metadata.get("interrupted") and file != journal:
                kept = GradientHistory.load(journal)
                if len(kept) > len(history):
                    file.unlink()
                    print(f"{label}: interrupted; {journal} keeps the {len(kept)} records it had")
                    return [*histories, kept], folder, by_name, True
            histories.append(history)
            loss, seconds = history.logs["loss"], time.perf_counter() - start
            history.metadata["seconds"] = round(seconds, 2)
            history.save(journal)
            if file != journal:
                file.unlink()
            print(f"{label}: loss {loss[0]:.4g} → {loss[-1]:.4g} in {seconds:.1f} s", flush=True)
            if history.metadata.get("interrupted"):
                return histories, folder, by_name, True
            start = time.perf_counter()
    return histories, folder, by_name, False


def new_file(path: Path) -> Path:
    """Return the file beside a recorded one that is to replace it."""
    return path.with_suffix(".new")


def draw(groups: "Sequence[RunGroup]") -> "dict[str, Figure]":
    """Draw all figures of the program, by file name."""
    import kgrad

    predictions = {group.name: group.prediction for group in groups if group.prediction}
    shown = {shown_as(group): group for group in groups}
    first = {name: group.histories[0] for name, group in shown.items()}
    figures = {
        group.name: kgrad.plot_gradients(
            first[name], title=name, prediction=predictions.get(group.name)
        )
        for name, group in shown.items()
    }
    for name, group in shown.items():
        history = first[name]
        if history.has_distributions:
            figures[f"{group.name}, distributions"] = kgrad.plot_distributions(history, title=name)
        if history.activations:  # outputs may be named and never recorded
            figures[f"{group.name}, activations"] = kgrad.plot_activations(history, title=name)
            graph = kgrad.flow_graph_from_history(history)
            figures[f"{group.name}, flow"] = kgrad.plot_flow_graph(graph, title=name)
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


def shown_as(group: "RunGroup") -> str:
    """Return the name of a group's first run in a figure, which says its seed if it has others."""
    return ", ".join(filter(None, [group.name, group.run(0)]))
