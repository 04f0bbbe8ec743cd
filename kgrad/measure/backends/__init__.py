"""Backends of Keras, one package for each: what `measure` needs beyond Keras's own interface.

`current.backend` is the package of the backend that Keras runs on. A new backend is a package with
the names that `backends.tensorflow` exports, and a branch in `current`.
"""

import os
import sys
import tempfile

from kgrad.records.requirements import saying_what_to_install


def import_quietly(what: str) -> None:
    """Import Keras and its backend without the lines that their libraries print.

    Args:
        what: what needs Keras, the subject of the error's sentence.

    Raises:
        ModuleNotFoundError: if Keras or its backend is not installed.
    """
    if sys.modules.get("keras") is not None:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as printed:
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            with saying_what_to_install(what):
                import keras  # noqa: F401
        except ImportError:
            printed.seek(0)
            os.write(stderr, printed.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
