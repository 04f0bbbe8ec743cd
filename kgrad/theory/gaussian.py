"""Expectations over one Gaussian pre-activation, and over a correlated pair.

They are integrated by Gauss-Legendre quadrature on panels that end at the kinks of the integrand.
Gauss-Hermite quadrature, the choice of textbooks, is poor here: with 200 nodes it is 0.5 % off for
SELU's E[φ'²] and 2.2 % for a tanh at q = 20, because its nodes fit neither the kink nor the scale
on which φ changes.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

FAR = 12.0  # standard deviations; 1e-33 of the mass lies beyond
_legendre = cache(np.polynomial.legendre.leggauss)


def expectation(f: Function, q: float, kinks: Sequence[float] = ()) -> float:
    """Return E[f(√q z)] with z ~ N(0, 1).

    The panels end at the kinks, at whole z and, between z = -1 and 1, at u = √q z = ±1, ±2, ±4 …,
    because f may change on a scale of 1 in u, which is narrow in z if q is large.

    Args:
        f: function from an array to an array of the same shape, growing no faster than a power of
            its argument.
        q: variance of u, from 0.
        kinks: values of u at which f is not smooth.

    Returns:
        The expectation, to about 1e-13 relative.

    Example:
        >>> round(expectation(lambda u: np.maximum(u, 0) ** 2, 2.0, (0.0,)), 12)
        1.0
    """
    s = float(np.sqrt(q))
    z, weight = _panels(_edges(s, np.asarray(kinks, np.float64)), *_legendre(20))
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return float(np.sum(weight * density * f(s * z)))


def expectations(f: Function, q: np.ndarray, kinks: Sequence[float] = ()) -> np.ndarray:
    """Return E[f(√q_a z)] of each variance, as `expectation`: (B,)."""
    s = np.sqrt(q)
    # The panels of the largest variance are fine enough for the others; kinks differ.
    shared = _edges(float(s.max()), np.zeros(1))
    with np.errstate(divide="ignore"):
        own = np.asarray(kinks, np.float64) / s[:, None]
    own = np.clip(np.nan_to_num(own), -FAR, FAR)
    edges = np.sort(np.concatenate([np.tile(shared, (len(s), 1)), own], axis=1))
    z, weight = _panels(edges, *_legendre(20))
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(np.sum(weight * density * f(s[:, None] * z), axis=1))


def pair_expectation(
    f: Function,
    g: Function,
    q_a: float | np.ndarray,
    q_b: float | np.ndarray,
    c: float | np.ndarray,
    kinks: Sequence[float] = (),
) -> np.ndarray:
    """Return E[f(u_a) g(u_b)] over a Gaussian pair of variances q_a, q_b and correlation c.

    In polar coordinates u_a = √q_a r cos α, u_b = √q_b r cos(α - θ), θ = arccos c, a kink at 0 is a
    ray and any other kink a line. The panels end on these, so that the integral is as accurate at
    c = ±1 as elsewhere.

    Args:
        f: as in `expectation`.
        g: as `f`.
        q_a: variance of u_a, from 0; arrays are broadcast against each other.
        q_b: variance of u_b.
        c: correlation, in [-1, 1].
        kinks: values at which f or g is not smooth.

    Returns:
        float64, of the broadcast shape, to about 1e-11 of E[f²] for q up to 100.

    Raises:
        ValueError: if a correlation is out of range.

    Example:
        >>> relu = lambda u: np.maximum(u, 0)
        >>> round(float(pair_expectation(relu, relu, 2.0, 2.0, 0.0, (0.0,))), 10)  # 1/π
        0.3183098862
    """
    if np.max(np.abs(c)) > 1:
        raise ValueError(f"c must be correlations from -1 to 1, received {c!r}")
    q_a, q_b, c = np.broadcast_arrays(q_a, q_b, c)
    totals = np.empty(q_a.size)
    for i, pair in enumerate(zip(q_a.flat, q_b.flat, c.flat, strict=True)):
        u_a, u_b, weight = pair_nodes(*pair, kinks)
        totals[i] = np.sum(weight * f(u_a) * g(u_b))
    return totals.reshape(q_a.shape)


def pair_nodes(
    q_a: float, q_b: float, c: float, kinks: Sequence[float] = (), *, order: int = 12
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes u_a, u_b and weights of `pair_expectation`: three arrays of the same shape.

    `order` is the number of nodes per panel; 6 are accurate to about 1e-6.
    """
    legendre = _legendre(order)
    s_a, s_b = float(np.sqrt(q_a)), float(np.sqrt(q_b))
    theta = float(np.arccos(np.clip(c, -1, 1)))
    lines = np.asarray([kink for kink in kinks if kink != 0], np.float64)
    alpha, w_alpha = _panels(_angle_edges(s_a, s_b, theta, lines), *legendre)
    slope_a, slope_b = s_a * np.cos(alpha), s_b * np.cos(alpha - theta)
    fixed = _edges(max(s_a, s_b), np.zeros(1), step=2.0)
    with np.errstate(divide="ignore"):
        crossed = [k / slope for k in lines for slope in (slope_a, slope_b)]
    edges = np.stack([*crossed, *(np.full_like(alpha, edge) for edge in fixed)], axis=-1)
    r, w_r = _panels(np.sort(np.clip(edges, -FAR, FAR), axis=-1), *legendre)
    weight = w_alpha[:, None] * w_r * np.abs(r) * np.exp(-(r**2) / 2) / (2 * np.pi)
    return slope_a[:, None] * r, slope_b[:, None] * r, weight


def _panels(edges: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss-Legendre nodes and weights between neighbors along the last axis."""
    half = np.diff(edges)[..., None] / 2
    nodes = edges[..., :-1, None] + half * (1 + x)
    flat = (*edges.shape[:-1], -1)
    return nodes.reshape(flat), (half * w).reshape(flat)


def _edges(s: float, kinks: np.ndarray, step: float = 1.0) -> np.ndarray:
    """Return the edges of the panels of z for u = s z."""
    edges = [np.arange(-FAR, FAR + step / 2, step)]
    if s > 0:
        scale = np.exp2(np.arange(0, max(0.0, np.log2(step * s)))) / s
        edges += [kinks / s, scale, -scale]
    return np.unique(np.clip(np.concatenate(edges), -FAR, FAR))


def _angle_edges(s_a: float, s_b: float, theta: float, lines: np.ndarray) -> np.ndarray:
    """Return the angles in [-π/2, π/2] at which u_a or u_b changes sign or lines of kinks cross."""
    zeros = np.array([-np.pi / 2, theta - np.pi / 2, np.pi / 2])
    # Close to a zero, u crosses the scale on which φ changes within an angle of 1/s.
    finest = np.log2(max(1.0, FAR * max(s_a, s_b))) / 2
    steps = np.pi / 4 ** np.arange(1, finest + 1)
    near = (zeros[:, None] + np.concatenate([-steps, steps])).ravel()
    k_a, k_b = np.meshgrid(lines, lines)
    y, x = k_b * s_a - k_a * s_b * np.cos(theta), k_a * s_b * np.sin(theta)
    crossings = (np.arctan2(y, x) + np.pi / 2) % np.pi - np.pi / 2
    edges = np.concatenate([zeros, near, crossings.ravel()])
    return np.unique(np.clip(edges, -np.pi / 2, np.pi / 2))
