"""`kgrad report RUN… -o FILE`: recorded runs in one HTML file that opens offline."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str], program: str) -> int:
    """Write the report.

    Returns:
        0.
    """
    options = parse(arguments, program)
    from kgrad.apps.command.run import import_tensorflow_quietly

    import_tensorflow_quietly()
    from kgrad.apps.command.histories import load

    histories = load(options.runs)
    try:
        from kgrad.apps.report import write_report
        from kgrad.apps.report.runs import grouped
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    stems = [path.stem for path in histories]
    named = {
        path.stem if stems.count(path.stem) == 1 else str(path): history
        for path, history in histories.items()
    }
    write_report(grouped(named), options.output, options.title, statistic=options.statistic)
    print(options.output)
    return 0


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Write recorded runs into one HTML file: findings, figures, how to reproduce.",
        epilog='It needs plotly: pip install "kgrad[app]". Runs that differ in their seed alone '
        "belong together; the figures show the first.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="a .jsonl history or journal, or a folder of them",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE",
        help="where to (report.html)",
    )  # fmt: skip
    parser.add_argument("--title", default="Gradients while training", help="stands above it")
    parser.add_argument(
        "--statistic", default="mean_abs", metavar="NAME", help="what is drawn (mean_abs)"
    )
    return parser.parse_args(arguments)
