"""Trainable depths, and q* and χ_1, over the plane of σ_w² and σ_b²."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kgrad.theory.activations import Activation
from kgrad.theory.mean_field import require_variance, second_moment, squared_slope
from kgrad.theory.phases import (
    chi_1,
    correlation_depth_scale,
    fixed_point,
    gradient_depth_scale,
)

# Schoenholz et al. (2017) as commonly quoted; not checked against the paper.
DEPTH_PER_SCALE = 6.0
_Q = np.geomspace(1e-9, 1e9, 1081)  # 60 per decade, 1 among them


class Depths(NamedTuple):
    """The depths that signals reach at one point of the plane.

    Attributes:
        sigma_w2: fan-in times the variance of a weight.
        sigma_b2: variance of a bias.
        q: q*, the limit of a variance that starts at 1.
        chi_1: factor of |δ|² per layer.
        gradient_scale: ξ_∇, layers over which |δ|² changes e-fold.
        correlation_scale: ξ_c, layers over which the correlation of two samples comes e-fold closer
            to its limit.
        trainable: 6 ξ_c, a rule of thumb for the largest number of layers that can be trained.
    """

    sigma_w2: float
    sigma_b2: float
    q: float
    chi_1: float
    gradient_scale: float
    correlation_scale: float
    trainable: float


def trainable_depths(phi: Activation, points: Sequence[tuple[float, float]]) -> list[Depths]:
    """Estimate how deep a plain dense network can be trained, for initializations (σ_w², σ_b²).

    S. S. Schoenholz et al., "Deep information propagation" (2017), find that networks can be
    trained up to a few ξ_c, the depth over which samples can still be distinguished. The factor 6
    is a rule of thumb, quoted from memory: treat it as an order of magnitude.

    Args:
        phi: the activation function.
        points: (σ_w², σ_b²) of each initialization.

    Returns:
        One row per point; depths are infinite on the critical line and NaN if no c* exists.
        `depth_table` formats the rows; `pandas.DataFrame(rows)` makes a data frame.

    Example:
        >>> from kgrad.theory.activations import activation
        >>> (row,) = trainable_depths(activation("tanh"), [(1.5, 0.05)])
        >>> round(row.correlation_scale, 2), round(row.trainable)
        (15.79, 95)
    """
    rows = []
    for sigma_w2, sigma_b2 in points:
        scale = correlation_depth_scale(phi, sigma_w2, sigma_b2)
        rows.append(
            Depths(
                float(sigma_w2),
                float(sigma_b2),
                fixed_point(phi, sigma_w2, sigma_b2),
                chi_1(phi, sigma_w2, sigma_b2),
                gradient_depth_scale(phi, sigma_w2, sigma_b2),
                scale,
                DEPTH_PER_SCALE * scale,
            )
        )
    return rows


def depth_table(rows: Sequence[Depths]) -> str:
    """Format rows as text, one line per row, under their symbols; "–" means NaN.

    Example:
        >>> from kgrad.theory.activations import activation
        >>> print(depth_table(trainable_depths(activation("tanh"), [(1, 0.05), (2, 0.05)])))
             σ_w²     σ_b²       q*      χ_1      ξ_∇      ξ_c    6 ξ_c
                1     0.05    0.194    0.759     3.63     3.63     21.8
                2     0.05    0.722     1.05     21.5     25.2      151
    """
    head = ("σ_w²", "σ_b²", "q*", "χ_1", "ξ_∇", "ξ_c", f"{DEPTH_PER_SCALE:g} ξ_c")
    lines = ["".join(f"{name:>9}" for name in head)]
    for row in rows:
        cells = ("–" if np.isnan(value) else f"{value:.3g}" for value in row)
        lines.append("".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def phase_plane(
    phi: Activation, sigma_w2: np.ndarray, sigma_b2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return q* and χ_1 over a grid: `fixed_point` and `chi_1` at thousands of points at once.

    E[φ²] and E[φ'²] depend only on q. They are computed at 60 values of q per decade, and q* is
    interpolated between these.

    Args:
        phi: the activation function.
        sigma_w2: (columns,).
        sigma_b2: (rows,).

    Returns:
        Two float64 arrays (rows, columns), to about 1e-3 relative; a q* below 1e-9 is 0, and above
        1e9 infinite.
    """
    for value in [*np.asarray(sigma_w2).tolist(), *np.asarray(sigma_b2).tolist()]:
        require_variance("sigma_w2 and sigma_b2", value)
    of_f = np.array([second_moment(phi, q) for q in _Q])
    of_df = np.array([squared_slope(phi, q) for q in _Q])
    start = len(_Q) // 2  # q = 1
    q = np.empty((len(sigma_b2), len(sigma_w2)))
    chi = np.empty_like(q)
    for i, b in enumerate(sigma_b2):
        for j, w in enumerate(sigma_w2):
            growth = (w * of_f + b) / _Q - 1
            q[i, j], at = _settled(growth, start)
            chi[i, j] = w * np.interp(at, np.arange(len(_Q)), of_df)
    return q, chi


def _settled(growth: np.ndarray, start: int) -> tuple[float, float]:
    """Return the limit of a q that starts at `_Q[start]`, and its place among `_Q`."""
    if abs(growth[start]) < 1e-13:
        return 1.0, float(start)
    upwards = growth[start] > 0
    ahead = growth[start:] if upwards else growth[start::-1]
    passed = np.flatnonzero(ahead * ahead[0] <= 0)
    if not passed.size:
        return (np.inf, len(_Q) - 1.0) if upwards else (0.0, 0.0)
    after = int(passed[0])
    part = ahead[after - 1] / (ahead[after - 1] - ahead[after])
    place = start + (after - 1 + part) * (1 if upwards else -1)
    return float(np.exp(np.interp(place, np.arange(len(_Q)), np.log(_Q)))), place
