"""Running experiments: presets behave as named; the experiment alone determines a run."""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from kgrad.experiments import (
    PRESETS,
    Experiment,
    experiment_of,
    load_histories,
    predict_experiment,
    prepare,
    replicates,
    run_all,
    run_experiment,
    run_replicates,
)
from kgrad.experiments.data import make_dataset
from kgrad.measure.loop import measure_gradients
from kgrad.records.history import GradientHistory
from kgrad.records.summary import summarize, summarize_prediction

SMALL = Experiment(num_layers=2, units=4, samples=64, features=3, epochs=2)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "jit_compile": True},
        {"optimizer": "adam", "clip_norm": 0.01, "normalization": "batch", "jit_compile": False},
        {"num_layers": 4, "weight_initializer": "normal:60", "every": 1},  # the first ends in NaN
    ],
)
def test_replicates_compiled_once_are_those_trained_one_by_one(tmp_path, options):
    # The last is the first again: nothing of a run is left to the next one.
    experiments = [*replicates(replace(SMALL, samples=70, **options), 3)]
    experiments.append(experiments[0])
    journals = [tmp_path / f"{i}.jsonl" for i in range(len(experiments))]
    together = run_replicates([prepare(one) for one in experiments], journals)
    for history, journal, experiment in zip(together, journals, experiments, strict=True):
        alone = run_experiment(experiment)
        # Keras counts the optimizers that it makes.
        other = {"optimizer": "", "started": ""}
        assert history.metadata | other == alone.metadata | other
        for one in (history, GradientHistory.load(journal)):
            for name in alone.statistics:
                np.testing.assert_array_equal(one[name], alone[name])
            for log in alone.logs:
                np.testing.assert_array_equal(one.logs[log], alone.logs[log])


def test_a_learning_rate_may_be_an_integer():
    whole, real = (run_experiment(replace(SMALL, learning_rate=rate)) for rate in (1, 1.0))
    np.testing.assert_array_equal(whole["mean_abs"], real["mean_abs"])


def test_replicates_differ_in_the_seed_alone():
    prepared = [prepare(one) for one in (SMALL, replace(SMALL, seed=1, epochs=3))]
    with pytest.raises(ValueError, match=r"only in seed, .* that differ in epochs:"):
        next(run_replicates(prepared, [None, None]))


def test_the_presets_vanish_flow_and_explode():
    by_name = {one.name: one for preset in PRESETS.values() for one in preset}
    histories = {
        name: run_experiment(replace(one, epochs=2, samples=256)) for name, one in by_name.items()
    }
    decades = {name: summarize(h)["decades_per_layer"] for name, h in histories.items()}
    assert decades["vanishing"] < -0.5
    assert abs(decades["healthy"]) < 0.1
    assert decades["exploding, tanh"] > 0.2
    assert abs(decades["exploding, ReLU"]) < 0.1  # no ratio between layers, but
    exploded = histories["exploding, ReLU"]
    assert exploded.by_layer("mean_abs")[0].min() > 10
    assert exploded["nonfinite_steps"][-1].max() > 0
    assert not histories["healthy"]["nonfinite_steps"].any()


def test_a_prediction_is_of_one_batch_of_the_data_whatever_the_seed(monkeypatch):
    asked = []

    def of_network(network, X, y, loss_of, dtype, *, rough):
        outputs = np.full((len(y), 1), 0.25, np.float32)
        asked.append((sum(weight.size for weight in network.parameters), X, y))
        assert float(loss_of(y, outputs)) == pytest.approx(
            -np.mean(np.log(np.where(y == 1, 0.25, 0.75))), rel=1e-5
        )
        assert rough is False

    def of_model(model, X, y, loss, rough):
        asked.append((model.count_params(), X, y))
        assert loss == "binary_crossentropy"
        assert rough is False

    monkeypatch.setattr("kgrad.experiments.engines.predict_network", of_network)
    monkeypatch.setattr("kgrad.experiments.engines.predict_gradients", of_model)
    for one in replicates(replace(SMALL, batch_size=10), 2):
        predict_experiment(one)
    predict_experiment(prepare(replace(SMALL, batch_size=1000)))
    dataset = make_dataset("classification", 64, 3)
    for (_, X, y), size in zip(asked, (10, 10, 64), strict=True):
        found = [np.flatnonzero((x == dataset.X).all(axis=1)) for x in X]
        assert len({int(i) for (i,) in found}) == size
        assert np.array_equal(dataset.y[np.concatenate(found)], y)
    assert np.array_equal(asked[0][1], asked[1][1])
    assert asked[0][0] == 3 * 4 + 4 + 4 * 4 + 4 + 4 + 1


def test_a_prediction_leaves_nothing_for_keras_to_draw_later():
    waiting = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    before = len(waiting)
    predict_experiment(SMALL)
    for activation in ("none such", "prelu"):  # the second is read from a built model
        with pytest.raises(ValueError, match="activation"):
            predict_experiment(replace(SMALL, activation=activation))
    assert len(global_state.get_global_attribute("uninitialized_variables")) == before


def test_a_prediction_is_that_of_the_experiment_prepared():
    for one in (SMALL, replace(SMALL, normalization="batch", skip_connections=True, num_layers=4)):
        alone, prepared = predict_experiment(one), predict_experiment(prepare(one))
        for statistic in alone.statistics:
            assert np.array_equal(alone[statistic], prepared[statistic])


def test_a_prediction_of_no_samples_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        predict_experiment(replace(SMALL, batch_size=-1))


def test_a_prediction_is_near_the_mean_over_many_seeds():
    asked = Experiment(
        activation="tanh", weight_initializer="xavier", num_layers=4, units=32, samples=32
    )
    prediction = summarize_prediction(predict_experiment(asked))
    measured = []
    for one in replicates(asked, 12):
        parts = prepare(one)
        history = measure_gradients(
            parts.model, parts.dataset.X, parts.dataset.y, parts.dataset.loss
        )
        measured.append(summarize(history))
    for name in ("first", "last"):
        mean = np.mean([row[f"gradient_{name}"] for row in measured])
        assert prediction[f"predicted_{name}"] == pytest.approx(mean, rel=0.3)


def test_the_experiment_of_a_history_is_the_one_that_was_run(tmp_path):
    asked = replace(SMALL, units=(4, 3), statistics=("max_abs",), clip_norm=1.0)
    history = run_experiment(asked, tmp_path / "a.jsonl")
    assert experiment_of(history) == asked
    assert experiment_of(GradientHistory.load(tmp_path / "a.jsonl")) == asked
    for metadata in ({}, {"experiment": {}}, {"experiment": "mine"}, {"experiment": {"deep": 3}}):
        history.metadata.pop("experiment", None)
        history.metadata.update(metadata)
        with pytest.raises(ValueError, match="does not describe the experiment"):
            experiment_of(history)


def test_replicates_differ_in_weights_and_order_but_not_in_data():
    one, two = (prepare(experiment) for experiment in replicates(SMALL, 2))
    assert np.array_equal(one.dataset.X, two.dataset.X)
    assert not np.array_equal(one.model.get_weights()[0], two.model.get_weights()[0])
    assert [e.seed for e in replicates(SMALL, [7, 9])] == [7, 9]


def test_the_same_experiment_is_the_same_history_here_and_in_another_process():
    spawn = multiprocessing.get_context("spawn")
    here = run_all([SMALL])[0]
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        there = run_all([SMALL], executor)[0]
    for statistic in here.statistics:
        np.testing.assert_array_equal(here[statistic], there[statistic])
    assert here.metadata["experiment"]["units"] == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weight_initializer": "normal:wide"}, "weight_initializer with a colon must be "
         "normal:STDDEV, such as normal:0.5, received 'normal:wide'"),
        ({"weight_initializer": "he:0.5"}, "normal:STDDEV, such as normal:0.5, received 'he:0.5'"),
        ({"weight_initializer": "normal:-1"}, "such as normal:0.5, received 'normal:-1'"),
        ({"learning_rate": -0.1}, "learning_rate must be a positive, finite number, received -0.1"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive, finite"),
        ({"clip_norm": 0.0}, "clip_norm must be a positive, finite number, received 0.0"),
        ({"optimizer": "sdg"}, "optimizer must name a Keras optimizer, such as sgd or adam, "
         "received 'sdg'"),
        ({"num_layers": 0}, "num_layers must be an integer of at least 1, received 0"),
        ({"dataset": "moon"}, "dataset must be among classification, "),
        ({"dataset": "moon"}, "received 'moon'; did you mean 'moons'?"),
        ({"activation": "sigmiod"}, "'sigmoid'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(ValueError) as refusal:
        prepare(replace(SMALL, **change))
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_clipping_bounds_the_update_and_not_the_recorded_gradient():
    plain, clipped = (
        run_experiment(replace(SMALL, clip_norm=norm, epochs=1, batch_size=64, learning_rate=1.0))
        for norm in (None, 1e-3)
    )
    np.testing.assert_array_equal(plain["l2_norm"][0], clipped["l2_norm"][0])
    assert np.linalg.norm(clipped["update_l2"][1]) == pytest.approx(1e-3, rel=1e-3)
    assert np.linalg.norm(plain["update_l2"][1]) == pytest.approx(
        np.linalg.norm(plain["l2_norm"][1]), rel=1e-3
    )


def test_the_optimizer_is_the_one_described():
    optimizer = prepare(replace(SMALL, optimizer="adam", learning_rate=0.003)).optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(0.003)


def test_histories_load_from_files_and_folders(tmp_path):
    history = run_experiment(SMALL, tmp_path / "a.jsonl")
    history.save(tmp_path / "b.jsonl")
    assert len(load_histories([tmp_path])) == 2
    assert len(load_histories([tmp_path / "a.jsonl"])) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^no recorded run "):
        load_histories([tmp_path / "empty"])
