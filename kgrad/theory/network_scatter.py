"""How far single networks lie from their mean: Var[ln‖g‖²] of every parameter, to first order.

A layer of n units is an average over n draws, and deviates by 1/√n. Three kinds of deviation reach
‖g‖² of a parameter:

- of the error: Σ_i ⟨δ_i, Q δ_i⟩ over the units i of a node, Q the parameter's adjoint there, about
  its mean. An error that comes down a skip has deviated above already: only what a layer adds
  counts, so that a residual branch counts by its share.
- of the signal: ⟨x, R x⟩ over the units. It reaches a kernel by its input, R being the adjoint of
  the forward recursion; and errors by φ' and by what a normalisation divides by, which is taken as
  a change of scale common to all samples. Of a scale nothing is left beyond a normalisation.
- of the output's errors, of which draws are given: not small, and not taken as Gaussian.

`finite_width.log_gradient_variance` is the same of one sample and a plain stack.
"""

import numpy as np

from kgrad.theory.activations import Activation
from kgrad.theory.finite_width import log_slope
from kgrad.theory.network_gradients import NetworkGradients, Parameter, entry, quadratic
from kgrad.theory.networks import Add, Dense, Input, Unit, sources

_ROWS = slice(512)
_LEAST_Q = 1e-24


class Scatter:
    """First-order deviations of a network's gradients, given the output's errors.

    Args:
        gradients: the expected ones with these errors.
    """

    def __init__(self, gradients: NetworkGradients) -> None:
        self.g, self.m = gradients, gradients.moments
        self._slopes = {place: self._log_slopes(place) for place in self.m.units}
        self._anchors = [
            place
            for place, node in enumerate(self.m.nodes[:-1])
            if isinstance(node, Dense | Add) and self.m.consumers[place]
        ]
        self._drawn = {place: self._errors(place) for place in self._anchors}
        self._scales = {place: self._propagated(place) for place in self._signals()}
        self._weightings = {place: self._weighting(place) for place in self._scales}

    def variance(self, parameter: Parameter, Q: dict[int, np.ndarray], kappa: float) -> float:
        """Var[ln‖g‖²].

        Args:
            parameter: the parameter.
            Q: its adjoint at each node, from `BatchMoments.forward_adjoint`.
            kappa: d ln‖g‖²/d ln q^L, by way of the output's errors.
        """
        place = parameter.place
        total = self.m.widths[place] * float(np.sum(Q[place] * self.g.G[place]))
        if total <= 0:
            return 0.0
        R = self._of_input(parameter, total)
        signals = {
            signal: R.get(signal, 0.0)
            + self._response(Q, total, scales, kappa) * self._weightings[signal]
            for signal, scales in self._scales.items()
        }
        variance = 0.0
        for anchor in self._anchors:
            deviation = self._of_error(parameter, Q, anchor) * self.m.widths[anchor] / total
            for signal in self.m.consumers[anchor]:
                if signal in signals and signal in self.m.units:
                    deviation = deviation + self._of_signal(signal, signals[signal])
            variance += float(np.var(deviation)) / self.m.widths[anchor]
        for signal, of_signal in signals.items():
            if signal not in self.m.units:
                variance += self._of_sum(signal, of_signal) / self.m.widths[signal]
        return variance

    def _of_input(self, parameter: Parameter, total: float) -> dict[int, np.ndarray]:
        """How ln‖g‖² of a kernel answers to the signals at and below its input."""
        node = self.m.nodes[parameter.place]
        if parameter.kind != "kernel" or not isinstance(node, Dense):
            return {}
        n = node.width * self.m.widths[node.source]
        R = n / self.m.B**2 / total * self.g.G[parameter.place]
        return self.m.signal_adjoint(node.source, R)

    def _gaussian(self, cov: np.ndarray) -> np.ndarray:
        return self.m.gaussian_draws(cov)[_ROWS]

    def _errors(self, anchor: int) -> tuple[np.ndarray, dict[int, np.ndarray], list]:
        """Draws of δ at a node, of e behind each unit map, and what is handed down unchanged."""
        delta, behind, inherited = np.zeros((1, self.m.B)), {}, []
        for above in self.m.consumers[anchor]:
            if above not in self.m.units:
                e = self._gaussian(self.g.covariance(above))
                delta = delta + e
                if isinstance(self.m.nodes[above], Add):
                    inherited.append((anchor, e))
                continue
            e_unit = np.zeros((1, self.m.B))
            for further in self.m.consumers[above]:
                e = self._gaussian(self.g.covariance(further))
                e_unit = e_unit + e
                if isinstance(self.m.nodes[further], Add):
                    inherited.append((above, e))
            behind[above] = e_unit
            delta = delta + self.m.units[above].vjp(e_unit, _ROWS)
        return delta, behind, inherited

    def _of_error(self, parameter: Parameter, Q: dict[int, np.ndarray], anchor: int) -> np.ndarray:
        """⟨δ, Q δ⟩ less what was handed down: (draws,)."""
        delta, behind, inherited = self._drawn[anchor]
        found = np.zeros(len(delta))
        if anchor in Q:
            found = found + quadratic(delta, Q[anchor])
        elif parameter.place in behind:
            e = behind[parameter.place]
            y = entry(self.m, parameter)[_ROWS]
            found = found + np.einsum("ma,ma->m", y, e) ** 2 / self.m.B**2
        else:
            return found
        for place, e in inherited:
            if place in Q:
                found = found - quadratic(e, Q[place])
        return found

    def _signals(self) -> list[int]:
        """Nodes whose units' signals are new: behind a unit map, or a sum; read by a dense one."""
        found = []
        for place, node in enumerate(self.m.nodes[:-1]):
            dense = any(isinstance(self.m.nodes[c], Dense) for c in self.m.consumers[place])
            if isinstance(node, Add) or (isinstance(node, Unit) and dense):
                found.append(place)
        return found

    def _weighting(self, place: int) -> np.ndarray:
        dense = [c for c in self.m.consumers[place] if isinstance(self.m.nodes[c], Dense)]
        R = sum((self.g.G[c] for c in dense), np.zeros((self.m.B, self.m.B)))
        R = R if np.sum(R * self.m.A[place]) > 0 else np.eye(self.m.B)
        return R / max(float(np.sum(R * self.m.A[place])), 1e-300)

    def _of_signal(self, place: int, R: np.ndarray) -> np.ndarray:
        """⟨x, R x⟩: (draws,)."""
        return quadratic(self.m.draws(place)[_ROWS], R)

    def _of_sum(self, place: int, R: np.ndarray) -> float:
        """Width times the variance that a sum adds to that of what it sums."""
        found = np.var(self._of_signal(place, R))
        for source in sources(self.m.nodes[place]):
            if source in self._scales or isinstance(self.m.nodes[source], Input):
                found = found - np.var(self._of_signal(source, R))
        return max(float(found), 0.0)

    def _log_slopes(self, place: int) -> tuple[float, float]:
        """Slopes d ln x²/d ln q and d ln J²/d ln q of a unit map, at the mean q that enters it."""
        node = self.m.nodes[place]
        if not isinstance(node, Unit):
            raise TypeError(f"a unit map was expected, received {node!r}")
        unit, q = node.map, float(np.mean(np.diag(self.m.A[node.source])))
        q = max(q, _LEAST_Q)
        if unit.norm is None:
            phi = unit.after if unit.before.name == "linear" else unit.before
            return log_slope(phi.f, phi, q), log_slope(phi.df, phi, q)
        return 0.0, _slope_of_norm(unit.before, q)

    def _propagated(self, start: int) -> dict[int, float]:
        """By how much, in ln, the variance of each node changes with that of one."""
        found = {start: 1.0}
        for place in range(start + 1, len(self.m.nodes)):
            node = self.m.nodes[place]
            whole = float(np.trace(self.m.A[place]))
            reached = [s for s in sources(node) if s in found]
            if not reached or whole <= 0:
                continue
            if isinstance(node, Dense):
                found[place] = found[node.source] * (1 - node.bias_variance * self.m.B / whole)
            elif isinstance(node, Unit):
                found[place] = found[node.source] * self._slopes[place][0]
            else:
                found[place] = sum(found[s] * float(np.trace(self.m.A[s])) / whole for s in reached)
        return found

    def _response(
        self,
        Q: dict[int, np.ndarray],
        total: float,
        scales: dict[int, float],
        kappa: float,
    ) -> float:
        """How ln‖g‖² answers, by way of the errors, to a signal's ln variance.

        It changes those of `scales` with it, and so what errors are multiplied by.
        """
        response = kappa * scales.get(len(self.m.nodes) - 1, 0.0)
        for place in self.m.units:
            source = sources(self.m.nodes[place])[0]
            if place in Q and source in Q and source in scales:
                share = self.m.widths[place] * np.sum(Q[place] * self.g.G[place]) / total
                response += float(share) * self._slopes[place][1] * scales[source]
        return response


def _slope_of_norm(before: Activation, q: float) -> float:
    return log_slope(before.df, before, q) - log_slope(before.f, before, q)
