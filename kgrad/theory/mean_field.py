"""The layerwise recursion: the size of signals and gradients, layer by layer, at initialization.

The network is a dense stack h^l = W^l x^{l-1} + b^l, x^l = φ_l(h^l), l = 1 … L, of widths
n_0 … n_L. Weights and biases are independent, with mean 0 and variances v_l = Var(W^l_ij) and σ_b².
Expectations are over these, as the widths go to infinity; σ_w² = n_{l-1} v_l is the fan-in times
the variance.

Forward: Poole et al., "Exponential expressivity in deep neural networks through transient chaos"
(2016), eqs. 3 and 5. Backward: Schoenholz et al., "Deep information propagation" (2017), written
with v_l so that widths may differ, and for pairs of samples Yang et al., "A mean field theory of
batch normalization" (2019), eq. 7. Checked against simulated networks in tests/theory.
"""

from dataclasses import dataclass

import numpy as np

from kgrad.theory.activations import Activation
from kgrad.theory.gaussian import expectation, pair_expectation, pair_nodes
from kgrad.theory.series import series_moments

# At q = 0, φ' is averaged over both sides of 0, so that ReLU's E[φ'²] stays ½.
_LEAST_Q = 1e-200
_MOST_PAIRS = 400
_Q_NODES, _ANGLE_NODES = 6, 20


@dataclass(frozen=True)
class DenseStack:
    """A dense network: its widths, activation functions and the variances of its parameters.

    Attributes:
        widths: n_0 … n_L, of the input and then of each layer.
        weight_variances: v_1 … v_L, of one entry, not multiplied by the fan-in.
        activations: φ_1 … φ_{L-1}. Gradients start from δ^L, before the last layer's φ.
        bias_variances: σ_b² of each layer; by default all 0.
    """

    widths: tuple[int, ...]
    weight_variances: tuple[float, ...]
    activations: tuple[Activation, ...]
    bias_variances: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        depth = len(self.widths) - 1
        if depth < 1 or min(self.widths) < 1:
            raise ValueError(
                "widths must hold the width of the input and of at least one layer, each 1 or "
                "more, "
                f"received {self.widths!r}"
            )
        if not self.bias_variances:
            object.__setattr__(self, "bias_variances", (0.0,) * depth)
        for argument, count in (
            ("weight_variances", depth),
            ("activations", depth - 1),
            ("bias_variances", depth),
        ):
            received = len(getattr(self, argument))
            if received != count:
                raise ValueError(
                    f"{argument} must hold {count} entries for {depth} layers, received {received}"
                    + (": none for the last layer" if argument == "activations" else "")
                )
        for argument in ("weight_variances", "bias_variances"):
            for value in getattr(self, argument):
                require_variance(argument, value)

    @property
    def sigma_w2(self) -> np.ndarray:
        """Fan-in times variance, σ_w² = n_{l-1} v_l, of each layer: (L,)."""
        return np.multiply(self.widths[:-1], self.weight_variances)


@dataclass(frozen=True)
class Moments:
    """Second moments of signals and gradients; row l - 1 belongs to layer l.

    Attributes:
        q: E[h_a h_b] of one unit: (L,) for one sample, otherwise (L, B, B). Poole's q, Yang's K.
        a: E[x_a x_b] of one unit of the layer's input, a^{l-1}; same shape as q.
        S: E⟨δ_a, δ_b⟩ of a layer, δ_a = ∂ℓ_a/∂h_a of the sample's own loss ℓ_a; same shape as q.
        weight_norm_squared: E‖∂L/∂W^l‖² (Frobenius), (L,). L is the mean of ℓ_a over the batch.
        bias_norm_squared: E‖∂L/∂b^l‖², (L,).
    """

    q: np.ndarray
    a: np.ndarray
    S: np.ndarray
    weight_norm_squared: np.ndarray
    bias_norm_squared: np.ndarray


def variance_map(phi: Activation, q: float, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Return q^{l+1} = σ_w² E[φ(√q z)²] + σ_b², z ~ N(0, 1) (Poole et al. 2016, eq. 3)."""
    return sigma_w2 * second_moment(phi, q) + sigma_b2


def second_moment(phi: Activation, q: float) -> float:
    """Return the second moment a = E[φ(√q z)²]."""
    return expectation(lambda u: phi.f(u) ** 2, q, phi.kinks)


def squared_slope(phi: Activation, q: float) -> float:
    """Return E[φ'(√q z)²]; at q = 0 its limit from above."""
    return expectation(lambda u: phi.df(u) ** 2, max(q, _LEAST_Q), phi.kinks)


def chi(phi: Activation, q: float, sigma_w2: float) -> float:
    """Return χ = σ_w² E[φ'(√q z)²], the factor of |δ|² per layer (Schoenholz et al. 2017).

    The norm |δ| changes by √χ. At q = q* this is χ_1. With unequal widths σ_w² is the fan-in times
    the variance of the layer above, from which the error flows back.
    """
    return sigma_w2 * squared_slope(phi, q)


def correlation_map(
    phi: Activation, c: float, q: float, sigma_w2: float, sigma_b2: float = 0.0
) -> float:
    """Return c^{l+1} = (σ_w² E[φ(u_a) φ(u_b)] + σ_b²)/q^{l+1} (Poole et al. 2016, eq. 5).

    Both samples have variance q and correlation c; at q = q* this is the papers' C-map.
    """
    product = float(pair_expectation(phi.f, phi.f, q, q, c, phi.kinks))
    return (sigma_w2 * product + sigma_b2) / variance_map(phi, q, sigma_w2, sigma_b2)


def propagate(stack: DenseStack, a_0: float, S_L: float = 1.0) -> Moments:
    """Run the recursion for one sample.

        q^l = n_{l-1} v_l a^{l-1} + σ_b²           a^l = E[φ_l(√q^l z)²]
        S^l = n_l v_{l+1} E[φ_l'(√q^l z)²] S^{l+1}
        E‖∂L/∂W^l‖² = S^l n_{l-1} a^{l-1}          E‖∂L/∂b^l‖² = S^l

    Args:
        stack: the network.
        a_0: mean square of the input, |x|²/n_0.
        S_L: E|δ^L|², δ^L = ∂L/∂h^L.

    Returns:
        Moments with arrays (L,); `a` starts at the input.

    Example:
        >>> from kgrad.theory.activations import activation
        >>> relu = activation("relu")
        >>> he = DenseStack((8, 32, 32, 2), (2 / 8, 2 / 32, 2 / 32), (relu, relu))
        >>> propagate(he, a_0=1.0).weight_norm_squared
        array([ 8., 32., 32.])
    """
    require_variance("a_0", a_0)
    require_variance("S_L", S_L)
    depth = len(stack.widths) - 1
    q, a, S = np.empty(depth), np.empty(depth), np.empty(depth)
    a[0], S[-1] = a_0, S_L
    for i in range(depth):
        q[i] = stack.sigma_w2[i] * a[i] + stack.bias_variances[i]
        if i < depth - 1:
            a[i + 1] = second_moment(stack.activations[i], q[i])
    for i in reversed(range(depth - 1)):
        # σ_w² of the layer above is n_l v_{l+1}: n_l units, each with v_{l+1} |δ^{l+1}|².
        S[i] = chi(stack.activations[i], q[i], stack.sigma_w2[i + 1]) * S[i + 1]
    return Moments(q, a, S, S * stack.widths[:-1] * a, S)


def propagate_batch(stack: DenseStack, A_0: np.ndarray, S_L: np.ndarray) -> Moments:
    """Run the recursion for a mini-batch and the mean of its B losses.

        K_ab^l = n_{l-1} v_l A_ab^{l-1} + σ_b²     A_ab^l = E[φ_l(u_a) φ_l(u_b)], u ~ N(0, K^l)
        S_ab^l = n_l v_{l+1} E[φ_l'(u_a) φ_l'(u_b)] S_ab^{l+1}
        E‖∂L/∂W^l‖² = n_{l-1}/B² Σ_ab S_ab^l A_ab^{l-1}        E‖∂L/∂b^l‖² = 1/B² Σ_ab S_ab^l

    The terms a ≠ b matter: without them the squared norm is off by 1.4 to 4.7 times.

    Args:
        stack: the network.
        A_0: X Xᵀ/n_0 of the batch, (B, B).
        S_L: E⟨δ_a^L, δ_b^L⟩, (B, B): r rᵀ if one output has the errors r.

    Returns:
        Moments with arrays (L, B, B) and, for the norms, (L,).
    """
    A_0, S_L = np.asarray(A_0, np.float64), np.asarray(S_L, np.float64)
    if A_0.ndim != 2 or A_0.shape != A_0.T.shape or S_L.shape != A_0.shape:
        raise ValueError(
            "A_0 and S_L must be square and have the same shape (B, B), "
            f"received {A_0.shape} and {S_L.shape}"
        )
    depth = len(stack.widths) - 1
    K, A, S = (np.empty((depth, *A_0.shape)) for _ in range(3))
    slopes = np.empty_like(K)
    A[0], S[-1] = A_0, S_L
    for i in range(depth):
        K[i] = stack.sigma_w2[i] * A[i] + stack.bias_variances[i]
        if i < depth - 1:
            A[i + 1], slopes[i] = gram_moments(stack.activations[i], K[i])
    for i in reversed(range(depth - 1)):
        S[i] = stack.sigma_w2[i + 1] * slopes[i] * S[i + 1]
    weight = np.multiply(stack.widths[:-1], np.mean(S * A, axis=(1, 2)))
    return Moments(K, A, S, weight, np.mean(S, axis=(1, 2)))


def gram_moments(phi: Activation, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return E[φ(u_a) φ(u_b)] and E[φ'(u_a) φ'(u_b)] for u ~ N(0, K).

    They are summed as a Hermite series (`series`) if it is accurate to 1e-3. Otherwise, with kinks
    away from 0 or at large variances, up to 400 pairs are integrated one by one. More pairs are
    interpolated, as smooth functions of √q_a, √q_b and the angle arccos c, by Chebyshev polynomials
    of 6, 6 and 20 terms over the range that K spans.

    Args:
        phi: the activation function.
        K: covariances, (B, B).

    Returns:
        Two float64 arrays (B, B). An interpolated entry is off by at most 2e-3 of the largest for
        smooth φ, usually by 1e-5; if φ' jumps away from 0, as in hard_tanh, by 0.04.
    """
    s = np.sqrt(np.maximum(np.diag(K), _LEAST_Q))
    angle = np.arccos(np.clip(K / np.outer(s, s), -1, 1))
    np.fill_diagonal(angle, 0.0)
    found = series_moments(phi, s, np.cos(angle))
    if found is not None:
        return found
    if len(K) * (len(K) + 1) // 2 <= _MOST_PAIRS:
        return _moments_of_pairs(phi, s, angle, order=12)
    s_nodes, s_basis = _chebyshev(s, _Q_NODES)
    in_s = s_basis @ _coefficients(_Q_NODES)  # (B, nodes): the weight of each node in each sample
    theta, basis = _chebyshev(angle, _ANGLE_NODES)
    grid = np.ones((_Q_NODES, _Q_NODES))
    values = np.array([_moments_of_pairs(phi, s_nodes, t * grid, order=6) for t in theta])
    terms = np.einsum("kt,tmij->mkij", _coefficients(_ANGLE_NODES), values)
    of_f, of_df = (
        sum(basis[..., k] * (in_s @ term @ in_s.T) for k, term in enumerate(of_one))
        for of_one in terms
    )
    return np.asarray(of_f), np.asarray(of_df)


def _moments_of_pairs(
    phi: Activation, s: np.ndarray, angle: np.ndarray, order: int
) -> tuple[np.ndarray, np.ndarray]:
    A, D = np.empty_like(angle), np.empty_like(angle)
    for i, j in zip(*np.triu_indices(len(s)), strict=True):
        c = np.cos(angle[i, j])
        u_a, u_b, weight = pair_nodes(s[i] ** 2, s[j] ** 2, c, phi.kinks, order=order)
        A[i, j] = A[j, i] = np.sum(weight * phi.f(u_a) * phi.f(u_b))
        D[i, j] = D[j, i] = np.sum(weight * phi.df(u_a) * phi.df(u_b))
    return A, D


def _chebyshev(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes over the range of x, and the first polynomials at x: (*x.shape, count)."""
    middle = (x.max() + x.min()) / 2
    half = max((x.max() - x.min()) / 2, 1e-9 * x.max(), 1e-12)
    nodes = middle + half * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    turn = np.arccos(np.clip((x - middle) / half, -1, 1))
    return nodes, np.cos(turn[..., None] * np.arange(count))


def _coefficients(count: int) -> np.ndarray:
    """Return the matrix from a polynomial's values at the nodes to its coefficients."""
    k = np.arange(count)
    rows = 2 / count * np.cos(np.pi * np.outer(k, k + 0.5) / count)
    rows[0] /= 2
    return rows


def require_variance(argument: str, value: float) -> None:
    """Raise unless `value` is a finite number of at least 0."""
    if not (isinstance(value, int | float | np.number) and 0 <= float(value) < np.inf):
        raise ValueError(f"{argument} must be finite numbers of at least 0, received {value!r}")
