"""The command `kgrad`: runs the subcommand that is named, and imports nothing for the others.

A subcommand is a module with `main(arguments, program)`, which returns an exit status.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module

from kgrad._version import __version__

# name → (module, description)
COMMANDS = {
    "run": ("kgrad.apps.command.run", "train networks, track their gradients, draw figures"),
    "graph": (
        "kgrad.apps.command.graph",
        "draw a recorded run as a flow graph, or write it as JSON",
    ),
    "report": ("kgrad.apps.command.report", "write recorded runs into one HTML file"),
    "app": (
        "kgrad.apps.command.app",
        "change a network in the browser, see its gradients predicted, train it",
    ),
    "diagnose": ("kgrad.apps.command.diagnose", "report what is wrong with recorded runs"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: the command line without the program's name; None for that of this process.

    Returns:
        The subcommand's exit status; 2 for bad input, 130 when interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = _parse(arguments[:1]).command
    program = f"kgrad {command}"
    module, _ = COMMANDS[command]
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
        sentence = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            sentence = f"{error.strerror}: {str(error.filename)!r}"
        print(f"{program}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: {when_interrupted}", file=sys.stderr)
        return 130


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Begin the errors raised inside with the name of an option instead of an argument.

    Args:
        options: argument → option: {"epoch": "--epoch"}.
    """
    try:
        yield
    except ValueError as error:
        argument, _, rest = str(error).partition(" ")
        if argument not in options:
            raise
        raise ValueError(f"{options[argument]} {rest}") from error


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {name:10}{text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
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
    return parser.parse_args(arguments)
