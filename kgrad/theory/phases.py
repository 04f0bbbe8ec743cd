"""Fixed points of the recursion, and the depths that signals and gradients reach.

In an infinitely deep stack with the same φ, σ_w², σ_b² in every layer, the variance converges to
q*, the correlation of two samples to c*, and |δ|² changes by the factor χ_1 per layer: it vanishes
in the ordered phase (χ_1 < 1) and explodes in the chaotic phase. Poole et al. (2016); Schoenholz et
al. (2017). Some networks have no such rate (critical tanh, GELU, SiLU): use `propagate` for them.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from kgrad.theory.activations import Activation
from kgrad.theory.gaussian import expectation, pair_expectation
from kgrad.theory.mean_field import (
    chi,
    correlation_map,
    require_variance,
    second_moment,
    squared_slope,
    variance_map,
)

_LEAST, _MOST = 1e-9, 1e9  # a q beyond these counts as 0 or as infinite
_XTOL = 1e-15


def fixed_point(phi: Activation, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return q* = σ_w² E[φ(√q* z)²] + σ_b², the limit of a variance that starts at q = 1.

    Args:
        phi: the activation function.
        sigma_w2: fan-in times the variance of a weight.
        sigma_b2: variance of a bias.

    Returns:
        q*; 0 if the signal dies out, infinity if it grows without bound, and 1 if every q is a
        fixed point, as with ReLU at (2, 0).

    Example:
        >>> from kgrad.theory.activations import activation
        >>> round(fixed_point(activation("tanh"), 1.5, 0.05), 5)
        0.41804
    """
    require_variance("sigma_w2", sigma_w2)
    require_variance("sigma_b2", sigma_b2)

    def growth(q: float) -> float:
        return variance_map(phi, q, sigma_w2, sigma_b2) / q - 1

    if abs(growth(1.0)) < 1e-13:
        return 1.0
    factor = 2.0 if growth(1.0) > 0 else 0.5
    q = 1.0
    while growth(q) * growth(q * factor) > 0:
        q *= factor
        if not _LEAST < q < _MOST:
            return 0.0 if q < 1 else np.inf
    return float(brentq(growth, *sorted((q, q * factor)), xtol=_XTOL * q))


def fixed_correlation(phi: Activation, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return c*, the limit of the correlation of two samples, both with variance q*.

    It is 1 in the ordered phase, where all samples become equal, and below 1 in the chaotic phase.

    Args:
        phi: the activation function.
        sigma_w2: fan-in times the variance of a weight.
        sigma_b2: variance of a bias.

    Returns:
        The stable fixed point of the C-map in [0, 1]; NaN if q* is 0 or infinite with χ_1 > 1.
    """
    q = fixed_point(phi, sigma_w2, sigma_b2)
    if chi_1(phi, sigma_w2, sigma_b2) <= 1 + 1e-9:
        return 1.0
    if q in (0.0, np.inf):
        return np.nan

    def gap(c: float) -> float:
        return correlation_map(phi, c, q, sigma_w2, sigma_b2) - c

    # Close to 1 the gap is (χ_1 - 1)(c - 1) < 0.
    return 0.0 if gap(0.0) < 1e-14 else float(brentq(gap, 0.0, 1 - 1e-6, xtol=_XTOL))


def chi_1(phi: Activation, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return χ_1 = σ_w² E[φ'(√q* z)²], the factor of |δ|² per layer, deep in the network.

    If q* is infinite, q = 1e9 is used. χ_1 is below 1 in the ordered phase, above 1 in the chaotic
    phase.
    """
    return chi(phi, min(fixed_point(phi, sigma_w2, sigma_b2), _MOST), sigma_w2)


def gradient_depth_scale(phi: Activation, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return ξ_∇ = 1/|ln χ_1|, the layers over which |δ|² changes e-fold.

    It is infinite on the critical line.
    """
    return _depth_scale(chi_1(phi, sigma_w2, sigma_b2))


def correlation_depth_scale(phi: Activation, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return ξ_c, the layers over which the correlation comes e-fold closer to c*.

    ξ_c = -1/ln(σ_w² E[φ'(u_a) φ'(u_b)] at c*). It bounds, up to a small factor, how deep a network
    can be trained (Schoenholz et al. 2017). In the ordered phase c* = 1 and ξ_c = ξ_∇. It is NaN if
    c* is NaN.
    """
    c = fixed_correlation(phi, sigma_w2, sigma_b2)
    if c == 1 or np.isnan(c):
        return gradient_depth_scale(phi, sigma_w2, sigma_b2) if c == 1 else np.nan
    q = fixed_point(phi, sigma_w2, sigma_b2)
    return _depth_scale(sigma_w2 * float(pair_expectation(phi.df, phi.df, q, q, c, phi.kinks)))


def variance_depth_scale(phi: Activation, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return ξ_q, the layers over which the variance comes e-fold closer to q*.

    ξ_q^{-1} = -ln(χ_1 + σ_w² E[φ''φ]) at q*. By Stein's lemma the bracket is σ_w² E[φφ'u]/q, which
    needs no φ'' and is valid for kinks.
    """
    q = fixed_point(phi, sigma_w2, sigma_b2)
    return _depth_scale(sigma_w2 * variance_slope(phi, min(max(q, 1 / _MOST), _MOST)))


def variance_slope(phi: Activation, q: float) -> float:
    """Return dE[φ(√q z)²]/dq = E[φφ'u]/q, u = √q z."""
    return expectation(lambda u: phi.f(u) * phi.df(u) * u, q, phi.kinks) / q


def _depth_scale(factor: float) -> float:
    rate = abs(np.log(factor))
    return float(1 / rate) if rate > 1e-12 else np.inf


def critical_line(phi: Activation, q: float) -> tuple[float, float]:
    """Return the (σ_w², σ_b²) at which q is a fixed point and χ_1 = 1.

        σ_w² = 1/E[φ'(√q z)²]        σ_b² = q - E[φ(√q z)²]/E[φ'(√q z)²]

    Varying q traces the critical line, the border of the two phases. If σ_b² is negative, there is
    no such network.
    """
    sigma_w2 = 1 / squared_slope(phi, q)
    return sigma_w2, q - sigma_w2 * second_moment(phi, q)


def critical_point(phi: Activation, sigma_b2: float = 0.0) -> tuple[float, float]:
    """Return σ_w² and q* on the critical line at a given σ_b²; if several, the smallest q*.

    Args:
        phi: the activation function.
        sigma_b2: variance of a bias.

    Returns:
        (σ_w², q*). At σ_b² = 0 and φ(0) = 0 this is q* = 0, σ_w² = 1/E[φ'(0±)²].

    Raises:
        ValueError: if no σ_w² is critical at this σ_b².

    Example:
        >>> from kgrad.theory.activations import activation
        >>> round(critical_point(activation("tanh"), 0.05)[0], 5)
        1.76095
    """
    require_variance("sigma_b2", sigma_b2)
    if sigma_b2 == 0 and float(phi.f(np.zeros(1))[0]) == 0:
        return critical_line(phi, 0.0)[0], 0.0
    q = _first_root(lambda q: critical_line(phi, q)[1] - sigma_b2)
    if q is None:
        raise ValueError(
            f"sigma_b2 must be one at which {phi.name} has a critical σ_w², received {sigma_b2!r}: "
            "critical_line returns such pairs"
        )
    return critical_line(phi, q)[0], q


def doubly_critical_point(phi: Activation) -> tuple[float, float, float]:
    """Return (σ_w², σ_b², q*) at which gradients and the variance itself are critical.

    There χ_1 = 1 and dq^{l+1}/dq^l = 1, which together mean E[φ''φ] = 0 (Roberts, Yaida & Hanin,
    "The Principles of Deep Learning Theory", 2022, ch. 5: the half-stable points of GELU and SiLU).
    For ReLU, tanh, erf and similar functions this is q* → 0, returned as 0.

    Args:
        phi: the activation function.

    Returns:
        (σ_w², σ_b², q*).
    """

    def excess(q: float) -> float:
        return variance_slope(phi, q) / squared_slope(phi, q) - 1

    q = _first_root(excess)
    if q is None:
        sigma_w2, q = critical_point(phi)
        return sigma_w2, 0.0, q
    return (*critical_line(phi, q), q)


def _first_root(f: Callable[[float], float]) -> float | None:
    """Return the smallest q from 1e-3 to 1e6 at which f changes sign, or None."""
    grid = np.geomspace(1e-3, 1e6, 91)
    values = np.array([f(q) for q in grid])
    # A function that is 0 except for rounding, as for ReLU, changes sign everywhere.
    values[np.abs(values) < 1e-11] = 0
    crossings = np.flatnonzero(values[:-1] * values[1:] < 0)
    if not len(crossings):
        return None
    low, high = grid[crossings[0]], grid[crossings[0] + 1]
    return float(brentq(f, low, high, xtol=_XTOL * low))
