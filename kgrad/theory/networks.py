"""Signals and errors of a mini-batch in dense networks with normalization and skip connections.

A network is a tuple of nodes in forward order, the first of which is the input; each refers to the
nodes that it reads by their index. The forward pass carries second moments over the units,
A_ab = E[x_a x_b], the backward pass covariances of the error in one unit, G_ab = E[e_a e_b],
e_a = ∂ℓ_a/∂x_a:

    dense     K = n v A + σ_b²              G += n' v G'           n inputs, n' units
    unit map  A' = E[φ(u) φ(u)ᵀ]            G += E[Jᵀ G' J]
    add       A' = A_1 + A_2 + m_1 m_2ᵀ + m_2 m_1ᵀ   (m: the means)        G += G'

An error that flows back along two paths is a sum of independent errors, because the weights are
independent. See `mean_field` for the papers; batch normalization is that of Yang et al. (2019), at
finite batches.
"""

from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from kgrad.theory.units import UnitMap, UnitMoments

_MOST_NUMBERS = 2**21


@dataclass(frozen=True)
class Input:
    """The input: the batch itself."""


@dataclass(frozen=True)
class Dense:
    """A dense layer up to its pre-activations; variances are of one entry."""

    source: int
    width: int
    weight_variance: float
    bias_variance: float = 0.0


@dataclass(frozen=True)
class Unit:
    """An elementwise map of each unit: activation, normalization, activation."""

    source: int
    map: UnitMap


@dataclass(frozen=True)
class Add:
    """The sum of tensors of equal width that share no units."""

    sources: tuple[int, ...]


Node = Input | Dense | Unit | Add


class BatchMoments:
    """A network's second moments on a batch in the forward pass; see `backward` for errors.

    Args:
        nodes: the network; the last node is the output's pre-activations, a `Dense`.
        X: the batch, (B, n_0).
        seed: seed of the draws.
        most_draws: largest number of draws of one unit's values; fewer are made if B is large.

    Attributes:
        widths: width of each node.
        A: E[x_a x_b] over the units of each node, (B, B).
        consumers: for each node, the nodes that read it.
        units: index of each `Unit` → its `UnitMoments`.
    """

    def __init__(
        self, nodes: tuple[Node, ...], X: np.ndarray, seed: int = 0, most_draws: int = 4096
    ) -> None:
        self.nodes, self.X = nodes, np.asarray(X, np.float64)
        self.B = len(self.X)
        self.random = np.random.default_rng(seed)
        self._most_draws = most_draws
        self.consumers: list[list[int]] = [[] for _ in nodes]
        for place, node in enumerate(nodes):
            for source in sources(node):
                self.consumers[source].append(place)
        self.widths: list[int] = []
        self.A: list[np.ndarray] = []
        self.units: dict[int, UnitMoments] = {}
        self._draws: dict[int, np.ndarray] = {}
        self._means: dict[int, np.ndarray] = {}
        self._gaussian: list[bool] = []
        for place, node in enumerate(nodes):
            self._forward(place, node)

    @cached_property
    def normal(self) -> np.ndarray:
        """Draws from N(0, I): (draws, B)."""
        draws = int(np.clip(_MOST_NUMBERS // self.B, 1, self._most_draws))
        return standard_normal(draws, self.B, self.random)

    def draws(self, place: int) -> np.ndarray:
        """Return draws of one unit of a node over the batch, which are made once: (draws, B)."""
        if place not in self._draws:
            self._draws[place] = self._drawn(place, self.nodes[place])
        return self._draws[place]

    def _drawn(self, place: int, node: Node) -> np.ndarray:
        if isinstance(node, Input):
            return _resized(self.X.T, len(self.normal), self.random)
        if isinstance(node, Dense):
            return self.gaussian_draws(self.A[place])
        if isinstance(node, Unit):
            return self.units[place].x
        return np.sum([self.shuffled(source) for source in node.sources], axis=0)

    def shuffled(self, place: int) -> np.ndarray:
        """Return the draws of a node in another order: independent of those of any other node."""
        return self.draws(place)[self.random.permutation(len(self.normal))]

    def gaussian_draws(self, K: np.ndarray) -> np.ndarray:
        """Draw from N(0, K), in a new order: (draws, B); K may be singular."""
        jitter = 1e-12 * np.trace(K) / len(K) + 1e-300
        try:
            root = np.linalg.cholesky(K + jitter * np.eye(len(K)))
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(K)
            root = vectors * np.sqrt(np.maximum(values, 0))
        return self.normal[self.random.permutation(len(self.normal))] @ root.T

    def _forward(self, place: int, node: Node) -> None:
        gaussian = isinstance(node, Dense)
        if isinstance(node, Input):
            width = self.X.shape[1]
            A = self.X @ self.X.T / width
        elif isinstance(node, Dense):
            n, width = self.widths[node.source], node.width
            A = n * node.weight_variance * self.A[node.source] + node.bias_variance
        elif isinstance(node, Unit):
            s = node.source
            draw = partial(self.draws, s)
            unit = UnitMoments(node.map, self.A[s], self.mean(s), draw, self._gaussian[s])
            self.units[place] = unit
            A, width = unit.A, self.widths[s]
        else:
            A, width = self._sum(node), self.widths[node.sources[0]]
            gaussian = all(self._gaussian[source] for source in node.sources)
        self.A.append(A)
        self.widths.append(width)
        self._gaussian.append(gaussian)

    def mean(self, place: int) -> np.ndarray:
        """Return E[x_a] of a node: (B,)."""
        if place not in self._means:
            self._means[place] = self._mean(self.nodes[place], place)
        return self._means[place]

    def _mean(self, node: Node, place: int) -> np.ndarray:
        if isinstance(node, Input):
            return self.X.mean(axis=1)
        if isinstance(node, Unit):
            return self.units[place].mean
        if isinstance(node, Add):
            return np.sum([self.mean(source) for source in node.sources], axis=0)
        return np.zeros(self.B)  # Dense: its weights have mean 0

    def _sum(self, node: Add) -> np.ndarray:
        A, mean = np.zeros((self.B, self.B)), np.zeros(self.B)
        for source in node.sources:
            m = self.mean(source)
            A = A + self.A[source] + np.outer(mean, m) + np.outer(m, mean)
            mean = mean + m
        return A

    def narrowed(self, nodes: tuple[Node, ...]) -> "BatchMoments":
        """Return the moments of the same network with other widths, but equal σ_w².

        Only `widths` differs: the moments of one unit depend on σ_w² alone.
        """
        found = copy(self)
        found.nodes, found.widths = nodes, []
        for node in nodes:
            known = found.widths
            if isinstance(node, Input):
                known.append(self.X.shape[1])
            else:
                known.append(node.width if isinstance(node, Dense) else known[sources(node)[0]])
        return found

    def of_samples(self, rows: np.ndarray, most_draws: int) -> "BatchMoments":
        """Return the moments of some of the samples.

        Args:
            rows: indices of the samples.
            most_draws: as in `BatchMoments`.
        """
        if any(unit.drawn for unit in self.units.values()):  # samples may depend on each other
            return BatchMoments(self.nodes, self.X[rows], most_draws=most_draws)
        found = copy(self)
        found.X, found.B, found._most_draws = self.X[rows], len(rows), most_draws
        found.A = [A[np.ix_(rows, rows)] for A in self.A]
        found._draws, found._means = {}, {}
        vars(found).pop("normal", None)
        found.units = {
            place: unit.of_samples(rows, partial(found.draws, sources(self.nodes[place])[0]))
            for place, unit in self.units.items()
        }
        return found

    def backward(self, G_out: np.ndarray) -> list[np.ndarray]:
        """Return G of each node: covariances of the errors in one of its units, (B, B).

        Args:
            G_out: E[δ_a δ_b] of one output unit, δ_a = ∂ℓ_a/∂h_a of the sample's own loss.
        """
        G = [np.zeros((self.B, self.B)) for _ in self.nodes]
        G[-1] = np.asarray(G_out, np.float64)
        for place in reversed(range(len(self.nodes))):
            node = self.nodes[place]
            if isinstance(node, Dense):
                G[node.source] = G[node.source] + node.width * node.weight_variance * G[place]
            elif isinstance(node, Unit):
                G[node.source] = G[node.source] + self.units[place].pull(G[place])
            elif isinstance(node, Add):
                for source in node.sources:
                    G[source] = G[source] + G[place]
        return G

    def forward_adjoint(self, place: int, Q: np.ndarray) -> dict[int, np.ndarray]:
        """Express n ⟨Q, G⟩ of a node by G' of the nodes above it.

        Returns:
            Index → Q', such that n' ⟨Q', G'⟩ is the part of n ⟨Q, G⟩ that flows back from that
            node.
        """
        found = {place: Q}
        for above in range(place + 1, len(self.nodes)):
            node = self.nodes[above]
            given = [found[source] for source in sources(node) if source in found]
            if not given:
                continue
            if isinstance(node, Dense):
                found[above] = self.widths[node.source] * node.weight_variance * given[0]
            elif isinstance(node, Unit):
                found[above] = self.units[above].push(given[0])
            else:
                found[above] = np.sum(given, axis=0)
        return found


def sources(node: Node) -> tuple[int, ...]:
    """Return the indices of the nodes that a node reads."""
    if isinstance(node, Input):
        return ()
    return node.sources if isinstance(node, Add) else (node.source,)


def standard_normal(draws: int, B: int, random: np.random.Generator) -> np.ndarray:
    """Draw from N(0, I) in random order, with negatives: (draws, B).

    If there are more draws than samples, their covariance is exactly I.
    """
    half = draws // 2
    z = random.normal(size=(half, B))
    if half > B:
        z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / half)).T
    return random.permutation(np.concatenate([z, -z, z[: draws - 2 * half]]))


def _resized(columns: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Return as many rows as draws: each row equally often, or a random choice of rows."""
    if len(columns) > draws:
        return random.choice(columns, draws, replace=False)
    return np.resize(columns, (draws, columns.shape[1]))
