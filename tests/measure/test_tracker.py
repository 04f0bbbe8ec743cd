"""`GradientTracker` in `fit` of every kind, against a tape of its own and an untracked twin."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tape_oracle import (
    Tape,
    assert_records,
    assert_same_training,
    assert_weight_norms,
    batches_of,
    fit,
    trained,
)

from kgrad.measure.tracker import GradientTracker

RANDOM = np.random.default_rng(12345)
X = RANDOM.normal(size=(29, 5)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
SEQUENCES = RANDOM.normal(size=(29, 4, 3)).astype(np.float32)
IMAGES = RANDOM.normal(size=(29, 6, 6, 2)).astype(np.float32)
TOKENS = RANDOM.integers(0, 5, size=(29, 4))  # of five words, each occurs often in a batch
STEPS = 4


def compiled(build, optimizer="sgd", loss="mse", **options):
    """A function that makes a compiled model; the optimizer a name or a function."""

    def make():
        model = build()
        chosen = optimizer if isinstance(optimizer, str) else optimizer()
        model.compile(chosen, loss, **options)
        return model

    return make


def stack(*makers, shape=(5,)):
    return lambda: keras.Sequential([keras.Input(shape), *(make() for make in makers)])


def plain():
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "tanh", name="hidden"), layers.Dense(1, name="output")]
    )


def check(
    make,
    x=X,
    y=Y,
    *,
    tape=None,
    tracker=None,
    rtol=1e-5,
    atol=0.0,
    **options,
):
    """Train with the tracker and with a tape, and compare everything."""
    tracker = tracker or GradientTracker(["max_abs", "zero_fraction"])
    tape = tape or Tape(batches_of(x, y))
    tracked = fit(make, x, y, callbacks=[tracker], **options)
    untracked = fit(make, x, y, callbacks=[tape], **options)
    assert_same_training(tracked, untracked)
    history = tracker.history
    assert [w.shape for w in history.weights] == [v.shape for v in trained(untracked)]
    assert [w.name for w in history.weights] == [v.name for v in trained(untracked)]
    assert_records(history, tape.records(), rtol=rtol, atol=atol)
    assert_weight_norms(history, tape.values)
    assert history.epochs.tolist() == [0, 1, 2]
    assert history.steps.tolist() == [0, STEPS, 2 * STEPS]
    return history


# ---- Models --------------------------------------------------------------------------------------


def branches():
    x = keras.Input((5,))
    a, b = layers.Dense(4, "tanh")(x), layers.Dense(4, "sigmoid")(x)
    return keras.Model(x, layers.Dense(1)(layers.Concatenate()([layers.Add()([a, b]), x])))


def nested():
    def block(name):
        return keras.Sequential(
            [layers.Dense(4, "tanh", name="a"), layers.Dense(5, name="b")], name=name
        )

    return keras.Sequential([keras.Input((5,)), block("one"), block("two"), layers.Dense(1)])


def shared():
    x, dense = keras.Input((5,)), layers.Dense(5, "tanh")
    return keras.Model(x, layers.Dense(1)(dense(dense(x))))


def attention():
    x = keras.Input((4, 3))
    a = layers.MultiHeadAttention(num_heads=2, key_dim=3)(x, x)
    return keras.Model(x, layers.Dense(1)(layers.Flatten()(a)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = [layers.Dense(6, "tanh"), layers.Dense(4, "tanh")]
        self.last = layers.Dense(1)

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.last(x)


def unconnected():
    class Unconnected(Subclassed):
        def call(self, x):
            self.hidden[1](x)
            return self.last(self.hidden[0](x))

    return Unconnected()


def regularized():
    l2, l1 = keras.regularizers.L2(0.03), keras.regularizers.L1(0.02)
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, "tanh", kernel_regularizer=l2, bias_regularizer=l1),
            layers.Dense(1, activity_regularizer=l1),
        ]
    )


def partly_frozen():
    model = nested()
    model.layers[0].trainable = False
    model.layers[1].layers[1].trainable = False
    return model


def dense(*arguments, **options):
    return lambda: layers.Dense(*arguments, **options)


IMAGE_LAYERS = (
    lambda: layers.Conv2D(3, 3, activation="tanh"),
    lambda: layers.DepthwiseConv2D(2),
    lambda: layers.SeparableConv2D(2, 2),
    lambda: layers.Conv2DTranspose(2, 2, activation="tanh"),
    layers.GlobalAveragePooling2D,
    dense(1),
)
NORMALIZED = (
    lambda: layers.Dense(6, use_bias=False),
    layers.BatchNormalization,
    lambda: layers.Activation("tanh"),
    layers.LayerNormalization,
    lambda: layers.Dropout(0.4),
    lambda: layers.GroupNormalization(2),
    lambda: layers.GaussianNoise(0.1),
    dense(1),
)


@pytest.mark.parametrize(
    ("build", "x"),
    [
        (branches, X),
        (nested, X),
        (shared, X),
        (Subclassed, X),
        (regularized, X),
        (partly_frozen, X),
        (stack(*NORMALIZED), X),
        (stack(*IMAGE_LAYERS, shape=(6, 6, 2)), IMAGES),
        (
            stack(lambda: layers.Conv1D(3, 2), layers.Flatten, dense(1), shape=(4, 3)),
            SEQUENCES,
        ),
        (
            stack(lambda: layers.Embedding(7, 3), layers.Flatten, dense(1), shape=(4,)),
            TOKENS,
        ),
        (
            stack(
                lambda: layers.TimeDistributed(dense(2)()), layers.Flatten, dense(1), shape=(4, 3)
            ),
            SEQUENCES,
        ),
        (stack(lambda: layers.SimpleRNN(3), dense(1), shape=(4, 3)), SEQUENCES),
        (stack(lambda: layers.LSTM(3), dense(1), shape=(4, 3)), SEQUENCES),
        (
            stack(lambda: layers.Bidirectional(layers.GRU(2)), dense(1), shape=(4, 3)),
            SEQUENCES,
        ),
    ],
    ids=[
        "branches",
        "nested",
        "shared",
        "subclassed",
        "regularized",
        "partly frozen",
        "normalized, with noise",
        "images",
        "convolution in one dimension",
        "embedding",
        "time distributed",
        "simple recurrent",
        "lstm",
        "bidirectional gru",
    ],
)
def test_the_record_is_the_gradient_of_a_tape_of_its_own(build, x):
    check(compiled(build), x)


def test_attention_records_what_a_tape_sees():
    # The gradient of a key's bias is 0 but for rounding, as softmax ignores a constant.
    check(compiled(attention), SEQUENCES, tracker=GradientTracker(), atol=1e-7)


def test_a_weight_that_the_loss_does_not_depend_on_has_no_gradient():
    # Keras warns of such a weight too.
    tracker = GradientTracker()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        fit(compiled(unconnected), X, Y, callbacks=[tracker])
    history = tracker.history
    without = [history.layers[1] == weight.layer for weight in history.weights]
    assert (history["updates"] > 0).all()
    np.testing.assert_array_equal(history["gradients_present"] == 0, [without] * len(history))
    np.testing.assert_array_equal(np.isnan(history["mean_abs"]), [without] * len(history))
    assert tracker.history.by_layer("mean_abs")[:, [0, 2]].all()


def test_frozen_weights_are_not_in_the_history():
    tracker = GradientTracker()
    fit(compiled(partly_frozen), X, Y, callbacks=[tracker])
    paths = [w.path.partition("/")[2] for w in tracker.history.weights]
    assert paths == ["two/a/kernel", "two/a/bias", "dense/kernel", "dense/bias"]


def test_names_that_occur_twice_are_numbered():
    tracker = GradientTracker()
    fit(compiled(nested), X, Y, callbacks=[tracker])
    assert tracker.history.layers == ("one/a", "one/b", "two/a", "two/b", "dense")


# ---- Optimizers ----------------------------------------------------------------------------------

# Keras 3.10 has no MultiOptimizer, and its Muon fails without a tracker, too.
IS_OLD = not hasattr(keras.optimizers, "MultiOptimizer")
not_in_old_keras = pytest.mark.skipif(IS_OLD, reason="Keras 3.10 has no MultiOptimizer")
NOT_OF_THEIR_OWN = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
NOT_OF_THEIR_OWN += ("Muon",) if IS_OLD else ()
OPTIMIZERS = [
    name
    for name, kind in vars(keras.optimizers).items()
    if inspect.isclass(kind)
    and issubclass(kind, keras.optimizers.Optimizer)
    and name not in NOT_OF_THEIR_OWN
]


def test_every_optimizer_of_keras_is_tried():
    assert {"SGD", "Adam", "Lion", "Adafactor" if IS_OLD else "Muon"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name):
    check(compiled(plain, getattr(keras.optimizers, name)))


def sgd(**options):
    return lambda: keras.optimizers.SGD(**{"learning_rate": 0.1} | options)


def scheduled():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.3, 2, 0.5)
    return keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True)


@pytest.mark.parametrize(
    "optimizer",
    [
        scheduled,
        sgd(use_ema=True, ema_momentum=0.5),
        sgd(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3),
        sgd(weight_decay=0.1),
        sgd(loss_scale_factor=1024.0),
    ],
    ids=["schedule", "ema", "ema that overwrites", "weight decay", "loss scale factor"],
)
def test_options_of_an_optimizer(optimizer):
    check(compiled(plain, optimizer))


def by_norm(limit):
    return lambda gs: [g * min(1, limit / np.sqrt(np.sum(g**2))) for g in gs]


def by_global_norm(limit):
    def clip(gs):
        return [g * min(1, limit / np.sqrt(sum(np.sum(h**2) for h in gs))) for g in gs]

    return clip


def by_value(limit):
    return lambda gs: [np.clip(g, -limit, limit) for g in gs]


@pytest.mark.parametrize(
    ("option", "clip"),
    [("clipnorm", by_norm), ("global_clipnorm", by_global_norm), ("clipvalue", by_value)],
)
def test_what_clipping_leaves_stands_beside_the_gradient_before_it(option, clip):
    limit = {"clipnorm": 0.5, "global_clipnorm": 0.9, "clipvalue": 0.2}[option]
    tape = Tape(batches_of(X, Y))
    make = compiled(plain, sgd(**{option: limit}))
    history = check(make, tape=tape, tracker=GradientTracker())
    after = [[clip(limit)(step) for step in record] for record in tape.records()]
    for i, (before_clipping, clipped) in enumerate(zip(tape.records(), after, strict=True)):
        squares = [[np.sum(g**2) for g in step] for step in clipped]
        np.testing.assert_allclose(history["clipped_l2"][i], np.sqrt(np.mean(squares, 0)), 1e-5)
        changed = [
            [not np.allclose(a, b, 1e-6, 0) for a, b in zip(*pair, strict=True)]
            for pair in zip(before_clipping, clipped, strict=True)
        ]
        np.testing.assert_array_equal(history["clipped_steps"][i], np.sum(changed, 0))
    total = history["clipped_steps"][1:].sum()
    assert 0 < total < 2 * STEPS * 4  # some were, some were not


def test_clipping_is_measured_where_it_is_asked_for():
    clips, does_not = compiled(plain, sgd(clipnorm=0.1)), compiled(plain)
    for make, clipped, measured in (
        (clips, None, True),
        (clips, False, False),
        (does_not, None, False),
        (does_not, True, True),
    ):
        tracker = GradientTracker(clipped=clipped)
        fit(make, X, Y, callbacks=[tracker], epochs=1)
        assert ("clipped_l2" in tracker.history.statistics) is measured
    np.testing.assert_array_equal(tracker.history["clipped_l2"], tracker.history["l2_norm"])
    assert not tracker.history["clipped_steps"].any()


@pytest.mark.parametrize("k", [2, 3])
def test_accumulated_gradients_are_recorded_as_the_average_that_makes_the_update(k):
    make = compiled(plain, sgd(gradient_accumulation_steps=k))
    tracker, tape = GradientTracker(), Tape(batches_of(X, Y))
    tracked = fit(make, X, Y, callbacks=[tracker], epochs=3)
    assert_same_training(tracked, fit(make, X, Y, callbacks=[tape], epochs=3))
    updates = {  # by the step that makes them, over the ends of epochs
        end: [np.mean(gs, axis=0) for gs in zip(*tape.steps[end - k : end], strict=True)]
        for end in range(k, 3 * STEPS + 1, k)
    }
    history = tracker.history
    made = [
        [update for end, update in updates.items() if 0 <= end - 1 - STEPS * epoch < STEPS]
        for epoch in range(3)
    ]
    assert history.steps[-3:].tolist() == [4, 8, 12]
    assert history.epochs[-3:].tolist() == [1, 2, 3]
    for i, record in enumerate(made):
        means = [np.mean([np.mean(np.abs(g)) for g in gs]) for gs in zip(*record, strict=True)]
        np.testing.assert_allclose(history["mean_abs"][len(history) - 3 + i], means, 1e-5)


def two_parts(first, second):
    def make():
        parts = keras.optimizers.OptimizerMap(first(), {".*output/.*": second()})
        return keras.optimizers.MultiOptimizer(parts)

    return make


def test_before_training_is_the_first_update_where_gradients_are_accumulated():
    tracker, tape = GradientTracker(), Tape(batches_of(X, Y))
    for callback in (tracker, tape):
        fit(compiled(plain, sgd(gradient_accumulation_steps=3)), X, Y, callbacks=[callback])
    history = tracker.history
    assert history.epochs.tolist()[:2] == [0, 1]
    first = [np.mean(gs, axis=0) for gs in zip(*tape.steps[:3], strict=True)]
    np.testing.assert_allclose(history["mean_abs"][0], [np.mean(np.abs(g)) for g in first], 1e-5)


def test_an_overflow_in_a_weight_that_is_not_watched_skips_the_step_too():
    make = in_precision("mixed_float16", scaled(2.0**22))
    everything, part = GradientTracker(), GradientTracker(weights="*bias")
    for tracker in (everything, part):
        fit(make, X, Y, callbacks=[tracker], epochs=2)
    skipped = everything.history.logs["skipped_steps"]
    assert skipped.any()
    np.testing.assert_array_equal(part.history.logs["skipped_steps"], skipped)
    bias = [w.name == "bias" for w in everything.history.weights]
    for name in ("mean_abs", "nonfinite_steps"):
        np.testing.assert_array_equal(part.history[name], everything.history[name][:, bias])


@not_in_old_keras
def test_a_multi_optimizer_that_chooses_its_parts_when_it_is_built():
    parts = {name: keras.optimizers.SGD(0.1, name=name) for name in ("slow", "quick")}
    optimizer = keras.optimizers.MultiOptimizer(
        lambda variable: parts["slow" if "hidden" in variable.path else "quick"]
    )
    tracker = GradientTracker()
    fit(compiled(plain, lambda: optimizer), X, Y, callbacks=[tracker])
    assert {name: history.layers for name, history in tracker.histories.items()} == {
        "optimizer_slow": ("hidden",),
        "optimizer_quick": ("output",),
    }
    assert all(len(history) > 1 for history in tracker.histories.values())


@not_in_old_keras
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_each_part_of_a_multi_optimizer_has_a_history_of_its_weights(precision):
    def make():
        keras.mixed_precision.set_dtype_policy(precision)
        try:
            return compiled(plain, two_parts(sgd(name="slow"), sgd(name="quick")))()
        finally:
            keras.mixed_precision.set_dtype_policy("float32")

    tracker, tape = GradientTracker(), Tape(batches_of(X, Y))
    tracked = fit(make, X, Y, callbacks=[tracker])
    assert_same_training(tracked, fit(make, X, Y, callbacks=[tape]))
    histories = tracker.histories
    assert set(histories) == {"optimizer_slow", "optimizer_quick"}
    for name, own in (("optimizer_slow", slice(2)), ("optimizer_quick", slice(2, 4))):
        assert [w.layer for w in histories[name].weights] == [
            ["hidden", "output"][own.start is not None]
        ] * 2
        records = [[step[own] for step in record] for record in tape.records()]
        assert_records(histories[name], records, rtol=1e-5 if precision == "float32" else 1e-2)


@not_in_old_keras
def test_two_parts_of_the_same_kind_are_told_apart():
    tracker = GradientTracker()
    make = compiled(plain, two_parts(keras.optimizers.Adam, keras.optimizers.Adam))
    fit(make, X, Y, callbacks=[tracker])
    layers_of = [h.layers for h in tracker.histories.values()]
    assert sorted(layers_of) == [("hidden",), ("output",)]


# ---- Precision -----------------------------------------------------------------------------------


def in_precision(policy, optimizer):
    def make():
        with_policy = [
            keras.Input((5,)),
            layers.Dense(6, "tanh", dtype=policy),
            layers.Dense(1, dtype=policy),
        ]
        model = keras.Sequential(with_policy)
        model.compile(optimizer(), "mse")
        return model

    return make


def dynamic_scale(model):
    optimizer = model.optimizer
    return optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale


def scaled(initial_scale, **options):
    return lambda: keras.optimizers.LossScaleOptimizer(
        sgd(**options)(), initial_scale=initial_scale, dynamic_growth_steps=3
    )


def test_bfloat16():
    # Eight bits of precision, rounded elsewhere in eager mode and in a graph.
    check(in_precision("mixed_bfloat16", sgd()), tracker=GradientTracker(), rtol=1e-2)


def test_float16_is_recorded_unscaled():
    tape = Tape(batches_of(X, Y), scale=dynamic_scale)
    make = in_precision("mixed_float16", scaled(1024.0))
    history = check(make, tape=tape, tracker=GradientTracker(), rtol=3e-3)
    assert not history.logs["skipped_steps"].any()


@pytest.mark.parametrize("every", [1, 3, "epoch"])
def test_steps_that_overflowed_are_counted_and_in_no_mean(every):
    make = in_precision("mixed_float16", scaled(2.0**22))
    tracker, tape = GradientTracker(every=every), Tape(batches_of(X, Y), scale=dynamic_scale)
    tracked = fit(make, X, Y, callbacks=[tracker], epochs=4)
    assert_same_training(tracked, fit(make, X, Y, callbacks=[tape], epochs=4))
    taken = [all(np.isfinite(g).all() for g in step) for step in tape.steps]
    assert not taken[0] and any(taken)
    history = tracker.history
    starts = [0, *history.steps[history.steps > 0]]
    for i in range(1, len(starts)):
        here = slice(starts[i - 1], starts[i])
        record = len(history) - len(starts) + i
        skipped = [
            step for step, kept in zip(tape.steps[here], taken[here], strict=True) if not kept
        ]
        folded = [step for step, kept in zip(tape.steps[here], taken[here], strict=True) if kept]
        assert history.logs["skipped_steps"][record] == len(skipped)
        bad = [sum(not np.isfinite(s[w]).all() for s in skipped) for w in range(4)]
        np.testing.assert_array_equal(history["nonfinite_steps"][record], bad)
        if folded:
            means = [np.mean([np.mean(np.abs(s[w])) for s in folded]) for w in range(4)]
            np.testing.assert_allclose(history["mean_abs"][record], means, 3e-3, atol=3e-4)
        else:
            assert np.isnan(history["mean_abs"][record]).all()


def test_a_scaled_optimizer_that_clips():
    make = compiled(plain, scaled(64.0, clipnorm=0.1))
    tape = Tape(batches_of(X, Y))
    history = check(make, tape=tape, tracker=GradientTracker())
    assert (history["clipped_l2"] <= 0.1 + 1e-6).all()
    assert (history["l2_norm"] > 0.1).any()


# ---- How a step is run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": False}],
    ids=["eager", "XLA", "no XLA"],
)
def test_ways_to_run_a_step(options):
    history = check(compiled(regularized, keras.optimizers.Adam, **options))
    assert history.metadata["jit_compile"] is options.get("jit_compile", False)
    assert history.metadata["run_eagerly"] is options.get("run_eagerly", False)


@pytest.mark.parametrize("size", [2, 3])
def test_several_steps_an_execution_that_do_not_divide_the_epoch(size):
    x, y = X[:21], Y[:21]  # three batches
    if size == 3:
        x, y = X, Y  # four
    batches = batches_of(x, y)
    make = compiled(plain, steps_per_execution=size)
    tracker, tape = GradientTracker(["max_abs"]), Tape(batches)
    assert_same_training(fit(make, x, y, callbacks=[tracker], epochs=3), fit(make, x, y, epochs=3))
    fit(compiled(plain), x, y, callbacks=[tape], epochs=3)
    history = tracker.history
    assert_records(history, tape.epochs)
    assert history.epochs.tolist() == [1, 2, 3]
    assert history.steps.tolist() == [len(batches) * i for i in (1, 2, 3)]


# ---- Data ----------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return batches_of(X, Y)[index]


def generated():
    yield from batches_of(X, Y)


def endless():
    while True:
        yield from batches_of(X, Y)


def of_unknown_size():
    signature = (tf.TensorSpec((None, 5)), tf.TensorSpec((None, 1)))
    return tf.data.Dataset.from_generator(generated, output_signature=signature)


@pytest.mark.parametrize(
    ("data", "steps"),
    [
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), None),
        (of_unknown_size, None),
        (lambda: of_unknown_size().repeat(), STEPS),
        (endless, STEPS),
        (Batches, None),
    ],
    ids=["tf.data", "tf.data of unknown size", "endless tf.data", "generator", "PyDataset"],
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_in_every_form(data, steps):
    tracker, tape = GradientTracker(), Tape(batches_of(X, Y))
    tracked = fit(compiled(plain), data(), callbacks=[tracker], steps_per_epoch=steps)
    untracked = fit(compiled(plain), data(), callbacks=[tape], steps_per_epoch=steps)
    assert_same_training(tracked, untracked)
    assert tracker.history.steps.tolist() == [0, 4, 8]
    assert_records(tracker.history, tape.records())


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_generator_that_ends():
    tracker, tape = GradientTracker(), Tape(batches_of(X, Y))
    fit(compiled(plain), generated(), callbacks=[tracker], epochs=1)
    fit(compiled(plain), X, Y, callbacks=[tape], epochs=1)
    assert tracker.history.steps.tolist() == [0, 4]
    assert_records(tracker.history, tape.records())


def test_sample_weights():
    weights = RANDOM.uniform(0, 2, len(X)).astype(np.float32)
    check(compiled(plain), tape=Tape(batches_of(X, Y, weights)), sample_weight=weights)


def test_class_weights():
    weights = np.where(Y[:, 0] > 0, 3.0, 0.5).astype(np.float32)
    check(compiled(plain), tape=Tape(batches_of(X, Y, weights)), class_weight={0: 0.5, 1: 3.0})


def several():
    one, other = keras.Input((5,), name="one"), keras.Input((4, 3), name="other")
    both = layers.Concatenate()([layers.Dense(4, "tanh")(one), layers.Flatten()(other)])
    outputs = [layers.Dense(1, name="a")(both), layers.Dense(1, "sigmoid", name="b")(both)]
    return keras.Model([one, other], outputs)


def test_several_inputs_outputs_and_losses():
    make = compiled(several, loss=["mse", "binary_crossentropy"], loss_weights=[0.3, 2.0])
    check(make, [X, SEQUENCES], [X[:, 1:2], Y])


def test_inputs_and_outputs_by_name():
    make = compiled(several, loss={"a": "mse", "b": "binary_crossentropy"})

    def by_name():
        model = several()
        named = {layer.name: layer.output for layer in model.layers if layer.name in "ab"}
        inputs = {tensor.name: tensor for tensor in model.inputs}
        return keras.Model(inputs, named)

    make = compiled(by_name, loss={"a": "mse", "b": "binary_crossentropy"})
    check(make, {"one": X, "other": SEQUENCES}, {"a": X[:, 1:2], "b": Y})


def cubic(model, x, y):
    return tf.reduce_mean(tf.abs(model(x, training=True) - y) ** 3)


class CustomStep(keras.Sequential):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = cubic(self, x, y)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def test_a_training_step_of_ones_own():
    def build():
        return CustomStep(plain().layers)

    def make():
        model = CustomStep([keras.Input((5,)), *plain().layers])
        model.compile("sgd")
        return model

    check(make, tape=Tape(batches_of(X, Y), loss=cubic))


def test_a_step_that_updates_twice_records_the_mean_of_both():
    class Twice(CustomStep):
        def train_step(self, data):
            super().train_step(data)
            return super().train_step(data)

    def make(kind):
        def build():
            model = kind([keras.Input((5,)), *plain().layers])
            model.compile("sgd")
            return model

        return build

    tracker = GradientTracker()
    fit(make(Twice), X[:8], Y[:8], callbacks=[tracker], epochs=1)
    tape = Tape(batches_of(X[:8], Y[:8]), loss=cubic)
    fit(make(CustomStep), X[:8], Y[:8], callbacks=[tape], epochs=2)
    assert tracker.history.steps[-1] == 1
    means = [np.mean([np.mean(np.abs(s[w])) for s in tape.steps]) for w in range(4)]
    np.testing.assert_allclose(tracker.history["mean_abs"][-1], means, 1e-5)


def test_train_on_batch_is_not_tracked():
    tracker = GradientTracker()
    model = fit(compiled(plain), X, Y, callbacks=[tracker])
    before = tracker.history["mean_abs"]
    model.train_on_batch(X, Y)
    np.testing.assert_array_equal(tracker.history["mean_abs"], before)


# ---- Several optimizers --------------------------------------------------------------------------


class GAN(keras.Model):
    """A generator and a discriminator, each with an optimizer; both steps keep what they used."""

    def __init__(self, built=False):
        super().__init__()
        self.generator = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(5)], name="g")
        self.discriminator = keras.Sequential([layers.Dense(4, "tanh"), layers.Dense(1)], name="d")
        self.kept = {"generator_optimizer": [], "discriminator_optimizer": []}
        if built:
            self.generator.build((None, 3))
            self.discriminator.build((None, 5))
            self.built = True

    def compile(self, **options):
        super().compile(loss=None, **options)
        self.discriminator_optimizer = keras.optimizers.Adam(0.01, clipnorm=1.0)
        self.generator_optimizer = keras.optimizers.Adam(0.02)

    def train_step(self, x):
        with tf.GradientTape() as tape:
            fake = self.discriminator(self.generator(x[:, :3], training=True), training=True)
            real = self.discriminator(x, training=True)
            loss = tf.reduce_mean(tf.nn.softplus(fake) + tf.nn.softplus(-real))
        self.update("discriminator", tape, loss)
        with tf.GradientTape() as tape:
            fake = self.discriminator(self.generator(x[:, :3], training=True), training=True)
            loss = tf.reduce_mean(tf.nn.softplus(-fake))
        self.update("generator", tape, loss)
        return {"loss": loss}

    def update(self, part, tape, loss):
        variables = getattr(self, part).trainable_variables
        gradients = tape.gradient(loss, variables)
        if self.run_eagerly:
            self.kept[f"{part}_optimizer"].append([g.numpy().astype(float) for g in gradients])
        getattr(self, f"{part}_optimizer").apply_gradients(zip(gradients, variables, strict=True))


@pytest.mark.parametrize("built", [True, False])
def test_each_optimizer_of_a_gan_has_a_history_of_its_own_weights(built):
    def make(**options):
        def build():
            model = GAN(built)
            model.compile(**options)
            return model

        return build

    tracker = GradientTracker()
    tracked = fit(make(), X, callbacks=[tracker])
    assert_same_training(tracked, fit(make(), X))
    eager = fit(make(run_eagerly=True), X)
    histories = tracker.histories
    assert set(histories) == set(eager.kept)
    for name, steps in eager.kept.items():
        # Rounding makes the eager training another one, by a little.
        assert_records(histories[name], [steps[:1], steps[:4], steps[4:]], rtol=1e-4)
        paths = [variable.path for variable in getattr(eager, name.split("_")[0]).weights]
        assert [w.path for w in histories[name].weights] == paths
    assert "clipped_l2" in histories["discriminator_optimizer"].statistics
    assert "clipped_l2" not in histories["generator_optimizer"].statistics
    with pytest.raises(ValueError, match="generator_optimizer") as raised:
        _ = tracker.history
    assert "discriminator_optimizer" in str(raised.value)


# ---- Loops of one's own --------------------------------------------------------------------------


def loop(model, optimizer, *, eager, epochs=2, after_epoch=lambda: None):
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = cubic(model, x, y)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    run = step if eager else tf.function(step, reduce_retracing=True)
    for _ in range(epochs):
        for x, y in batches_of(X, Y):
            run(tf.constant(x), tf.constant(y))
        after_epoch()


def reference_of_a_loop(epochs=2):
    """Gradients of each step, by a tape and plain gradient descent."""
    keras.utils.set_random_seed(3)
    model = plain()
    steps = []
    for x, y in batches_of(X, Y) * epochs:
        with tf.GradientTape() as tape:
            loss = cubic(model, x, y)
        gradients = tape.gradient(loss, model.trainable_variables)
        steps.append([g.numpy().astype(float) for g in gradients])
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
    return steps


@pytest.mark.parametrize("eager", [False, True])
def test_a_loop_of_ones_own(eager):
    models = []
    for tracker in (GradientTracker(), None):
        keras.utils.set_random_seed(3)
        model, optimizer = plain(), sgd()()
        if tracker is None:
            loop(model, optimizer, eager=eager)
        else:
            kept = tracker
            with tracker.attach(optimizer, model):
                loop(model, optimizer, eager=eager, after_epoch=tracker.record)
            loop(model, optimizer, eager=eager, epochs=1)  # not recorded
            loop_end = len(kept.history)
            assert loop_end == 2
            assert not {"_clip_gradients", "_backend_update_step"} & set(vars(optimizer))
        models.append(model)
    loop(models[1], optimizer, eager=eager, epochs=1)
    for a, b in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    steps = reference_of_a_loop()
    assert_records(kept.history, [steps[:4], steps[4:]])
    assert kept.history.epochs.tolist() == [1, 2]
    assert kept.history.steps.tolist() == [4, 8]


def test_two_optimizers_of_a_loop_have_names():
    first, second = plain(), plain()
    tracker = GradientTracker()
    one, other = sgd()(), sgd()()
    with tracker.attach(one, first, "one"), tracker.attach(other, second, "other"):
        with pytest.raises(ValueError, match="name must be one that is not attached yet"):
            tracker.attach(sgd()(), first, "one")
        loop(first, one, eager=False, epochs=1)
        loop(second, other, eager=False, epochs=1)
        tracker.record({"loss": 0.5})
    assert set(tracker.histories) == {"one", "other"}
    assert [h.logs["loss"].tolist() for h in tracker.histories.values()] == [[0.5], [0.5]]
    assert [h.steps.tolist() for h in tracker.histories.values()] == [[4], [4]]


def test_a_loop_may_hand_over_variables_of_tensorflow():
    keras.utils.set_random_seed(3)
    model, optimizer = plain(), sgd()()
    with GradientTracker().attach(optimizer, model) as tracker:
        for x, y in batches_of(X, Y):
            with tf.GradientTape() as tape:
                loss = cubic(model, x, y)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, [v.value for v in model.trainable_variables])
        tracker.record()
    assert_records(tracker.history, [reference_of_a_loop(1)])


# ---- Which weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        ("hidden", [0, 1]),
        ("sequential/output/kernel", [2]),
        ("*/bias", [1, 3]),
        (["output", "hid/kernel", "*/hidden/kernel"], None),
        ("hid*/kernel", [0]),
        (["output", "*/hidden/kernel"], [0, 2, 3]),
        (lambda weight: len(weight.shape) == 2, [0, 2]),
    ],
)
def test_the_weights_to_watch(selection, chosen):
    tracker, everything = GradientTracker(weights=selection), GradientTracker()
    if chosen is None:
        with pytest.raises(ValueError, match="hid"):
            fit(compiled(plain), X, Y, callbacks=[tracker])
        return
    fit(compiled(plain), X, Y, callbacks=[tracker, everything], epochs=1)
    for name in ("mean_abs", "update_l2"):
        expected = everything.history[name][:, chosen]
        np.testing.assert_allclose(tracker.history[name], expected, 1e-6)
    assert tracker.history.weights == tuple(everything.history.weights[i] for i in chosen)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            "hiden",
            "weights must match a weight of the layers hidden, output, received 'hiden'; "
            r"did you mean 'hidden'\?",
        ),
        (
            ["hidden", "encoder*"],
            r"weights must match a weight of the layers hidden, output, received 'encoder\*'",
        ),
        (
            lambda weight: False,
            "weights must choose a weight of the layers hidden, output, received a function that "
            "chooses none",
        ),
    ],
)
def test_weights_that_match_nothing_are_refused_before_training(selection, message):
    model = compiled(plain)()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[GradientTracker(weights=selection)])
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not model.optimizer.iterations.numpy()
    assert "_clip_gradients" not in vars(model.optimizer)
    model.fit(X, Y, verbose=0)
