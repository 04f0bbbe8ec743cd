"""A run in six numbers, and the three of them that theory predicts: the rows of a table."""

import math
from collections.abc import Sequence

import numpy as np

from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction


def summarize(history: GradientHistory) -> dict[str, float]:
    """Summarize a run in six numbers.

    Returns:
        loss_first, loss_last: the loss of the first and the last record.
        gradient_first, gradient_last: mean |gradient| before training, at epoch 0, of the first
            and the last hidden layer that have a gradient.
        ratio: gradient_first / gradient_last.
        decades_per_layer: log10(ratio) divided by the distance of these layers: the powers of ten
            by which the gradient changes per layer, towards the input.
    """
    gradient = history.by_layer("mean_abs")[0]
    first, last, ratio, layers = _ends(history.layers, gradient, history.missing_by_layer[0] == "")
    with np.errstate(all="ignore"):  # zero and infinity are valid results
        decades = np.log10(ratio) / (layers - 1) if layers != 1 else np.float64(0.0)
    loss = history.logs["loss"]
    return {
        "loss_first": float(loss[0]),
        "loss_last": float(loss[-1]),
        "gradient_first": first,
        "gradient_last": last,
        "ratio": ratio,
        "decades_per_layer": float(decades),
    }


def summarize_prediction(prediction: Prediction) -> dict[str, float]:
    """Summarize a prediction as `summarize` does a run.

    Returns:
        predicted_first, predicted_last: mean |gradient| of the first and the last hidden layer.
        predicted_ratio: predicted_first / predicted_last.
    """
    gradient = prediction.by_layer("mean_abs")[0]
    first, last, ratio, _ = _ends(prediction.layers, gradient, np.ones(gradient.shape, bool))
    return {"predicted_first": first, "predicted_last": last, "predicted_ratio": ratio}


def _ends(
    layers: Sequence[str], gradient: np.ndarray, present: np.ndarray
) -> tuple[float, float, float, int]:
    """Return the first and the last hidden layer's gradient, their ratio, and the layer count.

    Only layers with a gradient count; all are NaN if there is none. In a model that `create_model`
    did not make, no layer is called hidden: all layers count.
    """
    hidden = [i for i, layer in enumerate(layers) if layer.startswith("hidden_")]
    hidden = hidden or list(range(len(layers)))
    measured = [n for n, i in enumerate(hidden) if present[i]]
    if not measured:
        return math.nan, math.nan, math.nan, 0
    first, last = gradient[hidden[measured[0]]], gradient[hidden[measured[-1]]]
    with np.errstate(all="ignore"):
        ratio = np.divide(first, last)
    return float(first), float(last), float(ratio), measured[-1] - measured[0] + 1
