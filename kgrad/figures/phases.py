"""The phase diagram's content: rates over the plane, critical line, areas, a network's layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kgrad.records.prediction import Prediction
from kgrad.theory import Activation, activation, critical_line, fixed_point
from kgrad.theory.depths import phase_plane

LEVEL = "gradients keep their size"
RATE_LABEL = "gradient growth towards input,\ndecades per layer"
MOST_NAMED = 6  # the largest number of points that are named; more have a color bar
_WIDEST_LINEAR = 10.0  # a larger σ_w² needs a logarithmic axis
_LARGE = 0.05  # share of the plane that an area needs to be named
_NARROW = 0.25  # share of the width


class Area(NamedTuple):
    """A large area of the plane, and the words in it.

    Attributes:
        text: what happens there; may have line breaks.
        sigma_w2: center of the words.
        sigma_b2: center of the words.
        upright: whether the area is too narrow for horizontal words.
    """

    text: str
    sigma_w2: float
    sigma_b2: float
    upright: bool


class LayerPoint(NamedTuple):
    """Hidden layers with the same variances.

    Attributes:
        sigma_w2: fan-in times the variance of a weight.
        sigma_b2: variance of a bias.
        names: the layers' names, in forward order.
    """

    sigma_w2: float
    sigma_b2: float
    names: tuple[str, ...]


class PhaseDiagram(NamedTuple):
    """The contents of a phase diagram.

    Attributes:
        phi: the activation function.
        sigma_w2: columns of the grid, (columns,).
        sigma_b2: rows of the grid, (rows,).
        logarithmic: whether the axis of σ_w² is logarithmic.
        chi: χ_1, (rows, columns).
        rate: log10 √χ_1, (rows, columns); may be infinite.
        steepest: the rate at the ends of the color ramp. A quarter of the plane is steeper.
        critical_point: (σ_w², σ_b²) if it is the only critical one.
        critical_line: critical (σ_w², σ_b²) in view, (points, 2); may be empty.
        dashed: whether χ_1 = 1 is drawn as a contour, for there is no critical line in view.
        areas: the large areas.
        points: a network's layers.
    """

    phi: Activation
    sigma_w2: np.ndarray
    sigma_b2: np.ndarray
    logarithmic: bool
    chi: np.ndarray
    rate: np.ndarray
    steepest: float
    critical_point: tuple[float, float] | None
    critical_line: np.ndarray
    dashed: bool
    areas: list[Area]
    points: list[LayerPoint]

    @classmethod
    def of(cls, phi: Activation | str, prediction: Prediction | None) -> "PhaseDiagram":
        """Return the diagram of an activation, with a network's layers.

        Raises:
            TypeError: if `prediction` is not a `Prediction`.
            ValueError: if φ is unknown or follows no layer of the network, or the network has
                normalization.
        """
        phi = activation(phi)
        points = [] if prediction is None else _points_of(phi, prediction)
        sigma_w2, sigma_b2, logarithmic = _view(points)
        q, chi = phase_plane(phi, sigma_w2, sigma_b2)
        with np.errstate(divide="ignore"):
            rate = np.log10(chi) / 2
        steep = float(np.quantile(np.abs(rate[np.isfinite(rate)]), 0.75))
        point, line = _critical(phi, sigma_w2[-1], sigma_b2[-1])
        dashed = len(line) < 2 and bool(chi.min() < 1 < chi.max())
        return cls(
            phi=phi,
            sigma_w2=sigma_w2,
            sigma_b2=sigma_b2,
            logarithmic=logarithmic,
            chi=chi,
            rate=rate,
            steepest=max(0.05, steep),
            critical_point=point,
            critical_line=line if len(line) > 1 else line[:0],
            dashed=dashed,
            areas=_areas(sigma_w2, sigma_b2, q, chi),
            points=points,
        )

    def across(self, sigma_w2: float) -> float:
        """Return where a σ_w² is on the axis, from 0 at the left to 1 at the right."""
        forward = np.log if self.logarithmic else np.asarray
        low, at, high = forward([self.sigma_w2[0], sigma_w2, self.sigma_w2[-1]])
        return float((at - low) / (high - low))

    @property
    def title(self) -> str:
        """Return a title that names the activation."""
        return f"Deep {self.phi.name} networks"


def _points_of(phi: Activation, prediction: Any) -> list[LayerPoint]:
    """Return the hidden dense layers that φ follows, those with the same variances together."""
    if not isinstance(prediction, Prediction):
        raise TypeError(
            f"prediction must be a Prediction, received {type(prediction).__name__}: pass what "
            "predict_gradients returned"
        )
    others = [name for name in prediction.layers if name not in prediction.sigma_w2]
    if others:
        raise ValueError(
            f"prediction must be of a plain dense network, received one with {others[0]}: with "
            "normalization the gradients do not depend on σ_w² and σ_b²"
        )
    places: dict[tuple[float, float], list[str]] = {}
    for name, one in prediction.activations.items():
        if one.name == phi.name:
            place = (round(prediction.sigma_w2[name], 6), round(prediction.sigma_b2[name], 6))
            places.setdefault(place, []).append(name)
    if not places:
        there = ", ".join(sorted({one.name for one in prediction.activations.values()}))
        raise ValueError(
            f"phi must follow a hidden layer of the network ({there}), received {phi.name!r}: "
            "pass one that does, or leave the prediction out"
        )
    return [LayerPoint(w, b, tuple(names)) for (w, b), names in places.items()]


def _view(points: Sequence[LayerPoint]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the grid that holds the points, (columns,) and (rows,), and if σ_w² is logarithmic."""
    w = [point.sigma_w2 for point in points]
    sigma_b2 = np.linspace(0, max([0.5, *(1.2 * point.sigma_b2 for point in points)]), 61)
    if max([0.0, *w]) <= _WIDEST_LINEAR:
        return np.linspace(0.01, max([4.0, *(1.2 * one for one in w)]), 121), sigma_b2, False
    low = min([0.5, *(one / 2 for one in w if one > 0)])
    return np.geomspace(low, 2 * max(w), 121), sigma_b2, True


def _critical(
    phi: Activation, most_w: float, most_b: float
) -> tuple[tuple[float, float] | None, np.ndarray]:
    """Return the only critical point, or None, and the points of the critical line in view."""
    q = np.geomspace(1e-6, 1e4, 400)
    line = np.array([critical_line(phi, one) for one in q])
    if np.ptp(line, axis=0).max() < 1e-6:
        w, b = line[0].round(9).tolist()
        return (w, b), line[:0]
    near = (line[:, 1] >= 0) & (line <= 1.1 * np.array([most_w, most_b])).all(axis=1)
    # If q settles elsewhere from q = 1, gradients do not see this fixed point.
    seen = [
        point
        for point, one in zip(line[near], q[near], strict=True)
        if abs(fixed_point(phi, *point) / one - 1) < 1e-2
    ]
    return None, np.array(seen).reshape(-1, 2)


def _areas(
    sigma_w2: np.ndarray, sigma_b2: np.ndarray, q: np.ndarray, chi: np.ndarray
) -> list[Area]:
    """Return each large area with the words that describe gradients and variance there."""
    settles = np.isfinite(q)
    ordered, chaotic = settles & (chi < 1 - 1e-9), settles & (chi > 1 + 1e-9)
    phases = min(ordered.mean(), chaotic.mean()) >= _LARGE
    areas = []
    for area, phase, text in (
        (ordered, "ordered phase:\n", "gradients vanish"),
        (chaotic, "chaotic phase:\n", "gradients explode"),
        (~settles, "", "variance grows\nwithout end"),
    ):
        if area.mean() < _LARGE:
            continue
        # In the middle of the widest row; upright if even that is too narrow for the words.
        widths = area.mean(axis=1)[6:-6]
        narrow = bool(widths.max() < _NARROW)
        wide = 6 + np.flatnonzero(widths >= (0.5 if narrow else 0.95) * widths.max())
        row = int(wide[np.argmin(np.abs(wide - len(area) // 2))])
        column = int(np.median(np.flatnonzero(area[row])))
        words = (phase if phases else "") + text
        areas.append(Area(words, float(sigma_w2[column]), float(sigma_b2[row]), narrow))
    return areas
