"""Growth rates of |δ|² per layer or block, deep in normalized and residual networks.

Every rate is that of the squared norm; the rate of |δ| is its square root.
"""

import numpy as np

from kgrad.theory.activations import Activation
from kgrad.theory.gaussian import expectation
from kgrad.theory.mean_field import chi, second_moment, squared_slope


def batch_norm_relu_rate(batch_size: int) -> float:
    """Return the factor of |δ|² per layer (dense, batch normalization, ReLU) at large width.

    For batches of B ≥ 4 samples that all differ:

        λ = (J'(ρ) + B - 1)/((B - 3)(1 - J(ρ))) - 1/(B - 3),   ρ = -1/(B - 1)
        J(c) = (√(1 - c²) + (π - arccos c) c)/π,   J'(c) = 1 - arccos(c)/π

    It is above 1 at every B: batch normalization makes gradients explode with depth, whatever the
    variance of the weights. Yang et al., "A mean field theory of batch normalization" (2019),
    theorem 8.

    Example:
        >>> round(batch_norm_relu_rate(32), 5)
        1.52195
    """
    _require_batch(batch_size, 4)
    c = -1 / (batch_size - 1)
    J = (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi
    slope = 1 - np.arccos(c) / np.pi
    rest = batch_size - 3
    return float((slope + batch_size - 1) / (rest * (1 - J)) - 1 / rest)


def batch_norm_linear_rate(batch_size: int) -> float:
    """Return (B - 2)/(B - 3), the same rate for a linear network (Yang et al. 2019)."""
    _require_batch(batch_size, 4)
    return (batch_size - 2) / (batch_size - 3)


def batch_norm_rate(phi: Activation) -> float:
    """Return λ = E[φ'(z)²]/Var[φ(z)], for batches of infinitely many samples that all differ.

    The normalized pre-activation has variance 1, and the next normalization removes the mean of φ.
    Own derivation: for ReLU it is the limit π/(π - 1) of Yang et al.; for tanh it is 1.178, and
    simulated networks of width 512 gave 1.212, 1.201 and 1.193 at batches of 32, 64 and 128.
    """
    mean = expectation(phi.f, 1.0, phi.kinks)
    return squared_slope(phi, 1.0) / (second_moment(phi, 1.0) - mean**2)


def layer_norm_rate(phi: Activation) -> float:
    """Return χ = E[φ'(z)²]/E[φ(z)²] of a layer (dense, layer normalization, φ) at large width.

    It does not depend on the variance of the weights. Own derivation, checked on simulated networks
    with ReLU (1), tanh (1.178) and GELU (1.072).
    """
    return squared_slope(phi, 1.0) / second_moment(phi, 1.0)


def residual_rate(phi: Activation, q: float, sigma_w2: float, sigma_v2: float) -> float:
    """Return 1 + σ_v² σ_w² E[φ'(√q z)²], the factor of |δ|² per block x + V φ(W x).

    σ_w² and σ_v² are the fan-in times the variance of W and V, and q is the variance of W x. With
    He initialization of W and ReLU this is 1 + σ_v²: with σ_v² = 1, |δ|² doubles per block; with
    σ_v² = 1/L, the factor of all L blocks tends to e. For independent W and V; checked on simulated
    networks.
    """
    return 1 + sigma_v2 * chi(phi, q, sigma_w2)


def jacobian_moments(
    phi: Activation, q: float, sigma_w2: float, layers: int, *, orthogonal: bool = False
) -> tuple[float, float]:
    """Return mean and variance of the squared singular values of ∂x^L/∂x^0, at large width.

        mean = (σ_w² μ_1)^L,   variance/mean² = L (μ_2/μ_1² - 1 - s_1),   μ_k = E[φ'(√q z)^{2k}]

    s_1 is -1 for Gaussian weights and 0 for orthogonal ones: only orthogonal weights, with
    φ' = ±1, keep every singular value at 1. Pennington, Schoenholz & Ganguli, "Resurrecting the
    sigmoid" (2017).

    Args:
        phi: the activation function, the same in each layer.
        q: variance of the pre-activations, the same in each layer.
        sigma_w2: fan-in times the variance of a weight; the squared gain for orthogonal weights.
        layers: L, of equal widths.
        orthogonal: whether the weights are orthogonal.

    Returns:
        Mean and variance of s².
    """
    mu_1 = squared_slope(phi, q)
    mu_2 = expectation(lambda u: phi.df(u) ** 4, q, phi.kinks)
    s_1 = 0.0 if orthogonal else -1.0
    mean = (sigma_w2 * mu_1) ** layers
    return mean, mean**2 * layers * (mu_2 / mu_1**2 - 1 - s_1)


def _require_batch(batch_size: int, least: int) -> None:
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if not whole or batch_size < least:
        raise ValueError(
            f"batch_size must be an integer of at least {least} (the gradient's variance is "
            f"infinite below), received {batch_size!r}"
        )
