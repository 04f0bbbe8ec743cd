"""A long history on as many columns as a screen has room for, without losing its extremes."""

from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from kgrad.figures.scale import Scale, Special

MOST_COLUMNS = 400


class Columns(NamedTuple):
    """Values over time in at most so many columns: one a record where that is enough.

    Otherwise columns go in pairs. Of the records that a pair covers, each layer's least and
    greatest ordinary values stand in its two columns in the order in which they came; they may so
    stand a column from where they were measured. A special value is found in its own column.

    Attributes:
        edges: the columns' bounds in time, (columns + 1,).
        centers: where a column's value stands on a line, (columns,).
        values: each layer's ordinary value in each column, NaN where there is none, (columns,
            layers).
        found: each special value that the scale has → where it occurs, bool (columns, layers).
        records: how many records a pair of columns covers at most; 1 where nothing is thinned.
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
        """The columns of `values`, (records, layers), recorded at the increasing `times`."""
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


def telling(values: np.ndarray, most: int) -> np.ndarray:
    """The records to show where there is no room for all: at most `most` indices, increasing.

    They are the first and the last, those where something first is 0, NaN or infinite, and, of each
    of as many equal stretches of time as there is room for, the two in which something stands
    furthest above and furthest below its own median.

    Args:
        values: magnitudes, (records, parts), negative where nothing was measured.
        most: at least 5.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    firsts = [
        int(found.any(axis=1).argmax())
        for found in (values == 0, np.isnan(values), np.isinf(values))
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


def _extremes(values: np.ndarray, bounds: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Each column's value: of each pair of columns the least and greatest, in their order."""
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


def cell_edges(centers: np.ndarray) -> np.ndarray:
    """Bounds of cells around increasing centres: (cells,) → (cells + 1,)."""
    if len(centers) == 1:
        return centers[0] + np.array([-0.5, 0.5])
    middles = (centers[:-1] + centers[1:]) / 2
    return np.concatenate([[2 * centers[0] - middles[0]], middles, [2 * centers[-1] - middles[-1]]])
