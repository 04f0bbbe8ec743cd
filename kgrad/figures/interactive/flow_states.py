"""The look of a flow graph at each of its records: numbers of looks in two short tables.

A page's script that moves from one record to another looks everything up and computes nothing.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from matplotlib.colors import to_hex

from kgrad.figures.flow_looks import (
    AREAS,
    BARE_AREA,
    EDGE_WIDTHS,
    LOOKS,
    NODE,
    SPECIAL,
    Verdict,
    between,
    drawn_norm,
    limit_of,
    scale_of,
    share_of,
    text_of,
    verdict_of,
)
from kgrad.figures.interactive.parts import SYMBOLS, dashes_of, plain
from kgrad.figures.scale import Scale
from kgrad.records.flow_graph import NOT_IN_RECORD

_LEVELS = 25  # of widths and of sizes; neighbors look the same
_UNSEEN = "rgba(0,0,0,0)"
_SHOWN: dict[Verdict, str] = {
    **{verdict: special.short for verdict, special in SPECIAL.items()},
    "not measured": "",
}
Looks = dict[str, list[Any]]


class States(NamedTuple):
    """All nodes or all edges of a graph at all records.

    Attributes:
        values: their norms and special values, negative if there is neither, (records, parts).
        codes: the numbers of their looks, (records, parts).
        looks: attribute → its value for each look. "shown" is the norm's text if all parts with
            this look have the same, otherwise None; "words" is the rest of the hover text.
        missing: why each part has no norm at the records where it has none.
    """

    values: np.ndarray
    codes: np.ndarray
    looks: Looks
    missing: list[str]

    def drawn(self, name: str, record: int) -> list[Any]:
        """Return an attribute of each part at a record."""
        table = self.looks[name]
        return [table[code] for code in self.codes[record]]

    def shown(self, record: int) -> list[str]:
        """Return the text of each part's norm at a record."""
        fixed = self.drawn("shown", record)
        norms = self.values[record].tolist()
        return [
            text_of(norm) if one is None else one for one, norm in zip(fixed, norms, strict=True)
        ]

    def hovers(self, record: int, label: str) -> list[str]:
        """Return the hover text of each part."""
        found = zip(
            self.drawn("shown", record),
            self.drawn("words", record),
            self.values[record].tolist(),
            self.missing,
            strict=True,
        )
        return [
            f"{label}: " + (f"{norm:.3g}{words}" if one is None else words if one else why)
            for one, words, norm, why in found
        ]

    def occurring(self, records: Sequence[int]) -> set[Verdict]:
        """Return the verdicts that occur at some records."""
        verdicts = self.looks["verdict"]
        return {verdicts[code] for code in np.unique(self.codes[list(records)]).tolist()}

    def to_json(self, records: Sequence[int]) -> dict[str, Any]:
        """Return the states of some records in JSON's types, for a page's script."""
        values = self.values[list(records)]
        logs = np.log10(np.where(np.isfinite(values) & (values > 0), values, 1.0))
        return {
            "count": values.shape[1],
            "codes": _base64(self.codes[list(records)], "u1"),
            "logs": _base64(logs, "<f4"),  # six digits of every magnitude
            "looks": self.looks,
            "missing": self.missing,
        }


def edge_states(graph: nx.DiGraph, threshold: float, relative: bool) -> States:
    """Return the states of a graph's edges."""
    parts = list(graph.edges.values())
    values = norms_of(graph, parts)
    limits = [
        limit_of([None if norm < 0 else norm for norm in row], threshold, relative)
        for row in values.tolist()
    ]
    measure = f"{threshold:g} of the largest" if relative else f"{threshold:g}"
    words = {"above": f", above {measure}", "below": f", at or below {measure}"}
    rows = []
    for verdict, (color, dashes) in LOOKS.items():
        special = SPECIAL.get(verdict)
        for width in (
            np.linspace(*EDGE_WIDTHS, _LEVELS if verdict in words else 1).round(2).tolist()
        ):
            row = {"verdict": verdict, "color": to_hex(color), "width": width}
            row |= {"dash": dashes_of(dashes), "shown": _SHOWN.get(verdict)}
            row |= {"symbol": SYMBOLS[special.marker] if special else "circle"}
            row |= {"marked": to_hex(special.color) if special else _UNSEEN}
            row |= {"size": 10 if special else 8, "words": words.get(verdict, "")}
            rows.append(row | ({"words": special.name} if special else {}))
    missing = [f"not measured: {_missing(part)}" for part in parts]
    return _states(values, limits, rows, scale_of(parts), missing)


def node_states(graph: nx.DiGraph) -> States:
    """Return the states of a graph's nodes."""
    parts = list(graph.nodes.values())
    values = norms_of(graph, parts)
    rows: list[dict[str, Any]] = [
        {"verdict": "above", "symbol": "circle", "color": to_hex(NODE), "size": size}
        | {"shown": None, "words": ""}
        for size in np.sqrt(between(AREAS, np.linspace(0, 1, _LEVELS))).round(1).tolist()
    ]
    for verdict, special in SPECIAL.items():
        row = {"verdict": verdict, "symbol": SYMBOLS[special.marker], "size": 14}
        row |= {"color": to_hex(special.color), "shown": _SHOWN[verdict], "words": special.name}
        rows.append(row)
    bare = {"verdict": "not measured", "symbol": "circle", "size": round(math.sqrt(BARE_AREA), 1)}
    rows.append(bare | {"color": "#ffffff", "shown": "", "words": ""})
    missing = [f"no gradient: {_missing(part)}" for part in parts]
    return _states(values, [0.0] * len(values), rows, scale_of(parts), missing)


def records_of(graph: nx.DiGraph) -> tuple[list[str], int]:
    """Return the names of a graph's records, and the number of the graph's own record."""
    epochs, steps = graph.graph.get("epochs", ()), graph.graph.get("steps", ())
    epoch, step = graph.graph.get("epoch"), graph.graph.get("step")
    if not epochs:
        return ["no epoch" if epoch is None else f"epoch {epoch}"], 0
    times = list(zip(epochs, steps, strict=True))
    own = len(times) - 1 - times[::-1].index((epoch, step)) if (epoch, step) in times else 0
    if len(set(epochs)) == len(epochs):
        return [f"epoch {one}" for one in epochs], own
    return [f"epoch {one}, step {at}" for one, at in times], own


def norms_of(graph: nx.DiGraph, parts: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the norms of nodes or edges at all records, (records, parts).

    A gradient that does not exist is its special value; what was not measured is -1.
    """
    records = len(graph.graph.get("epochs", ()))
    values = np.full((max(records, 1), len(parts)), -1.0)
    for column, part in zip(values.T, parts, strict=True):
        if records:
            norms = part.get("norms") or [None] * records
            reasons = part.get("reasons") or [""] * records
        else:
            norms, reasons = [part.get("gradient_norm")], [part.get("reason", "")]
        drawn = [drawn_norm(*one) for one in zip(norms, reasons, strict=True)]
        column[:] = [-1.0 if norm is None else norm for norm in drawn]
    return values


def _missing(part: Mapping[str, Any]) -> str:
    return plain(NOT_IN_RECORD if part.get("norms") else part.get("reason") or "no number")


def _states(
    values: np.ndarray,
    limits: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    scale: Scale,
    missing: list[str],
) -> States:
    """Return the states: a look is the first of its verdict, plus the level of the norm."""
    looks = {key: [row[key] for row in rows] for key in rows[0]}
    first = {verdict: looks["verdict"].index(verdict) for verdict in looks["verdict"]}
    codes = np.array(
        [
            [first[verdict_of(None if norm < 0 else norm, limit)] for norm in row]
            for row, limit in zip(values.tolist(), limits, strict=True)
        ],
        dtype=int,
    ).reshape(values.shape)
    ordinary = np.isfinite(values) & (values > 0)
    levels = share_of(np.where(ordinary, values, scale.low), scale) * (_LEVELS - 1)
    return States(values, codes + levels.round().astype(int), looks, missing)


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()
