"""The scatter of single networks' gradients around the expected ones: the prediction's band."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from kgrad.theory.network_draws import DrawnNetworks, narrowed
from kgrad.theory.network_gradients import NetworkGradients, Parameter, adjoint, of_errors
from kgrad.theory.networks import BatchMoments, Dense, Node

_COVERAGE = 0.95
_MOST_NETWORKS = 512
_LEAST_RATIO = 1e-6
# Largest squares of signals, which a normalization squares again, and of errors.
_MOST_SIGNAL, _MOST_ERROR = 1e36, 1e60


class Effort(NamedTuple):
    """The numbers of random draws in a prediction.

    Attributes:
        draws: largest number of draws of one unit's values.
        outputs: largest number of draws of the output's pre-activations.
        given: number of draws of the output's errors for mean |g|.
        numbers: approximate number of random values in all drawn networks.
        networks: smallest number of drawn networks, enough to estimate a variance.
        places: largest number of hidden layers for which the scatter is computed.
        samples: largest number of samples from which the scatter is computed.
        few_draws: as `draws`, in the computation of the scatter.
    """

    draws: int
    outputs: int
    given: int
    numbers: int
    networks: int
    places: int
    samples: int
    few_draws: int


# The numbers of networks take about a tenth of a second.
FULL = Effort(
    draws=4096,
    outputs=2048,
    given=16,
    numbers=3_000_000,
    networks=160,
    places=10**9,
    samples=64,
    few_draws=512,
)
ROUGH = FULL._replace(draws=512, outputs=512, given=4, numbers=300_000, networks=24, places=16)
# For networks of many layers and samples, which would otherwise take up to seconds.
ROUGHEST = ROUGH._replace(given=2, networks=16, places=6, samples=32, few_draws=128)
_MOST_ROUGH = 704  # layers times samples


def rough_effort(nodes: Sequence[Node], samples: int) -> Effort:
    """Return the effort of a rough prediction."""
    layers = sum(isinstance(node, Dense) for node in nodes)
    return ROUGH if layers * min(samples, ROUGH.samples) <= _MOST_ROUGH else ROUGHEST


# Maps output pre-activations, (draws, B, n_L), and targets to ∂ℓ_a/∂h_a, (draws, B, n_L).
OutputErrors = Callable[[np.ndarray, np.ndarray], np.ndarray]


class SingleNetworks:
    """The scatter of single networks' gradients around the expected ones.

    Networks of at most 64 units per layer are drawn. Only a part of a large batch is used, because
    relative quantities depend little on the batch size.

    Args:
        moments: moments of the model on the batch.
        y: the targets, (B, ...).
        errors: draws of the output's errors in wide networks, (draws, B, n_L).
        errors_of: function that returns the errors of output pre-activations.
        effort: the numbers of random draws.
    """

    def __init__(
        self,
        moments: BatchMoments,
        y: np.ndarray,
        errors: np.ndarray,
        errors_of: OutputErrors,
        effort: Effort = FULL,
    ) -> None:
        if effort.samples < moments.B:
            few = moments.random.choice(moments.B, effort.samples, replace=False)
            moments = moments.of_samples(few, effort.draws)
            errors, y = errors[:, few], y[few]
        nodes, self._narrower = narrowed(moments.nodes)
        self._moments = moments.narrowed(nodes)
        drawn = any(u.unit.norm == "batch" for u in moments.units.values())
        if drawn:
            # Few draws are enough: their error cancels in the ratio of a part to the whole.
            self._moments = BatchMoments(nodes, moments.X, most_draws=effort.few_draws)
        self._errors, self._all = errors, NetworkGradients(moments, errors)
        hidden = [node.width for node in nodes[:-1] if isinstance(node, Dense)]
        numbers = moments.B * max(sum(hidden), moments.widths[-1])
        count = int(np.clip(effort.numbers // numbers, effort.networks, _MOST_NETWORKS))
        self._drawn = DrawnNetworks(
            nodes, moments.X, count, lambda h: errors_of(h, y), moments.random, *self._scale()
        )
        # Prediction interval of a normal distribution after `count` samples.
        half = stats.t.ppf((1 + _COVERAGE) / 2, count - 1) * np.sqrt(1 + 1 / count)
        self._half_width = float(half)
        chosen = moments.random.choice(len(errors), effort.given, replace=False)
        self._given = [NetworkGradients(moments, errors[t : t + 1]) for t in chosen]

    def _scale(self) -> tuple[type[np.floating], float]:
        """Return a dtype that can represent signals and errors, and the unit of the errors."""
        signals, errors = (
            [size for M in found if (size := np.trace(M)) > 0] or [1.0]
            for found in (self._moments.A[1:], self._all.G)
        )
        spread = np.sqrt(max(errors) / min(errors))  # of squares, like the constants
        if spread < _MOST_ERROR and max(*signals, 1 / min(signals)) < _MOST_SIGNAL:
            return np.float32, float(min(errors) ** -0.25 * max(errors) ** -0.25)
        return np.float64, 1.0

    def relative(self, parameter: Parameter) -> tuple[float, float, float, float]:
        """Return lower quantile, mean and upper quantile of ‖g‖/√E‖g‖², and mean |g| over ‖g‖.

        ln‖g‖² of a network is nearly Gaussian (Hanin & Nica 2018). Its mean and variance are sums
        of those of wide networks, whose output errors are drawn, and of a term that falls as
        1/width.
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
        # With the same output errors, wide networks differ from these only by the finite width.
        low, high = np.quantile(drawn - same, special.ndtr([-1, 1]))
        rest = ((high - low) / 2) ** 2 / self._narrower
        middle = np.exp(of_wide / 2).mean() * np.exp(-rest / 8)
        return float(ends[0]), float(middle), float(ends[1]), self._entry(parameter)

    def _expected(self, parameter: Parameter, narrow: float) -> float:
        """Return E‖g‖², from all draws if the drawn networks are as wide as the model."""
        return narrow if self._narrower > 1 else self._all.norm_squared(parameter)

    def _entry(self, parameter: Parameter) -> float:
        """Return mean |g| over ‖g‖."""
        step = len(self._given[0].moments.normal) // len(self._given)
        entries = [
            gradients.mean_abs(parameter, slice(i * step, (i + 1) * step))
            for i, gradients in enumerate(self._given)
        ]
        squares = [gradients.norm_squared(parameter) for gradients in self._given]
        return float(np.sum(entries) / np.sum(np.sqrt(squares)))
