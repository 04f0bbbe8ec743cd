import subprocess
import sys

import keras
import pytest

from kgrad.measure.aliases import (
    ACTIVATIONS,
    INITIALIZERS,
    NORMALIZATIONS,
    accepted_names,
    exported_names,
    initializer_class,
    meaning,
)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_an_initializer_is_known_to_keras_by_its_name_and_by_its_class(name):
    by_class = getattr(keras.initializers, initializer_class(name))
    assert type(keras.initializers.get(INITIALIZERS[name])) is by_class


def test_activations_and_normalizations_are_known_to_keras():
    assert all(keras.activations.get(name) for name in ACTIVATIONS.values())
    layers = [getattr(keras.layers, name) for name in NORMALIZATIONS.values()]
    assert all(issubclass(layer, keras.Layer) for layer in layers)


@pytest.mark.parametrize("module", ["activations", "initializers"])
def test_the_names_that_are_read_from_the_source_are_those_that_keras_has(module):
    imported = dir(getattr(keras, module))
    assert accepted_names(exported_names(module), {}) == accepted_names(imported, {})
    assert set(exported_names(module)) == {name for name in imported if name[0] != "_"}


def test_every_optimizer_of_keras_is_read_from_the_source():
    classes = [one for one in vars(keras.optimizers).values() if isinstance(one, type)]
    made = [one.__name__ for one in classes if issubclass(one, keras.optimizers.Optimizer)]
    assert {"Adam", "SGD"} <= set(made) <= set(exported_names("optimizers"))


def test_case_spaces_and_hyphens_do_not_matter():
    accepted = {"leaky_relu": "leaky_relu", "he": "he_normal"}
    assert meaning("Leaky-ReLU", accepted) == "leaky_relu"
    assert meaning("HE", accepted) == "he_normal"
    assert meaning("hee", accepted) is None


def test_without_keras_no_names_are_read(monkeypatch):
    exported_names.cache_clear()
    monkeypatch.setattr("kgrad.measure.aliases.find_spec", lambda name: None)
    assert exported_names("activations") == ()
    exported_names.cache_clear()


def test_aliases_do_not_import_keras():
    code = "import sys, kgrad.measure.aliases; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
