"""What `GradientTracker` is held against: the same training without it, and a tape of its own.

`Tape` is a callback of an untracked `fit`. Before each step it takes the step's gradient by an
eager backward pass, on the weights and the random state that the step will have, and puts back
what that changed. Nothing of kgrad takes part.
"""

from itertools import pairwise

import keras
import numpy as np
from backward import as_float64, gradients_of, value_of


def batches_of(*parts, size=8):
    """Batches as `fit` makes them without shuffling, the last one partial."""
    samples = len(keras.tree.flatten(parts[0])[0])
    return [
        keras.tree.map_structure(lambda a, start=start: a[start : start + size], parts)
        for start in range(0, samples, size)
    ]


def fit(make, x, y=None, *, callbacks=(), epochs=2, **options):
    """A new model from the same seed, trained on the same batches of 8."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model = make()
    keras.utils.set_random_seed(4)
    if isinstance(x, np.ndarray | list | dict):
        options = {"batch_size": 8} | options
    options |= {"epochs": epochs, "verbose": 0, "callbacks": list(callbacks)}
    model.fit(x, y, shuffle=False, **options)
    return model


def assert_same_training(one, other):
    """Weights, random states and the optimizers' variables agree to the last bit."""
    for a, b in zip(everything(one), everything(other), strict=True):
        np.testing.assert_array_equal(value_of(a), value_of(b), err_msg=a.path)


def everything(model):
    optimizers = [v for v in vars(model).values() if isinstance(v, keras.optimizers.Optimizer)]
    return model.variables + [v for optimizer in optimizers for v in optimizer.variables]


def trained(model):
    return [v for v in model.weights if v.trainable]


class Tape(keras.callbacks.Callback):
    """The gradient of each step of a `fit` over `batches`, float64.

    Args:
        batches: (x, y) or (x, y, sample_weight) of each step of an epoch.
        loss: of (model, x, y); by default what the model was compiled with.
        scale: of (model), by which the loss is multiplied and the gradient divided.

    Attributes:
        epochs: for each epoch, for each step, the gradients in the order of `model.weights`.
        values: the trained weights at the start and after each epoch.
    """

    def __init__(self, batches, loss=None, scale=None):
        super().__init__()
        self.batches, self.loss, self.scale = batches, loss, scale
        self.epochs, self.values = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])

    def on_train_batch_begin(self, batch, logs=None):
        if batch == len(self.batches):  # Keras looks for one more where it does not know the size
            return
        model = self.model
        if not model.built:  # TensorFlow alone builds a subclassed model in its first step
            model(keras.ops.convert_to_tensor(self.batches[batch][0]))
        kept = [*model.variables, *(v for m in model.metrics for v in m.variables)]
        before = [value_of(v) for v in kept]
        scale = float(self.scale(model)) if self.scale else 1.0
        variables = trained(model)
        gradients = gradients_of(lambda: self._loss(*self.batches[batch]) * scale, variables)
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)
        if not self.values:
            self.values.append([value_of(v) for v in variables])
        pairs = zip(gradients, variables, strict=True)
        self.epochs[-1].append([as_float64(*pair) / scale for pair in pairs])

    def _loss(self, x, y, sample_weight=None):
        x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
        if self.loss is not None:
            return self.loss(self.model, x, y)
        y_pred = self.model(x, training=True)
        return self.model.compute_loss(x, y, y_pred, sample_weight, training=True)

    def on_epoch_end(self, epoch, logs=None):
        self.values.append([value_of(v) for v in trained(self.model)])

    @property
    def steps(self):
        """The gradients of each step."""
        return [step for epoch in self.epochs for step in epoch]

    def records(self):
        """The steps of each record: the first, before training, and those of each epoch."""
        return [self.steps[:1], *self.epochs]


def statistics(steps):
    """Statistics over the steps of one record: name → (weights,)."""
    by_weight = list(zip(*steps, strict=True))
    return {
        "mean_abs": [np.mean([np.mean(np.abs(g)) for g in gs]) for gs in by_weight],
        "l2_norm": [np.sqrt(np.mean([np.sum(g**2) for g in gs])) for gs in by_weight],
        "max_abs": [np.max([np.max(np.abs(g)) for g in gs]) for gs in by_weight],
        "zero_fraction": [np.mean([np.mean(g == 0) for g in gs]) for gs in by_weight],
        "nonfinite_steps": [sum(not np.isfinite(g).all() for g in gs) for gs in by_weight],
    }


def assert_records(history, records, *, rtol=1e-5, atol=0.0):
    """Each record of a history holds the statistics of the given steps."""
    assert len(history) == len(records)
    expected = [statistics(steps) for steps in records]
    for name in expected[0]:
        if name in history.statistics:
            wanted = [record[name] for record in expected]
            np.testing.assert_allclose(history[name], wanted, rtol, atol, err_msg=name)


def norms(arrays):
    return [np.sqrt(np.sum(np.square(a, dtype=np.float64))) for a in arrays]


def assert_weight_norms(history, values):
    """Norms of the weights, and of their change, at the start and after each epoch."""
    np.testing.assert_allclose(
        history["weight_l2"], [norms(values[0])] + [norms(v) for v in values[1:]], 1e-6
    )
    moves = [
        norms(np.subtract(a, b, dtype=np.float64) for a, b in zip(new, old, strict=True))
        for old, new in pairwise(values)
    ]
    np.testing.assert_allclose(history["update_l2"][1:], moves, 1e-5, 1e-6)
    assert not history["update_l2"][0].any()
