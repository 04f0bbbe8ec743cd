"""Errors for packages that are not installed, as sentences that say what to install."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_ROOT = Path(__file__).parents[2]  # a checkout, or the folder that kgrad is installed into
BACKENDS = ("tensorflow", "jax", "torch")
# What comes with Keras and a backend, as pyproject.toml lists it: import name → name in a sentence.
_WITH_BACKEND = {
    "keras": "Keras with a backend",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
}


def how_to_install(*extras: str) -> str:
    """Return how to add one of the extras to this kgrad, for example "app".

    The command depends on where kgrad was installed from: `pip install "kgrad[app]"` fails unless
    an index has kgrad. A checkout is ".", because the sentence is also written into reports, which
    should not name folders of this machine.
    """
    target, where = _origin()
    first, *others = (f'"{target.format(f"[{extra}]")}"' for extra in extras)
    alternatives = f" (or {', '.join(others)})" if others else ""
    return f"pip install {'-e ' if where else ''}{first}{alternatives}{where}"


def _origin() -> tuple[str, str]:
    """Return what to give pip, with {} for the extras, and where to run pip."""
    checkout = (".{}", " in your checkout of kgrad")
    try:
        recorded = distribution("kgrad").read_text("direct_url.json")
    except PackageNotFoundError:  # on the path, but not installed
        return checkout
    if recorded is None:
        # A build leaves kgrad.egg-info in a checkout, which counts as an installation there.
        return checkout if (_ROOT / "pyproject.toml").exists() else ("kgrad{}", "")
    # https://packaging.python.org/en/latest/specifications/direct-url-data-structure/
    origin = json.loads(recorded)
    if "dir_info" in origin:
        return checkout
    if "vcs_info" in origin:
        return f"kgrad{{}} @ {origin['vcs_info']['vcs']}+{origin['url']}", ""
    return origin["url"].rpartition("/")[2] + "{}", ""  # a wheel


@contextmanager
def saying_what_to_install(what: str) -> Iterator[None]:
    """Replace the error of a missing package by one that says what to install.

    Args:
        what: the subject of the sentence, such as "training".

    Raises:
        ModuleNotFoundError: if a package that is imported inside is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in _WITH_BACKEND:
            sentence = f"{what} needs {_WITH_BACKEND[name]}: {how_to_install(*BACKENDS)}"
        elif name in BACKENDS:
            others = " or ".join(f'"{other}"' for other in BACKENDS if other != name)
            sentence = (
                f"{what} needs Keras's backend {name}, which is not installed: "
                f"{how_to_install(name)}, or set the environment variable KERAS_BACKEND to {others}"
            )
        else:
            raise
        raise ModuleNotFoundError(sentence, name=name) from error
