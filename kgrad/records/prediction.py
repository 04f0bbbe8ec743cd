"""`Prediction`: what theory expects of a model's gradients, read as a history with one record is.

It is made with TensorFlow, by `kgrad.experiments.prediction.predict`, and drawn without.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kgrad.records.history import Weight
from kgrad.records.statistics import by_layer, layers_of


class Predicted:
    """One number a weight and statistic, read as a history with one record is.

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
        """Values of one statistic: float64, (1, weights)."""
        return self._values[statistic].copy()

    def by_layer(self, statistic: str) -> np.ndarray:
        """Values of one statistic, each layer's weights taken as one vector: (1, layers)."""
        return by_layer(statistic, self[statistic], self.weights)


class Prediction(Predicted):
    """What `predict_gradients` returns.

    Attributes:
        weights: the trainable variables, in forward order, as in a `GradientHistory`.
        statistics: `("l2_norm", "mean_abs")`.
        lower: with `upper`, the band that holds 95 % of single networks drawn anew.
        upper: see `lower`; both are read as the prediction itself is.
        sigma_w2: fan-in times the variance of a weight, by the name of the dense layer.
        sigma_b2: variance of a bias, by the name of the dense layer.
        activations: the activation that follows each hidden dense layer, a
            `kgrad.theory.Activation`, by the layer's name.
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
        self.lower = Predicted(weights, lower)
        self.upper = Predicted(weights, upper)
        self.sigma_w2: dict[str, float] = dict(sigma_w2)
        self.sigma_b2: dict[str, float] = dict(sigma_b2)
        self.activations: dict[str, Any] = dict(activations)

    def __repr__(self) -> str:
        return f"Prediction({len(self.weights)} weights in {len(self.layers)} layers)"
