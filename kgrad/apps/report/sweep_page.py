"""`write_sweep_report`: a sweep's maps, the table of its networks and their figures in one file."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from kgrad._version import __version__
from kgrad.apps.findings import first_findings
from kgrad.apps.report.html import Place, render
from kgrad.apps.report.reproduce import code_of_sweep, duration
from kgrad.experiments.experiment import SHORT_NAMES, option_value
from kgrad.figures.interactive.gradients import heatmap_figure
from kgrad.figures.interactive.loss import add_loss
from kgrad.figures.interactive.sweeps import plot_sweep
from kgrad.figures.sweep_maps import (
    GAINED,
    SweepMap,
    column_label,
    known_runs,
    map_axes,
    varying_fields,
)
from kgrad.records.files import written_whole
from kgrad.records.history import GradientHistory
from kgrad.records.sweep import Sweep

MOST_NETWORKS = 200
"""Networks in the table, each with a figure."""

_LARGEST = 8_000_000  # bytes
_DRAWN_COLUMNS = (50, 25, 12)  # of a heatmap; the first that fit into the file
_MOST_MAPS = 12  # combinations of the fields that are no axes
_MAPPED = (GAINED, "decades_per_layer")
_TABULATED = ("loss_first", "loss_last", "ratio", "decades_per_layer")
_MOST_ERRORS, _LONGEST_ERROR = 5, 200


def write_sweep_report(sweep: Sweep, path: Path, title: str, statistic: str) -> None:
    """Write the report of a sweep; see `kgrad.write_report`."""
    everything = sweep.to_frame()
    table = known_runs(everything)
    if table.empty:
        raise ValueError(
            f"sweep must have at least one run that is finished or failed, received "
            f"{str(sweep.folder)!r} without any: {sweep.status()}"
        )
    axes, varying = map_axes(table), list(varying_fields(table))
    networks = _networks(table, varying)
    chosen = _spread(networks, MOST_NETWORKS)
    errors = everything["error"][everything["error"] != ""].str.slice(0, _LONGEST_ERROR)
    sections = [_section(runs, f"network-{i}", varying) for i, runs in enumerate(chosen, start=1)]
    drawn_maps: list[dict[str, Any]] = []
    content = {
        "facts": _facts(sweep, everything),
        "found": first_findings(everything),
        "errors": errors.value_counts().head(_MOST_ERRORS),
        "maps": list(_maps(table, axes, sections, drawn_maps)) if axes else [],
        "columns": [column_label(field) for field in varying],
        "sections": sections,
        "networks": len(networks),
        "code": code_of_sweep(sweep),
    }
    histories = {
        one.place.identifier: GradientHistory.load(sweep.file(one.shown))
        for one in sections
        if one.place is not None
    }
    for most in _DRAWN_COLUMNS:
        figures = drawn_maps + [
            _entry(identifier, _figure(history, statistic, most))
            for identifier, history in histories.items()
        ]
        data = {"labels": ["last"], "figures": figures}
        html = render("sweep.html", title, data, **content).encode()
        if len(html) <= _LARGEST:
            break
    with written_whole(path) as draft:
        draft.write_bytes(html)


def _facts(sweep: Sweep, table: pd.DataFrame) -> list[str]:
    status = sweep.status()
    facts = [
        f"Written on {datetime.now(timezone.utc):%Y-%m-%d at %H:%M} UTC by kgrad {__version__}",
        f"{status}{f', {status.left:,} left' * bool(status.left)}",
    ]
    if "seconds" in table.columns and table["seconds"].notna().any():
        facts.append(f"{duration(table['seconds'].sum())} of training, all runs together")
    return facts


class _Network(NamedTuple):
    """A network of the sweep, with its row in the table and its figure.

    Attributes:
        identifier: the id of the element that opens.
        name: the values of the fields that vary, in words.
        fields: the same, one by one.
        runs: its rows of the sweep's table, by seed.
        numbers: name of a number → its median over the runs that neither failed nor diverged.
        finding: the most frequent first finding.
        failed: the number of runs that failed.
        diverged: the number of runs that ended with a loss that is NaN or infinite.
        place: the figure's place; None if every run failed.
        shown: the run in the figure; empty if every run failed.
    """

    identifier: str
    name: str
    fields: list[str]
    runs: pd.DataFrame
    numbers: dict[str, float]
    finding: str
    failed: int
    diverged: int
    place: Place | None
    shown: str


def _networks(table: pd.DataFrame, varying: list[str]) -> list[pd.DataFrame]:
    """Return the rows of each network, in the order of the fields that vary."""
    known = table.assign(_network=table.index.str.rpartition("-").get_level_values(0))
    groups = [runs.drop(columns="_network") for _, runs in known.groupby("_network", sort=False)]
    return sorted(groups, key=lambda runs: [_sortable(runs[field].iloc[0]) for field in varying])


def _named(fields: list[str], values: list[str]) -> str:
    """Return values as the names of experiments have them: "layers 10, initializer normal:0.1"."""
    return ", ".join(
        f"{SHORT_NAMES.get(field, field).replace('_', ' ')} {value}"
        for field, value in zip(fields, values, strict=True)
    )


def _seed(run: str) -> int:
    return int(run.rpartition("-")[2])


def _sortable(value: Any) -> tuple[bool, Any]:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return (False, float(value)) if is_number else (True, option_value(value))


def _spread(networks: list[pd.DataFrame], most: int) -> list[pd.DataFrame]:
    """Return at most `most` networks, evenly spread."""
    count = min(most, len(networks))
    return [networks[i] for i in np.linspace(0, len(networks) - 1, count).round().astype(int)]


def _section(runs: pd.DataFrame, identifier: str, varying: list[str]) -> _Network:
    """Describe a network; its first finished run is the one whose figure is drawn."""
    runs = runs.sort_index(key=lambda names: names.map(_seed))
    done = runs[runs["error"] == ""]
    finite = done[np.isfinite(done["loss_last"].astype(float))] if len(done) else done
    values = [option_value(runs[field].iloc[0]) for field in varying]
    name = _named(varying, values)
    place = None
    if len(done):
        place = Place(f"{identifier}-figure", "The loss, and one row per layer, the input on top.")
    return _Network(
        identifier=identifier,
        name=name or "all runs",
        fields=values,
        runs=runs,
        numbers=finite[list(_TABULATED)].median().to_dict() if len(finite) else {},
        finding=next(iter(first_findings(runs).index), "–"),
        failed=len(runs) - len(done),
        diverged=len(done) - len(finite),
        place=place,
        shown=str(done.index[0]) if len(done) else "",
    )


def _figure(history: GradientHistory, statistic: str, most: int) -> go.Figure:
    """Draw the loss above a heatmap of at most `most` columns."""
    figure = heatmap_figure(history, statistic, most=most)
    add_loss(figure, {"": history}, most)
    return figure


def _maps(
    table: pd.DataFrame,
    axes: tuple[str, str, list[str]],
    sections: list[_Network],
    figures: list[dict[str, Any]],
) -> Iterator[tuple[str, list[Place]]]:
    """Draw maps for each combination of the fields that are no axes, and say which they are."""
    x, y, others = axes
    opened = {run: one.identifier for one in sections for run in one.runs.index}
    slices: list[Any] = [((), table)]
    if others:
        slices = list(table.groupby(others, sort=False, dropna=False))
    slices.sort(key=lambda one: [_sortable(value) for value in one[0]])
    for number, (combination, rows) in enumerate(slices[:_MOST_MAPS]):
        named = _named(others, [option_value(one) for one in combination])
        places = []
        for value in _MAPPED:
            column = "loss_last" if value == GAINED else value
            if column not in rows.columns or not np.isfinite(rows[column].astype(float)).any():
                continue
            drawn = SweepMap.of(rows, x, y, value, None)
            place = Place(f"map-{number}-{value}", "Click a cell to open its network.")
            entry = _entry(place.identifier, plot_sweep(rows, x, y, value))
            entry["opens"] = _opened_by(drawn, opened)
            figures.append(entry)
            places.append(place)
        if places:
            yield named, places


def _opened_by(drawn: SweepMap, opened: Mapping[str, str]) -> list[list[str | None]]:
    """Return the id of the network that each cell opens, (rows, columns)."""
    found: list[list[str | None]] = [[None] * len(drawn.x.places) for _ in drawn.y.places]
    for cell in drawn.cells:
        runs = map(str, cell.runs["run"])
        found[cell.row][cell.column] = next((opened[run] for run in runs if run in opened), None)
    return found


def _entry(identifier: str, figure: go.Figure) -> dict[str, Any]:
    """Return a figure as the page's script draws it."""
    return {"id": identifier, "figure": json.loads(figure.to_json() or ""), "marks": None}
