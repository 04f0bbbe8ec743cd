"""`Prediction`: the gradients that theory expects of a model, read like a history of one record.

`kgrad.experiments.prediction.predict` makes it, with TensorFlow; drawing it needs no TensorFlow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kgrad.records.history import Weight
from kgrad.records.notebook import Shown
from kgrad.records.statistics import by_layer, layers_of

# Lines of layers that a printed prediction has at most.
_MOST_LINES = 11


class PredictedValues:
    """One number per weight and statistic, read like a history of one record.

    Attributes:
        weights: the trainable variables, in forward order, as in a `GradientHistory`.
        statistics: `("l2_norm", "mean_abs")`.
    """

    def __init__(self, weights: Sequence[Weight], values: Mapping[str, np.ndarray]) -> None:
        self.weights: tuple[Weight, ...] = tuple(weights)
        self.statistics: tuple[str, ...] = tuple(values)
        self._values = {
            name: np.array(numbers, np.float64).reshape(1, len(self.weights))
            for name, numbers in values.items()
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names in forward order, each once."""
        return layers_of(self.weights)

    def __getitem__(self, statistic: str) -> np.ndarray:
        """Return the values of one statistic: float64, (1, weights)."""
        return self._values[statistic].copy()

    def by_layer(self, statistic: str) -> np.ndarray:
        """Return one statistic per layer, with the layer's weights as one vector: (1, layers)."""
        return by_layer(statistic, self[statistic], self.weights)


class Prediction(Shown, PredictedValues):
    """The gradients that theory expects of a model: the result of `predict_gradients`.

    Attributes:
        weights: the trainable variables, in forward order, as in a `GradientHistory`.
        statistics: `("l2_norm", "mean_abs")`.
        lower: with `upper`, the band that contains 95 % of newly drawn networks.
        upper: see `lower`.
        sigma_w2: dense layer's name → fan-in times the variance of its weights.
        sigma_b2: dense layer's name → variance of its biases.
        activations: hidden dense layer's name → the `kgrad.theory.Activation` that follows it.
    """

    def __init__(
        self,
        weights: Sequence[Weight],
        values: Mapping[str, np.ndarray],
        *,
        lower: Mapping[str, np.ndarray],
        upper: Mapping[str, np.ndarray],
        sigma_w2: Mapping[str, float],
        sigma_b2: Mapping[str, float],
        activations: Mapping[str, Any],
    ) -> None:
        super().__init__(weights, values)
        self.lower = PredictedValues(weights, lower)
        self.upper = PredictedValues(weights, upper)
        self.sigma_w2: dict[str, float] = dict(sigma_w2)
        self.sigma_b2: dict[str, float] = dict(sigma_b2)
        self.activations: dict[str, Any] = dict(activations)

    def __repr__(self) -> str:
        return f"Prediction({len(self.weights)} weights in {len(self.layers)} layers)"

    def __str__(self) -> str:
        """Return a line per layer, at most eleven, with its gradient's norm and the band."""
        norms, lower, upper = (one.by_layer("l2_norm")[0] for one in (self, self.lower, self.upper))
        width = max(map(len, self.layers))
        lines = [
            f"{layer:<{width}}  {norm:<8.3g}  [{low:.3g}, {high:.3g}]"
            for layer, norm, low, high in zip(self.layers, norms, lower, upper, strict=True)
        ]
        if len(lines) > _MOST_LINES:
            ends = (_MOST_LINES - 1) // 2
            left_out = f"… {len(lines) - 2 * ends} more layers"
            lines = [*lines[:ends], left_out, *lines[-ends:]]
        head = (
            "Predicted norm of each layer's gradient before training, and range of 95 % of networks"
        )
        return "\n".join([f"{head}:", *lines])
