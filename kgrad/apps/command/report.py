"""`kgrad report RUN… [-o FILE]`: recorded runs in one HTML file that opens offline."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kgrad.apps.command.main import Parser, naming_options, require_existing


def main(arguments: Sequence[str], program: str) -> int:
    """Write the report.

    Returns:
        0.
    """
    options = parse(arguments, program)
    require_existing(options.runs)
    first: Path = options.runs[0]
    folder = first if first.is_dir() else first.parent
    output = folder / "report.html" if options.output is None else options.output
    from kgrad.apps.report import write_report
    from kgrad.apps.run_groups import group_histories, named_by_file
    from kgrad.records.history import load_runs
    from kgrad.records.sweep import Sweep, is_sweep

    runs: Any
    if len(options.runs) == 1 and is_sweep(first):
        runs = Sweep(first)
    else:
        runs = group_histories(named_by_file(load_runs(options.runs)))
    with naming_options({"statistic": "--statistic"}):
        write_report(runs, output, options.title, statistic=options.statistic)
    print(output)
    return 0


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog=program,
        description="Write recorded runs into one HTML file: findings, figures, how to reproduce.",
        epilog="Runs that differ in the seed alone are grouped; the figures show the first of "
        "them. The report of a sweep has maps, and a table of its networks.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="a .jsonl history or journal, a folder of them, or the folder of a sweep",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="file to write (default: report.html beside the first run)",
    )  # fmt: skip
    parser.add_argument(
        "--title", default="Gradients while training",
        help="title of the report (default: Gradients while training)",
    )  # fmt: skip
    parser.add_argument(
        "--statistic", default="mean_abs", metavar="NAME",
        help="statistic to draw (default: mean_abs)",
    )  # fmt: skip
    return parser.parse_args(arguments)
