"""The phase diagram: for which initialisations a deep network's gradients vanish or explode."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from kgrad.figures.static.panels import DEPTH, ramp, shortened
from kgrad.figures.static.parts import depth_colorbar, new_figure, style
from kgrad.records.deprecations import old_arguments
from kgrad.records.prediction import Prediction
from kgrad.theory import Activation, activation, critical_line, fixed_point
from kgrad.theory.depths import phase_plane

RATE: Colormap = sns.color_palette("vlag", as_cmap=True)
WIDEST_LINEAR = 10.0  # a σ_w² beyond asks for a logarithmic axis
LARGE = 0.05  # share of the plane that an area needs to be named
NARROW = 0.25  # share of the width
MOST_NAMED = 6  # points; more are told apart by a colour bar
OUTLINE = [withStroke(linewidth=4, foreground="white")]


@old_arguments("prediction", "title")
def plot_phase_diagram(
    phi: Activation | str, *, prediction: Prediction | None = None, title: str = ""
) -> Figure:
    """Draw over σ_w² and σ_b² how fast gradients change a layer, and where a network stands.

    Colour is log10 √χ_1, the decades by which |δ| changes a layer, deep in a plain dense network.
    Where χ_1 = 1 there is a line, or a point if a single one is critical. Phases are named only
    where both, ordered and chaotic, are in view with a variance that settles.

    Args:
        phi: the activation function, or its name.
        prediction: of a plain dense network: its hidden layers that φ follows are drawn at their
            (σ_w², σ_b²).
        title: stands above the figure; by default it names the activation.

    Returns:
        The figure.

    Raises:
        TypeError: if `prediction` is not a `Prediction`.
        ValueError: if φ is unknown, follows no layer of the network, or the network normalises.

    References:
        B. Poole et al., "Exponential expressivity in deep neural networks through transient chaos",
        2016; S. S. Schoenholz et al., "Deep information propagation", 2017.
    """
    phi = activation(phi)
    layers = {} if prediction is None else _layers_of(phi, prediction)
    sigma_w2, sigma_b2, logarithmic = _view(list(layers.values()))
    q, chi = phase_plane(phi, sigma_w2, sigma_b2)
    with style():
        figure = new_figure(title or f"Deep {phi.name} networks", 6.0)
        ax = figure.subplots()
        if logarithmic:
            ax.set_xscale("log")
        with np.errstate(divide="ignore"):
            rate = np.log10(chi) / 2
        mesh = ax.pcolormesh(
            sigma_w2,
            sigma_b2,
            rate,
            cmap=RATE,
            norm=_norm(rate),
            shading="gouraud",
            rasterized=True,
        )
        bar = figure.colorbar(mesh, ax=ax, pad=0.02, extend="both")
        bar.set_label("|δ| towards the input, decades a layer")
        bar.outline.set_visible(False)
        ax.set(xlabel="$σ_w^2$ = fan-in · variance of a weight", ylabel="$σ_b^2$")
        ax.set(xlim=sigma_w2[[0, -1]], ylim=sigma_b2[[0, -1]])
        ax.grid(False)
        _draw_critical(ax, phi, sigma_w2, sigma_b2, chi)
        _name_areas(ax, sigma_w2, sigma_b2, q, chi)
        if layers and _draw_layers(ax, layers) > MOST_NAMED:
            depth_colorbar(figure, ax=ax, pad=0.02)
    return figure


def _layers_of(phi: Activation, prediction: Any) -> dict[str, tuple[float, float]]:
    """Hidden dense layer that φ follows → (σ_w², σ_b²)."""
    if not isinstance(prediction, Prediction):
        raise TypeError(
            f"prediction must be a Prediction, received {type(prediction).__name__}: pass what "
            "predict_gradients returned"
        )
    others = [name for name in prediction.layers if name not in prediction.sigma_w2]
    if others:
        raise ValueError(
            f"prediction must be of a plain dense network, received one with {others[0]}: with "
            "normalisation the gradients do not depend on σ_w² and σ_b²"
        )
    found = {
        name: (prediction.sigma_w2[name], prediction.sigma_b2[name])
        for name, one in prediction.activations.items()
        if one.name == phi.name
    }
    if not found:
        there = ", ".join(sorted({one.name for one in prediction.activations.values()}))
        raise ValueError(
            f"phi must follow a hidden layer of the network ({there}), received {phi.name!r}: "
            "pass one that does, or leave the prediction out"
        )
    return found


def _view(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray, bool]:
    """The grid, (columns,) and (rows,), that holds the points, and whether σ_w² is logarithmic."""
    w = [point[0] for point in points]
    sigma_b2 = np.linspace(0, max([0.5, *(1.2 * b for _, b in points)]), 61)
    if max([0.0, *w]) <= WIDEST_LINEAR:
        return np.linspace(0.01, max([4.0, *(1.2 * one for one in w)]), 121), sigma_b2, False
    low = min([0.5, *(one / 2 for one in w if one > 0)])
    return np.geomspace(low, 2 * max(w), 121), sigma_b2, True


def _norm(rate: np.ndarray) -> Normalize:
    """White at 0, as far to either side; the steepest quarter is left outside."""
    finite = np.abs(rate[np.isfinite(rate)])
    end = max(0.05, float(np.quantile(finite, 0.75)))
    return Normalize(-end, end)


def _draw_critical(
    ax: Axes, phi: Activation, sigma_w2: np.ndarray, sigma_b2: np.ndarray, chi: np.ndarray
) -> None:
    """The critical line if there is one in view, else the critical point, and where χ_1 = 1."""
    q = np.geomspace(1e-6, 1e4, 400)
    line = np.array([critical_line(phi, one) for one in q])
    keys: list[Any] = []
    if np.ptp(line, axis=0).max() < 1e-6:
        keys += ax.plot(
            *line[0].round(9), "*", color="black", markersize=18, markeredgecolor="white",
            clip_on=False, zorder=4, linestyle="none", label="critical point",
        )  # fmt: skip
        line = line[:0]
    # Where some other q* is reached from q = 1, gradients do not see this one.
    near = (line[:, 1] >= 0) & (line <= 1.1 * np.array([sigma_w2[-1], sigma_b2[-1]])).all(axis=1)
    line = np.array(
        [
            point
            for point, one in zip(line[near], q[: len(line)][near], strict=True)
            if abs(fixed_point(phi, *point) / one - 1) < 1e-2
        ]
    ).reshape(-1, 2)
    if len(line) > 1:
        keys += ax.plot(*line.T, color="black", linewidth=2.5, label="critical line, $χ_1$ = 1")
    elif chi.min() < 1 < chi.max():
        ax.contour(sigma_w2, sigma_b2, chi, [1.0], colors="black", linestyles="--", linewidths=2)
        keys += ax.plot([], [], "--", color="black", linewidth=2, label="$χ_1$ = 1")
    if keys:
        ax.figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)


def _name_areas(
    ax: Axes, sigma_w2: np.ndarray, sigma_b2: np.ndarray, q: np.ndarray, chi: np.ndarray
) -> None:
    """Say in each large area what gradients and variance do there."""
    settles = np.isfinite(q)
    ordered, chaotic = settles & (chi < 1 - 1e-9), settles & (chi > 1 + 1e-9)
    phases = min(ordered.mean(), chaotic.mean()) >= LARGE
    for area, phase, text in (
        (ordered, "ordered phase:\n", "gradients vanish"),
        (chaotic, "chaotic phase:\n", "gradients explode"),
        (~settles, "", "variance grows\nwithout end"),
    ):
        if area.mean() < LARGE:
            continue
        # In the middle of the widest row; upright where even that is too narrow for the words.
        widths = area.mean(axis=1)[6:-6]
        narrow = widths.max() < NARROW
        wide = 6 + np.flatnonzero(widths >= (0.5 if narrow else 0.95) * widths.max())
        row = wide[np.argmin(np.abs(wide - len(area) // 2))]
        ax.text(
            sigma_w2[int(np.median(np.flatnonzero(area[row])))],
            sigma_b2[row],
            (phase if phases else "") + text,
            ha="center",
            va="center",
            rotation=90 if narrow else 0,
            path_effects=OUTLINE,
        )


def _draw_layers(ax: Axes, layers: dict[str, tuple[float, float]]) -> int:
    """A point for each (σ_w², σ_b²), darker towards the output, named if they are few.

    Returns:
        How many points there are.
    """
    places: dict[tuple[float, float], list[str]] = {}
    for name, (w, b) in layers.items():
        places.setdefault((round(w, 6), round(b, 6)), []).append(name)
    colors = ramp(DEPTH, len(places))
    for i, (place, names) in enumerate(places.items()):
        ax.plot(
            *place,
            "o",
            color=colors[i],
            markersize=11,
            markeredgecolor="white",
            clip_on=False,
            zorder=4,
            label=", ".join(names),
        )
        if len(places) <= MOST_NAMED:
            first, last = shortened(names[0]), shortened(names[-1])
            across = ax.transLimits.transform(ax.transScale.transform(place))[0]
            side = "left" if across < 0.08 else "right" if across > 0.85 else "center"
            ax.annotate(
                first if len(names) == 1 else f"{first} – {last}",
                place,
                (0, 14 + 20 * (i % 3)),
                textcoords="offset points",
                ha=side,
                arrowprops={
                    "arrowstyle": "-",
                    "color": colors[i],
                    "relpos": (0.5, 0),
                    "shrinkA": 0,
                },
                path_effects=OUTLINE,
                zorder=5,
            )
    return len(places)
