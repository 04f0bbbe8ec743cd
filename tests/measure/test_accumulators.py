"""The statistics of a run against a backpropagation in float64, and the accumulators by hand."""

import functools
import itertools

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

from kgrad.experiments.models import create_model
from kgrad.measure.accumulators import EntryTotals, StepTotals, cheapest_way
from kgrad.measure.folds import Folds
from kgrad.measure.loop import measure_gradients, train_and_track_gradients
from kgrad.measure.recorder import Recorder
from kgrad.records.statistics import L2_NORM, select

ALL = ("mean_abs", "l2_norm", "max_abs", "zero_fraction")
RATE = 0.1
OUTPUTS = {
    "mean_squared_error": ("linear", 2),
    "binary_crossentropy": ("sigmoid", 1),
    "categorical_crossentropy": ("softmax", 3),
    "sparse_categorical_crossentropy": ("softmax", 3),
}


def make_data(random, loss, samples=29, features=5):
    X = random.normal(size=(samples, features)).astype(np.float32)
    targets = {
        "mean_squared_error": random.normal(size=(samples, 2)),
        "binary_crossentropy": X[:, :1] > 0,
        "categorical_crossentropy": np.eye(3)[random.integers(3, size=samples)],
        "sparse_categorical_crossentropy": random.integers(3, size=samples),
    }
    return X, targets[loss].astype(np.float32)


def make_model(activation, loss):
    f, units = OUTPUTS[loss]
    return create_model(
        2,
        activation,
        "he",
        units=(7, 6),
        input_shape=(5,),
        output_units=units,
        output_activation=f,
        seed=3,
    )


def assert_close(actual, expected, rtol=1e-5):
    """Relative, element by element; what is 0 must be 0."""
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=0)


def groups(steps, every, steps_an_epoch):
    size = steps_an_epoch if every == "epoch" else every
    return [steps[i : i + size] for i in range(0, len(steps), size)]


# 29 samples in batches of 8 are 4 steps an epoch, the last of 5 samples; 3 epochs are 12 steps.
# Under XLA only some of the pairs, for each costs two compilations.
CASES = [
    *itertools.product(("sigmoid", "tanh", "relu"), OUTPUTS, ("epoch", 5), [False]),
    ("sigmoid", "mean_squared_error", "epoch", True),
    ("tanh", "binary_crossentropy", 5, True),
    ("relu", "categorical_crossentropy", "epoch", True),
    ("relu", "sparse_categorical_crossentropy", 5, True),
]


@pytest.mark.parametrize(("activation", "loss", "every", "jit"), CASES)
def test_a_run_agrees_with_float64(random, activation, loss, every, jit):
    X, y = make_data(random, loss)
    model = make_model(activation, loss)
    start = model.get_weights()
    history = train_and_track_gradients(
        model,
        X,
        y,
        3,
        batch_size=8,
        optimizer=keras.optimizers.SGD(RATE),
        loss=loss,
        statistics=ALL,
        every=every,
        shuffle=False,
        jit_compile=jit,
    )
    functions = [activation, activation, OUTPUTS[loss][0]]
    steps = oracle.sgd(start, functions, X, y, loss, epochs=3, batch_size=8, rate=RATE)
    assert len(steps) == 12

    records = [steps[:1], *groups(steps, every, 4)]
    ends = {"epoch": [0, 4, 8, 12], 5: [0, 5, 10, 12]}[every]
    assert history.steps.tolist() == ends
    assert history.epochs.tolist() == [0] + [steps[end - 1].epoch for end in ends[1:]]
    assert history.metadata["jit_compile"] is jit
    assert [w.path for w in history.weights] == [v.path for v in model.trainable_variables]

    for i, record in enumerate(records):
        expected = oracle.statistics([step.gradients for step in record])
        by_layer = oracle.statistics([oracle.as_layers(step.gradients) for step in record])
        for name in (*ALL, "nonfinite_steps"):
            assert_close(history[name][i], expected[name])
            assert_close(history.by_layer(name)[i], by_layer[name])
        samples = [step.samples for step in record]
        assert_close(history.logs["loss"][i], np.average([s.loss for s in record], weights=samples))

    weights = [start, start] + [record[-1].weights for record in records[1:]]
    for i, (old, new) in enumerate(itertools.pairwise(weights)):
        moves = [np.subtract(n, o, dtype=np.float64) for n, o in zip(new, old, strict=True)]
        assert_close(history["weight_l2"][i], oracle.norms(new))
        # The weights are float32: a change of theirs is known to 1e-7 of the weight.
        tolerance = 1e-5 * oracle.norms(moves) + 2e-7 * oracle.norms(new)
        assert (abs(history["update_l2"][i] - oracle.norms(moves)) <= tolerance).all()
        assert_close(history.by_layer("weight_l2")[i], oracle.norms(oracle.as_layers(new)))
    assert not history["update_l2"][0].any()
    for actual, expected in zip(model.get_weights(), steps[-1].weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_relu_has_exact_zeros_to_count(random):
    """Else the comparison of zero fractions above would compare nothing."""
    X, y = make_data(random, "binary_crossentropy")
    model = make_model("relu", "binary_crossentropy")
    model.layers[1].bias.assign([-9.0, 0, 0, 0, 0, 0, 0])
    zeros = measure_gradients(model, X, y, statistics=["zero_fraction"])["zero_fraction"][0]
    assert zeros[:2] == pytest.approx([1 / 7, 1 / 7])


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("loss", OUTPUTS)
def test_measured_gradients_are_those_of_the_whole_batch(random, activation, loss):
    X, y = make_data(random, loss)
    model = make_model(activation, loss)
    history = measure_gradients(model, X, y, loss, statistics=ALL)
    functions = [activation, activation, OUTPUTS[loss][0]]
    value, gradients = oracle.backprop(model.get_weights(), functions, X, y, loss)
    assert (history.epochs.tolist(), history.steps.tolist()) == ([0], [0])
    assert_close(history.logs["loss"], [value])
    for name, expected in oracle.statistics([gradients]).items():
        assert_close(history[name][0], expected)
    assert_close(history["weight_l2"][0], oracle.norms(model.get_weights()))
    assert not history["update_l2"].any()


def product(y, p):
    """The loss mean(y p); see oracle.product."""
    return keras.ops.mean(y * p, axis=-1)


class Idle(keras.optimizers.SGD):
    """Leaves the weights alone, whatever the gradients are: 0 times NaN would be NaN."""

    def update_step(self, gradient, variable, learning_rate):
        pass


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("scale", "low", "high"), [(3e-7, 1e-27, 1e-23), (2e5, 1e20, 1e24), (3e-9, 1e-37, 1e-32)]
)
def test_norms_where_squares_leave_the_range_of_float32(random, scale, low, high, jit):
    """Five layers multiply the gradient by their scale; the width above 1024 has its own way."""
    widths = [4, 40, 40, 4, 4, 1]
    kernels = [
        (scale * random.normal(size=shape)).astype(np.float32)
        for shape in itertools.pairwise(widths)
    ]
    layers = [keras.layers.Dense(n, use_bias=False) for n in widths[1:]]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.set_weights(kernels)
    X = random.normal(size=(20, 4)).astype(np.float32)
    y = random.normal(size=(20, 1)).astype(np.float32)
    history = train_and_track_gradients(
        model,
        X,
        y,
        2,
        batch_size=5,
        optimizer=Idle(),
        loss=product,
        statistics=ALL,
        shuffle=False,
        jit_compile=jit,
    )
    steps = oracle.sgd(
        kernels, ["linear"] * 5, X, y, "product", epochs=2, batch_size=5, rate=0, biased=False
    )
    for i, record in enumerate([steps[:1], steps[:4], steps[4:]]):
        for name, expected in oracle.statistics([step.gradients for step in record]).items():
            assert_close(history[name][i], expected)
    assert low < history["mean_abs"].min() < history["mean_abs"].max() < high


WAYS = [
    pytest.param(way, jit, id=f"{name}-{'xla' if jit else 'tf'}")
    for name, way in {
        "StepTotals": StepTotals,
        "EntryTotals": EntryTotals,
        "EntryTotals-keep": functools.partial(EntryTotals, keep=True),
    }.items()
    for jit in (False, True)
]
# Below 1,024 entries, from there on, and from 16,384 on.
SHAPES = [(3, 4), (), (50, 30), (170, 100), (7,), (2, 3, 5, 40), (2, 100, 90)]


@pytest.mark.parametrize(
    ("optimizer", "jit", "kept"),
    [("sgd", True, 1), ("adam", True, 0), (None, True, 0), ("sgd", False, None)],
)
def test_gradients_are_kept_where_the_optimizer_keeps_nothing_of_them(optimizer, jit, kept):
    optimizer = keras.optimizers.get(optimizer) if optimizer else None
    if optimizer is not None:
        optimizer.build([keras.Variable(np.zeros((50, 30)))])
    accumulator = cheapest_way(jit, optimizer)([(7,), (50, 30)], select([]))
    assert isinstance(accumulator, EntryTotals if jit else StepTotals)
    if jit:
        assert sum(name.startswith("kept") for name in accumulator.initial) == kept


def folds_of(shapes, way=StepTotals, statistics=ALL, **options):
    """Folds for variables of these shapes, each in a layer of its own."""
    variables = [keras.Variable(np.zeros(shape, np.float32)) for shape in shapes]
    options = {"clipped": False, "distributions": False} | options
    folds = Folds(variables, np.arange(len(shapes)), select(statistics), way=way, **options)
    return folds, lambda gradients: folds.update(variables, gradients, gradients)


def fold(way, jit, steps, statistics=ALL):
    """Totals of handmade steps, and in how many and in which step first one was not finite."""
    folds, update = folds_of([np.shape(g) for g in steps[0]], way, statistics)
    update = tf.function(update, jit_compile=jit)
    for number, step in enumerate(steps, start=1):
        update([tf.constant(g, tf.float32) for g in step])
        if number == 1:  # as the loop does for record 0
            folds.drain()
    folds.drain()
    sizes = np.array([np.size(g) for g in steps[0]], float)
    totals, (_, present) = folds.folded(), folds.updates()
    assert present.tolist() == [len(steps)] * len(sizes)
    values = {s.name: s.finish(totals[s.name], sizes, present) for s in select(statistics)}
    bad, _, first = folds.nonfinite_steps()
    return values, bad, first


@pytest.mark.parametrize(("way", "jit"), WAYS)
def test_accumulators_on_handmade_gradients(random, way, jit):
    """Shapes of every rank, each weight with a magnitude of its own that drifts over the steps."""
    scales = 10.0 ** np.array([-25, 20, -23, -24, 0, 12, 18])
    steps = []
    for t in range(5):
        step = [
            (s * 30.0**t * random.normal(size=shape)).astype(np.float32)
            for s, shape in zip(scales, SHAPES, strict=True)
        ]
        step[4][: t + 1] = 0
        steps.append(step)
    values, bad, _ = fold(way, jit, steps)
    expected = oracle.statistics([[np.float64(g) for g in step] for step in steps])
    for name, value in values.items():
        assert_close(value, expected[name])
    assert not bad.any()


@pytest.mark.parametrize(("way", "jit"), WAYS)
def test_nan_and_infinity_reach_every_statistic(way, jit):
    """In a small, a medium and a large weight, in the first, a middle and the last step."""
    for shape, value, when in itertools.product(
        [(3, 4), (40, 40), (130, 130)], [np.nan, np.inf, -np.inf], [0, 1, 2]
    ):
        steps = [[np.ones(shape), np.ones(2)] for _ in range(3)]
        steps[when][0][-1, 0] = value
        values, bad, first = fold(way, jit, steps)
        assert (bad.tolist(), first.tolist()) == ([1, 0], [when + 1, 0])
        for name in ("mean_abs", "l2_norm", "max_abs"):
            np.testing.assert_equal(values[name][0], abs(value), err_msg=f"{name} {shape} {when}")
            assert values[name][1] == pytest.approx(np.sqrt(2) if name == "l2_norm" else 1)
        assert values["zero_fraction"].tolist() == [0, 0]


@pytest.mark.parametrize(("way", "jit"), WAYS)
def test_large_is_not_infinite(way, jit):
    """Every entry is finite, and their squares are far beyond float32."""
    step = [np.full((3, 4), 2e34), np.full((40, 40), -1e34), np.full((130, 130), 1e34)]
    values, bad, first = fold(way, jit, [step] * 4)
    assert not bad.any() and not first.any()
    assert_close(values["max_abs"], [2e34, 1e34, 1e34])
    assert_close(values["mean_abs"], [2e34, 1e34, 1e34])
    assert_close(values["l2_norm"], [2e34 * np.sqrt(12), 1e34 * 40, 1e34 * 130])


@pytest.mark.parametrize(("way", "jit"), WAYS)
def test_all_zero_gradients(way, jit):
    values, bad, _ = fold(way, jit, [[np.zeros((3, 4)), np.zeros((40, 40))]] * 3)
    assert not bad.any()
    for name, value in values.items():
        assert value.tolist() == ([1, 1] if name == "zero_fraction" else [0, 0])


@pytest.mark.parametrize(("way", "jit"), WAYS)
def test_a_new_record_starts_from_nothing(way, jit):
    folds, update = folds_of([(2,)], way)
    update = tf.function(update, jit_compile=jit)
    update([tf.constant([np.nan, 0.0])])
    update([tf.constant([4.0, 0.0])])
    folds.drain()
    update([tf.constant([np.inf, 0.0])])  # a reset also empties what was not drained
    folds.reset()
    update([tf.constant([-3.0, 4.0])])
    folds.drain()
    totals = {name: total.tolist() for name, total in folds.folded().items()}
    expected = {"mean_abs": [7], "l2_norm": [25], "max_abs": [4], "zero_fraction": [0]}
    assert {name: pytest.approx(total) for name, total in expected.items()} == totals
    assert folds.steps() == (1, 1, 0)
    assert not any(counts.any() for counts in folds.nonfinite_steps())


@pytest.mark.parametrize("way", [StepTotals, EntryTotals])
@pytest.mark.parametrize("jit", [False, True])
def test_nonfinite_steps_of_weights_and_of_their_layer(way, jit):
    """Two weights of a layer fail in different steps: one step each, two for the layer."""
    model = create_model(1, "relu", "he", units=3, input_shape=(2,), seed=0)
    recorder = Recorder(model, way=way)
    update = tf.function(lambda g: recorder.update(recorder.variables, g, g), jit_compile=jit)
    steps = [[np.ones(v.shape, np.float32) for v in model.trainable_variables] for _ in range(4)]
    steps[1][0][1, 2] = np.nan  # kernel of hidden_1
    steps[2][1][0] = np.inf  # its bias
    steps[3][2][0, 0] = -np.inf  # kernel and bias of the output, in the same step
    steps[3][3][0] = np.nan
    for step in steps:
        update([tf.constant(g) for g in step])
    assert recorder.pending_steps == 4
    recorder.record(1, 4, {})
    history = recorder.history
    assert history["nonfinite_steps"].tolist() == [[1, 1, 1, 1]]
    assert history.by_layer("nonfinite_steps").tolist() == [[2, 1]]
    assert history["first_nonfinite_step"].tolist() == [[2, 3, 4, 4]]
    assert history.by_layer("first_nonfinite_step").tolist() == [[2, 4]]
    np.testing.assert_equal(history["mean_abs"], [[np.nan, np.inf, np.inf, np.nan]])
    update([tf.constant(g) for g in steps[0]])
    recorder.record(1, 5, {})
    assert history["nonfinite_steps"].tolist()[1] == [0, 0, 0, 0]
    assert history["first_nonfinite_step"].tolist()[1] == [0, 0, 0, 0]
    assert history.by_layer("nonfinite_steps").tolist()[1] == [0, 0]
    assert history["mean_abs"].tolist()[1] == [1, 1, 1, 1]
    update([tf.constant(g) for g in steps[0]])
    update([tf.constant(g) for g in steps[2]])
    recorder.record(2, 7, {})
    assert history["first_nonfinite_step"].tolist()[2] == [0, 7, 0, 0]


@pytest.mark.parametrize("jit", [False, True])
def test_the_first_nonfinite_step_where_every_third_step_makes_an_update(jit):
    model = create_model(1, "relu", "he", units=3, input_shape=(2,), seed=0)
    recorder = Recorder(model)
    update = tf.function(lambda g: recorder.update(recorder.variables, g, g), jit_compile=jit)
    good = [tf.ones(v.shape) for v in model.trainable_variables]
    for gradients in (good, [g * np.nan for g in good]):
        update(gradients)
    recorder.record(1, 6, {})
    assert recorder.history["first_nonfinite_step"].tolist() == [[6, 6, 6, 6]]


@pytest.mark.parametrize("jit", [False, True])
def test_a_skipped_step_is_counted_and_not_averaged(jit):
    model = create_model(1, "relu", "he", units=3, input_shape=(2,), seed=0)
    recorder = Recorder(model)

    @tf.function(jit_compile=jit)
    def step(gradients, taken):
        recorder.attempt(recorder.variables, gradients)
        if taken:
            unscaled = [g / 4 for g in gradients]
            recorder.update(recorder.variables, unscaled, unscaled)

    good = [tf.fill(v.shape, 8.0) for v in model.trainable_variables]
    bad = [good[0], good[1] * np.inf, *good[2:]]
    for gradients, taken in ((good, True), (bad, False), (good, True), (bad, False)):
        step(gradients, taken)
    assert recorder.pending_steps == 4
    recorder.record(1, 4, {"loss": 1.0})
    history = recorder.history
    assert history["mean_abs"].tolist() == [[2, 2, 2, 2]]
    assert history["nonfinite_steps"].tolist() == [[0, 2, 0, 0]]
    assert history["first_nonfinite_step"].tolist() == [[0, 2, 0, 0]]
    assert {name: log.tolist() for name, log in history.logs.items()} == {
        "loss": [1],
        "skipped_steps": [2],
    }
    step(bad, False)
    recorder.record(1, 5, {})
    assert np.isnan(history["mean_abs"][1]).all()  # no step was taken
    assert history.logs["skipped_steps"].tolist() == [2, 1]


@pytest.mark.parametrize("way", [StepTotals, EntryTotals])
def test_what_clipping_left_and_in_how_many_steps_it_acted(random, way):
    model = create_model(1, "relu", "he", units=3, input_shape=(2,), seed=0)
    recorder = Recorder(model, clipped=True, way=way)
    shapes = [v.shape for v in model.trainable_variables]
    steps = [[random.normal(size=s).astype(np.float32) for s in shapes] for _ in range(3)]
    steps[2][0][0, 0] = np.nan
    after = [[np.clip(g, -0.5, 0.5) for g in step] for step in steps]
    after[1] = steps[1]
    for before, clipped in zip(steps, after, strict=True):
        recorder.update(
            recorder.variables, *([tf.constant(g) for g in s] for s in (before, clipped))
        )
    recorder.record(1, 3, {})
    squares = np.mean([[np.square(np.float64(g)).sum() for g in step] for step in after], axis=0)
    np.testing.assert_allclose(recorder.history["clipped_l2"], [np.sqrt(squares)], rtol=1e-6)
    acted = np.array([[np.any(np.abs(g[~np.isnan(g)]) > 0.5) for g in steps[t]] for t in (0, 2)])
    np.testing.assert_array_equal(recorder.history["clipped_steps"], [acted.sum(axis=0)])
    by_layer = acted.reshape(2, 2, 2).any(axis=2).sum(axis=0)
    np.testing.assert_array_equal(recorder.history.by_layer("clipped_steps"), [by_layer])


@pytest.mark.parametrize(("way", "jit"), WAYS)
def test_an_update_without_a_weight_counts_nothing_of_it(random, way, jit):
    """Three updates of the first weight, two of the second, one of which has no gradient for it."""
    first, second = (keras.Variable(np.zeros(shape, np.float32)) for shape in [(3, 4), (40, 40)])
    folds = Folds(
        [first, second],
        np.arange(2),
        select(ALL),
        clipped=True,
        distributions=True,
        way=way,
    )
    of_first = random.normal(size=(3, 3, 4)).astype(np.float32)
    of_first[0, 0, 0] = 0
    of_second = random.normal(size=(40, 40)).astype(np.float32)
    of_second[:2, 0] = 0

    updates = (
        [(first, of_first[0]), (second, of_second)],
        [(first, of_first[1])],
        [(first, of_first[2]), (second, None)],
    )

    def fold(pairs):
        gradients = [None if g is None else tf.constant(g) for _, g in pairs]
        folds.update([variable for variable, _ in pairs], gradients, gradients)

    for pairs in updates:
        tf.function(functools.partial(fold, pairs), jit_compile=jit, autograph=False)()
        folds.drain()
    assert [counts.tolist() for counts in folds.updates()] == [[3, 2], [3, 1]]
    sizes = np.array([12.0, 1600.0])
    totals, present = folds.folded(), folds.updates()[1]
    for statistic in select(ALL):
        value = statistic.finish(totals[statistic.name], sizes, present)
        for i, gradients in enumerate(([np.float64(g) for g in of_first], [of_second])):
            expected = oracle.statistics([[np.float64(g)] for g in gradients])[statistic.name]
            assert_close(value[[i]], expected)
    counts = folds.exponent_counts()
    assert counts.sum(axis=1).tolist() == [36, 1600] and counts[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("jit", [False, True])
def test_exponents_are_counted_as_frexp_finds_them(random, jit):
    folds, update = folds_of([(7, 5), (3,)], distributions=True)
    update = tf.function(update, jit_compile=jit)
    magnitudes = 10.0 ** random.uniform(-44, 38, size=(4, 38))
    steps = (magnitudes * random.choice([-1, 1], size=magnitudes.shape)).astype(np.float32)
    steps[0, :3] = np.nan, np.inf, -np.inf
    steps[1, :2] = 0.0, -0.0
    steps[2, :2] = 1.0, 2.0
    for step in steps:
        update([tf.constant(step[:35].reshape(7, 5)), tf.constant(step[35:])])
    _, exponent = np.frexp(steps.astype(np.float64))  # |g| in [2^(e-1), 2^e)
    places = np.where(np.isfinite(steps), np.maximum(exponent + 126, 0), 255)
    places[steps == 0] = 0
    expected = [np.bincount(p.ravel(), minlength=256) for p in np.split(places, [35], axis=1)]
    assert not folds.exponent_counts().any()
    folds.drain()
    np.testing.assert_array_equal(folds.exponent_counts(), expected)
    folds.drain()
    np.testing.assert_array_equal(folds.exponent_counts(), expected)
    folds.reset()
    folds.drain()
    assert not folds.exponent_counts().any()


def test_a_large_gradient_is_sampled_in_every_row_and_column():
    folds, update = folds_of([(256, 256), (3, 3, 64, 64)], distributions=True)
    gradient = np.zeros((256, 256), np.float32)
    gradient[:, ::2] = 2.0  # every other column
    update([tf.constant(gradient), tf.zeros((3, 3, 64, 64))])
    folds.drain()
    counts = folds.exponent_counts()
    assert (counts.sum(axis=1) <= 2048).all() and (counts.sum(axis=1) > 1500).all()
    assert counts[0, [0, 128]] == pytest.approx(counts[0].sum() / 2, rel=0.02)


def log_loss(y, p):
    """NaN in value and gradient where a target is negative."""
    return keras.ops.mean(keras.ops.log(y) * p, axis=-1)


@pytest.mark.parametrize("jit", [False, True])
def test_a_run_with_nan_in_one_step(jit):
    model = create_model(1, "tanh", "he", units=3, input_shape=(2,), seed=0)
    X = np.ones((20, 2), np.float32)
    y = np.full((20, 1), 0.5, np.float32)
    y[9] = -1.0  # the third of 5 steps
    history = train_and_track_gradients(
        model,
        X,
        y,
        2,
        batch_size=4,
        loss=log_loss,
        optimizer=Idle(),
        every=2,
        shuffle=False,
        jit_compile=jit,
    )
    assert history.steps.tolist() == [0, 2, 4, 6, 8, 10]
    bad = [0, 0, 1, 0, 1, 0]  # steps 3 and 8
    np.testing.assert_array_equal(history["nonfinite_steps"], np.outer(bad, np.ones(4)))
    np.testing.assert_array_equal(history.by_layer("nonfinite_steps"), np.outer(bad, np.ones(2)))
    for name in ("mean_abs", "l2_norm"):
        np.testing.assert_array_equal(np.isnan(history[name]).all(axis=1), np.array(bad) > 0)
        np.testing.assert_array_equal(np.isnan(history[name]).any(axis=1), np.array(bad) > 0)
    np.testing.assert_array_equal(np.isnan(history.logs["loss"]), np.array(bad) > 0)


@pytest.mark.parametrize("jit", [False, True])
def test_a_run_that_explodes_goes_on(random, jit):
    X = random.normal(size=(16, 5)).astype(np.float32)
    y = random.normal(size=(16, 1)).astype(np.float32)
    model = create_model(
        3, "relu", "he", units=6, input_shape=(5,), output_activation="linear", seed=1
    )
    history = train_and_track_gradients(
        model,
        X,
        y,
        6,
        batch_size=8,
        every=1,
        seed=0,
        optimizer=keras.optimizers.SGD(1e6),
        jit_compile=jit,
    )
    assert history.steps.tolist() == list(range(13))
    bad = ~np.isfinite(history["mean_abs"])
    assert not bad[0].any()
    assert bad[-1].any()  # not all: a ReLU whose input is NaN may answer with 0
    np.testing.assert_array_equal(history["nonfinite_steps"], bad)
    assert history.to_frame()["value"].isna().any()


def test_select_keeps_the_order_and_what_is_always_on():
    assert [s.name for s in select(())] == ["mean_abs", "l2_norm"]
    wanted = ["zero_fraction", "l2_norm", "max_abs", "weight_l2", "nonfinite_steps"]
    assert [s.name for s in select(wanted)] == [*ALL]


def test_select_names_the_nearest():
    with pytest.raises(
        ValueError,
        match="^statistics must be among mean_abs, l2_norm, max_abs, zero_fraction, "
        "updates, gradients_present, nonfinite_steps, first_nonfinite_step, weight_l2, "
        "update_l2, received 'max_ab'; "
        r"did you mean 'max_abs'\?$",
    ):
        select(["mean_abs", "max_ab"])
    with pytest.raises(
        TypeError,
        match=r"^statistics must be a sequence of names, received 'max_abs': \['max_abs'\]\?$",
    ):
        select("max_abs")


@pytest.mark.parametrize("names", [["zeros", 3], [None]])
def test_select_refuses_what_is_no_name(names):
    with pytest.raises((TypeError, ValueError), match=r"^statistics "):
        select(names)


@pytest.mark.parametrize("growth", [1e22, 1e-25])
def test_squares_lost_within_a_reading_are_bounded_from_above(growth):
    """Entry totals scale by the last reading; a jump of 22 decades is beyond that scale."""
    folds, update = folds_of([(3, 4)], EntryTotals, ())
    steps = [
        tf.ones((3, 4)) * size for size in ([1, growth, growth] if growth > 1 else [0, growth])
    ]
    for count, gradient in enumerate(steps, start=1):
        update([gradient])
        if count == 1:
            folds.drain()
    folds.drain()
    l2 = L2_NORM.finish(folds.folded()["l2_norm"], np.array([12]), len(steps))[0]
    exact = np.sqrt(sum(float(tf.reduce_sum((g / growth) ** 2)) for g in steps) / len(steps))
    assert exact * growth * (1 - 1e-6) <= l2 <= np.sqrt(len(steps)) * exact * growth
