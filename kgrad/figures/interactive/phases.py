"""The interactive phase diagram: initial variances at which gradients vanish or explode."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from kgrad.figures.interactive.parts import HALO, axis_title, colors, colorscale, new_figure, plain
from kgrad.figures.looks import CHANGE, DEPTH, INK, shortened
from kgrad.figures.phases import MOST_NAMED, RATE_LABEL, PhaseDiagram
from kgrad.records.prediction import Prediction
from kgrad.theory import Activation

_W, _B, _CHI = "σ<sub>w</sub>²", "σ<sub>b</sub>²", "χ<sub>1</sub>"


def plot_phase_diagram(
    phi: Activation | str, *, prediction: Prediction | None = None, title: str = ""
) -> go.Figure:
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
    x, y = diagram.sigma_w2, diagram.sigma_b2
    axis: dict[str, Any] = {"zeroline": False, "showgrid": False, "automargin": True}
    ends = np.log10(x[[0, -1]]) if diagram.logarithmic else x[[0, -1]]
    x_axis = axis | {
        "title": axis_title(f"{_W} = fan-in · variance of a weight"),
        "type": "log" if diagram.logarithmic else "linear",
        "range": ends.tolist(),
        **({"dtick": 1} if diagram.logarithmic else {}),
    }
    y_axis = axis | {"title": axis_title(_B), "range": y[[0, -1]].tolist()}
    figure = new_figure(title or diagram.title, 560, xaxis=x_axis, yaxis=y_axis)
    figure.update_layout(hovermode="closest")
    hover = f"{_W} = %{{x:.3g}}<br>{_B} = %{{y:.3g}}"
    figure.add_heatmap(
        x=x,
        y=y,
        z=np.where(np.isfinite(diagram.rate), diagram.rate, -1e3).astype(np.float32),
        customdata=diagram.chi.astype(np.float32),
        zmin=-diagram.steepest,
        zmax=diagram.steepest,
        colorscale=colorscale(CHANGE),
        colorbar={
            "title": axis_title(RATE_LABEL.replace("\n", " ")) | {"side": "top"},
            "thickness": 14,
            "outlinewidth": 0,
            "orientation": "h",
            "y": -0.19,
            "yanchor": "top",
        },
        hovertemplate=f"{hover}<br>{_CHI} = %{{customdata:.3g}}<br>"
        "%{z:+.2g} decades per layer<extra></extra>",
    )
    _add_critical(figure, diagram, hover)
    for area in diagram.areas:
        figure.add_annotation(
            text=plain(area.text).replace("\n", "<br>"),
            x=np.log10(area.sigma_w2) if diagram.logarithmic else area.sigma_w2,
            y=area.sigma_b2,
            textangle=-90 if area.upright else 0,
            showarrow=False,
            font={"color": INK, "size": 13, "shadow": HALO},
        )
    _add_layers(figure, diagram, hover)
    return figure


def _add_critical(figure: go.Figure, diagram: PhaseDiagram, hover: str) -> None:
    """Add the critical point or line, and the contour χ_1 = 1."""
    if diagram.critical_point:
        w, b = diagram.critical_point
        figure.add_scatter(
            x=[w],
            y=[b],
            mode="markers",
            marker={
                "symbol": "star", "size": 16, "color": "black",
                "line": {"color": "white", "width": 1},
            },
            cliponaxis=False,
            name="critical point",
            hovertemplate=f"critical point<br>{hover}<extra></extra>",
        )  # fmt: skip
    if len(diagram.critical_line):
        figure.add_scatter(
            x=diagram.critical_line[:, 0],
            y=diagram.critical_line[:, 1],
            mode="lines",
            line={"color": "black", "width": 2.5},
            name=f"critical line, {_CHI} = 1",
            hovertemplate=f"critical line<br>{hover}<extra></extra>",
        )
    if diagram.dashed:
        figure.add_contour(
            x=diagram.sigma_w2,
            y=diagram.sigma_b2,
            z=diagram.chi.astype(np.float32),
            contours={"start": 1, "end": 1, "size": 1, "coloring": "none"},
            line={"color": "black", "dash": "dash", "width": 2},
            showscale=False,
            name=f"{_CHI} = 1",
            showlegend=True,
            hoverinfo="skip",
        )


def _add_layers(figure: go.Figure, diagram: PhaseDiagram, hover: str) -> None:
    """Add a point for each (σ_w², σ_b²), darker towards the output, named if they are few."""
    points = diagram.points
    if not points:
        return
    figure.add_scatter(
        x=[point.sigma_w2 for point in points],
        y=[point.sigma_b2 for point in points],
        mode="markers",
        customdata=[plain(", ".join(point.names)) for point in points],
        marker={
            "size": 11,
            "color": colors(DEPTH, len(points)),
            "line": {"color": "white", "width": 1},
        },
        cliponaxis=False,
        name="layers, darker towards the output",
        hovertemplate=f"%{{customdata}}<br>{hover}<extra></extra>",
    )
    for i, (point, color) in enumerate(zip(points, colors(DEPTH, len(points)), strict=True)):
        if len(points) <= MOST_NAMED:
            first, last = shortened(point.names[0]), shortened(point.names[-1])
            across = diagram.across(point.sigma_w2)
            figure.add_annotation(
                text=plain(first if len(point.names) == 1 else f"{first} – {last}"),
                x=np.log10(point.sigma_w2) if diagram.logarithmic else point.sigma_w2,
                y=point.sigma_b2,
                ax=0,
                ay=-24 - 20 * (i % 3),
                xanchor="left" if across < 0.2 else "right" if across > 0.7 else "center",
                arrowhead=0,
                arrowcolor=color,
                standoff=5,
                font={"color": INK, "shadow": HALO},
            )
