"""Single networks: the gradients of many networks that are drawn at once.

A layer of n units deviates from the limit of wide layers by 1/√n, and deviations multiply over the
layers. To first order in 1/n they have a closed form (`finite_width`), for one sample and a plain
stack. With batches, normalization and skip connections this is not accurate enough at widths below
100, where bands derived this way contained 55 to 94 % of networks. Networks are therefore drawn:
narrow ones, because they are cheap, and their deviations are scaled to wider ones as 1/n.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kgrad.theory.activations import Activation
from kgrad.theory.network_gradients import Parameter
from kgrad.theory.networks import Add, Dense, Input, Node, Unit, sources
from kgrad.theory.units import UnitMap

# Time grows with the number of units; from 64 on, deviations are nearly linear in 1/n.
_MOST_UNITS = 64
_Normalized = tuple[np.ndarray, np.ndarray | float]


def narrowed(nodes: tuple[Node, ...]) -> tuple[tuple[Node, ...], float]:
    """Return the network with hidden layers of at most 64 units, and the factor by which it shrank.

    σ_w² stays the same.
    """
    last = len(nodes) - 1
    hidden = [node.width for node in nodes[:-1] if isinstance(node, Dense)]
    factor = max([1.0, *(width / _MOST_UNITS for width in hidden)])
    found: list[Node] = []
    shrunk: list[float] = []  # each node's old width over its new one
    for place, node in enumerate(nodes):
        if isinstance(node, Dense):
            width = node.width if place == last else max(1, round(node.width / factor))
            variance = node.weight_variance * shrunk[node.source]
            found.append(replace(node, width=width, weight_variance=variance))
            shrunk.append(node.width / width)
        else:
            found.append(node)
            shrunk.append(1.0 if isinstance(node, Input) else shrunk[sources(node)[0]])
    return tuple(found), factor


class DrawnNetworks:
    """Networks with drawn weights, run forward and backward.

    Args:
        nodes: the network, as for `BatchMoments`.
        X: the batch, (B, n_0).
        count: number of networks, R.
        output_errors: function from output pre-activations, (R, B, n_L), to each sample's
            ∂ℓ_a/∂h_a.
        random: generator of the draws.
        dtype: float32 takes half the time, if numbers between 1e-18 and 1e18 are enough.
        unit: factor by which errors are multiplied in the backward pass, so that they are.

    Attributes:
        output_errors: the errors at the output, (R, B, n_L).
    """

    def __init__(
        self,
        nodes: tuple[Node, ...],
        X: np.ndarray,
        count: int,
        output_errors: Callable[[np.ndarray], np.ndarray],
        random: np.random.Generator,
        dtype: type[np.floating] = np.float64,
        unit: float = 1.0,
    ) -> None:
        self._nodes, self._count, self._random, self._dtype = nodes, count, random, dtype
        self._unit = unit
        self._weights: dict[int, np.ndarray] = {}
        self._normalized: dict[int, _Normalized] = {}
        self._x: list[np.ndarray] = []
        for place, node in enumerate(nodes):
            self._x.append(self._forward(place, node, X).astype(dtype, copy=False))
        self._e: list[np.ndarray] = [np.zeros((), dtype)] * len(nodes)
        self.output_errors = output_errors(self._x[-1])
        self._e[-1] = (self.output_errors * unit).astype(dtype)
        for place in reversed(range(1, len(nodes))):
            self._backward(place, nodes[place])

    def norm_squared(self, parameter: Parameter) -> np.ndarray:
        """Return ‖g‖² of each network, with L the mean over the batch: (R,)."""
        place = parameter.place
        node, e = self._nodes[place], self._e[place].astype(np.float64) / self._unit
        if parameter.kind == "kernel" and isinstance(node, Dense):
            x = self._x[node.source].astype(np.float64)
            products = (x @ x.swapaxes(1, 2)) * (e @ e.swapaxes(1, 2))
            return np.asarray(products.sum(axis=(1, 2)) / x.shape[1] ** 2)
        if isinstance(node, Unit):
            x_hat, _ = self._normalized[place]
            e = e * node.map.after.df(x_hat)
            e = e * x_hat if parameter.kind == "gamma" else e
        return np.asarray(np.sum(e.mean(axis=1) ** 2, axis=1))

    def _forward(self, place: int, node: Node, X: np.ndarray) -> np.ndarray:
        if isinstance(node, Input):
            dense = all(isinstance(n, Dense) for n in self._nodes if place in sources(n))
            return (_compressed(X) if dense else X)[None]
        if isinstance(node, Add):
            return np.sum([self._x[source] for source in node.sources], axis=0)
        x = self._x[node.source]
        if isinstance(node, Unit):
            self._normalized[place] = x_hat, _ = _normalize(node.map, x)
            return node.map.after.f(x_hat)
        shape = (self._count, x.shape[2], node.width)
        W = self._random.standard_normal(shape, np.float32).astype(self._dtype, copy=False)
        W *= self._dtype(np.sqrt(node.weight_variance))
        self._weights[place] = W
        h = x @ W
        if node.bias_variance:
            b = self._random.standard_normal((self._count, 1, node.width))
            h += b * np.sqrt(node.bias_variance)
        return h

    def _backward(self, place: int, node: Node) -> None:
        e = self._e[place]
        if isinstance(node, Dense):
            if not isinstance(self._nodes[node.source], Input):
                passed = e @ self._weights[place].swapaxes(1, 2)
                self._e[node.source] = self._e[node.source] + passed
        elif isinstance(node, Unit):
            h, (x_hat, scale) = self._x[node.source], self._normalized[place]
            e = e * self._slope(node.map.after, x_hat)
            if node.map.norm is not None:
                axis = _axis(node.map)
                along = x_hat * np.mean(e * x_hat, axis=axis, keepdims=True)
                e = (e - e.mean(axis=axis, keepdims=True) - along) / scale
            if node.map.before.name != "linear":
                e = e * self._slope(node.map.before, h)
            self._e[node.source] = self._e[node.source] + e
        else:
            for source in sources(node):
                self._e[source] = self._e[source] + e

    def _slope(self, phi: Activation, u: np.ndarray) -> np.ndarray:
        return np.asarray(phi.df(u)).astype(self._dtype, copy=False)


def _axis(unit: UnitMap) -> int:
    return 1 if unit.norm == "batch" else 2


def _normalize(unit: UnitMap, h: np.ndarray) -> _Normalized:
    """Return the argument of φ_2, and the scale that it was divided by."""
    u = unit.before.f(h)
    if unit.norm is None:
        return u, 1.0
    u = u - u.mean(axis=_axis(unit), keepdims=True)
    scale = np.sqrt(np.mean(u**2, axis=_axis(unit), keepdims=True) + u.dtype.type(unit.epsilon))
    return u / scale, scale


def _compressed(X: np.ndarray) -> np.ndarray:
    """Return fewer columns with the same X Xᵀ, on which alone a dense layer's draws depend."""
    if X.shape[1] <= len(X):
        return X
    values, vectors = np.linalg.eigh(X @ X.T)
    return vectors * np.sqrt(np.maximum(values, 0))
