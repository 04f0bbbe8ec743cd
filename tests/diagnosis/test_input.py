"""What diagnose refuses, in a sentence, and what it reads in models of every kind."""

import logging

import keras
import numpy as np
import pytest
from diagnosis.test_diagnose import FALLING, FLAT, ROOT, Y, compiled, dense, history_of

import kgrad
from kgrad import GradientHistory, Weight
from kgrad.diagnosis import Thresholds, diagnose
from kgrad.diagnosis.watch import Watch


def unwatched():
    """A history of biases alone."""
    names = ("mean_abs", "l2_norm", "nonfinite_steps", "weight_l2", "update_l2")
    history = GradientHistory([Weight("a", "bias", "a/bias", (4,))], names)
    for r in range(5):
        history.append(r, r, {name: np.full(1, r > 3) * 1.0 for name in names}, {"loss": 1.0})
    return history


def sigmoid():
    return compiled(dense(1, "sigmoid"), loss="mse")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("model",), {}, TypeError, "model must be a Keras model, received str"),
        ((None, Y), {}, ValueError, "received it without a model"),
        ((), {"rules": 3}, TypeError, "rules must be names of rules, received 3"),
        ((), {"rules": [3]}, ValueError, "rules must be among nonfinite, .*, received 3$"),
        ((), {"thresholds": {"far": 1}}, TypeError, "must be a kgrad.Thresholds, received dict"),
        ((), {"rules": ["always_clipped"]}, ValueError, "needs the statistic clipped_steps"),
        ((), {"rules": ["output_loss_mismatch"]}, ValueError, "needs the model"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_a_sentence(arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        diagnose(history_of(), *arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "y", [["a", "b"], [np.zeros(3), np.zeros(2)], np.zeros(2, complex), iter([1]), [None]]
)
def test_targets_that_are_no_numbers_are_refused(y):
    with pytest.raises(TypeError, match="y must be an array of numbers"):
        diagnose(history_of(), sigmoid(), y)


def test_targets_may_be_a_list_or_a_dict_of_the_only_output():
    for y in ([3 * Y], {"last": 3 * Y}):
        assert diagnose(history_of(), sigmoid(), y).rules == ("output_loss_mismatch",)


@pytest.mark.parametrize("value", ["0.3", None, float("nan")])
def test_a_threshold_that_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="falls_well must be a number, received"):
        Thresholds(falls_well=value)


def test_of_biases_alone_only_nan_is_told():
    history = unwatched()
    found = diagnose(history)
    assert (found.rules, found[0].layers, found[0].first_epoch) == (("nonfinite",), ("a",), 4)
    with pytest.raises(ValueError, match="a weight of two or more axes"):
        diagnose(history, rules=["vanishing"])


def test_no_rules_find_nothing():
    assert diagnose(history_of(1e-6, FLAT), rules=[]).rules == ()


# Models.


def two_outputs():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [dense(1, "softmax")(inputs), keras.layers.Dense(2)(inputs)])
    model.compile("sgd", ["mse", "mse"])
    return model


def nested():
    inner = keras.Sequential([keras.Input((4,)), dense(1, "softmax")])
    return compiled(inner, loss="mse")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (two_outputs, ()),
        (nested, ("output_loss_mismatch",)),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), ()),
        (keras.Sequential, ()),
        (
            lambda: compiled(dense(1), loss=keras.losses.binary_crossentropy),
            ("output_loss_mismatch",),
        ),
        (lambda: compiled(dense(1), loss=["binary_crossentropy"]), ("output_loss_mismatch",)),
        (lambda: compiled(dense(1), loss=lambda y, p: p - y), ()),
    ],
)
def test_models_of_every_kind_are_read(model, expected):
    assert diagnose(history_of(), model()).rules == expected


def test_targets_are_compared_only_where_the_loss_compares_them():
    model = compiled(dense(1, "tanh"), loss=lambda y, p: p - y)
    assert diagnose(history_of(), model, 9 * Y).rules == ()
    assert diagnose(history_of(), compiled(dense(1, "sigmoid"), loss="hinge"), 9 * Y).rules == ()
    sparse = compiled(dense(3, "softmax"), loss="sparse_categorical_crossentropy")
    assert diagnose(history_of(), sparse, 2 * Y).rules == ()
    assert diagnose(history_of(), sparse, 3 * Y).rules == ("output_loss_mismatch",)


def test_guessing_is_among_the_classes_of_the_model_and_not_of_the_last_weight():
    """ln 3 = 1.1, though the last kernel that was watched has 64 units: ln 64 = 4.2."""
    model = compiled(dense(3, "softmax"), loss="sparse_categorical_crossentropy")
    history = history_of(1.0, (3.0, 2.5, 2.0, 1.6, 1.4, 1.2))
    assert diagnose(history, model).rules == ("not_improving",)
    kernel = keras.regularizers.L2(0.1)
    model = compiled(
        dense(3, "softmax", kernel_regularizer=kernel), loss="sparse_categorical_crossentropy"
    )
    assert diagnose(history, model).rules == ()  # of what it is made nobody knows


# While training.


def told_by(history, caplog, *, records=None, watch=None):
    """The lines that a watch logs while a history grows, and where it would have stopped."""
    watch, stopped = watch or Watch(["vanishing"]), []
    growing = GradientHistory(history.weights, history.statistics)
    with caplog.at_level(logging.WARNING, "kgrad"):
        for r in range(len(history)):
            record = history.record(r)
            growing.append(**{name: record[name] for name in ("epoch", "step", "values", "logs")})
            if watch.look(growing, None):
                stopped.append(r)
    return [record.getMessage() for record in caplog.records], stopped


def test_a_finding_is_told_once_and_not_of_the_first_batch(caplog):
    lines, stopped = told_by(history_of(1e-6, FLAT), caplog)
    assert [line.split(" (")[0] for line in lines] == ["epoch 1: vanishing"]
    assert stopped == [1, 2, 3, 4, 5]


def test_nan_in_the_first_batch_is_told_at_once(caplog):
    lines, stopped = told_by(history_of(np.nan, FALLING), caplog, watch=Watch(["nonfinite"]))
    assert lines[0].startswith("epoch 0: nonfinite")
    assert stopped[0] == 0


def test_a_second_history_is_told_of_anew(caplog):
    watch, history = Watch(), history_of(1e-6, FLAT)
    told_by(history, caplog, watch=watch)
    assert len(told_by(history, caplog, watch=watch)[0]) == 2


def test_long_histories_are_looked_at_every_tenth_time_and_whenever_a_nan_comes(caplog):
    level = np.ones((118, 5))
    level[115:] = np.nan
    history = history_of(level, np.linspace(1, 0.2, 118), weight=ROOT)
    looked = told_by(history, caplog, watch=Watch(["nonfinite"]))
    assert looked[1] == [115, 116, 117]


def test_a_tracker_without_kernels_trains_on():
    model = compiled(dense(1), loss="mse")
    tracker = kgrad.GradientTracker(diagnose=True, weights="*bias")
    model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=3, verbose=0, callbacks=[tracker])
    assert len(tracker.history) == 4


# What was missing.


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (lambda: history_of(1.0, (0.7,)), "No findings, but one record is too few"),
        (lambda: history_of(1.0, (0.7, 0.7)), "No findings, but two records are too few"),
        (lambda: history_of(1.0, (np.nan,) * 6), "No findings, but the loss was not recorded"),
        (lambda: history_of(1e-6, (0.7,)), "Note: one record is too few"),
        (unwatched, "Note: no weight of two or more axes is watched"),
    ],
)
def test_what_could_not_be_looked_at_is_said(history, said):
    assert said in str(diagnose(history()))


def test_where_nothing_is_missing_nothing_is_said():
    assert diagnose(history_of()).missing == ""


def test_epochs_are_those_of_the_records_and_not_their_places():
    source = history_of(1e-6, FLAT)
    late = GradientHistory(source.weights, source.statistics)
    for r in range(6):
        record = source.record(r)
        late.append(50 + r, 500 + 10 * r, record["values"], record["logs"])
    finding = diagnose(late)[0]
    assert finding.first_epoch == 50
    assert [m.epoch for m in finding.evidence] == [50, 55]
