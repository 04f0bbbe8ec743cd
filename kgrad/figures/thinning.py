"""Choices of what to show if there is no room for everything: columns, records, cells, names."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from typing_extensions import Self

from kgrad.figures.scale import SPECIAL, Scale, Special

MOST_COLUMNS = 400


class Columns(NamedTuple):
    """Values over time in a limited number of columns: one per record if that is enough.

    Otherwise columns form pairs, and each pair covers several records. A layer's smallest and
    largest ordinary values among these records fill the pair's two columns in the order in which
    they occurred, so a value may be one column away from where it was measured. A special value is
    in its own column.

    Attributes:
        edges: the columns' bounds in time, (columns + 1,).
        centers: where a line has each column's value, (columns,).
        values: each layer's ordinary value in each column, NaN if there is none, (columns,
            layers).
        found: each special value of the scale → where it occurs, bool (columns, layers).
        records: the largest number of records of a pair of columns; 1 if nothing is thinned.
    """

    edges: np.ndarray
    centers: np.ndarray
    values: np.ndarray
    found: dict[Special, np.ndarray]
    records: int

    @classmethod
    def of(
        cls, values: np.ndarray, times: np.ndarray, scale: Scale, most: int = MOST_COLUMNS
    ) -> Self:
        """Return the columns of `values`, (records, layers), recorded at increasing `times`."""
        edges = cell_edges(times)
        ordinary = np.where(scale.ordinary(values), values, np.nan)
        found = {special: special.found(values) for special in scale.special}
        if len(values) <= most:
            return cls(edges, times, ordinary, found, 1)
        bounds = np.linspace(0, len(values), max(2, most // 2) + 1).round().astype(int)
        middles = (bounds[:-1] + bounds[1:] + 1) // 2
        starts = np.stack([bounds[:-1], middles], axis=1).ravel()
        # A pair that covers one record has an empty second column.
        starts = np.unique(starts[starts < len(values)])
        stops = np.append(starts[1:], len(values))
        return cls(
            edges[np.append(starts, len(values))],
            (times[starts] + times[stops - 1]) / 2,
            _extremes(ordinary, bounds, starts),
            {
                special: np.logical_or.reduceat(where, starts, axis=0)
                for special, where in found.items()
            },
            int(np.diff(bounds).max()),
        )


def notable_records(values: np.ndarray, most: int) -> np.ndarray:
    """Return the most informative records: at most `most` increasing indices.

    They are the first and the last record, the records in which each special value occurs for the
    first time, and two from each of several equal stretches of time: those in which some part
    is furthest above and furthest below its own median.

    Args:
        values: magnitudes, (records, parts), negative if nothing was measured.
        most: at least 5.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    firsts = [
        int(found.any(axis=1).argmax())
        for found in (special.found(values) for special in SPECIAL)
        if found.any()
    ]
    kept = {0, count - 1, *firsts}
    ordinary = np.isfinite(values) & (values > 0)
    logs = np.ma.masked_array(np.log10(np.where(ordinary, values, 1.0)), ~ordinary)
    away = logs - np.ma.median(logs, axis=0)
    highest = away.max(axis=1).filled(-np.inf)
    lowest = away.min(axis=1).filled(np.inf)
    bounds = np.linspace(0, count, max(0, most - len(kept)) // 2 + 1).round().astype(int)
    for start, stop in pairwise(bounds.tolist()):
        kept |= {
            start + int(highest[start:stop].argmax()),
            start + int(lowest[start:stop].argmin()),
        }
    return np.array(sorted(kept))


def denser_early(count: int, most: int) -> list[int]:
    """Return at most `most` indices below `count`: the first, the last, and more early ones."""
    return sorted({round(i) - 1 for i in np.geomspace(1, count, min(most, count))})


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Return about `most` evenly spaced indices below `count`, with the first and the last."""
    stride = max(1, int(np.ceil((count - 1) / max(1, most - 1))))
    indices = np.arange(0, count, stride)
    return np.append(indices[count - 1 - indices >= 0.7 * stride], count - 1)


def sampled_cells(found: np.ndarray, most: int) -> tuple[list[int], list[int]]:
    """Return rows and columns of some true cells, such that each true cell is close to one."""
    rows, columns = [], []
    for group in np.array_split(np.arange(len(found)), min(most, len(found))):
        left = np.flatnonzero(found[group].any(axis=0))
        while left.size:
            members = group[found[group, left[0]]]
            rows.append(int(members[len(members) // 2]))
            columns.append(int(left[0]))
            left = left[left >= left[0] + found.shape[1] / most]
    return rows, columns


def well_apart(places: np.ndarray, least: float) -> list[int]:
    """Return indices of increasing places that are at least `least` apart, the first and the last.

    Between these two, each place that is left out is closer than `least` to one before it.
    """
    kept: list[int] = []
    for index, place in enumerate(places):
        if not kept or place >= places[kept[-1]] + least * (1 - 1e-9):
            kept.append(index)
    if len(places) and kept[-1] != len(places) - 1:
        kept[-1 if len(kept) > 1 else 1 :] = [len(places) - 1]
    return kept


def without_neighbors(shown: np.ndarray) -> np.ndarray:
    """Return True for each point that no line segment reaches: bool, (points,)."""
    padded = np.pad(shown, 1)
    return shown & ~padded[:-2] & ~padded[2:]


def cell_edges(centers: np.ndarray) -> np.ndarray:
    """Return the bounds of cells around increasing centers: (cells,) → (cells + 1,)."""
    if len(centers) == 1:
        return centers[0] + np.array([-0.5, 0.5])
    middles = (centers[:-1] + centers[1:]) / 2
    return np.concatenate([[2 * centers[0] - middles[0]], middles, [2 * centers[-1] - middles[-1]]])


def _extremes(values: np.ndarray, bounds: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return each column's value: a pair's smallest and largest values, in order of occurrence."""
    result = np.full((len(starts), values.shape[1]), np.nan)
    every = np.arange(values.shape[1])
    for start, stop in pairwise(bounds):
        columns = np.flatnonzero((starts >= start) & (starts < stop))
        part = values[start:stop]
        empty = np.isnan(part)
        least = np.where(empty, np.inf, part).argmin(axis=0)
        greatest = np.where(empty, -np.inf, part).argmax(axis=0)
        result[columns[0]] = part[np.minimum(least, greatest), every]
        result[columns[-1]] = part[np.maximum(least, greatest), every]
    return result
