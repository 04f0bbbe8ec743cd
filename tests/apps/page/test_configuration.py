"""Tests of the app's configurations: links, presets and the generated Keras code."""

import subprocess
import sys
from dataclasses import fields, replace

import keras
import numpy as np
import pytest

from kgrad.apps.page.configuration import (
    ACTIVATIONS,
    DATASETS,
    INITIALIZERS,
    KNOBS,
    OPTIMIZERS,
    SECOND,
    Configuration,
    checked,
    from_experiment,
    from_query,
    to_query,
    unknown,
)
from kgrad.apps.page.keras_code import keras_code
from kgrad.apps.page.presets import PRESETS, preset_of
from kgrad.diagnosis import diagnose
from kgrad.experiments import Experiment, prepare, run_experiment
from kgrad.experiments.data import DATASETS as MADE

ODD = Configuration(
    layers=3,
    units=7,
    activation="tanh",
    initializer="normal:0.3",
    normalization="layer",
    skip=True,
    optimizer="adam",
    learning_rate=0.123,
    clip_norm=2.5,
    epochs=4,
    batch_size=8,
    seed=5,
    dataset="digits",
)


def test_nothing_but_the_standard_library_is_imported_for_links_presets_and_code():
    code = (
        "import sys\n"
        "from kgrad.apps.page import configuration, keras_code, presets\n"
        "print(sorted({'streamlit', 'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert printed.stdout.decode().strip() == "[]"


def test_every_knob_of_a_configuration_differs_from_its_default_in_the_example():
    assert all(getattr(ODD, one.name) != one.default for one in fields(Configuration))
    assert list(KNOBS) == [one.name for one in fields(Configuration)] or set(KNOBS) == {
        one.name for one in fields(Configuration)
    }


@pytest.mark.parametrize("prefix", ["", SECOND])
def test_a_link_carries_a_configuration_and_nothing_that_is_at_its_default(prefix):
    assert to_query(Configuration(), prefix) == {}
    query = to_query(ODD, prefix)
    assert query[f"{prefix}skip"] == "on"
    assert query[f"{prefix}learning_rate"] == "0.123"
    assert len(query) == len(KNOBS)
    assert from_query(query, prefix) == (ODD, [])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("layers", "0", "Hidden layers must be a whole number from 1 to 100, received '0'."),
        ("layers", "1e3", "Hidden layers must be a whole number from 1 to 100, received '1e3'."),
        ("layers", "9" * 5000, "Hidden layers must be a whole number from 1 to 100, received '999"),
        ("units", "257", "Units per layer must be a whole number from 1 to 256, received '257'."),
        ("learning_rate", "nan", "Learning rate must be a number from 1e-06 to 100, received"),
        ("learning_rate", "inf", "Learning rate must be a number from 1e-06 to 100, received"),
        ("clip_norm", "-1", "Clip gradients to norm must be a number from 1e-06 to 1,000,000, rec"),
        ("skip", "yes", "Skip connections must be on or off, received 'yes'."),
        ("batch_size", "33", "Batch size must be one of 8, 16, 32, 64, 128, 256, received '33'."),
        ("activation", "<script>", "Activation must be one of sigmoid, tanh, relu, "),
        ("initializer", "normal:0", "Initial weights must be one of he, xavier, lecun, "),
        ("initializer", "normal:1e9", "Initial weights must be one of he, xavier, lecun, "),
        ("initializer", "__import__('os')", "Initial weights must be one of he, xavier, lecun, "),
        ("seed", "-1", "Seed must be a whole number from 0 to 2,147,483,647, received '-1'."),
        ("epochs", "1001", "Epochs must be a whole number from 1 to 1,000, received '1001'."),
        ("dataset", "mnist", "Data set must be one of classification, regression, "),
    ],
)
def test_nonsense_in_a_link_is_refused_in_a_sentence_and_the_rest_kept(name, text, said):
    configuration, (refusal,) = from_query({name: text, "optimizer": "adam"})
    assert refusal.startswith(said)
    assert refusal.endswith("The link's value is ignored.")
    assert len(refusal) < 300
    assert configuration == replace(Configuration(), optimizer="adam")


def test_parameters_that_the_app_does_not_know_are_named():
    query = {"layers": "3", "b_layers": "4", "compare": "on", "evil<img>": "1", "x" * 500: ""}
    (said,) = unknown(query, ["compare"])
    assert "'evil<img>'" in said
    assert len(said) < 150
    assert unknown({"layers": "3"}, []) == []


def test_what_the_knobs_offer_is_what_can_be_trained():
    assert set(DATASETS) == set(MADE)
    small = Configuration(layers=2, units=4)
    for name, choices in (
        ("activation", ACTIVATIONS),
        ("initializer", INITIALIZERS),
        ("optimizer", OPTIMIZERS),
    ):
        for choice in choices:
            prepare(Experiment(**replace(small, **{name: choice}).experiment()))


def test_a_number_is_checked_as_a_knob_gives_it():
    assert checked("clip_norm", None) is None
    assert checked("layers", 12) == 12
    with pytest.raises(ValueError, match="Hidden layers must be a whole number from 1 to 100"):
        checked("layers", 101)


def test_the_configuration_of_a_history_is_found_where_it_is_one():
    described = ODD.experiment()
    assert from_experiment(described) == ODD
    assert from_experiment(described | {"samples": 10**9}) is None
    assert from_experiment(described | {"num_layers": 10**9}) is None
    assert from_experiment(described | {"units": [3, 4, 5]}) is None
    assert from_experiment(described | {"bias_initializer": "zeros"}) == ODD
    assert from_experiment(described | {"bias_initializer": "normal:0.2"}) is None
    assert from_experiment(described | {"num_layers": 3.5}) is None
    assert from_experiment({}) is None
    assert from_experiment("layers") is None


def test_presets_have_names_of_their_own_and_two_sentences():
    assert len({one.name for one in PRESETS}) == len(PRESETS)
    for one in PRESETS:
        assert one.look.count(". ") + one.look.endswith(".") == 2
        assert preset_of(one.first, one.second) == one
        for configuration in filter(None, (one.first, one.second)):
            assert from_query(to_query(configuration)) == (configuration, [])
    assert preset_of(ODD, None) is None


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("Vanishing: sigmoid", {"vanishing"}, None),
        ("Healthy: ReLU and He", set(), None),
        ("Exploding: ReLU, large weights", {"exploding", "nonfinite"}, None),
        ("Cure: clipping", {"exploding", "nonfinite"}, {"always_clipped"}),
    ],
)
def test_presets_show_what_they_promise(name, first, second):
    (preset,) = (one for one in PRESETS if one.name == name)
    for configuration, rules in ((preset.first, first), (preset.second, second)):
        if configuration is not None:
            described = replace(configuration, epochs=4).experiment()
            assert set(diagnose(run_experiment(Experiment(**described))).rules) == rules


def test_the_spirals_are_learned():
    (preset,) = (one for one in PRESETS if one.name == "Play: two spirals")
    history = run_experiment(Experiment(**preset.first.experiment()))
    assert history.logs["loss"][-1] < history.logs["loss"][0] / 10
    assert not diagnose(history).rules


@pytest.mark.parametrize(
    "configuration",
    [ODD, replace(ODD, normalization="batch", initializer="he", layers=4, optimizer="sgd")],
)
def test_the_keras_code_runs_and_builds_the_same_layers_with_the_same_weights(
    configuration, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code = keras_code(replace(configuration, epochs=1))
    assert max(map(len, code.splitlines())) <= 100
    made: dict = {}
    untrained = code.replace("model.fit(", "initial = model.get_weights()\nmodel.fit(")
    exec(compile(untrained, "script.py", "exec"), made)
    ours = prepare(Experiment(**configuration.experiment())).model
    assert [layer.name for layer in made["model"].layers] == [layer.name for layer in ours.layers]
    assert [type(one) for one in made["model"].layers] == [type(one) for one in ours.layers]
    for theirs, own in zip(made["initial"], ours.get_weights(), strict=True):
        np.testing.assert_array_equal(theirs, own)
    optimizer = made["model"].optimizer
    assert float(optimizer.learning_rate) == pytest.approx(configuration.learning_rate)
    assert optimizer.global_clipnorm == configuration.clip_norm
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert made["tracker"].history.epochs.tolist() == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"history.jsonl", "gradients.png"}
    assert (tmp_path / "gradients.png").stat().st_size > 10_000
