"""`predict_gradients`: predict a model's gradients before training, from its layers and a batch."""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops
from threadpoolctl import ThreadpoolController

from kgrad.experiments.prediction.networks import DenseNetwork, Variances, read_dense_network
from kgrad.experiments.prediction.single_networks import (
    FULL,
    Effort,
    OutputErrors,
    SingleNetworks,
    rough_effort,
)
from kgrad.measure.backends.current import backend
from kgrad.measure.building import build_as_fit_does
from kgrad.measure.inputs import as_arrays, choose_loss, loss_value, require_trainable
from kgrad.records.checks import require_one_of
from kgrad.records.history import Weight
from kgrad.records.prediction import Prediction
from kgrad.theory.network_gradients import NetworkGradients, Parameter
from kgrad.theory.networks import BatchMoments, Dense, Unit, standard_normal

_MOST_SAMPLES = 2048
_MOST_OUTPUTS, _LEAST_OUTPUTS = 2**17, 64


def predict_gradients(
    model: keras.Model,
    X: Any,
    y: Any,
    loss: Any = None,
    *,
    variances: Variances = "initializer",
    rough: bool = False,
) -> Prediction:
    """Predict the gradients of a batch, as an average over random initial weights.

    Mean-field theory of wide networks: the second moments of signals and errors for all pairs of
    samples are computed layer by layer, forward and backward; see `kgrad.theory` and
    docs/theory.md. The model is read and not run, except for its output activation and its loss.

    `l2_norm` is √E‖∂L/∂W‖², which corresponds to the root mean square over seeds of what
    `measure_gradients` returns; `mean_abs` corresponds to the mean over seeds. The gradients of
    single networks scatter around these values, more in narrow and deep networks: 95 % of them are
    between `lower` and `upper`.

    Args:
        model: a built Keras model, functional or sequential, of Dense layers with activations,
            BatchNormalization or LayerNormalization, and Add; it is not changed. Other layers, such
            as Dropout and convolutions, and regularizers are refused.
        X: inputs, (samples, ...): one batch of at most 2,048 samples.
        y: targets, (samples,) or (samples, ...).
        loss: as in `measure_gradients`.
        variances: "initializer" averages over the initializers' distributions; "weights" uses the
            mean square of each kernel's and bias's current values.
        rough: whether to draw fewer random values, for a figure that follows a slider. A rough
            prediction takes a third of the time, and less for deep networks. For ten layers its
            line is within 15 % and its band 0.7 to 1.6 times as wide. For deeper networks, with
            fewer draws still, the line is only within the band.

    Returns:
        The prediction, with the interface of a history of one record.

    Raises:
        TypeError: if the model is not a Keras model or the data are not numbers that fit it.
        ValueError: if the theory does not cover the model, or another argument is not accepted.

    Example:
        >>> from kgrad import create_model, make_dataset
        >>> data = make_dataset("moons", 32)
        >>> model = create_model(2, "tanh", "xavier", units=64, input_shape=(2,))
        >>> prediction = predict_gradients(model, data.X, data.y)
        >>> prediction.by_layer("l2_norm").shape  # (1, layers)
        (1, 3)
    """
    require_trainable(model)
    require_one_of("variances", variances, ("initializer", "weights"))
    X, y = as_arrays(model, X, y)
    if len(X) > _MOST_SAMPLES:
        raise ValueError(
            f"X must hold at most {_MOST_SAMPLES:,} samples, received {len(X):,}: pass a "
            "mini-batch, such as X[:32] and y[:32]"
        )
    loss_function = choose_loss(model, y, loss)
    network = read_dense_network(model, variances)
    build_as_fit_does(model, X, y)

    def loss_of(target: Any, output: Any) -> Any:
        return loss_value(model, None, target, output, loss_function)

    return predict_network(network, X, y, loss_of, model.compute_dtype, rough=rough)


def predict_network(
    network: DenseNetwork,
    X: np.ndarray,
    y: np.ndarray,
    loss_of: Callable[[Any, Any], Any],
    dtype: str,
    *,
    rough: bool,
) -> Prediction:
    """Predict the gradients of a batch in a network, as `predict_gradients`.

    Args:
        network: the network.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).
        loss_of: function that maps the tensors of the targets and the outputs to the loss.
        dtype: Keras's name of the outputs' type.
        rough: as in `predict_gradients`.
    """
    # For matrices this small, several threads that wait for each other are slower than one.
    with _threads().limit(limits=1, user_api="blas"):
        effort = rough_effort(network.nodes, len(X)) if rough else FULL
        flat = X.reshape(len(X), -1)
        moments = BatchMoments(tuple(network.nodes), flat, most_draws=effort.draws)
        errors_of = _output_errors(network, loss_of, dtype)
        values = _values(moments, y, errors_of, network.parameters, effort)
    layers = network.layers
    dense = {layers[i]: node for i, node in enumerate(network.nodes) if isinstance(node, Dense)}
    return Prediction(
        list(network.parameters),
        values["center"],
        lower=values["lower"],
        upper=values["upper"],
        sigma_w2={
            name: moments.widths[node.source] * node.weight_variance for name, node in dense.items()
        },
        sigma_b2={name: node.bias_variance for name, node in dense.items()},
        activations={
            layers[node.source]: node.map.after
            for node in network.nodes
            if isinstance(node, Unit) and node.source in layers
        },
    )


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()  # searching for the libraries takes as long as a layer


def _drawn_outputs(moments: BatchMoments, most: int) -> np.ndarray:
    """Draw pre-activations of the output layer: (draws, B, n_L)."""
    B, width = moments.B, moments.widths[-1]
    draws = int(np.clip(_MOST_OUTPUTS // (B * width), _LEAST_OUTPUTS, most))
    values, vectors = np.linalg.eigh(moments.A[-1])
    root = vectors * np.sqrt(np.maximum(values, 0))
    z = standard_normal(draws * width, B, moments.random)
    return np.swapaxes((z @ root.T).reshape(draws, width, B), 1, 2)


def _output_errors(
    network: DenseNetwork, loss_of: Callable[[Any, Any], Any], dtype: str
) -> OutputErrors:
    """Return a function that maps pre-activations h, (draws, B, n_L), and targets to ∂ℓ_a/∂h_a."""

    def slopes(h: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the loss's derivative with respect to the output's pre-activations h."""
        target, at = ops.convert_to_tensor(y), ops.convert_to_tensor(h, dtype)

        def value(point: Callable[[Any], Any]) -> tuple[list[Any], tuple[()]]:
            return [loss_of(target, network.output(point(at)))], ()

        _, [[found]] = backend.intermediate_gradients(value)
        return np.asarray(ops.convert_to_numpy(found), np.float64)

    def errors(h: np.ndarray, y: np.ndarray) -> np.ndarray:
        draws, B, width = h.shape
        whole = slopes(h.reshape(-1, width), np.concatenate([y] * draws))
        one = slopes(h[0], y)
        # The slopes of a mean are smaller with more samples; those of a sum are not.
        scale = np.sum(one * one) / max(np.sum(one * whole[:B]), 1e-300)
        return np.asarray(B * scale * whole.reshape(draws, B, width))

    return errors


def _values(
    moments: BatchMoments,
    y: np.ndarray,
    errors_of: OutputErrors,
    weights: dict[Weight, Parameter],
    effort: Effort,
) -> dict[str, dict[str, np.ndarray]]:
    """Return center, lower, upper → statistic → one number per weight."""
    errors = errors_of(_drawn_outputs(moments, effort.outputs), y)
    expected = NetworkGradients(moments, errors)
    single = SingleNetworks(moments, y, errors, errors_of, effort)
    norms = np.sqrt([expected.norm_squared(parameter) for parameter in weights.values()])
    table = np.zeros((2, 3, len(weights)))
    for i, relative in _relative(single, weights, norms, effort.places).items():
        lower, middle, upper, entry = relative
        table[0, :, i] = norms[i] * np.array([1, lower, upper])
        table[1, :, i] = norms[i] * entry * np.array([middle, lower, upper])
    return {
        bound: {"l2_norm": table[0, j], "mean_abs": table[1, j]}
        for j, bound in enumerate(("center", "lower", "upper"))
    }


def _relative(
    single: SingleNetworks, weights: dict[Weight, Parameter], norms: np.ndarray, places: int
) -> dict[int, tuple[float, ...]]:
    """Return what `SingleNetworks.relative` returns for each weight with a gradient.

    Computed for at most `places` weights of a kind and shape besides the first and the last.
    Between them it changes slowly with depth, and its logarithm is interpolated.
    """
    found: dict[int, tuple[float, ...]] = {}
    alike = [(weight.name, weight.shape) for weight in weights]
    parameters = list(weights.values())
    for kind in dict.fromkeys(alike):
        mine = [i for i, one in enumerate(alike) if one == kind and norms[i] > 0]
        # The first and the last layer are unlike the others.
        last = len(mine) - 1
        spread = np.linspace(1, last - 1, min(places, max(last - 1, 0))).round().astype(int)
        chosen = [k for k in range(len(mine)) if k in (0, last) or k in spread]
        known = {k: single.relative(parameters[mine[k]]) for k in chosen}
        logs = np.log(np.maximum(list(known.values()), np.finfo(float).tiny)).reshape(-1, 4)
        for k, i in enumerate(mine):
            found[i] = known.get(k) or tuple(
                float(np.exp(np.interp(k, chosen, column))) for column in logs.T
            )
    return found
