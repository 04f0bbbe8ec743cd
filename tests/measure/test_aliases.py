import subprocess
import sys

import keras
import pytest

from kgrad.measure.aliases import ACTIVATIONS, INITIALIZERS, NORMALIZATIONS, initializer_class


@pytest.mark.parametrize("name", INITIALIZERS)
def test_an_initializer_is_known_to_keras_by_its_name_and_by_its_class(name):
    by_class = getattr(keras.initializers, initializer_class(name))
    assert type(keras.initializers.get(INITIALIZERS[name])) is by_class


def test_activations_and_normalizations_are_known_to_keras():
    assert all(keras.activations.get(name) for name in ACTIVATIONS.values())
    layers = [getattr(keras.layers, name) for name in NORMALIZATIONS.values()]
    assert all(issubclass(layer, keras.Layer) for layer in layers)


def test_aliases_do_not_import_keras():
    code = "import sys, kgrad.measure.aliases; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
