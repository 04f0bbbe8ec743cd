"""`kgrad sweep`: train many networks, on all cores or on a cluster, and tabulate them."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kgrad.apps.command.main import exit_status, naming_options
from kgrad.apps.command.run_options import (
    OPTIONS,
    add_experiments,
    add_runs,
    experiments_of,
    flattened,
    new_parser,
)

if TYPE_CHECKING:  # pandas takes half a second to import
    from kgrad.records.sweep import Sweep

DESCRIPTION = """\
Train a grid of networks over several seeds, keep each run's history in a folder, and print where
the runs are that trained and those that did not. The same command goes on where it was stopped.
"""
_MOST_ERRORS = 5  # lines
_OPTIONS = OPTIONS | {"engine": "--engine", "folder": "--output"}


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command.

    Returns:
        0 if all runs are done, 1 if some failed, 2 for bad input, 130 if interrupted.
    """
    options = parse(arguments, program)
    return exit_status(
        program,
        lambda: run(options),
        when_interrupted="interrupted; the same command goes on with what is left",
    )


def run(options: argparse.Namespace) -> int:
    """Train what is left of the sweep, or only look; then print what the folder has."""
    from kgrad.records.sweep import Sweep

    if options.status is not None:
        with naming_options({"folder": "--status"}):
            sweep = Sweep(options.status)
    else:
        with naming_options(_OPTIONS), warnings.catch_warnings():
            # The status and the table say what failed.
            warnings.simplefilter("ignore", UserWarning)
            from kgrad.experiments.sweeps import run_sweep

            sweep = run_sweep(experiments_of(options, options.yes), options.output, options.engine)
    return _print(sweep)


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line, without importing TensorFlow."""
    parser = new_parser(program, DESCRIPTION)
    what = parser.add_argument_group("what to run")
    add_runs(what, seeds=3)
    what.add_argument(
        "--yes", action="store_true", help="run a grid of more than 10,000 runs"
    )  # fmt: skip
    add_experiments(parser)
    where = parser.add_argument_group("where")
    where.add_argument(
        "-o", "--output", type=Path, default=Path("sweep"), metavar="FOLDER",
        help="folder of the sweep (default: sweep)",
    )  # fmt: skip
    where.add_argument(
        "--engine", default="processes",
        help="processes (a process for each core), here (one run after another), dask (a cluster "
        "on this machine), or the address of a cluster: tcp://host:8786 (default: processes)",
    )  # fmt: skip
    where.add_argument(
        "--status", type=Path, metavar="FOLDER",
        help="train nothing; print what is done, failed and left in a sweep's folder",
    )  # fmt: skip
    return flattened(parser.parse_args(arguments))


def _print(sweep: "Sweep") -> int:
    """Print how many runs are done, how many have each cause, and the most frequent errors."""
    from kgrad.apps.findings import first_findings

    status = sweep.status()
    print(f"{sweep.folder}: {status}{f', {status.left:,} left' * bool(status.left)}")
    frame = sweep.to_frame()
    if len(frame):
        for finding, count in first_findings(frame).items():
            print(f"{count:>9,}  {finding}")
        errors = frame[frame["error"] != ""]
        for error, count in errors["error"].value_counts().head(_MOST_ERRORS).items():
            print(f"{count:>9,}  failed: {error!s:.80}")
    if status.failed:
        print(f"{sweep.folder / 'failed'} has the tracebacks; the same command tries them again")
    return 1 if status.failed else 0
