"""GradientTracker in the hands of somebody who holds it wrong, or does what few do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kgrad import GradientTracker

random = np.random.default_rng(0)
X = random.normal(size=(48, 3)).astype(np.float32)
Y = random.normal(size=(48, 1)).astype(np.float32)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, "tanh", name="a"), layers.Dense(1, name="b")]
    )
    network.compile(keras.optimizers.SGD(0.1), "mse")
    return network


def fit(network, *callbacks, **options):
    options = {"epochs": 2, "batch_size": 16, "verbose": 0, "shuffle": False} | options
    return network.fit(X, Y, callbacks=list(callbacks), **options).history


def test_another_model_with_the_same_weights_begins_a_new_history(model):
    tracker = GradientTracker()
    fit(model, tracker)
    whole = keras.Sequential([keras.Input((3,)), model])
    whole.compile("sgd", "mse")
    fit(whole, tracker)
    assert tracker.history.epochs.tolist() == [0, 1, 2]
    assert tracker.previous[0].epochs.tolist() == [0, 1, 2]


def test_a_new_optimizer_that_clips_begins_a_new_history(model):
    tracker = GradientTracker()
    fit(model, tracker)
    model.compile(keras.optimizers.SGD(0.1, clipnorm=0.01), "mse")
    fit(model, tracker)
    assert "clipped_l2" in tracker.history.statistics
    assert tracker.history.epochs.tolist() == [2, 3, 4]


def test_layers_frozen_between_two_epochs(model):
    def freeze(epoch, logs):
        if epoch == 1:
            model.get_layer("a").trainable = False
            model.compile(keras.optimizers.SGD(0.1), "mse")
            model.make_train_function(force=True)

    tracker = GradientTracker()
    fit(model, tracker, keras.callbacks.LambdaCallback(on_epoch_end=freeze), epochs=4)
    first, second = tracker.previous[0], tracker.history
    assert (first.layers, first.epochs.tolist()) == (("a", "b"), [0, 1, 2])
    assert (second.layers, second.epochs.tolist()) == (("b",), [2, 3, 4])
    assert second.steps.tolist() == [6, 9, 12]
    assert "interrupted" not in second.metadata


def test_a_tracker_listed_twice_is_a_tracker_listed_once(model):
    tracker = GradientTracker()
    fit(model, tracker, tracker)
    assert tracker.history.epochs.tolist() == [0, 1, 2]
    assert "interrupted" not in tracker.history.metadata


def test_logs_say_nothing_of_an_epoch_without_a_record(model):
    tracker = GradientTracker(every=5)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(dict(logs)))
    fit(model, tracker, watch, epochs=4)
    assert tracker.history.steps.tolist() == [0, 5, 10, 12]
    assert ["grad/l2_norm" in logs for logs in seen] == [False, True, False, True]


def test_the_step_of_an_interruption_is_that_of_the_data(model):
    class Twice(keras.Model):
        """Two updates a step."""

        def __init__(self):
            super().__init__()
            self.part = layers.Dense(1)

        def call(self, x):
            return self.part(x)

        def train_step(self, data):
            super().train_step(data)
            return super().train_step(data)

    def stop(batch, logs):
        if batch == 2:
            raise RuntimeError("enough")

    twice = Twice()
    twice(X)
    twice.compile(keras.optimizers.SGD(0.1), "mse")
    tracker = GradientTracker()
    with pytest.raises(RuntimeError, match="enough"), tracker:
        fit(twice, tracker, keras.callbacks.LambdaCallback(on_train_batch_end=stop))
    assert tracker.history.steps.tolist() == [3]
    assert tracker.history.metadata["interrupted"]


def test_evaluate_with_the_tracker_inside_a_fit_leaves_the_steps_right(model):
    tracker = GradientTracker()

    def look(epoch, logs):
        model.evaluate(X[:16], Y[:16], verbose=0, callbacks=[tracker])

    fit(model, tracker, keras.callbacks.LambdaCallback(on_epoch_end=look))
    assert tracker.history.steps.tolist() == [0, 3, 6]


def test_optimizers_in_a_list_are_found_and_none_is_refused():
    class Listed(keras.Model):
        def __init__(self, count):
            super().__init__()
            self.part = layers.Dense(1)
            self.build((None, 3))
            self.opts = [keras.optimizers.SGD(0.1) for _ in range(count)]

        def build(self, shape):
            self.part.build(shape)
            self.built = True

        def call(self, x):
            return self.part(x)

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
            gradients = tape.gradient(loss, self.trainable_variables)
            for optimizer in self.opts:
                optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    listed = Listed(2)
    listed.compile(optimizer=None)
    tracker = GradientTracker()
    fit(listed, tracker)
    assert set(tracker.histories) == {"opts_0", "opts_1"}
    empty = Listed(0)
    empty.compile(optimizer=None)
    with pytest.raises(ValueError, match="must hold its optimizers as attributes, received none"):
        fit(empty, GradientTracker())


def test_a_weight_without_entries_is_left_out(model):
    class Empty(layers.Layer):
        def build(self, shape):
            self.none = self.add_weight(shape=(0, 4))

        def call(self, x):
            return x + keras.ops.sum(self.none)

    with_empty = keras.Sequential([keras.Input((3,)), Empty(), layers.Dense(1, name="b")])
    with_empty.compile("sgd", "mse", jit_compile=True)
    tracker = GradientTracker()
    fit(with_empty, tracker)
    assert tracker.history.layers == ("b",)


def test_long_executions_are_read_between(model):
    """A hundred thousand additions of the same number to one float32 lose the third digit."""
    keras.utils.set_random_seed(0)
    one = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    one.compile(
        keras.optimizers.SGD(0.0),
        lambda y, p: 0.2 * p,
        jit_compile=True,
        steps_per_execution=2000,
    )
    many = np.ones((100_000, 1), np.float32)
    tracker = GradientTracker()
    one.fit(many, many, batch_size=1, epochs=1, verbose=0, callbacks=[tracker])
    assert tracker.history["mean_abs"][-1, 0] == pytest.approx(0.2, rel=1e-4)


REFUSED = [
    ({"weights": 3}, TypeError, "weights must be None, a layer's name"),
    ({"weights": []}, TypeError, "weights must be None, a layer's name"),
    ({"weights": {"a": 1}}, TypeError, "weights must be None, a layer's name"),
    ({"statistics": 3}, TypeError, "statistics must be a sequence of names, received 3"),
    ({"clipped": "yes"}, ValueError, "clipped must be None, True or False, received 'yes'"),
    ({"distributions": "no"}, ValueError, "distributions must be True or False, received 'no'"),
    ({"log": np.ones(2)}, ValueError, 'log must be True, False or "layers", received'),
    ({"every": np.ones(2)}, ValueError, "every, unless it is"),
    ({"probe": X}, TypeError, r"probe must be None or a tuple \(X, y\), received ndarray"),
    ({"probe": (X, Y, Y)}, TypeError, r"probe must be None or a tuple \(X, y\), received tuple"),
    ({"metadata": "run"}, TypeError, "metadata must be a mapping, received 'run'"),
    ({"metadata": {"a": {1}}}, TypeError, "metadata must hold only what JSON can"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_what_makes_no_sense_is_one_sentence(options, error, message):
    with pytest.raises(error, match=message) as raised:
        GradientTracker(**options)
    assert "\n" not in str(raised.value)


def test_weights_from_a_generator_work_for_every_fit(model):
    tracker = GradientTracker(weights=(name for name in ["a"]))
    fit(model, tracker)
    fit(model, tracker)
    assert tracker.history.layers == ("a",)
    assert tracker.history.epochs.tolist() == [0, 1, 2, 3, 4]


def test_attach_refuses_what_it_would_not_do(model):
    optimizer = model.optimizer
    other = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    optimizer.build(model.trainable_variables)
    for tracker, arguments, error, message in (
        (GradientTracker(), (model, optimizer), TypeError, "optimizer must be an optimizer of"),
        (GradientTracker(), ("sgd", model), TypeError, "received a builtins.str"),
        (GradientTracker(), (optimizer, layers.Dense(1)), TypeError, "model must be a Keras model"),
        (GradientTracker(), (optimizer, model, 3), TypeError, "name must be a str, received 3"),
        (GradientTracker(), (optimizer, model, "a/b"), ValueError, "name must have no slash"),
        (GradientTracker(), (optimizer, other), ValueError, "must train weights of model"),
        (GradientTracker(every=3), (optimizer, model), ValueError, "and stop_on work only in fit"),
    ):
        with pytest.raises(error, match=message):
            tracker.attach(*arguments)
        assert "_clip_gradients" not in vars(optimizer)
