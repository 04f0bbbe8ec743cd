"""`kgrad app [RUN]`: the Streamlit app, for a browser on this machine."""

import argparse
import ipaddress
import os
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from kgrad.apps.command.main import Parser, integer
from kgrad.records.requirements import how_to_install, saying_what_to_install

_MOST_UPLOADED = 64  # MB


def main(arguments: Sequence[str], program: str) -> int:
    """Serve the app until it is interrupted.

    Returns:
        0.
    """
    options = parse(arguments, program)
    require_app()
    from kgrad.records.sweep import is_sweep  # which imports pandas

    run = options.run
    if run is not None and not (run.is_file() or is_sweep(run)):
        raise ValueError(
            f"RUN must be a .jsonl history or journal, or the folder of a sweep, received "
            f"{str(run)!r}"
        )
    return serve(options)


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog=program,
        description="Change a network in the browser, see its gradients predicted, and train it.",
        epilog=f"Needs streamlit: {how_to_install('app')}.",
    )
    parser.add_argument(
        "run", nargs="?", type=Path, metavar="RUN",
        help="a .jsonl history to show, a journal to follow while it grows, or a sweep's folder",
    )  # fmt: skip
    add_server_options(parser)
    return parser.parse_args(arguments)


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the app is served."""
    parser.add_argument("--port", type=_port, default=8501, help="port to serve on (default: 8501)")
    parser.add_argument(
        "--host", type=_address, default="localhost", metavar="ADDRESS",
        help="address to listen on; 0.0.0.0 exposes the app to your network (default: localhost)",
    )  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")


def require_app() -> None:
    """Check that what the app needs is installed.

    Raises:
        ModuleNotFoundError: if not; it says what to install.
    """
    if find_spec("streamlit") is None:
        raise ModuleNotFoundError(f"the app needs streamlit: {how_to_install('app')}")
    with saying_what_to_install("the app"):
        for name in ("keras", os.environ.get("KERAS_BACKEND", "keras")):
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)


def serve(options: argparse.Namespace) -> int:
    """Serve the app, opened on `options.run` unless that is None, until it is interrupted.

    Returns:
        0.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from streamlit import config
    from streamlit.web import bootstrap

    page = Path(__file__).parents[1] / "page" / "main.py"
    settings = {
        "server_address": options.host,
        "server_port": options.port,
        "server_headless": options.no_browser,
        "server_maxUploadSize": _MOST_UPLOADED,
        "server_fileWatcherType": "none",
        "browser_gatherUsageStats": False,
        "browser_serverAddress": options.host if is_local(options.host) else None,
        "client_toolbarMode": "minimal",
        "client_showErrorDetails": "none",
        "global_developmentMode": False,
        "theme_light_primaryColor": "#2a6f97",
        "theme_dark_primaryColor": "#5fa8d3",
    }
    # A page elsewhere whose name resolves to this machine must not use the app as its user could.
    # Streamlit 1.65, the last for Python 3.10, may not know the option.
    if is_local(options.host) and "server.allowedHosts" in config.get_config_options():
        settings["server_allowedHosts"] = ["localhost", "127.0.0.1", "::1", options.host]
    given = [] if options.run is None else [f"--open={options.run.absolute()}"]
    # Files may be opened by path only if the user's browser is on the machine that has the files.
    given += ["--open-paths"] if is_local(options.host) else []
    bootstrap.load_config_options(settings)
    bootstrap.run(str(page), False, given, settings)
    return 0


def _port(text: str) -> int:
    port = integer(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"must be an integer from 1 to 65535, received {text!r}")
    return port


def _address(text: str) -> str:
    try:
        socket.getaddrinfo(text, None)
    except OSError:
        raise argparse.ArgumentTypeError(
            f"must be an address of this machine, such as localhost or 0.0.0.0, received {text!r}"
        ) from None
    return text


def is_local(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
