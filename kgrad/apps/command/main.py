"""The command `kgrad`: runs the subcommand that is named, and imports nothing for the others.

A subcommand is a module with `main(arguments, program)`, which returns an exit status.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from kgrad._version import __version__
from kgrad.measure.interrupts import termination_as_interrupt

# name → (module, description)
COMMANDS = {
    "run": ("kgrad.apps.command.run", "train networks, track their gradients, draw figures"),
    "sweep": (
        "kgrad.apps.command.sweep",
        "train many networks on all cores or a cluster, and go on where that was left",
    ),
    "graph": (
        "kgrad.apps.command.graph",
        "draw a recorded run as a flow graph, or write it as JSON",
    ),
    "report": ("kgrad.apps.command.report", "write recorded runs into one HTML file"),
    "app": (
        "kgrad.apps.command.app",
        "change a network in the browser, see its gradients predicted, train it",
    ),
    "watch": ("kgrad.apps.command.watch", "follow a training run in the browser while it records"),
    "diagnose": ("kgrad.apps.command.diagnose", "report what is wrong with recorded runs"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, as all errors of the commands.

    It takes no shortened options: `--epoch` is more likely a mistake than a short `--epochs`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit with status 2."""
        sentence = re.sub("^argument (.*?): must ", r"\1 must ", message)
        sentence = re.sub(
            r"^argument (.*?): invalid choice: (.*) \(choose from (.*)\)$",
            r"\1 must be one of \3, received \2",
            sentence,
        )
        self.exit(2, f"{self.prog}: {sentence}; {self.prog} --help lists the options\n")


def integer(text: str) -> int:
    """Read an integer option."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, received {text!r}") from None


def number(text: str) -> float:
    """Read a number option."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, received {text!r}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand, or print the help if none is named.

    Args:
        arguments: the command line without the program's name; None for that of this process.

    Returns:
        The subcommand's exit status; 2 for bad input, 130 when interrupted. SIGTERM does what
        Ctrl-C does, and then ends the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments:
        _parser().print_help()
        return 0
    command = _parser().parse_args(arguments[:1]).command
    program = f"kgrad {command}"
    module, _ = COMMANDS[command]
    with termination_as_interrupt():
        return exit_status(program, lambda: import_module(module).main(arguments[1:], program))


def exit_status(
    program: str, action: Callable[[], int], when_interrupted: str = "interrupted"
) -> int:
    """Return an action's exit status, or print its error as one sentence.

    Args:
        program: the name at the start of the sentence.
        action: returns the exit status.
        when_interrupted: the sentence for an interruption.

    Returns:
        The action's exit status; 2 if it raised an error about its input, 130 if interrupted.
    """
    try:
        return action()
    except (ImportError, MemoryError, OSError, TypeError, ValueError) as error:
        print(f"{program}: {sentence_of(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: {when_interrupted}", file=sys.stderr)
        return 130


def sentence_of(error: Exception) -> str:
    """Return an error as a sentence that names the file, if it is about one."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {str(error.filename)!r}"
    return str(error)


def require_existing(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Check that files and folders exist, before what reads them is imported.

    Raises:
        OSError: if one does not.
    """
    for path in paths:
        Path(path).stat()


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Begin the errors raised inside with the name of an option instead of an argument.

    Args:
        options: argument → option: {"epoch": "--epoch"}.
    """
    try:
        yield
    except (ConnectionError, ValueError) as error:
        argument, _, rest = str(error).partition(" ")
        if argument not in options:
            raise
        raise type(error)(f"{options[argument]} {rest}") from error


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:10}{text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog="kgrad",
        description="See, explain and predict the gradients of a Keras model while it trains.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="kgrad [-h] [--version] COMMAND …",
        epilog=f"commands:\n{listed}\n\n`kgrad COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"kgrad {__version__}")
    parser.add_argument(
        "command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below"
    )
    return parser
