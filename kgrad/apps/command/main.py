"""The command `kgrad`: runs the subcommand that is named, and imports nothing for the others.

A subcommand is a module with `main(arguments, program)`, which returns an exit status. The errors
that `main` here catches become one sentence and status 2.
"""

import argparse
import sys
from collections.abc import Sequence
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
    try:
        return int(import_module(module).main(arguments[1:], program))
    except (MemoryError, ModuleNotFoundError, OSError, TypeError, ValueError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130


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
