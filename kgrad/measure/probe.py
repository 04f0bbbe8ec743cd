"""`Probe`: the outputs of a model's layers on a fixed batch, and the gradients that come back.

The gradient of a weight has two factors: the input of its layer, and the signal ∂L/∂a that comes
back to the layer's output a. The gradient alone does not show which of the two is small. A probe
measures both, and how an activation changes the signal.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kgrad.measure.backends.current import backend
from kgrad.measure.inputs import aligned_targets, choose_loss, require_built
from kgrad.measure.keras_models.weights import name_layers
from kgrad.records.checks import unique_name

PROBE_STATISTICS = (
    "activation_mean",
    "activation_std",
    "activation_zero_fraction",
    "activation_saturated",
    "activation_dead",
    "signal_mean_abs",
    "signal_l2",
)


class Probe:
    """Activations and back-propagated signals of a model on one fixed batch.

    A measurement is one forward and one backward pass as in training: `training=True`, with
    regularization in the loss. Everything that the passes change in the model is restored, Keras's
    random numbers included: a dropout layer drops the same entries in every measurement, and the
    training continues as if nothing had been measured.

    A row of the result is one call of a layer. Nested models are opened. Keras's own layers are not
    opened: a recurrent, attention or wrapper layer is one row. A user's own layer that holds other
    layers is opened; it also has a row, unless it returns the output of one of them unchanged. The
    output a of a layer is its first tensor; an output that does not hold floats has no row.

    The statistics, where L is the loss of the whole batch and s = ∂L/∂a the signal:

    - `activation_mean`, `activation_std`: mean and standard deviation of the entries of a.
    - `activation_zero_fraction`: share of the entries of a that are exactly 0.
    - `activation_saturated`: share of the entries of a = f(z) with |f'(z)| < 0.01 max |f'|, where f
      is the layer's activation and the maximum is over the real line. 0 if f is linear; NaN if the
      layer has no elementwise activation (softmax is not elementwise) or |f'| has no maximum above
      0.
    - `activation_dead`: share of the units (positions on the last axis) that are 0 in all of a.
    - `signal_mean_abs`: mean of |s|; 0 if no path leads from a to the loss.
    - `signal_l2`: square root of the sum of s².

    NaN and infinity are recorded unchanged. Keras computes some losses from the logits before a
    final sigmoid or softmax; the signal of that layer is the gradient of the same loss computed
    from its output.

    Args:
        model: a built Keras model. Its weights may change between measurements, its layers not.
        X: inputs, (samples, ...), or a list, tuple or dict of them as the model takes it.
        y: targets, (samples, ...), or a list, tuple or dict of them.
        loss: a Keras loss, its name, or a function of (y_true, y_pred), applied to every output; by
            default the loss that the model was compiled with.

    Attributes:
        outputs: the name of each row, in the order of the calls: the layer's name, with a number if
            it occurs again.

    Raises:
        TypeError: if the model is not a Keras model, or the data are neither numbers nor strings.
        ValueError: if the model is not built, has no loss or has no output to measure, or the data
            are empty or differ in length. All are raised before anything is run.

    Example:
        >>> from kgrad import create_model, make_dataset
        >>> data = make_dataset("moons", 64)
        >>> model = create_model(2, "relu", "he", units=8, input_shape=(2,), seed=0)
        >>> probe = Probe(model, data.X, data.y, loss="binary_crossentropy")
        >>> probe.outputs
        ('hidden_1', 'hidden_2', 'output')
        >>> probe.measure()["signal_l2"].shape  # (outputs,)
        (3,)
    """

    def __init__(self, model: keras.Model, X: Any, y: Any, loss: Any = None) -> None:
        _require_measurable(model, loss)
        X, y = _arrays("X", X), _arrays("y", y)
        _require_one_length(X, y)
        chosen = None if loss is None else _as_loss(choose_loss(model, np.empty(0), loss))
        layers, self._run = backend.compiled_probe(model, X, y, chosen)
        layer_names = name_layers(model)
        names: list[str] = []
        for layer in layers:
            names.append(unique_name(layer_names[id(layer)], names))
        self.outputs = tuple(names)

    def measure(self) -> dict[str, np.ndarray]:
        """Run the batch forward and backward once, with the weights as they are.

        Returns:
            statistic → float64 (outputs,).
        """
        values = self._run()
        return {name: values[name] for name in PROBE_STATISTICS}


class _MeanLoss(keras.losses.Loss):
    """A function of (y_true, y_pred), averaged as `fit` does."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="mean_loss")
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(aligned_targets(y_true, y_pred), y_pred)


def _as_loss(loss: Any) -> keras.losses.Loss:
    return loss if isinstance(loss, keras.losses.Loss) else _MeanLoss(loss)


def _require_measurable(model: Any, loss: Any) -> None:
    require_built(model)
    if loss is None and not model.compiled:
        raise ValueError(
            f"loss must be named for model {model.name!r}, which is not compiled: "
            "pass loss='mean_squared_error' or another"
        )


def _arrays(name: str, value: Any) -> Any:
    """Return the structure with arrays as leaves; floating-point ones have Keras's float type."""

    def as_array(part: Any) -> np.ndarray:
        array = np.asarray(part)
        if array.dtype.kind not in "fiubUS":
            raise TypeError(
                f"{name} must be arrays of numbers or strings, received dtype {array.dtype}"
            )
        if array.size == 0 or array.ndim == 0:
            raise ValueError(f"{name} must hold at least one sample, received shape {array.shape}")
        return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array

    return keras.tree.map_structure(as_array, value)


def _require_one_length(X: Any, y: Any) -> None:
    lengths = [[len(array) for array in keras.tree.flatten(arrays)] for arrays in (X, y)]
    if len({*lengths[0], *lengths[1]}) != 1:
        X_lengths, y_lengths = (", ".join(map(str, of)) or "no" for of in lengths)
        raise ValueError(
            f"X and y must have the same length, received {X_lengths} and {y_lengths} samples"
        )
