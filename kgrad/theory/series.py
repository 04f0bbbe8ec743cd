"""Hermite series for E[φ(u_a) φ(u_b)] and E[φ'(u_a) φ'(u_b)] of all pairs of a batch.

With u = s z, φ(s z) = Σ_k c_k(s) h_k(z) in the orthonormal Hermite polynomials, Mehler's formula
gives E[φ(u_a) φ(u_b)] = Σ_k c_k(s_a) c_k(s_b) ρ^k. This replaces one integral per pair by one
small matrix product per sample and powers of the correlations.
"""

from functools import lru_cache

import numpy as np

from kgrad.theory.activations import Activation, Function
from kgrad.theory.gaussian import FAR

# Numbers of terms that are tried, and the share of E[φ²] that the terms after them may be. With
# more terms, ρ^k has fallen further by the last one, so that more may be missing.
_ENOUGH = {8: 1e-6, 16: 1e-6, 32: 1e-6, 64: 1e-6, 128: 1e-5, 256: 1e-5, 512: 0.3}
_EXACT, _ACCURATE = 1e-6, 1e-5
_LARGE = 10.0  # standard deviations, on whose scale a smooth function looks as if it had a kink


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
    apart = float(np.abs(c[~np.eye(len(c), dtype=bool)]).max(initial=0.0))
    # φ' may jump at 0, or rise so fast that it seems to: take it on both sides. Any jump is right;
    # the best one leaves a function whose series converges soon.
    side = 20.0 if s.min() > _LARGE else 1e-12
    jump = float(np.diff(phi.df(np.array([-side, side])))[0])
    jump = 0.0 if abs(jump) < 1e-9 else jump
    ramp, step = (lambda u: np.maximum(u, 0) * jump, lambda u: (u > 0) * jump)
    of_f = _series(phi.f, s, c, apart, ramp if jump else None)
    if of_f is None:
        return None
    of_df = _series(phi.df, s, c, apart, step if jump else None)
    if of_df is None:
        return None
    if jump:
        angle = np.arccos(np.clip(c, -1, 1))
        np.fill_diagonal(angle, 0.0)
        J = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        of_f = of_f + jump**2 * np.outer(s, s) * J
        of_df = of_df + jump**2 * (np.pi - angle) / (2 * np.pi)
    return of_f, of_df


def _series(
    f: Function, s: np.ndarray, c: np.ndarray, apart: float, step: Function | None
) -> np.ndarray | None:
    """Return Σ_k c_k(s_a) c_k(s_b) ρ^k of f minus the same sum of `step`.

    With the coefficients d_k of f - step and m_k of f + step, a term of the difference is
    (d_k(s_a) m_k(s_b) + m_k(s_a) d_k(s_b))/2. The terms from the K-th on are at most
    √(Σ d_k² Σ m_k²) |ρ|^K together (Cauchy and Schwarz); the sums of squares are what the terms
    before leave of E[(f - step)²] and E[(f + step)²].

    Args:
        f: the function.
        s: standard deviations, (B,).
        c: correlations, (B, B).
        apart: largest |ρ| of two different samples.
        step: a function whose sum is subtracted.
    """
    largest = float(np.exp2(np.ceil(np.log2(max(1.0, s.max())))))
    z, weight = _nodes(largest)
    u = np.outer(s, z)
    values = f(u)
    parts = [values]
    if step is not None:
        steps = step(u)
        parts = [values - steps, values + steps]
    whole = float((values**2 @ weight).max())
    at_one = parts[0] * parts[-1] @ weight  # at ρ = 1 and equal s
    squares = [part**2 @ weight for part in parts]
    terms = [np.empty((len(s), 0)) for _ in parts]
    for count, most_left in _ENOUGH.items():
        more = _hermite(largest, max(count, 64))[:, terms[0].shape[1] : count]
        terms = [np.hstack([known, p @ more]) for known, p in zip(terms, parts, strict=True)]
        missed = [
            np.maximum(square[:, None] - np.cumsum(known**2, axis=1), 0).max(axis=0)
            for square, known in zip(squares, terms, strict=True)
        ]
        bound = np.sqrt(missed[0] * missed[-1]) * apart ** np.arange(1, count + 1)
        if bound[-1] <= _EXACT * whole:
            enough = int(np.argmax(bound <= _EXACT * whole)) + 1
            terms = [known[:, :enough] for known in terms]
            rest = at_one - np.sum(terms[0] * terms[-1], axis=1)
            rest = np.outer(np.sign(rest) * np.sqrt(np.abs(rest)), np.sqrt(np.abs(rest)))
            break
        if count >= 128:
            d, m = terms[0], terms[-1]
            of_all = (parts[0] * weight) @ parts[-1].T
            rest = (of_all + of_all.T - d @ m.T - m @ d.T) / 2
            if np.abs(rest).max() <= most_left * whole or bound[-1] <= _ACCURATE * whole:
                break
    else:
        return None
    d, m = terms[0], terms[-1]
    left = np.stack([d.T, m.T][: len(parts)], axis=2)  # (terms, B, 1 or 2)
    right = np.stack([m.T, d.T][: len(parts)], axis=1) / len(parts)
    matters = np.abs(left).max(axis=(1, 2)) * np.abs(right).max(axis=(1, 2)) > 1e-10 * whole
    total = rest
    for k in reversed(range(len(matters))):  # Horner's rule
        total *= c
        if matters[k]:  # every second term of an odd function is 0
            total += left[k] @ right[k]
    return total


@lru_cache(maxsize=32)
def _nodes(largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes, and weights with the Gaussian density, for functions of u up to `largest` z."""
    edges = np.arange(-FAR, FAR + 0.5)
    fine = np.exp2(np.arange(0, np.log2(largest))) / largest
    edges = np.unique(np.concatenate([edges, fine, -fine]))
    x, w = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half * (1 + x)).ravel()
    return z, (half * w).ravel() * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@lru_cache(maxsize=32)
def _hermite(largest: float, terms: int) -> np.ndarray:
    """Return the first orthonormal polynomials at the nodes, times the weights: (nodes, terms)."""
    z, weight = _nodes(largest)
    rows = [np.ones_like(z), z]
    for k in range(1, terms - 1):
        rows.append((z * rows[-1] - np.sqrt(k) * rows[-2]) / np.sqrt(k + 1))
    return (np.array(rows) * weight).T
