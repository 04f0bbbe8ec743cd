"""What happens to one unit's values over a batch between two dense layers: φ, normalisation, φ.

A unit's B values h, one a sample, become φ_2(norm(φ_1(h))). The Jacobian J of that is diagonal but
for batch normalisation, which couples the samples:

    J = diag(φ_2'/s) (I - 1 1ᵀ/B - x̂ x̂ᵀ/B) diag(φ_1')

with x̂ the normalised values and s = √(variance + ε). Layer normalisation is taken at large width,
where a sample's mean and variance over the units are known numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from kgrad.theory.activations import Activation, activation
from kgrad.theory.gaussian import expectation
from kgrad.theory.mean_field import gram_moments

Norm = Literal["batch", "layer"] | None
LINEAR = activation("linear")


@dataclass(frozen=True)
class UnitMap:
    """φ_2 ∘ norm ∘ φ_1, of one unit's values over the batch.

    Attributes:
        before: φ_1, before the normalisation.
        norm: which normalisation stands between, if any; then γ = 1 and β = 0.
        after: φ_2.
        epsilon: what the normalisation adds to the variance.
    """

    before: Activation = LINEAR
    norm: Norm = None
    after: Activation = LINEAR
    epsilon: float = 1e-3


class UnitMoments:
    """A unit map at work on a batch: second moments through it, forwards and backwards.

    Args:
        unit: the map.
        A: second moments of what goes in, (B, B).
        mean: means of what goes in, (B,).
        h: draws of what goes in, (draws, B).
        gaussian: whether what goes in is Gaussian of mean 0.

    Attributes:
        A: E[x_a x_b] of what comes out.
        x: draws of what comes out, row by row those of `h`.
        x_hat: draws of φ_2's argument.
        after_slope: draws of φ_2'.
    """

    def __init__(
        self, unit: UnitMap, A: np.ndarray, mean: np.ndarray, h: np.ndarray, gaussian: bool
    ) -> None:
        self.unit, self._A_in, self._h = unit, A, h
        u = unit.before.f(h)
        scale: float | np.ndarray = 1.0
        if unit.norm == "batch":
            u = u - u.mean(axis=1, keepdims=True)
            scale = np.sqrt(np.mean(u**2, axis=1, keepdims=True) + unit.epsilon)
        elif unit.norm == "layer":
            first, centre = _first_moments(unit.before, A, mean, u, gaussian)
            u, scale = u - centre, np.sqrt(first - centre**2 + unit.epsilon)
        self.x_hat = u / scale
        self.x = unit.after.f(self.x_hat)
        self.after_slope = unit.after.df(self.x_hat)
        self._inner, self._outer = self.after_slope / scale, unit.before.df(h)
        # Called where a mean is asked for: few networks need any.
        self._mean: Callable[[], np.ndarray] = lambda: np.mean(self.x, axis=0)
        if gaussian and unit.norm != "batch" and unit.before.name == "linear":
            argument = A / _outer(scale)
            self.A, slopes = gram_moments(unit.after, argument)
            self._slopes = slopes / _outer(scale)
            self._mean = lambda: mean_of_gaussian(unit.after, np.diag(argument))
        elif gaussian and unit.norm is None and unit.after.name == "linear":
            self.A, self._slopes = gram_moments(unit.before, A)
            self._mean = lambda: mean_of_gaussian(unit.before, np.diag(A))
        else:
            self.A = self.x.T @ self.x / len(h)
            w = self._inner * self._outer
            self._slopes = w.T @ w / len(h)
            if gaussian and unit.norm == "batch" and unit.before.name == "linear":
                self._correct(u)

    @cached_property
    def mean(self) -> np.ndarray:
        """E[x_a] of what comes out: (B,)."""
        return self._mean()

    def _correct(self, u: np.ndarray) -> None:
        """Control variates: what the draws give beyond a normalisation by a fixed number.

        Of that the moments are known. Draws alone are 3 % off in ‖g‖² after six layers.
        """
        row, phi = self._A_in.mean(axis=0), self.unit.after
        C = self._A_in - row - row[:, None] + row.mean()
        scale = float(np.sqrt(np.trace(C) / len(C) + self.unit.epsilon))
        x, slope = phi.f(u / scale), phi.df(u / scale)
        A, slopes = gram_moments(phi, C / scale**2)
        self.A = self.A + A - x.T @ x / len(x)
        self._slopes = self._slopes + (slopes - slope.T @ slope / len(x)) / scale**2
        rest = self.x.mean(axis=0) - x.mean(axis=0)
        self._mean = lambda: mean_of_gaussian(phi, np.diag(C) / scale**2) + rest

    def pull(self, G: np.ndarray) -> np.ndarray:
        """E[Jᵀ G J]: covariances of an error before the map from those after it."""
        return self._sandwich(G, down=True)

    def push(self, Q: np.ndarray) -> np.ndarray:
        """E[J Q Jᵀ], the adjoint of `pull`."""
        return self._sandwich(Q, down=False)

    def signal_adjoint(self, R: np.ndarray) -> np.ndarray:
        """∂⟨R, E[x xᵀ]⟩/∂A, A being the second moments of what goes in.

        By Price's theorem R_ab E[φ'(u_a) φ'(u_b)] and, on the diagonal, Σ_b R_ab E[φ''(u_a) φ(u_b)]
        besides. Behind a normalisation the diagonal is such that a change of scale has no effect;
        exact for layer normalisation of a Gaussian, an estimate for others.
        """
        M = self.pull(R)
        q = np.maximum(np.diag(self._A_in), 1e-300)
        if self.unit.norm is None:
            return M + np.diag(np.sum(R * self._bend, axis=1))
        return M - np.diag(np.sum(M * self._A_in, axis=1) / q)

    @cached_property
    def _bend(self) -> np.ndarray:
        """E[φ''(u_a) φ(u_b)], by Stein's lemma (E[u_a φ'(u_a) φ(u_b)] - K_ab E[φ'φ'])/K_aa."""
        slope = self._h * self._inner * self._outer
        product = slope.T @ self.x / len(slope)
        q = np.maximum(np.diag(self._A_in), 1e-300)
        return (product - self._A_in * self._slopes) / q[:, None]

    def jvp(self, y: np.ndarray, rows: slice) -> np.ndarray:
        """J y for the draws in `rows`: (rows, B)."""
        return self._inner[rows] * self._project(self._outer[rows] * y, rows)

    def vjp(self, e: np.ndarray, rows: slice) -> np.ndarray:
        """Jᵀ e for the draws in `rows`: (rows, B)."""
        return self._outer[rows] * self._project(self._inner[rows] * e, rows)

    def _project(self, y: np.ndarray, rows: slice) -> np.ndarray:
        if self.unit.norm != "batch":
            return y
        y = y - y.mean(axis=1, keepdims=True)
        x_hat = self.x_hat[rows]
        return y - x_hat * np.mean(x_hat * y, axis=1, keepdims=True)

    def _sandwich(self, M: np.ndarray, *, down: bool) -> np.ndarray:
        """E[o o ∘ Π (i i ∘ M) Π], Π = I - 1 1ᵀ/B - x̂ x̂ᵀ/B, or without Π."""
        total = M * self._slopes
        if self.unit.norm != "batch":
            return total
        inner, outer = self._sides if down else self._sides[::-1]
        draws, B = self._inner.shape
        # With N = i i ∘ M, ΠNΠ = N - Σ_c (c q_cᵀ + q_c cᵀ)/B over the columns c of 1 and x̂, where
        # q_c = (I - Σ_d d dᵀ/2B) N c. Of N c the factor i is left out at first.
        both, cross = self._inner * self._outer, np.zeros((B, B))
        for column, left in zip(inner, outer, strict=True):
            product = column @ M
            inside = [np.einsum("ma,ma->m", one, product) / (2 * B) for one in inner]
            product *= both
            for one, share in zip(outer, inside, strict=True):
                product -= share[:, None] * one
            cross += left.T @ product / (draws * B)
        return total - cross - cross.T

    @cached_property
    def _sides(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """What stands inside and outside of a normalisation, by itself and times x̂."""
        return tuple((one, one * self.x_hat) for one in (self._inner, self._outer))


def _outer(scale: float | np.ndarray) -> float | np.ndarray:
    return np.outer(scale, scale) if isinstance(scale, np.ndarray) else scale**2


def mean_of_gaussian(phi: Activation, q: np.ndarray) -> np.ndarray:
    """E[φ(u_a)] of Gaussian u_a with variances q: (B,)."""
    # Of signals that have all but died out, rounding may leave a variance just below 0.
    return np.array([expectation(phi.f, max(variance, 0.0), phi.kinks) for variance in q])


def _first_moments(
    before: Activation, A: np.ndarray, mean: np.ndarray, u: np.ndarray, gaussian: bool
) -> tuple[np.ndarray, np.ndarray]:
    """E[u_a²] and E[u_a] of each sample, u = φ_1(h)."""
    if before.name == "linear":
        return np.diag(A), mean
    if gaussian:
        return np.diag(gram_moments(before, A)[0]), mean_of_gaussian(before, np.diag(A))
    return np.mean(u**2, axis=0), u.mean(axis=0)
