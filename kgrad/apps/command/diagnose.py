"""`kgrad diagnose RUN…`: what is wrong with recorded runs, without Keras."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str], program: str) -> int:
    """Print the findings for each run.

    Returns:
        0 if no run has a finding, 1 if one has, as a linter does.
    """
    options = parse(arguments, program)
    from rich.console import Console
    from rich.text import Text

    from kgrad.diagnosis import diagnose
    from kgrad.records.history import load_runs

    console = Console()
    found = 0
    for path, history in load_runs(options.runs).items():
        diagnosis = diagnose(history)
        found += len(diagnosis)
        # As Text: brackets in a file name are not markup.
        console.print(Text(f"{path}: {len(history)} records", style="bold"))
        console.print(diagnosis.details if options.details else diagnosis)
    return 1 if found else 0


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Report what is wrong with recorded runs, the evidence and what to change.",
        epilog="Exit status: 0 if nothing is wrong, 1 if something is, 2 for bad input.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="a .jsonl history or journal, or a folder of them",
    )  # fmt: skip
    parser.add_argument(
        "--details", action="store_true", help="print all evidence, explanations and remedies"
    )
    return parser.parse_args(arguments)
