"""Interactive maps of a sweep: a number of its runs over two fields of the experiments."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.interactive.parts import (
    SYMBOLS,
    axis_title,
    colorscale,
    new_figure,
    note_blank,
    plain,
    ticks_of,
)
from kgrad.figures.looks import shortened
from kgrad.figures.sweep_maps import (
    BOUNDARY_LABEL,
    DEPTH_FIELD,
    GAINED,
    NO_RUN,
    NO_RUN_COLOR,
    SIGMA_W2,
    Cell,
    MapAxis,
    SweepMap,
)
from kgrad.records.sweep import Sweep

_MOST_TICKS = 8
_MOST_RUNS = 8  # of a cell that its hover text lists
_NARROW = 44  # letters of a line above the color bar
_WIDE = 60  # letters of a line in it
_SHORT = 6  # letters of names that are not slanted
_PIXELS = (300.0, 360.0)  # of the panel, at least: marks fit into its cells


def plot_sweep(
    sweep: Sweep | pd.DataFrame,
    x: str,
    y: str,
    value: str = "loss_last",
    *,
    title: str = "",
    theory: bool | None = None,
) -> go.Figure:
    """Draw a number of a sweep's runs as colors over two fields of their experiments.

    A cell has the runs with the same x and y, which may differ in the seed only. Its color is the
    median of the runs that have a number; the color bar says of how many runs. Cells with runs that
    diverged (the last loss is NaN or infinite) or failed have marks. Colors are logarithmic if the
    values are positive and span two decades. A cell's hover text lists its runs.

    Args:
        sweep: the sweep, or rows of its `to_frame()`.
        x: field of the experiment, such as "learning_rate". "sigma_w2" is σ_w² = units · stddev²,
            if all initializers are normal:STDDEV.
        y: another field.
        value: column of numbers, or "loss_gained": 1 - loss_last / loss_first.
        title: text above the figure; by default it names the runs.
        theory: whether to draw what mean-field theory expects on an axis of "sigma_w2", with the
            σ_b² of the runs: the critical σ_w², and over "num_layers" the depth 6 ξ_c, a rule of
            thumb for the largest that can be trained. By default it is drawn if the axes and the
            runs allow it.

    Returns:
        The figure.

    Raises:
        TypeError: if `sweep` is neither a `Sweep` nor a DataFrame.
        ValueError: if there is no run, a column is none of its kind, a cell would have networks
            that differ, or `theory` is True and there is none for these runs.

    References:
        S. S. Schoenholz et al., "Deep information propagation", 2017.
    """
    drawn = SweepMap.of(sweep, x, y, value, theory)
    figure = new_figure(
        title or drawn.title, 600, xaxis=_axis(drawn.x), yaxis=_axis(drawn.y), hovermode="closest"
    )
    if max(map(len, drawn.x.names)) > _SHORT:
        # With a distance from the ticks Plotly leaves room for slanted names.
        figure.update_xaxes(tickangle=-40, title_standoff=8)
    _add_cells(figure, drawn)
    if not drawn.scale.blank:  # the color bar is above the panel, where no slanted name is
        figure.update_layout(margin_t=130)
    _add_marks(figure, drawn)
    _add_theory(figure, drawn)
    if drawn.scale.blank and not drawn.marks:
        note_blank(figure, drawn.scale)
    return figure


def plot_trainability(sweep: Sweep | pd.DataFrame, *, title: str = "") -> go.Figure:
    """Draw which depths train over σ_w², with the limits that theory expects.

    Color is the decrease of the loss as a share of the first loss: 1 - loss_last / loss_first.
    Lines are the critical σ_w² and 6 ξ_c, if theory knows the networks: see `plot_sweep`.

    Args:
        sweep: a sweep of networks with initializers normal:STDDEV and several depths, or rows of
            its `to_frame()`.
        title: text above the figure; by default it names the runs.

    Returns:
        The figure.

    Raises:
        TypeError: if `sweep` is neither a `Sweep` nor a DataFrame.
        ValueError: as `plot_sweep`.
    """
    return plot_sweep(sweep, SIGMA_W2, DEPTH_FIELD, GAINED, title=title)


def _axis(axis: MapAxis) -> dict[str, Any]:
    ticks = axis.ticks(_MOST_TICKS)
    ends = axis.edges[[0, -1]]
    return {
        "title": axis_title(_label(axis)),
        "type": "log" if axis.logarithmic else "linear",
        "range": (np.log10(ends) if axis.logarithmic else ends).tolist(),
        "tickmode": "array",
        "tickvals": axis.places[ticks].tolist(),
        "ticktext": [plain(shortened(axis.names[i])) for i in ticks],
        "ticklabeloverflow": "allow",
        "zeroline": False,
        "showgrid": False,
        "automargin": True,
    }


def _label(axis: MapAxis) -> str:
    if axis.field == SIGMA_W2:
        return "σ<sub>w</sub>² = units · variance of a weight"
    return plain(axis.label)


def _add_cells(figure: go.Figure, drawn: SweepMap) -> None:
    """Add the cells with their color bar and hover texts."""
    scale, values = drawn.scale, drawn.values
    shown = np.where(scale.ordinary(values), values, np.nan)
    ends = np.array([scale.low, scale.high])
    texts = np.full(values.shape, "", object)
    for cell in drawn.cells:
        texts[cell.row, cell.column] = _text(cell, drawn)
    if drawn.empty.any():
        _add_empty(figure, drawn)
    for row, column in np.argwhere(drawn.empty).tolist():
        texts[row, column] = f"{_place(row, column, drawn)}<br>{NO_RUN}"
    low, high = np.log10(ends) if scale.logarithmic else ends
    ticks = ticks_of(scale, logarithms=True)
    if scale.extend == "min":
        ticks["ticktext"][0] = f"≤ {ticks['ticktext'][0]}"
    label = "\n".join(textwrap.fill(line, _NARROW) for line in scale.label.split("\n"))
    figure.add_heatmap(
        x=drawn.x.edges,
        y=drawn.y.edges,
        z=np.log10(shown) if scale.logarithmic else shown,
        text=texts,
        zmin=float(low),
        zmax=float(high),
        colorscale=colorscale(drawn.cmap),
        showscale=not scale.blank,
        colorbar={
            "title": axis_title(plain(label).replace("\n", "<br>")) | {"side": "top"},
            "thickness": 14,
            "outlinewidth": 0,
            "orientation": "h",
            "y": 1.01,
            "yanchor": "bottom",
            **ticks,
        },
        hovertemplate="%{text}<extra></extra>",
    )


def _add_empty(figure: go.Figure, drawn: SweepMap) -> None:
    """Add the cells without runs in gray, below the others, whose hover texts have them, too."""
    gray = {"colorscale": [[0, NO_RUN_COLOR], [1, NO_RUN_COLOR]], "showscale": False}
    figure.add_heatmap(
        x=drawn.x.edges,
        y=drawn.y.edges,
        z=np.where(drawn.empty, 0.0, np.nan),
        hoverinfo="skip",
        **gray,
    )
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"symbol": "square", "size": 12, "color": NO_RUN_COLOR},
        name=NO_RUN,
        showlegend=True,
    )


def _place(row: int, column: int, drawn: SweepMap) -> str:
    """Return a cell's values at both axes in words."""
    return "<br>".join(
        f"{'σ<sub>w</sub>²' if axis.field == SIGMA_W2 else plain(axis.label)}: "
        f"{plain(axis.names[at])}"
        for axis, at in ((drawn.x, column), (drawn.y, row))
    )


def _text(cell: Cell, drawn: SweepMap) -> str:
    """Return a cell's hover text: its place, its median and its runs."""
    lines = [_place(cell.row, cell.column, drawn)]
    if len(cell.runs) > 1 and not np.isnan(cell.value):
        lines.append(f"<b>median {cell.value:.4g}</b>")
    names = cell.runs["name"].map(str).tolist() if "name" in cell.runs.columns else []
    if len(set(names)) == 1:
        lines.append(_line(names[0]))
    shown = cell.runs.sort_values("seed") if "seed" in cell.runs.columns else cell.runs
    for _, run in shown.head(_MOST_RUNS).iterrows():
        own = [f"{run['name']}," if len(set(names)) > 1 else ""]
        own += [f"seed {run['seed']}:" if "seed" in shown.columns else ""]
        lines.append(_line(" ".join([*own, _outcome(run)])))
    if len(shown) > _MOST_RUNS:
        lines.append(f"and {len(shown) - _MOST_RUNS} more runs")
    return "<br>".join(lines)


def _outcome(run: Any) -> str:
    """Return a run's number and findings, or its error."""
    if run["state"] == "failed":
        return f"failed: {run['error']}"
    findings = str(run.get("findings") or "").replace("_", " ")
    number = f"{run['value']:.4g}"
    said = f"diverged, {number}" if run["state"] == "diverged" else number
    return f"{said}; {findings}" if findings not in ("", "nan") else said


def _line(text: str) -> str:
    return plain(textwrap.shorten(text, _WIDE, placeholder="…"))


def _add_marks(figure: go.Figure, drawn: SweepMap) -> None:
    """Add the marks of cells, which leave the hover text to the cells."""
    width, height = _PIXELS
    most = 0.5 * min(width / len(drawn.x.places), height / len(drawn.y.places))
    for mark, rows, columns in drawn.marks:
        size = float(np.clip(most * (1.3 if mark.marker == "s" else 1), 4, 14))
        color = to_hex(mark.color)
        figure.add_scatter(
            x=drawn.x.places[columns],
            y=drawn.y.places[rows],
            mode="markers",
            marker={
                "symbol": SYMBOLS[mark.marker],
                "size": size,
                "color": "white" if mark.hollow else color,
                "line": {"color": color if mark.hollow else "white", "width": 1.5},
            },
            name=mark.name,
            showlegend=True,
            hoverinfo="skip",
        )


def _critical_label(drawn: SweepMap) -> str:
    at = f" at σ<sub>b</sub>² = {drawn.sigma_b2:.3g}" * (drawn.sigma_b2 > 0)
    return f"critical σ<sub>w</sub>² = {drawn.critical_sigma_w2:.3g}{at}"


def _add_theory(figure: go.Figure, drawn: SweepMap) -> None:
    """Add theory's lines, white around black so that they are visible on every color."""
    for points, dash, label in (
        (drawn.critical, "dash", _critical_label(drawn)),
        (drawn.boundary, "solid", BOUNDARY_LABEL.replace("ξ", "ξ<sub>c</sub>")),
    ):
        if points is None:
            continue
        line = {"x": points[:, 0], "y": points[:, 1], "mode": "lines", "hoverinfo": "skip"}
        group = {"legendgroup": label}
        figure.add_scatter(**line, **group, line={"color": "white", "width": 5}, showlegend=False)
        figure.add_scatter(
            **line,
            **group,
            line={"color": "black", "width": 2.2, "dash": dash},
            name=label,
            showlegend=True,
        )
