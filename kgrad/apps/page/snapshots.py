"""Snapshots of a network while it trains: its decision boundary and its layers' activations.

A history holds statistics of gradients, from which neither can be drawn. The training process
writes the snapshots into a file beside the journal, a line for each record, and the page reads it.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GRID = 40  # points of the decision boundary's map, along each of the two axes
BINS = 24  # of a histogram
_MOST = 200  # snapshots of a run, about: a long run has one for some records
_SAMPLES = 256  # of the histograms
_MARGIN = 0.15  # of the map around the data, as a share of their range


class Snapshot(NamedTuple):
    """A network at one record.

    Attributes:
        record: number of the record.
        counts: how many activations of each layer lie in each of the bins: (layers, bins).
        ranges: the ends of each layer's bins: (layers, 2). Layers that share an activation share
            them; NaN if no activation is finite.
        outputs: the network's outputs on the map, rows upwards, from 0 to 255: (grid, grid,
            outputs); None unless the data have two features.
    """

    record: int
    counts: np.ndarray
    ranges: np.ndarray
    outputs: np.ndarray | None

    def to_json(self) -> str:
        """Return the snapshot as one line."""
        packed = None if self.outputs is None else base64.b64encode(self.outputs.tobytes()).decode()
        finite = np.isfinite(self.ranges).all(axis=1)
        ranges = [r.tolist() if ok else None for r, ok in zip(self.ranges, finite, strict=True)]
        return json.dumps(
            {
                "record": self.record,
                "counts": self.counts.tolist(),
                "ranges": ranges,
                "outputs": packed,
            }
        )

    @classmethod
    def from_json(cls, line: str | bytes) -> "Snapshot":
        """Return the snapshot of a line."""
        content = json.loads(line)
        outputs = None
        if content["outputs"] is not None:
            values = np.frombuffer(base64.b64decode(content["outputs"]), np.uint8)
            outputs = values.reshape(GRID, GRID, -1)
        ranges = np.array([[np.nan, np.nan] if one is None else one for one in content["ranges"]])
        return cls(content["record"], np.array(content["counts"]), ranges, outputs)


def snapshots_path(journal: Path) -> Path:
    """Return the path of the snapshots of a journal."""
    return journal.with_suffix(".snapshots")


def is_taken(record: int, epochs: int) -> bool:
    """Return whether a snapshot is made of a record while training goes on by itself."""
    return record % -(-epochs // _MOST) == 0


def map_of(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of the map of data with two features: (grid,) and (grid,)."""
    low, high = X.min(axis=0), X.max(axis=0)
    margin = _MARGIN * (high - low)
    x, y = np.linspace(low - margin, high + margin, GRID).T
    return x, y


def snapshot_of(
    record: int, X: np.ndarray, outputs_of: Callable[[np.ndarray], list[np.ndarray]]
) -> Snapshot:
    """Take a snapshot of a network.

    Args:
        record: number of the record.
        X: the data, (samples, features).
        outputs_of: returns the outputs of all layers for inputs, the network's last.
    """
    samples = X[:_SAMPLES]
    inputs = samples
    if X.shape[1] == 2:
        x, y = map_of(X)
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        inputs = np.concatenate([samples, grid.astype(X.dtype)])
    outputs = [np.asarray(one, np.float64) for one in outputs_of(inputs)]
    activations = [one[: len(samples)] for one in outputs]
    hidden = _range_of(activations[:-1])
    ranges = np.array([hidden] * (len(outputs) - 1) + [_range_of(activations[-1:])])
    counts = [_histogram(one, ends) for one, ends in zip(activations, ranges, strict=True)]
    drawn = None
    if X.shape[1] == 2:
        values = np.nan_to_num(outputs[-1][len(samples) :], nan=0.0)
        drawn = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8).reshape(GRID, GRID, -1)
    return Snapshot(record, np.array(counts), ranges, drawn)


def _range_of(activations: list[Any]) -> tuple[float, float]:
    """Return ends between which nearly all activations lie."""
    values = np.concatenate([one.ravel() for one in activations]) if activations else np.zeros(1)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [0.002, 0.998])
    spread = max(float(high - low), 1e-6 * max(1.0, abs(float(high))))
    return float(low) - 0.02 * spread, float(low) + 1.02 * spread


def _histogram(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    values = values[np.isfinite(values)]
    if not np.isfinite(ends[0]) or not len(values):
        return np.zeros(BINS, int)
    # What lies outside is counted in the outermost bins.
    return np.histogram(np.clip(values, *ends), BINS, ends)[0]


class Snapshots:
    """A reader that follows the snapshots of a journal.

    Args:
        journal: the path of the journal.
    """

    def __init__(self, journal: Path) -> None:
        self._path = snapshots_path(journal)
        self._offset = 0
        self._all: dict[int, Snapshot] = {}

    def read(self) -> None:
        """Read the lines that were finished since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            given = file.read()
        whole, newline, _ = given.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            one = Snapshot.from_json(line)
            self._all[one.record] = one

    def at(self, record: int) -> Snapshot | None:
        """Return the last snapshot up to a record; None if there is none."""
        return self._all.get(max((one for one in self._all if one <= record), default=-1))
