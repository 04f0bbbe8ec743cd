"""`kgrad watch RUN`: the app, opened on a journal that a training run is still writing."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from kgrad.apps.command.app import add_server_options, require_app, serve
from kgrad.apps.command.main import Parser

_PAUSE = 0.2  # seconds between looks for a file that is not there yet


def main(arguments: Sequence[str], program: str) -> int:
    """Wait for the file, then serve the app until it is interrupted.

    Returns:
        0.
    """
    options = parse(arguments, program)
    require_app()
    wait_for(options.run)
    return serve(options)


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog=program,
        description="Follow a training run in the browser while it records: the loss and the "
        "gradient of each layer.",
        epilog="GradientTracker(journal=RUN) writes such a file, and so does kgrad run.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN",
        help="the .jsonl journal of the run; it may be written later than this command starts",
    )  # fmt: skip
    add_server_options(parser)
    return parser.parse_args(arguments)


def wait_for(path: Path) -> None:
    """Return when there is a file at the path.

    Raises:
        ValueError: if there can be none: its folder does not exist, or it is a folder itself.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(
            f"RUN must be a .jsonl journal in a folder that exists, received {str(path)!r}"
        )
    if not path.exists():
        print(f"waiting for {path}; Ctrl-C ends", flush=True)
    while not path.exists():
        time.sleep(_PAUSE)
