"""The static phase diagram: initial variances at which gradients vanish or explode."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from kgrad.figures.looks import CHANGE, DEPTH, ramp, shortened
from kgrad.figures.phases import (
    LEVEL,
    MOST_NAMED,
    RATE_LABEL,
    PhaseDiagram,
)
from kgrad.figures.static.parts import depth_colorbar, new_figure, style
from kgrad.records.deprecations import old_arguments
from kgrad.records.prediction import Prediction
from kgrad.theory import Activation

_OUTLINE = [withStroke(linewidth=4, foreground="white")]


@old_arguments("prediction", "title")
def plot_phase_diagram(
    phi: Activation | str, *, prediction: Prediction | None = None, title: str = ""
) -> Figure:
    """Draw how fast gradients change per layer over σ_w² and σ_b², and where a network is.

    Color is log10 √χ_1: the number of decades by which the back-propagated gradient |δ| grows per
    layer on its way to the input, deep in a plain dense network. χ_1 = 1 is a line, or a point if
    only one is critical. Phases are named only if both, ordered and chaotic, are in view with a
    variance that settles.

    Args:
        phi: the activation function, or its name.
        prediction: the prediction of a plain dense network. Its hidden layers that φ follows are
            drawn at their (σ_w², σ_b²).
        title: text above the figure; by default it names the activation.

    Returns:
        The figure.

    Raises:
        TypeError: if `prediction` is not a `Prediction`.
        ValueError: if φ is unknown or follows no layer of the network, or the network has
            normalization.

    References:
        B. Poole et al., "Exponential expressivity in deep neural networks through transient chaos",
        2016; S. S. Schoenholz et al., "Deep information propagation", 2017.
    """
    diagram = PhaseDiagram.of(phi, prediction)
    with style():
        figure = new_figure(title or diagram.title, 6.0)
        ax = figure.subplots()
        if diagram.logarithmic:
            ax.set_xscale("log")
        mesh = ax.pcolormesh(
            diagram.sigma_w2,
            diagram.sigma_b2,
            diagram.rate,
            cmap=CHANGE,
            norm=Normalize(-diagram.steepest, diagram.steepest),
            shading="gouraud",
            rasterized=True,
        )
        bar = figure.colorbar(mesh, ax=ax, pad=0.02, extend="both")
        bar.set_label(RATE_LABEL)
        bar.outline.set_visible(False)
        ax.set(
            xlabel="$σ_w^2$ = fan-in · variance of a weight", ylabel="$σ_b^2$ = variance of a bias"
        )
        ax.set(xlim=diagram.sigma_w2[[0, -1]], ylim=diagram.sigma_b2[[0, -1]])
        ax.grid(False)
        _draw_critical(ax, diagram)
        for area in diagram.areas:
            ax.text(
                area.sigma_w2,
                area.sigma_b2,
                area.text,
                ha="center",
                va="center",
                rotation=90 if area.upright else 0,
                path_effects=_OUTLINE,
            )
        _draw_layers(ax, diagram)
        if len(diagram.points) > MOST_NAMED:
            depth_colorbar(figure, ax=ax, pad=0.02)
    return figure


def _draw_critical(ax: Axes, diagram: PhaseDiagram) -> None:
    """Draw the critical point or line, and the contour χ_1 = 1, with a legend."""
    keys: list[Any] = []
    if diagram.critical_point:
        keys += ax.plot(
            *diagram.critical_point, "*", color="black", markersize=18, markeredgecolor="white",
            clip_on=False, zorder=4, linestyle="none", label="critical point",
        )  # fmt: skip
    if len(diagram.critical_line):
        keys += ax.plot(
            *diagram.critical_line.T,
            color="black",
            linewidth=2.5,
            label=f"critical line, $χ_1$ = 1: {LEVEL}",
        )
    if diagram.dashed:
        ax.contour(
            diagram.sigma_w2, diagram.sigma_b2, diagram.chi, [1.0],
            colors="black", linestyles="--", linewidths=2,
        )  # fmt: skip
        keys += ax.plot([], [], "--", color="black", linewidth=2, label=f"$χ_1$ = 1: {LEVEL}")
    if keys:
        ax.figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)


def _draw_layers(ax: Axes, diagram: PhaseDiagram) -> None:
    """Draw a point for each (σ_w², σ_b²), darker towards the output, named if they are few."""
    points = diagram.points
    for i, (point, color) in enumerate(zip(points, ramp(DEPTH, len(points)), strict=True)):
        place = (point.sigma_w2, point.sigma_b2)
        ax.plot(
            *place,
            "o",
            color=color,
            markersize=11,
            markeredgecolor="white",
            clip_on=False,
            zorder=4,
            label=", ".join(point.names),
        )
        if len(points) > MOST_NAMED:
            continue
        first, last = shortened(point.names[0]), shortened(point.names[-1])
        across = diagram.across(point.sigma_w2)
        side = "left" if across < 0.08 else "right" if across > 0.85 else "center"
        ax.annotate(
            first if len(point.names) == 1 else f"{first} – {last}",
            place,
            (0, 14 + 20 * (i % 3)),
            textcoords="offset points",
            ha=side,
            arrowprops={"arrowstyle": "-", "color": color, "relpos": (0.5, 0), "shrinkA": 0},
            path_effects=_OUTLINE,
            zorder=5,
        )
