"""The facts read from a model, the findings based on them, and diagnosing while a model trains."""

import logging
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from diagnosis.test_diagnosing import FALLING, FLAT, ROOT, history_of

import kgrad
from kgrad import GradientTracker, create_model, diagnose
from kgrad.diagnosis import ModelFacts
from kgrad.diagnosis.evidence import Head
from kgrad.measure import tracker as tracker_module
from kgrad.measure.keras_models.facts import read_facts


def compiled(*layers, loss, **options):
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", loss, **options)
    return model


def dense(units, activation=None, **options):
    return keras.layers.Dense(units, activation, name="last", **options)


Y = np.array([[0.0], [1.0]])


def sigmoid():
    return compiled(dense(1, "sigmoid"), loss="mse")


@pytest.mark.parametrize(
    ("model", "y", "value"),
    [
        (lambda: compiled(dense(1, "softmax"), loss="binary_crossentropy"), None, 1),
        (lambda: compiled(dense(1, "sigmoid"), loss="categorical_crossentropy"), None, 1),
        (lambda: compiled(dense(1), loss="binary_crossentropy"), None, -np.inf),
        (lambda: compiled(dense(3, "relu"), loss="categorical_crossentropy"), None, np.inf),
        (lambda: compiled(dense(3), loss="sparse_categorical_crossentropy"), None, -np.inf),
        (lambda: compiled(dense(1, "sigmoid"), loss="mse"), 3 * Y, 0.5),
        (lambda: compiled(dense(1, "relu"), loss="mse"), Y - 1, 0.5),
        (lambda: compiled(dense(1, "sigmoid"), loss="binary_crossentropy"), 2 * Y - 1, 0.5),
        (lambda: compiled(dense(3, "softmax"), loss="sparse_categorical_crossentropy"), 5 * Y, 0.5),
        (
            lambda: compiled(dense(1), keras.layers.Activation("tanh", name="last2"), loss="mse"),
            3 * Y,
            0.5,
        ),
        (lambda: compiled(dense(1, "sigmoid"), loss="binary_crossentropy"), Y, None),
        (
            lambda: compiled(dense(1), loss=keras.losses.BinaryCrossentropy(from_logits=True)),
            Y,
            None,
        ),
        (
            lambda: compiled(dense(3, "softmax"), loss="sparse_categorical_crossentropy"),
            2 * Y,
            None,
        ),
        (lambda: compiled(dense(1), loss="mse"), Y + 1, None),
        (lambda: compiled(dense(2, "sigmoid"), loss="binary_crossentropy"), None, None),
    ],
)
def test_an_output_that_does_not_suit_the_loss_is_found(model, y, value):
    found = diagnose(history_of(), model(), y=y)
    if value is None:
        assert found.rules == ()
        return
    assert found[0].rule == "output_loss_mismatch"
    assert found[0].evidence[0].value == value
    assert found[0].layers[0].startswith("last")


def test_equal_units_are_found():
    layers = [keras.layers.Dense(4, "relu", name="equal", kernel_initializer="ones"), dense(1)]
    finding = diagnose(history_of(), compiled(*layers, loss="mse"))[0]
    assert (finding.rule, finding.layers) == ("badly_scaled_weights", ("equal",))
    healthy = [keras.layers.Dense(4, "relu"), dense(1)]
    assert diagnose(history_of(), compiled(*healthy, loss="mse")).rules == ()


def test_weights_that_are_all_too_large_are_found_if_the_loss_does_not_fall():
    model = compiled(dense(1), loss="mse")
    history = history_of(1.0, FLAT, weight=10 * ROOT)
    assert diagnose(history, model).rules == ("badly_scaled_weights",)
    assert diagnose(history_of(1.0, FALLING, weight=10 * ROOT), model).rules == ()


@pytest.mark.parametrize("y", [["a", "b"], np.zeros(2, complex), iter([1]), [None]])
def test_targets_that_are_not_numbers_raise_an_error(y):
    with pytest.raises(TypeError, match="y must be an array of numbers"):
        diagnose(history_of(), sigmoid(), y=y)


def test_targets_may_be_a_list_or_a_dict_with_the_only_output():
    for y in ([3 * Y], {"last": 3 * Y}):
        assert diagnose(history_of(), sigmoid(), y=y)[0].rule == "output_loss_mismatch"


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
        (two_outputs, ("output_loss_mismatch",)),
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
def test_models_of_all_kinds_can_be_read(model, expected):
    assert diagnose(history_of(), model()).rules == expected


@pytest.mark.parametrize(
    ("operation", "activation"),
    [
        (keras.ops.relu, "relu"),
        (keras.ops.sigmoid, "sigmoid"),
        (keras.ops.softmax, "softmax"),
        (keras.ops.square, ""),
        (keras.layers.ReLU(), "relu"),
        (keras.layers.Flatten(), "linear"),  # that of the layer before
    ],
)
def test_the_activation_of_the_last_operation_is_read(operation, activation):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, operation(dense(2)(inputs)))
    assert read_facts(model).head.activation == activation


def test_targets_are_compared_only_if_the_loss_compares_them():
    model = compiled(dense(1, "tanh"), loss=lambda y, p: p - y)
    assert "output_loss_mismatch" not in diagnose(history_of(), model, y=9 * Y).rules
    model = compiled(dense(1, "sigmoid"), loss="hinge")
    assert "output_loss_mismatch" not in diagnose(history_of(), model, y=9 * Y).rules
    sparse = compiled(dense(3, "softmax"), loss="sparse_categorical_crossentropy")
    assert diagnose(history_of(), sparse, y=2 * Y).rules == ()
    assert diagnose(history_of(), sparse, y=3 * Y).rules == ("output_loss_mismatch",)


def test_guessing_uses_the_classes_of_the_model_not_of_the_last_weight():
    """ln 3 = 1.1, although the last watched kernel has 64 units: ln 64 = 4.2."""
    model = compiled(dense(3, "softmax"), loss="sparse_categorical_crossentropy")
    history = history_of(1.0, (1.2, 1.15, 1.12, 1.11, 1.1, 1.1), update=ROOT)
    assert diagnose(history, model).rules == ("not_improving",)
    kernel = keras.regularizers.L1(0.1)
    model = compiled(
        dense(3, "softmax", kernel_regularizer=kernel), loss="sparse_categorical_crossentropy"
    )
    assert diagnose(history, model).rules == ()  # the penalty's share of that loss is unknown


def test_the_facts_about_a_model_are_read():
    hidden = keras.layers.Dense(3, name="same", kernel_initializer="ones", kernel_regularizer="l2")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model = compiled(hidden, dense(5, "tanh"), loss=loss)
    assert read_facts(model) == ModelFacts(
        heads=(
            Head(
                layer="last",
                activation="tanh",
                units=5,
                loss="sparse_categorical_crossentropy",
                from_logits=True,
                ignored_class=-1,
            ),
        ),
        equal_units=("same",),
        activations=(("same", "linear"),),
        penalties=((hidden.kernel.path, 0.01),),
        learning_rate=pytest.approx(0.01),
        usual_rate=pytest.approx(0.01),
        optimizer="SGD",
        embeddings=(0,),
    )
    heads = read_facts(two_outputs()).heads
    assert [(one.layer, one.activation, one.units, one.loss) for one in heads] == [
        ("last", "softmax", 1, "mean_squared_error"),
        (heads[1].layer, "linear", 2, "mean_squared_error"),
    ]


def test_embeddings_are_found_behind_what_only_arranges_their_input():
    def table(rows):
        return keras.layers.Embedding(rows, 2)

    ids, pairs = keras.Input((4,)), keras.Input((2,), dtype="int32")
    assert read_facts(keras.Model(ids, table(7)(ids))).embeddings == (7,)
    flat = keras.layers.Reshape((2, 2))(ids)
    assert read_facts(keras.Model(ids, table(7)(flat))).embeddings == (7,)
    # A column each, of different sizes: what is outside both is outside the larger one.
    both = keras.layers.Concatenate()([table(7)(pairs[:, 0]), table(9)(pairs[:, 1])])
    assert read_facts(keras.Model(pairs, both)).embeddings == (9,)
    # A number beside the integers.
    number = keras.layers.Dense(2)(ids[:, :1])
    mixed = keras.layers.Add()([table(7)(ids[:, 1]), number])
    assert read_facts(keras.Model(ids, mixed)).embeddings == (0,)
    two = keras.Model([ids, pairs], [keras.layers.Dense(1)(ids), table(9)(pairs)])
    assert read_facts(two).embeddings == (0, 9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_units_whose_weights_are_not_finite_are_not_equal(value):
    model = compiled(dense(3), loss="mse")
    model.layers[0].kernel.assign(np.full((4, 3), value))
    assert read_facts(model).equal_units == ()


def test_what_is_not_a_model_raises_an_error():
    with pytest.raises(TypeError, match="model must be a Keras model, received str"):
        diagnose(history_of(), "model")


def test_a_recorded_history_is_diagnosed_without_keras(tmp_path):
    history_of(1e-6, FLAT).save(tmp_path / "run.jsonl")
    code = (
        "import sys, kgrad\n"
        "history = kgrad.GradientHistory.load(sys.argv[1])\n"
        "assert kgrad.diagnose(history).rules == ('vanishing',)\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run.jsonl")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


# While training.


def fit(tracker, activation="sigmoid", initializer="normal", epochs=4, loss="mse", optimizer="sgd"):
    data = kgrad.make_dataset("moons", 64)
    model = kgrad.create_model(8, activation, initializer, units=16, input_shape=(2,), seed=0)
    model.compile(optimizer, loss)
    return model.fit(data.X, data.y, epochs=epochs, verbose=0, callbacks=[tracker])


def test_the_tracker_logs_each_finding_once_in_one_line(caplog):
    with caplog.at_level(logging.WARNING, "kgrad"):
        fit(kgrad.GradientTracker(diagnose=True))
    told = [record.getMessage() for record in caplog.records]
    assert sum("vanishing" in line for line in told) == 1
    assert told[0].startswith("epoch 1: vanishing (hidden_1")
    assert "\n" not in told[0]


def test_the_tracker_logs_nothing_by_default(caplog):
    with caplog.at_level(logging.WARNING, "kgrad"):
        fit(kgrad.GradientTracker())
    assert not caplog.records


def test_the_tracker_stops_the_training_at_the_rules_in_stop_on(caplog):
    tracker = kgrad.GradientTracker(stop_on=["vanishing"])
    assert len(fit(tracker, epochs=9).epoch) == 1
    assert list(tracker.history.epochs) == [0, 1]
    other = kgrad.GradientTracker(stop_on=["nonfinite"])
    assert len(fit(other, epochs=3).epoch) == 3


def test_what_shows_in_the_model_is_said_before_the_first_step(caplog):
    model = compiled(dense(1, "tanh"), loss="binary_crossentropy")
    seen = []
    watching = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(len(caplog.messages))
    )
    with caplog.at_level(logging.WARNING, "kgrad"):
        callbacks = [GradientTracker(diagnose=True), watching]
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0, callbacks=callbacks)
    assert caplog.messages[0].startswith("before training: output_loss_mismatch (last, since epoch")
    assert seen[0] == 1
    assert sum("output_loss_mismatch" in message for message in caplog.messages) == 1


def test_the_data_of_the_probe_are_looked_at_before_the_first_step(caplog):
    model = compiled(keras.layers.Embedding(10, 4), keras.layers.Flatten(), dense(1), loss="mse")
    X, y = np.full((8, 4), 0.5), np.ones((8, 1))
    tracker = GradientTracker(stop_on=["wrong_embedding_inputs"], probe=(X, y))
    weights = model.get_weights()
    with pytest.raises(
        ValueError,
        match=r"^training was not started, because stop_on has 'wrong_embedding_inputs': .* 100 % "
        r"of the inputs are not integers, such as 0\.5\. Pass integers",
    ):
        model.fit(X, y, verbose=0, callbacks=[tracker])
    assert all(map(np.array_equal, model.get_weights(), weights))
    later = GradientTracker()  # the model was left as it was
    model.fit(np.ones((8, 4)), y, verbose=0, callbacks=[later])
    assert len(later.history) == 2


def test_a_healthy_model_is_not_warned_of_before_training(caplog):
    model = create_model(3, "relu", "he", input_shape=(4,))
    model.compile("sgd", "binary_crossentropy")
    X, y = np.full((8, 4), 300.0), np.arange(8.0)[:, None] % 2  # large inputs may train well
    with caplog.at_level(logging.WARNING, "kgrad"):
        tracker = GradientTracker(diagnose=True, probe=(X, y))
        tracker.set_model(model)
        tracker.on_train_begin()
    assert caplog.messages == []
    tracker.detach()


def test_batch_normalization_that_has_not_settled_is_found_with_the_model():
    """Three steps move averages of inputs with mean 50 by 3 %: predictions are far off."""
    random = np.random.default_rng(0)
    X = random.normal(50, 5, size=(192, 3)).astype("float32")
    y = ((X[:, :1] - 50) / 5).astype("float32")
    norm = keras.layers.BatchNormalization(momentum=0.999)
    model = keras.Sequential([keras.Input((3,)), norm, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    tracker = GradientTracker()
    model.fit(X, y, epochs=8, batch_size=32, verbose=0, callbacks=[tracker])
    found = diagnose(tracker.history, model, X, y)
    assert found.rules == ("unsettled_batchnorm",)
    wanted = 1 - model.evaluate(X, y, batch_size=192, verbose=0) / y.var()
    assert found[0].evidence[0].value == pytest.approx(wanted, rel=1e-3)
    model.fit(X, y, epochs=30, batch_size=8, verbose=0, callbacks=[tracker])
    norm.moving_mean.assign(X.mean(axis=0))
    norm.moving_variance.assign(X.var(axis=0))
    assert diagnose(tracker.history, model, X, y).rules == ()


def test_stop_on_must_name_known_rules_and_works_only_in_fit():
    with pytest.raises(ValueError, match="received 'non_finite'; did you mean 'nonfinite'"):
        kgrad.GradientTracker(stop_on=["non_finite"])
    with pytest.raises(TypeError, match="stop_on must be a sequence of rules"):
        kgrad.GradientTracker(stop_on="nonfinite")
    model = compiled(dense(1), loss="mse")
    with pytest.raises(ValueError, match="stop_on work only in fit"):
        kgrad.GradientTracker(stop_on=["nonfinite"]).attach(model.optimizer, model)


def test_a_tracker_that_watches_no_kernel_lets_the_training_continue():
    model = compiled(dense(1), loss="mse")
    tracker = kgrad.GradientTracker(diagnose=True, weights="*bias")
    model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=3, verbose=0, callbacks=[tracker])
    assert len(tracker.history) == 4


def test_the_facts_are_read_once_per_fit(monkeypatch):
    models = []
    monkeypatch.setattr(
        tracker_module, "read_facts", lambda model: models.append(model) or read_facts(model)
    )
    model = compiled(dense(1), loss="mse")
    tracker = kgrad.GradientTracker(diagnose=True)
    for fits in (1, 2):
        model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=3, verbose=0, callbacks=[tracker])
        assert models == [model] * fits
    model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0, callbacks=[kgrad.GradientTracker()])
    assert len(models) == 2


def test_a_nan_before_the_first_update_is_not_blamed_on_the_steps():
    """A constant column that was divided by its deviation is NaN."""
    X = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    y = X[:, :1].copy()
    model = create_model(
        1, "relu", "he", units=4, input_shape=(5,), output_activation="linear", seed=0
    )
    model.compile("sgd", "mse")
    tracker = GradientTracker()
    model.fit(X, y, epochs=2, verbose=0, callbacks=[tracker])
    assert diagnose(tracker.history, model).rules != ("nonfinite",)
    X[:, 2] = np.nan
    tracker = GradientTracker()
    model.fit(X, y, epochs=2, verbose=0, callbacks=[tracker])
    (finding,) = diagnose(tracker.history, model)
    assert finding.rule == "nonfinite"
    assert {e.quantity: e.value for e in finding.evidence}["first such step"] == 1
    assert len(finding.remedies) == 1 and finding.remedies[0].startswith("Check the data")
    assert "of the very first batch" in finding.explanation


def test_texts_in_the_probe_are_no_data_to_look_at():
    words = keras.layers.TextVectorization(max_tokens=20, output_sequence_length=4)
    words.adapt(["a b c", "b c d"])
    inputs = keras.Input((1,), dtype="string")
    x = keras.layers.Flatten()(keras.layers.Embedding(20, 4)(words(inputs)))
    model = keras.Model(inputs, dense(1, "sigmoid")(x))
    model.compile("sgd", "binary_crossentropy")
    texts, y = np.array([["a b"], ["c d"]]), np.array([[0.0], [1.0]])
    tracker = GradientTracker(diagnose=True, probe=(texts, y))
    dataset = tf.data.Dataset.from_tensors((tf.constant(texts), y))
    model.fit(dataset, shuffle=False, verbose=0, callbacks=[tracker])
    assert len(tracker.history) == 2
