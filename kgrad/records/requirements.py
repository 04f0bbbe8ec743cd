"""Errors for packages that are not installed, as sentences that say what to install."""

from collections.abc import Iterator
from contextlib import contextmanager

BACKENDS = ("tensorflow", "jax", "torch")
_ANY = "pip install 'kgrad[tensorflow]' (or 'kgrad[jax]', 'kgrad[torch]')"
# What comes with Keras and a backend, as pyproject.toml lists it: import name → name in a sentence.
_WITH_BACKEND = {
    "keras": "Keras with a backend",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
}


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
            sentence = f"{what} needs {_WITH_BACKEND[name]}: {_ANY}"
        elif name in BACKENDS:
            others = " or ".join(f'"{other}"' for other in BACKENDS if other != name)
            sentence = (
                f"{what} needs Keras's backend {name}, which is not installed: pip install "
                f"'kgrad[{name}]', or set the environment variable KERAS_BACKEND to {others}"
            )
        else:
            raise
        raise ModuleNotFoundError(sentence, name=name) from error
