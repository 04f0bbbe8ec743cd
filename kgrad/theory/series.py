"""Hermite series for E[φ(u_a) φ(u_b)] and E[φ'(u_a) φ'(u_b)] of all pairs of a batch.

With u = s z, φ(s z) = Σ_k c_k(s) h_k(z) in the orthonormal Hermite polynomials, Mehler's formula
gives E[φ(u_a) φ(u_b)] = Σ_k c_k(s_a) c_k(s_b) ρ^k. This replaces one integral per pair by one
small matrix product per sample and powers of the correlations.
"""

from functools import cache

import numpy as np

from kgrad.theory.activations import Activation, Function
from kgrad.theory.gaussian import FAR

# Number of terms, and the share of E[φ²] that they may miss. With more terms, ρ^k has fallen
# further by the last one, so that more may be missing.
_TERMS = ((128, 1e-3), (512, 0.3))
_Nodes = tuple[np.ndarray, np.ndarray, np.ndarray]


def series_moments(
    phi: Activation, s: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return E[φ(u_a) φ(u_b)] and E[φ'(u_a) φ'(u_b)] for all pairs of samples.

    A jump of φ' at 0 makes the series converge slowly. Its square is removed from the series and
    added in closed form (Cho & Saul, "Kernel methods for deep learning", 2009); the remaining cross
    terms decrease fast enough. The rest of the series at ρ = 1, where the sum is known, is assigned
    to the first power after the last term.

    Args:
        phi: the activation function.
        s: standard deviations, (B,), above 0.
        c: correlations, (B, B).

    Returns:
        Two float64 arrays (B, B), to about 1e-6 of the largest, or 1e-3 if φ is steep on the scale
        of s; None if the series is not accurate enough: for kinks away from 0, or a φ that is
        nearly a step.
    """
    if any(kink != 0 for kink in phi.kinks):
        return None
    largest = float(np.exp2(np.ceil(np.log2(max(1.0, s.max())))))
    for terms, most_left in _TERMS:
        found = _sums(phi, s, c, _hermite(largest, terms), most_left)
        if found is not None:
            return found
    return None


def _sums(
    phi: Activation, s: np.ndarray, c: np.ndarray, nodes: _Nodes, most_left: float
) -> tuple[np.ndarray, np.ndarray] | None:
    # φ' may jump at 0: take it on both sides.
    jump = float(np.diff(phi.df(np.array([-1e-12, 1e-12])))[0]) if phi.kinks else 0.0
    ramp, step = (lambda u: np.maximum(u, 0) * jump, lambda u: (u > 0) * jump)
    of_f = _series(phi.f, s, c, nodes, most_left, ramp if jump else None)
    of_df = _series(phi.df, s, c, nodes, most_left, step if jump else None)
    if of_f is None or of_df is None:
        return None
    if jump:
        angle = np.arccos(np.clip(c, -1, 1))
        np.fill_diagonal(angle, 0.0)
        J = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        of_f = of_f + jump**2 * np.outer(s, s) * J
        of_df = of_df + jump**2 * (np.pi - angle) / (2 * np.pi)
    return of_f, of_df


def _series(
    f: Function,
    s: np.ndarray,
    c: np.ndarray,
    nodes: _Nodes,
    most_left: float,
    step: Function | None,
) -> np.ndarray | None:
    """Return Σ_k c_k(s_a) c_k(s_b) ρ^k of f minus the same sum of `step`."""
    z, weight, polynomials = nodes
    u = np.outer(s, z)
    values = f(u)
    at_one = whole = (values * weight) @ values.T
    signed = [(1.0, values @ polynomials)]  # (B, terms)
    if step is not None:
        steps = step(u)
        at_one = whole - (steps * weight) @ steps.T
        signed.append((-1.0, steps @ polynomials))
    rest = at_one - sum(sign * terms @ terms.T for sign, terms in signed)
    if np.abs(rest).max() > most_left * np.abs(whole).max():
        return None
    left = np.stack([sign * terms.T for sign, terms in signed], axis=2)  # (terms, B, 1 or 2)
    right = np.stack([terms.T for _, terms in signed], axis=1)
    largest = np.abs(right).max(axis=(1, 2))
    matters = largest > 1e-9 * largest.max()
    total = rest
    for k in reversed(range(len(matters))):  # Horner's rule
        total *= c
        if matters[k]:
            total += left[k] @ right[k]
    return total


@cache
def _hermite(largest: float, terms: int) -> _Nodes:
    """Return nodes, weights with the Gaussian density, and weighted orthonormal polynomials."""
    edges = np.arange(-FAR, FAR + 0.5)
    fine = np.exp2(np.arange(0, np.log2(largest))) / largest
    edges = np.unique(np.concatenate([edges, fine, -fine]))
    x, w = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half * (1 + x)).ravel()
    weight = (half * w).ravel() * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    rows = [np.ones_like(z), z]
    for k in range(1, terms - 1):
        rows.append((z * rows[-1] - np.sqrt(k) * rows[-2]) / np.sqrt(k + 1))
    return z, weight, (np.array(rows) * weight).T
