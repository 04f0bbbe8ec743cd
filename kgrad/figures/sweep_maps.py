"""The content of a sweep's map: its cells with their medians and marks, its axes, and theory."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from kgrad.figures.looks import CHANGE, FINDING, MAGNITUDE
from kgrad.figures.scale import EXTEND, Scale
from kgrad.figures.thinning import cell_edges, well_apart
from kgrad.records.checks import bias_stddev, did_you_mean, normal_stddev, require_one_of
from kgrad.records.sweep import NUMBERS, Sweep
from kgrad.theory import Activation, activation, chi_1, correlation_depth_scale, critical_point
from kgrad.theory.depths import DEPTH_PER_SCALE

SIGMA_W2, DEPTH_FIELD, GAINED = "sigma_w2", "num_layers", "loss_gained"
_BIASES = "bias_initializer"
BOUNDARY_LABEL = f"{DEPTH_PER_SCALE:g} ξ: expected depth limit"
NO_RUN, NO_RUN_COLOR = "no run", "#d9d9d9"
LABELS = {
    "loss_first": "loss before training",
    "loss_last": "last loss",
    "metric": "skill: 1 perfect, 0 as the best constant answer",
    "gradient_first": "mean |gradient| of the first hidden layer",
    "gradient_last": "mean |gradient| of the last hidden layer",
    "ratio": "gradient of the first ÷ last hidden layer",
    "decades_per_layer": "gradient growth towards input,\ndecades per layer",
    GAINED: "decrease of the loss as a share of the first",
    DEPTH_FIELD: "hidden layers",
    "units": "units per layer",
}
"""Column → its name at an axis or a color bar; others are named as the column."""

_RESULTS = (*NUMBERS, "findings", "started", "error")
_ONE_PER_RUN = ("seed", "name")  # fields that do not distinguish networks
_DECADES = 100.0  # ratio of the largest to the smallest value from which colors are logarithmic
_INITIALIZER = "weight_initializer"
_POINTS = 121  # of theory's curve
_TOP = 100.0  # multiple of the axis's end at which an infinite depth is drawn


class Mark(NamedTuple):
    """A mark in the middle of a cell.

    Attributes:
        name: its name in the legend.
        marker: its marker, as matplotlib names it.
        color: its color.
        hollow: whether it is white inside: true for some of the cell's runs only.
    """

    name: str
    marker: str
    color: str
    hollow: bool = False


_OTHERS = "; color: median of the others"
FAILED = Mark("failed", "s", "#404040")
SOME_FAILED = Mark(f"some failed{_OTHERS}", "s", "#404040", hollow=True)
DIVERGED = Mark("diverged", "X", FINDING)
SOME_DIVERGED = Mark(f"some diverged{_OTHERS}", "X", FINDING, hollow=True)
ZERO = Mark("0 (exactly)", "o", "black")
INFINITE = Mark("infinite", "^", FINDING)
UNKNOWN = Mark("not known", "D", "#404040")
MARKS = (FAILED, SOME_FAILED, DIVERGED, SOME_DIVERGED, ZERO, INFINITE, UNKNOWN)
"""All marks, in the order in which they are drawn and named."""


class MapAxis(NamedTuple):
    """An axis of a map.

    Attributes:
        field: the column.
        places: center of each row or column of cells, increasing, (cells,).
        edges: bounds of the cells, (cells + 1,).
        names: the value of each row or column in words.
        logarithmic: whether equal distances are equal ratios.
    """

    field: str
    places: np.ndarray
    edges: np.ndarray
    names: tuple[str, ...]
    logarithmic: bool

    @property
    def label(self) -> str:
        """Return the axis's title, for every field but `SIGMA_W2`, which has an index."""
        return column_label(self.field)

    def ticks(self, most: int) -> list[int]:
        """Return which of the places have a tick: at most about `most`."""
        at = np.log(self.places) if self.logarithmic else self.places
        return well_apart(at, float(np.ptp(at)) / most)


class Cell(NamedTuple):
    """The runs with the same values at both axes.

    Attributes:
        row: its place along y.
        column: its place along x.
        value: median over the runs with a number; NaN if there is none.
        runs: its rows of the table, with the columns "value" and "state": "done", "diverged" or
            "failed".
    """

    row: int
    column: int
    value: float
    runs: pd.DataFrame


class SweepMap(NamedTuple):
    """The contents of a map.

    Attributes:
        x: the horizontal axis.
        y: the vertical axis.
        scale: the scale of the colors.
        cmap: the colors.
        cells: the cells that have runs.
        values: medians, (rows, columns); NaN if a cell has no number.
        empty: whether no run is in a cell, (rows, columns).
        marks: each mark that occurs, with its rows and columns.
        critical: ends of theory's critical line, (2, 2) as x and y; None if it is not drawn.
        boundary: points of theory's depth limit, (points, 2) as x and y; None if it is not drawn.
        critical_sigma_w2: the critical σ_w² of the line.
        sigma_b2: the variance of the biases for which theory is drawn.
        title: a title that names the runs.
    """

    x: MapAxis
    y: MapAxis
    scale: Scale
    cmap: Colormap
    cells: list[Cell]
    values: np.ndarray
    empty: np.ndarray
    marks: list[tuple[Mark, list[int], list[int]]]
    critical: np.ndarray | None
    boundary: np.ndarray | None
    critical_sigma_w2: float
    sigma_b2: float
    title: str

    @classmethod
    def of(cls, sweep: Any, x: str, y: str, value: str, theory: bool | None) -> "SweepMap":
        """Return the map of a sweep or of rows of its table.

        Raises:
            TypeError: if `sweep` is neither.
            ValueError: if there is nothing to draw, a column is none of its kind, or a cell would
                have different networks.
        """
        require_one_of("theory", theory, (None, True, False))
        table, lost = _drawable(sweep)
        table = _with_columns(table, {"x": x, "y": y}, value)
        _require_one_network(table, x, y, value)
        x_axis, table["column"] = _axis(x, table[x])
        y_axis, table["row"] = _axis(y, table[y])
        cells = [
            Cell(int(row), int(column), _median(runs), runs)  # type: ignore[call-overload]
            for (row, column), runs in table.groupby(["row", "column"], sort=True)
        ]
        values = np.full((len(y_axis.places), len(x_axis.places)), np.nan)
        empty = np.ones(values.shape, bool)
        for cell in cells:
            values[cell.row, cell.column], empty[cell.row, cell.column] = cell.value, False
        scale, cmap = _scale(values, value, _caption(cells, lost))
        phi = _phi(table, (x, y), theory)
        sigma_b2 = bias_stddev(_biases(table)[0]) ** 2 if phi else 0.0
        critical, boundary = _theory(phi, sigma_b2, x_axis, y_axis) if phi else (np.nan, None)
        kinds = _activations(table)
        kind = f"{kinds[0]} networks, " if len(kinds) == 1 else ""
        return cls(
            x=x_axis,
            y=y_axis,
            scale=scale,
            cmap=cmap,
            cells=cells,
            values=values,
            empty=empty,
            marks=_marks(cells, scale),
            critical=_critical_line(critical, x_axis, y_axis),
            boundary=boundary,
            critical_sigma_w2=critical,
            sigma_b2=sigma_b2,
            title=f"{kind}{len(table):,} run{'s' * (len(table) != 1)}",
        )


def column_label(column: str) -> str:
    """Return the name of a column at an axis."""
    return LABELS.get(column, str(column).replace("_", " "))


def varying_fields(table: pd.DataFrame) -> dict[str, int]:
    """Return each field in which a sweep's networks differ, with the number of its values.

    The depth is the last of two: it is the vertical axis of a map.

    Args:
        table: rows of `Sweep.to_frame()`.
    """
    table = known_runs(table)
    counts = {
        field: table[field].map(str).nunique()
        for field in _fields(table)
        if field not in _ONE_PER_RUN
    }
    varying = {field: count for field, count in counts.items() if count > 1}
    return dict(sorted(varying.items(), key=lambda pair: pair[0] == DEPTH_FIELD))


def known_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs whose experiment is known: not those of an unreadable file.

    Runs from before there was a `bias_initializer` have "zeros".

    Args:
        table: rows of `Sweep.to_frame()`.
    """
    fields = [one for one in _fields(table) if one != "seed"]
    known = table[table[fields].notna().any(axis=1)] if fields else table
    if _BIASES not in known.columns:
        return known
    return known.assign(**{_BIASES: known[_BIASES].fillna("zeros")})


def map_axes(table: pd.DataFrame) -> tuple[str, str, list[str]] | None:
    """Return the two columns over which a sweep is drawn best, and the fields that vary besides.

    They are the fields with the most values, numbers first, and the seed if only one field varies.
    The depth is vertical. σ_w² is drawn in place of initializers normal:STDDEV.

    Args:
        table: rows of `Sweep.to_frame()`.

    Returns:
        x, y and the other fields; None if all runs are of one network.
    """
    table, varying = known_runs(table), varying_fields(table)
    if not varying:
        return None
    has_variance = "units" not in varying and _has_sigma_w2(table)
    is_number = {
        field: is_numeric_dtype(table[field]) or (field == _INITIALIZER and has_variance)
        for field in varying
    }
    order = sorted(varying, key=lambda field: (not is_number[field], -varying[field]))
    x, y = [*sorted(order[:2], key=lambda field: field == DEPTH_FIELD), "seed"][:2]
    if has_variance:
        x, y = (SIGMA_W2 if field == _INITIALIZER else field for field in (x, y))
    return x, y, order[2:]


def _has_sigma_w2(table: pd.DataFrame) -> bool:
    try:
        _sigma_w2(table, "x")
    except ValueError:
        return False
    return True


# ---- The table -----------------------------------------------------------------------------------


def _drawable(sweep: Any) -> tuple[pd.DataFrame, int]:
    """Return the runs whose experiment is known, and the number of the others."""
    if not isinstance(sweep, Sweep | pd.DataFrame):
        raise TypeError(
            "sweep must be a Sweep, or a DataFrame with rows of its to_frame(), received "
            f"{type(sweep).__name__}"
        )
    table = sweep.to_frame() if isinstance(sweep, Sweep) else sweep
    known = known_runs(table)
    if known.empty:
        raise ValueError(
            "sweep must have at least one run that is finished or failed, received none"
        )
    return known.reset_index(names="run"), len(table) - len(known)


def _fields(table: pd.DataFrame) -> list[str]:
    """Return the columns that describe the experiments."""
    return [one for one in table.columns if one not in _RESULTS]


def _with_columns(table: pd.DataFrame, axes: Mapping[str, str], value: str) -> pd.DataFrame:
    """Return the table with `SIGMA_W2` if it is asked for, "value" and "state"."""
    fields = [one for one in _fields(table) if one not in ("run", value)]
    numbers = [
        one
        for one in table.columns
        if is_numeric_dtype(table[one]) and not is_bool_dtype(table[one])
    ]
    _require_different(axes, value)
    for argument, field in axes.items():
        _require_among(argument, "a field of the experiments", field, [*fields, SIGMA_W2])
    _require_among("value", "a column of numbers", value, [*numbers, GAINED])
    table = table.copy()
    if SIGMA_W2 in axes.values() and SIGMA_W2 not in table.columns:
        argument = next(one for one, field in axes.items() if field == SIGMA_W2)
        table[SIGMA_W2] = _sigma_w2(table, argument)
    if value == GAINED and GAINED not in table.columns:
        table[GAINED] = 1 - table["loss_last"] / table["loss_first"]
    table["value"] = table[value].astype(float)
    failed = table["error"].fillna("") != "" if "error" in table.columns else False
    loss = table.get("loss_last", table["value"]).astype(float)
    table["state"] = np.select(
        [np.broadcast_to(failed, len(table)), ~np.isfinite(loss)], ["failed", "diverged"], "done"
    )
    return table


def _require_different(axes: Mapping[str, str], value: str) -> None:
    """Raise if a column is asked for twice."""
    x, y = axes.values()
    if x == y:
        raise ValueError(f"x and y must be different fields, received {x!r} twice")
    if value in (x, y):
        raise ValueError(f"value must be another column than x and y, received {value!r}")


def _require_among(argument: str, kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        known = list(dict.fromkeys(known))
        raise ValueError(
            f"{argument} must be {kind} ({', '.join(map(str, known))}), received {name!r}"
            f"{did_you_mean(name, map(str, known))}"
        )


def _sigma_w2(table: pd.DataFrame, argument: str) -> list[float]:
    """Return units · stddev² of each run."""
    result = []
    for initializer, units in zip(table[_INITIALIZER], table["units"], strict=True):
        try:
            stddev = normal_stddev(str(initializer))
        except ValueError:
            stddev = None
        if stddev is None or not isinstance(units, int | float | np.number):
            raise ValueError(
                f"{argument} can be {SIGMA_W2!r} only if all runs have an initializer "
                f"normal:STDDEV and one number of units, received one with {initializer!r} and "
                f"units={units!r}"
            )
        result.append(float(f"{float(units) * stddev**2:.9g}"))  # 16 from 64·0.5² as from 16·1²
    return result


def _require_one_network(table: pd.DataFrame, x: str, y: str, value: str) -> None:
    """Raise if runs in one cell differ in more than the seed."""
    kept = {x, y, value, "run", "value", "state", *_ONE_PER_RUN}
    places = [table[one].map(str) for one in (x, y)]
    for field in _fields(table):
        if field in kept or (table[field].map(str) == str(table[field].iloc[0])).all():
            continue
        several = table.groupby(places)[field].agg(lambda values: values.map(str).nunique()) > 1
        if several.any():
            at = several.index[int(several.to_numpy().argmax())]
            own = table[field][(places[0] == at[0]) & (places[1] == at[1])]
            one, other = own.drop_duplicates().tolist()[:2]
            raise ValueError(
                f"sweep must have one {field} per cell, received {_spelled(one)} and "
                f"{_spelled(other)} at {x}={at[0]}, {y}={at[1]}: choose rows of to_frame() first, "
                f"such as frame[frame[{field!r}] == {_spelled(one)}]"
            )


def _spelled(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


# ---- Axes, colors and marks ----------------------------------------------------------------------


def _axis(field: str, values: pd.Series) -> tuple[MapAxis, np.ndarray]:
    """Return an axis, and the place of each run along it."""
    numeric = is_numeric_dtype(values) and not is_bool_dtype(values) and values.notna().all()
    if numeric:
        places, index = np.unique(values.to_numpy(float), return_inverse=True)
        logarithmic = _is_geometric(places)
        edges = np.exp(cell_edges(np.log(places))) if logarithmic else cell_edges(places)
        names = tuple(f"{place:.4g}" for place in places)
        return MapAxis(field, places, edges, names, logarithmic), index
    words = values.map(_word)
    ordered = sorted(set(words), key=_natural)
    places = np.arange(len(ordered), dtype=float)
    axis = MapAxis(field, places, cell_edges(places), tuple(ordered), False)
    return axis, words.map({word: place for place, word in enumerate(ordered)}).to_numpy()


def _is_geometric(places: np.ndarray) -> bool:
    """Return whether ratios of neighbors are more even than their differences."""
    if len(places) < 2 or places[0] <= 0:
        return False
    if len(places) == 2:
        return bool(places[1] >= 10 * places[0])
    steps, ratios = np.diff(places), np.diff(np.log(places))
    return bool(np.std(ratios) / np.mean(ratios) < np.std(steps) / np.mean(steps) - 1e-9)


def _word(value: Any) -> str:
    """Return a field's value in words: a whole number without a point, `None` if it is missing."""
    if isinstance(value, float | np.floating):
        return "None" if np.isnan(value) else f"{value:g}"
    return str(value)


def _natural(word: str) -> list[Any]:
    """Return a key that sorts normal:2 before normal:10."""
    parts = re.split(r"(\d+\.?\d*(?:e[+-]?\d+)?)", word)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]


def _median(runs: pd.DataFrame) -> float:
    """Return the median of the runs' numbers; of a run that diverged only a finite one counts."""
    values = runs["value"].to_numpy()
    counted = np.isfinite(values) | (np.isinf(values) & (runs["state"] == "done").to_numpy())
    counted &= (runs["state"] != "failed").to_numpy()
    if not counted.any():
        return float("nan")
    with np.errstate(invalid="ignore"):  # between infinities of both signs
        return float(np.median(values[counted]))


def _caption(cells: list[Cell], lost: int) -> str:
    """Return over how many runs the medians are, in words; empty for single runs."""
    counts = [len(cell.runs) for cell in cells]
    few, many = min(counts), max(counts)
    said = [f"median of {few if few == many else f'{few} to {many}'} runs per cell"] * (many > 1)
    said += [f"{lost:,} unreadable left out"] * bool(lost)
    return "; ".join(said)


def _scale(values: np.ndarray, value: str, caption: str) -> tuple[Scale, Colormap]:
    """Return the scale of the medians and its colors: white at 0 if some are negative."""
    label = "\n".join(part for part in (column_label(value), caption) if part)
    finite = values[np.isfinite(values)]
    if value == GAINED:
        extend = EXTEND[bool((finite < 0).any()), False]
        return Scale(label, 0.0, 1.0, (), not finite.size, extend, False), MAGNITUDE
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    positive = finite[finite > 0]
    if low >= 0 and positive.size and high >= _DECADES * positive.min():
        return Scale.of(label, [finite], logarithmic=True), MAGNITUDE
    if low < 0 or value == "decades_per_layer":
        most = max(-low, high) or 1.0
        return Scale(label, -most, most, (), False, "neither", False), CHANGE
    if finite.size and np.ptp(finite):
        low, high = float(finite.min()), float(finite.max())
    if low == high:
        high = 1.0
    return Scale(label, low, high, (), not finite.size, "neither", False), MAGNITUDE


def _marks(cells: list[Cell], scale: Scale) -> list[tuple[Mark, list[int], list[int]]]:
    """Return each mark that occurs, with its rows and columns."""
    found: dict[Mark, list[Cell]] = {}
    for cell in cells:
        for mark in _marks_of(cell, scale):
            found.setdefault(mark, []).append(cell)
    return [
        (mark, [cell.row for cell in found[mark]], [cell.column for cell in found[mark]])
        for mark in MARKS
        if mark in found
    ]


def _marks_of(cell: Cell, scale: Scale) -> list[Mark]:
    states = cell.runs["state"].value_counts()
    failed, diverged = states.get("failed", 0), states.get("diverged", 0)
    marks = []
    if failed:
        marks.append(FAILED if failed == len(cell.runs) else SOME_FAILED)
    if diverged:
        marks.append(DIVERGED if diverged + failed == len(cell.runs) else SOME_DIVERGED)
    if states.get("done", 0):
        if np.isinf(cell.value):
            marks.append(INFINITE)
        elif np.isnan(cell.value):
            marks.append(UNKNOWN)
        elif cell.value == 0 and scale.logarithmic:
            marks.append(ZERO)
    return marks


def _activations(table: pd.DataFrame) -> list[str]:
    return sorted(set(table["activation"].map(str))) if "activation" in table.columns else []


def _biases(table: pd.DataFrame) -> list[str]:
    return sorted(set(table[_BIASES])) if _BIASES in table.columns else ["zeros"]


# ---- Theory --------------------------------------------------------------------------------------


def _phi(table: pd.DataFrame, axes: tuple[str, str], theory: bool | None) -> Activation | None:
    """Return the activation whose theory is drawn; None if there is none to draw."""
    if theory is False:
        return None
    reason = ""
    names = _activations(table)
    if SIGMA_W2 not in axes:
        reason = f"x={axes[0]!r}, y={axes[1]!r}"
    elif len(names) != 1:
        reason = f"{len(names)} activations"
    elif len(_biases(table)) != 1:
        reason = f"{len(_biases(table))} initializers of the biases"
    elif "normalization" in table.columns and table["normalization"].notna().any():
        reason = "normalization"
    elif "skip_connections" in table.columns and table["skip_connections"].fillna(False).any():
        reason = "skip connections"
    else:
        try:
            return activation(str(names[0]))
        except ValueError:
            reason = f"the activation {names[0]!r}, which kgrad.theory does not know"
    if theory:
        raise ValueError(
            f"theory can be drawn only if x or y is {SIGMA_W2!r} and all runs have one activation, "
            f"one initializer of the biases, no normalization and no skip connections, received "
            f"{reason}"
        )
    return None


def _theory(
    phi: Activation, sigma_b2: float, x: MapAxis, y: MapAxis
) -> tuple[float, np.ndarray | None]:
    """Return the critical σ_w², NaN if none is in view, and the depth limit if depth is an axis."""
    across, along = (x, y) if x.field == SIGMA_W2 else (y, x)
    low, high = float(across.edges[0]), float(across.edges[-1])
    critical = _critical_sigma_w2(phi, sigma_b2)
    in_view = low < critical < high
    if along.field != DEPTH_FIELD:
        return critical if in_view else np.nan, None
    low = max(low, 1e-3 * high)
    at = np.geomspace(low, high, _POINTS) if across.logarithmic else np.linspace(low, high, _POINTS)
    if in_view:
        at = np.sort(np.append(at, critical))
    scales = [correlation_depth_scale(phi, float(one), sigma_b2) for one in at]
    depth = DEPTH_PER_SCALE * np.array(scales)
    depth[at == critical] = np.inf
    points = np.column_stack([at, np.minimum(depth, _TOP * along.edges[-1])])
    return critical if in_view else np.nan, points if across is x else points[:, ::-1]


def _critical_sigma_w2(phi: Activation, sigma_b2: float) -> float:
    """Return the σ_w² at which gradients turn from vanishing to exploding, or NaN."""
    try:
        critical, _ = critical_point(phi, sigma_b2)
    except ValueError:
        return float("nan")
    # A signal of GELU does not come to rest at q* = 0, around which 4 is critical.
    below, above = (chi_1(phi, factor * critical, sigma_b2) for factor in (0.9, 1.1))
    turns = below < 1 < above
    return critical if turns else float("nan")


def _critical_line(critical: float, x: MapAxis, y: MapAxis) -> np.ndarray | None:
    if np.isnan(critical):
        return None
    if x.field == SIGMA_W2:
        return np.column_stack([[critical, critical], y.edges[[0, -1]]])
    return np.column_stack([x.edges[[0, -1]], [critical, critical]])
