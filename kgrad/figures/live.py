"""A run while it trains, drawn in milliseconds: as HTML for a notebook, as text for a terminal.

A figure of matplotlib takes a hundred times as long, most of it for the layout, which is fixed
here. Colors, special values and the choice of columns are those of all figures.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from matplotlib.colors import to_hex, to_rgba
from matplotlib.image import imsave

from kgrad.figures.looks import MAGNITUDE, shortened
from kgrad.figures.scale import INFINITE, NAN, NO_PATH, NOT_UPDATED, ZERO, Scale, Special
from kgrad.figures.selection import layer_values, loss_scale, time_axis
from kgrad.figures.thinning import Columns, evenly_spaced
from kgrad.records.history import GradientHistory
from kgrad.records.statistics import MEAN_ABS

# Pixels of the picture in a notebook.
_LEFT, _WIDTH, _RIGHT = 120.0, 420.0, 100.0
_LOSS, _GAP, _LINE = 46.0, 8.0, 15.0
_MOST_COLUMNS = 210
_BARS = "▁▂▃▄▅▆▇█"
_VISIBLE = (0.25, 0.9)  # the part of the ramp that is visible on black and on white
_LETTERS = {ZERO: "0", INFINITE: "∞", NAN: "×", NO_PATH: "-", NOT_UPDATED: "·"}


class Drawable(NamedTuple):
    """A run as it is drawn.

    Attributes:
        layers: names of the layers.
        gradients: mean |gradient| in columns over time.
        scale: the scale of the gradients.
        losses: the loss in as many columns, (columns,); None if it is not recorded.
        loss_scale: the scale of the losses.
        last_loss: the loss of the last record.
        clock: "epoch", "step" or "record".
        ends: the first and the last time.
        now: the last record's epoch and step, in words.
    """

    layers: tuple[str, ...]
    gradients: Columns
    scale: Scale
    losses: np.ndarray | None
    loss_scale: Scale | None
    last_loss: float
    clock: str
    ends: tuple[int, int]
    now: str

    @classmethod
    def of(cls, history: GradientHistory, most: int) -> "Drawable":
        """Return what is drawn of a history with a record, in at most `most` columns."""
        values = layer_values(history, MEAN_ABS.name)
        scale = Scale.of(MEAN_ABS.name, [values])
        clock, (times,) = time_axis([history])
        loss = history.logs.get("loss")
        losses = own = None
        if loss is not None:
            own = loss_scale([loss])
            columns = Columns.of(loss[:, None], times, own, most)
            losses = columns.values[:, 0]
        return cls(
            history.layers,
            Columns.of(values, times, scale, most),
            scale,
            losses,
            own,
            float("nan") if loss is None else float(loss[-1]),
            clock,
            (int(times[0]), int(times[-1])),
            f"epoch {history.epochs[-1]}, step {history.steps[-1]:,}",
        )

    @property
    def summary(self) -> str:
        """Return the last record's time and loss in a line."""
        return self.now if self.losses is None else f"{self.now}: loss {self.last_loss:.4g}"


def as_html(history: GradientHistory, findings: Sequence[str] = (), name: str = "") -> str:
    """Return a run's loss, gradients and findings as an element of a page, light or dark.

    Args:
        history: a history with at least one record.
        findings: what was found, a line each.
        name: the run's name, if there are several.
    """
    run = Drawable.of(history, _MOST_COLUMNS)
    page = ElementTree.Element("div", {"class": "kgrad-live", "style": "max-width: 44rem"})
    heading = ElementTree.SubElement(page, "p", {"style": "margin: 0.3em 0"})
    heading.text = f"{name}: {run.summary}" if name else run.summary
    page.append(_svg(run))
    for finding in findings:
        line = ElementTree.SubElement(
            page,
            "p",
            {"style": "margin: 0.2em 0; border-left: 4px solid #d55e00; padding-left: 0.6em"},
        )
        line.text = finding
    return ElementTree.tostring(page, "unicode", short_empty_elements=False)


def _svg(run: Drawable) -> ElementTree.Element:
    below = _LOSS + _GAP if run.losses is not None else 0.0
    height = float(np.clip(_LINE * len(run.layers), 4 * _LINE, 18 * _LINE))
    total = f"0 -8 {_LEFT + _WIDTH + _RIGHT:g} {below + height + _LINE + 14:g}"
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": total,
            "role": "img",
            "aria-label": "Gradients while training",
            "style": "width: 100%; font: 11px sans-serif; fill: currentColor",
        },
    )
    if run.losses is not None and run.loss_scale is not None:
        heights = _LOSS * (1 - run.loss_scale.heights(run.losses))
        heights[np.isnan(run.losses)] = np.nan
        for line in _unbroken(heights):
            _line(svg, line, _WIDTH / len(run.losses))
        _write(svg, _LEFT - 6, _LOSS / 2 + 4, "loss", "end")
        for value, y in ((run.loss_scale.high, 4.0), (run.loss_scale.low, _LOSS)):
            _write(svg, _LEFT + _WIDTH + 6, y, f"{value:.3g}")
    _picture(svg, _colors(run), _LEFT, below, _WIDTH, height)
    rows = len(run.layers)
    for i in evenly_spaced(rows, int(height / _LINE)):
        name = shortened(run.layers[i])
        _write(svg, _LEFT - 6, below + height * (i + 0.5) / rows + 4, name, "end")
    if not run.scale.blank:
        ramp = MAGNITUDE(np.linspace(1, 0, 64))[:, None]
        _picture(svg, ramp, _LEFT + _WIDTH + 8, below, 10, height)
        for value, y in ((run.scale.high, below + 10), (run.scale.low, below + height)):
            _write(svg, _LEFT + _WIDTH + 24, y, f"{value:.1e}")
    bottom = below + height + _LINE
    _write(svg, _LEFT, bottom, f"{run.clock} {run.ends[0]}")
    _write(svg, _LEFT + _WIDTH, bottom, str(run.ends[1]), "end")
    at = _LEFT + 70.0
    for special in run.scale.special:
        square = {"x": f"{at:g}", "y": f"{bottom - 9:g}", "width": "9", "height": "9"}
        ElementTree.SubElement(
            svg, "rect", square | {"fill": to_hex(special.color), "stroke": "currentColor"}
        )
        _write(svg, at + 13, bottom, special.short)
        at += 70
    return svg


def as_text(
    history: GradientHistory,
    findings: Sequence[str] = (),
    name: str = "",
    *,
    width: int = 80,
    most: int = 16,
) -> Any:
    """Return a run's loss, gradients and findings as what rich prints: a row per layer.

    A cell's height and color are its magnitude, so that it is legible without colors; 0, NaN and
    infinity are letters.

    Args:
        history: a history with at least one record.
        findings: what was found, a line each.
        name: the run's name, if there are several.
        width: columns of the terminal.
        most: about the largest number of layers to show.
    """
    from rich.console import Group
    from rich.text import Text

    run = Drawable.of(history, max(8, width - 30))
    rows = [Text(f"{name}: {run.summary}" if name else run.summary, style="bold")]
    if run.losses is not None and run.loss_scale is not None:
        bars = Text(f"{'loss':>16.16} ")
        rows.append(bars.append("".join(_letters(run.losses, run.loss_scale, {}))))
    values, found = run.gradients.values, run.gradients.found
    ramp = [to_hex(color) for color in MAGNITUDE(np.linspace(*_VISIBLE, len(_BARS)))]
    last = history.by_layer(MEAN_ABS.name)[-1]
    for i in evenly_spaced(len(run.layers), most):
        own = {one: where[:, i] for one, where in found.items()}
        letters = _letters(values[:, i], run.scale, own)
        cells = Text(f"{shortened(run.layers[i]):>16} {''.join(letters)} {last[i]:.1e}")
        for column, letter in enumerate(letters):
            style = ramp[_BARS.index(letter)] if letter in _BARS else "bold"
            cells.stylize(style, 17 + column, 18 + column)
        rows.append(cells)
    marks = ", ".join(f"{_LETTERS[one]} {one.name}" for one in run.scale.special)
    rows.append(
        Text(
            f"{'':17}{run.clock} {run.ends[0]} to {run.ends[1]}; {run.scale.label}"
            + (f"; {marks}" if marks else ""),
            style="dim",
        )
    )
    rows += [Text(finding, style="yellow") for finding in findings]
    return Group(*rows)


def _letters(values: np.ndarray, scale: Scale, found: dict[Special, np.ndarray]) -> list[str]:
    """Return a letter per value: a bar, the letter of a special value, or × or a blank for none."""
    shares = np.ma.filled(scale.norm(np.ma.masked_invalid(values)), 0.0)
    bars = np.clip((shares * len(_BARS)).astype(int), 0, len(_BARS) - 1)
    letters = [_BARS[bar] for bar in bars]
    for place in np.flatnonzero(np.isnan(values)):
        letters[place] = " " if found else _LETTERS[NAN]
    for special, where in found.items():
        for place in np.flatnonzero(where):
            letters[place] = _LETTERS[special]
    return letters


def _colors(run: Drawable) -> np.ndarray:
    """Return the cells' colors, (layers, columns, 4)."""
    values = run.gradients.values.T
    colors = MAGNITUDE(run.scale.norm(np.ma.masked_invalid(values)))
    colors[np.isnan(values)] = 0.0
    for special, found in run.gradients.found.items():
        colors[found.T] = to_rgba(special.color)
    return colors


def _picture(
    svg: ElementTree.Element, colors: np.ndarray, x: float, y: float, width: float, height: float
) -> None:
    """Add an image with a pixel per cell, stretched without smoothing."""
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(colors))
    box = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{height:g}"}
    ElementTree.SubElement(
        svg,
        "image",
        box
        | {
            "preserveAspectRatio": "none",
            "style": "image-rendering: pixelated",
            "href": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}",
        },
    )


def _unbroken(heights: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return stretches of finite values, each with the place of its first."""
    finite = np.isfinite(heights)
    starts = np.flatnonzero(finite & ~np.pad(finite, (1, 0))[:-1])
    stops = np.flatnonzero(finite & ~np.pad(finite, (0, 1))[1:]) + 1
    return [(int(a), heights[a:b]) for a, b in zip(starts, stops, strict=True)]


def _line(svg: ElementTree.Element, stretch: tuple[int, np.ndarray], width: float) -> None:
    """Add a line through the columns of a stretch, or a dot if there is one only."""
    first, heights = stretch
    xs = _LEFT + (first + np.arange(len(heights)) + 0.5) * width
    if len(heights) == 1:
        dot = {"cx": f"{xs[0]:.1f}", "cy": f"{heights[0]:.1f}", "r": "2"}
        ElementTree.SubElement(svg, "circle", dot)
        return
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, heights, strict=True))
    ElementTree.SubElement(
        svg,
        "polyline",
        {"points": points, "fill": "none", "stroke": "currentColor", "stroke-width": "1.6"},
    )


def _write(svg: ElementTree.Element, x: float, y: float, text: str, anchor: str = "start") -> None:
    at = {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    ElementTree.SubElement(svg, "text", at).text = text
