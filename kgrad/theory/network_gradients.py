"""Gradients of a network's parameters: E‖g‖² and E|g|, from the moments of a batch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kgrad.theory.networks import Add, BatchMoments, Dense


@dataclass(frozen=True)
class Parameter:
    """A trainable variable: a dense node's kernel or bias, or a normalization's γ or β.

    Attributes:
        kind: the kind of variable.
        place: index of its node.
    """

    kind: Literal["kernel", "bias", "gamma", "beta"]
    place: int


class NetworkGradients:
    """The expected gradients of a batch.

    Args:
        moments: the network's moments on the batch.
        errors: draws over networks of ∂ℓ_a/∂h_a at the output, (draws, B, n_L).

    Attributes:
        G: covariances of the errors in one unit of each node.
    """

    def __init__(self, moments: BatchMoments, errors: np.ndarray) -> None:
        self.moments = moments
        self._rows = _rows(errors)
        self.G = moments.backward(self._rows.T @ self._rows / len(self._rows))

    def norm_squared(self, parameter: Parameter) -> float:
        """Return E‖g‖²: n n'/B² Σ_ab A_ab G_ab for a kernel, n'/B² Σ_ab G_ab for a bias."""
        m, place = self.moments, parameter.place
        total = m.widths[place] * np.sum(adjoint(m, parameter) * self.G[place])
        return 0.0 if _removed(m, parameter) else max(float(total), 0.0)

    def mean_abs(self, parameter: Parameter, rows: slice) -> float:
        """Return E|g| of an entry, √(2/π) E[√(yᵀ Σ y)]/B as in `entries`, over draws in `rows`."""
        m, place = self.moments, parameter.place
        y = entry(m, parameter)[rows]
        if place == len(m.nodes) - 1:
            return float(np.abs(y @ self._rows.T).mean() / m.B)
        variance = np.maximum(self._variance(place, y, rows), 0)
        found = float(np.sqrt(2 / np.pi * variance).mean() / m.B)
        return 0.0 if _removed(m, parameter) else found

    def _variance(self, place: int, y: np.ndarray, rows: slice) -> np.ndarray:
        """Return Var[⟨y, e⟩] given the unit's own values, row by row.

        Errors are Gaussian if they flow back from a dense layer, or along a skip connection from a
        sum that no activation reads.
        """
        m, total = self.moments, np.zeros(len(y))
        for above in m.consumers[place]:
            if above in m.units:
                total = total + self._variance(above, m.units[above].jvp(y, rows), rows)
            elif isinstance(m.nodes[above], Add) and m.units.keys() & set(m.consumers[above]):
                total = total + self._variance(above, y, rows)
            else:
                total = total + quadratic(y, self.covariance(above))
        return total

    def covariance(self, above: int) -> np.ndarray:
        """Return covariances of the error from a dense node or a sum in one unit of its source."""
        node = self.moments.nodes[above]
        if isinstance(node, Dense):
            return node.width * node.weight_variance * self.G[above]
        return self.G[above]


def adjoint(m: BatchMoments, parameter: Parameter) -> np.ndarray:
    """Return Q with E‖g‖² = n ⟨Q, G⟩ at the parameter's node, (B, B)."""
    if parameter.kind == "kernel":
        source = _source(m, parameter.place)
        return m.widths[source] / m.B**2 * m.A[source]
    if parameter.kind == "bias":
        return np.full((m.B, m.B), 1 / m.B**2)
    y = entry(m, parameter)
    return y.T @ y / (len(y) * m.B**2)


def entry(m: BatchMoments, parameter: Parameter) -> np.ndarray:
    """Return y, (draws, B): a gradient's entry is ⟨y, e⟩/B with e the error of the node's unit."""
    if parameter.kind == "kernel":
        return m.shuffled(_source(m, parameter.place))
    if parameter.kind == "bias":
        return np.ones_like(m.normal)
    unit = m.units[parameter.place]
    return unit.after_slope * (unit.x_hat if parameter.kind == "gamma" else 1.0)


def of_errors(errors: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Return Σ_i ⟨δ_i, Q δ_i⟩ over the output units, for each draw of the errors: (draws,)."""
    return quadratic(_rows(errors), Q).reshape(len(errors), -1).sum(axis=1)


def _rows(errors: np.ndarray) -> np.ndarray:
    """Reshape (draws, B, n_L) to one row per draw and output unit."""
    return np.moveaxis(errors, 1, 2).reshape(-1, errors.shape[1])


def quadratic(rows: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Return ⟨r, Q r⟩ of each row: (rows,)."""
    return np.einsum("ma,ma->m", rows @ Q, rows)


def _removed(m: BatchMoments, parameter: Parameter) -> bool:
    """Return whether batch normalization removes a bias, so that its gradient is only rounding."""
    above = m.consumers[parameter.place]
    if parameter.kind != "bias" or len(above) != 1 or above[0] not in m.units:
        return False
    unit = m.units[above[0]].unit
    return unit.norm == "batch" and unit.before.name == "linear"


def _source(moments: BatchMoments, place: int) -> int:
    node = moments.nodes[place]
    if not isinstance(node, Dense):
        raise TypeError(f"a kernel belongs to a Dense node, received {node!r}")
    return node.source
