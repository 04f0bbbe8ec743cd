"""How single networks' gradients lie about the expected ones: the band of a prediction."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from kgrad.theory.network_draws import DrawnNetworks, narrowed
from kgrad.theory.network_gradients import NetworkGradients, Parameter, adjoint, of_errors
from kgrad.theory.networks import BatchMoments, Dense

_COVERAGE = 0.95
_MOST_SAMPLES, _FEW_DRAWS, _MOST_NETWORKS = 64, 512, 512
_LEAST_RATIO = 1e-6
# Squares of signals, which are squared once more to be normalised, and of errors, which are not.
_MOST_SIGNAL, _MOST_ERROR = 1e36, 1e60


class Effort(NamedTuple):
    """How much a prediction draws.

    Attributes:
        draws: of one unit's values, at most.
        outputs: of the output's pre-activations, at most.
        given: of the output's errors, for mean |g|.
        numbers: in the networks that are drawn, about.
        networks: that are drawn, at least: enough to tell a variance from.
    """

    draws: int
    outputs: int
    given: int
    numbers: int
    networks: int


# Networks: as many as take a tenth of a second.
FULL = Effort(draws=4096, outputs=2048, given=16, numbers=3_000_000, networks=160)
ROUGH = Effort(draws=512, outputs=512, given=4, numbers=300_000, networks=24)

# Output pre-activations, (draws, B, n_L), and targets to ∂ℓ_a/∂h_a, shaped as the first.
OutputErrors = Callable[[np.ndarray, np.ndarray], np.ndarray]


class SingleNetworks:
    """How single networks' gradients lie about the expected ones.

    Networks of at most 64 units are drawn. Where a batch is large, a part of it is looked at: what
    is relative depends on it little.

    Args:
        moments: of the model on the batch.
        y: the targets, (B, ...).
        errors: draws of the output's errors in wide networks, (draws, B, n_L).
        errors_of: what makes errors of output pre-activations.
        effort: how much is drawn.
    """

    def __init__(
        self,
        moments: BatchMoments,
        y: np.ndarray,
        errors: np.ndarray,
        errors_of: OutputErrors,
        effort: Effort = FULL,
    ) -> None:
        if moments.B > _MOST_SAMPLES:
            few = moments.random.choice(moments.B, _MOST_SAMPLES, replace=False)
            moments = BatchMoments(moments.nodes, moments.X[few], most_draws=effort.draws)
            errors, y = errors[:, few], y[few]
        nodes, self._narrower = narrowed(moments.nodes)
        self._moments = moments
        drawn = any(u.unit.norm == "batch" for u in moments.units.values())
        if self._narrower > 1 or (drawn and effort.draws > _FEW_DRAWS):
            # Few draws do: what they are wrong by is common to the parts and to the whole.
            self._moments = BatchMoments(nodes, moments.X, most_draws=_FEW_DRAWS)
        self._errors, self._all = errors, NetworkGradients(moments, errors)
        hidden = [node.width for node in nodes[:-1] if isinstance(node, Dense)]
        numbers = moments.B * max(sum(hidden), moments.widths[-1])
        count = int(np.clip(effort.numbers // numbers, effort.networks, _MOST_NETWORKS))
        self._drawn = DrawnNetworks(
            nodes, moments.X, count, lambda h: errors_of(h, y), moments.random, *self._scale()
        )
        # Of a normal distribution, where the next one lies after so many.
        half = stats.t.ppf((1 + _COVERAGE) / 2, count - 1) * np.sqrt(1 + 1 / count)
        self._half_width = float(half)
        chosen = moments.random.choice(len(errors), effort.given, replace=False)
        self._given = [NetworkGradients(moments, errors[t : t + 1]) for t in chosen]

    def _scale(self) -> tuple[type[np.floating], float]:
        """A type that holds what networks are made of, and the unit of errors that it takes."""
        signals, errors = (
            [size for M in found if (size := np.trace(M)) > 0] or [1.0]
            for found in (self._moments.A[1:], self._all.G)
        )
        spread = np.sqrt(max(errors) / min(errors))  # of squares, like the others
        if spread < _MOST_ERROR and max(*signals, 1 / min(signals)) < _MOST_SIGNAL:
            return np.float32, float(min(errors) ** -0.25 * max(errors) ** -0.25)
        return np.float64, 1.0

    def relative(self, parameter: Parameter) -> tuple[float, float, float, float]:
        """Of ‖g‖ over its root mean square: lower quantile, mean, upper; mean |g| over ‖g‖.

        ln‖g‖² of a network is nearly Gaussian (Hanin & Nica 2018). Its mean and variance are those
        of wide networks, whose output's errors are drawn, and a rest that falls as 1/width.
        """
        m = self._moments
        Q = m.forward_adjoint(parameter.place, adjoint(m, parameter))
        wide = of_errors(self._errors, Q[len(m.nodes) - 1])
        of_wide, drawn, same = (
            np.log(np.maximum(ratios, _LEAST_RATIO))
            for ratios in (
                wide / wide.mean(),
                self._drawn.norm_squared(parameter) / self._expected(parameter, wide.mean()),
                of_errors(self._drawn.output_errors, Q[len(m.nodes) - 1]) / wide.mean(),
            )
        )
        mean = of_wide.mean() + (drawn.mean() - of_wide.mean()) / self._narrower
        variance = of_wide.var() + (drawn.var(ddof=1) - of_wide.var()) / self._narrower
        ends = np.exp((mean + np.array([-1, 1]) * self._half_width * np.sqrt(variance)) / 2)
        # With the errors that they had, wide networks differ from these by finite width alone.
        low, high = np.quantile(drawn - same, special.ndtr([-1, 1]))
        rest = ((high - low) / 2) ** 2 / self._narrower
        middle = np.exp(of_wide / 2).mean() * np.exp(-rest / 8)
        return float(ends[0]), float(middle), float(ends[1]), self._entry(parameter)

    def _expected(self, parameter: Parameter, narrow: float) -> float:
        """E‖g‖², by all draws where the networks drawn are as wide as the model."""
        return narrow if self._narrower > 1 else self._all.norm_squared(parameter)

    def _entry(self, parameter: Parameter) -> float:
        """Mean |g| over ‖g‖."""
        step = len(self._given[0].moments.normal) // len(self._given)
        entries = [
            gradients.mean_abs(parameter, slice(i * step, (i + 1) * step))
            for i, gradients in enumerate(self._given)
        ]
        squares = [gradients.norm_squared(parameter) for gradients in self._given]
        return float(np.sum(entries) / np.sum(np.sqrt(squares)))
