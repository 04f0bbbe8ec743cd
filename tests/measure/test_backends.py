import importlib
import subprocess
import sys

import keras
import pytest

from kgrad.measure.backends import current, tensorflow


def test_the_backend_is_that_of_keras(monkeypatch):
    assert current.backend is tensorflow
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(ImportError, match="received 'numpy': set the environment variable"):
        importlib.reload(current)


def test_the_import_prints_nothing():
    code = (
        "from kgrad.measure.backends import import_quietly; import sys; import_quietly('a test');"
        "sys.exit('keras' not in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
