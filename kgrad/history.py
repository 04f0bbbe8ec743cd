"""What was measured: `GradientHistory`, in memory and on disk.

A history has three axes: *record* (time), *weight* (a trainable variable, in forward order) and
*statistic* (what was computed from the weight's gradient). On disk it is JSON Lines, a header and
then one line a record, so that a file can grow while training runs and be read after a crash.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from kgrad.jsonl import (
    FORMAT,
    VERSION,
    LineWriter,
    header_fields,
    numbers,
    read_lines,
    record_fields,
)


class Weight(NamedTuple):
    """One trainable variable of the model.

    Attributes:
        layer: name of the layer that owns it, unique within the history.
        name: the variable's own name, such as `"kernel"`.
        path: the variable's path, such as `"dense_1/kernel"`, unique within the history.
        shape: its shape; `()` for a scalar.
    """

    layer: str
    name: str
    path: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


class GradientHistory:
    """The gradient statistics of a training run, record by record.

    `history["mean_abs"]` is a float64 array of shape (records, weights) and
    `history.by_layer("mean_abs")` one of shape (records, layers). NaN and infinity are data and
    are kept.

    Attributes:
        weights: the trainable variables, in forward order.
        statistics: the names of the statistics that every record carries.
        metadata: what describes the run: versions, device, seed, what was asked for.

    Args:
        weights: the trainable variables, in forward order, with unique paths.
        statistics: names of the statistics that every record will carry.
        logs: names of the losses and metrics that every record will carry.
        metadata: whatever describes the run, in JSON's types.

    Raises:
        ValueError: if there is no weight or statistic, or two weights share a path, or two
            statistics a name.

    Example:
        >>> history = GradientHistory(
        ...     [Weight("dense", "kernel", "dense/kernel", (2, 3))], ["mean_abs"]
        ... )
        >>> history.append(epoch=1, step=10, values={"mean_abs": [0.25]})
        >>> history["mean_abs"]
        array([[0.25]])
    """

    def __init__(
        self,
        weights: Iterable[Weight],
        statistics: Iterable[str],
        logs: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.weights: tuple[Weight, ...] = tuple(weights)
        self.statistics: tuple[str, ...] = tuple(statistics)
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._log_names: tuple[str, ...] = tuple(logs)
        _require_distinct([w.path for w in self.weights], "weight path")
        _require_distinct(self.statistics, "statistic")
        self._records: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """Number of records."""
        return len(self._records)

    def __repr__(self) -> str:
        return (
            f"GradientHistory({len(self)} records of {len(self.weights)} weights in "
            f"{len(self.layers)} layers; statistics: {', '.join(self.statistics)})"
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names in forward order, each once."""
        return tuple(dict.fromkeys(weight.layer for weight in self.weights))

    @property
    def epochs(self) -> np.ndarray:
        """Epoch of each record: int64, (records,); counted from 1, and 0 is before training."""
        return np.array([record["epoch"] for record in self._records], dtype=np.int64)

    @property
    def steps(self) -> np.ndarray:
        """Last training step in each record: int64, (records,); 0 is before training."""
        return np.array([record["step"] for record in self._records], dtype=np.int64)

    @property
    def logs(self) -> dict[str, np.ndarray]:
        """Loss and metrics of each record: name → float64 (records,)."""
        return {
            name: np.array([record["logs"][name] for record in self._records], dtype=np.float64)
            for name in self._log_names
        }

    def __getitem__(self, statistic: str) -> np.ndarray:
        """Values of one statistic: float64, (records, weights).

        Raises:
            KeyError: if the statistic was not recorded.
        """
        return self._stacked("values", statistic, len(self.weights))

    def by_layer(self, statistic: str) -> np.ndarray:
        """Values of one statistic with each layer's weights taken as one vector.

        Means are weighted by the number of entries, norms add in squares, a maximum is the
        larger, and a step is non-finite in a layer if it is so in any of the layer's weights.

        Args:
            statistic: one of `self.statistics`.

        Returns:
            float64 array of shape (records, layers).

        Raises:
            KeyError: if the statistic was not recorded.
        """
        values = self[statistic]
        if self._records and statistic in self._records[0]["layer_values"]:
            return self._stacked("layer_values", statistic, len(self.layers))
        columns = []
        for layer in self.layers:
            members = [i for i, weight in enumerate(self.weights) if weight.layer == layer]
            sizes = np.array([self.weights[i].size for i in members], dtype=np.float64)
            columns.append(_combine(statistic, values[:, members], sizes))
        return np.stack(columns, axis=1)

    def to_frame(self) -> pd.DataFrame:
        """Tidy table: one row per record × weight × statistic.

        Returns:
            DataFrame with columns record, epoch, step, layer, weight, path, statistic, value.
        """
        records, weights = len(self), len(self.weights)
        by_record = {"record": np.arange(records), "epoch": self.epochs, "step": self.steps}
        columns = zip(*((w.layer, w.name, w.path) for w in self.weights), strict=True)
        by_weight = dict(zip(("layer", "weight", "path"), map(np.array, columns), strict=True))
        frames = [
            pd.DataFrame(
                {key: np.repeat(column, weights) for key, column in by_record.items()}
                | {key: np.tile(column, records) for key, column in by_weight.items()}
                | {"statistic": statistic, "value": self[statistic].ravel()}
            )
            for statistic in self.statistics
        ]
        return pd.concat(frames, ignore_index=True)

    def append(
        self,
        epoch: int,
        step: int,
        values: Mapping[str, Sequence[float] | np.ndarray],
        logs: Mapping[str, float] | None = None,
        layer_values: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> None:
        """Add one record.

        Args:
            epoch: the epoch it belongs to, from 1; 0 for the state before training.
            step: the last training step in it, not less than the record before.
            values: for each of `self.statistics`, one number a weight.
            logs: for each of the history's logs, one number.
            layer_values: where a layer's value does not follow from its weights' (the number of
                non-finite steps), one number a layer; the same statistics in every record.

        Raises:
            ValueError: if a statistic or log is missing, unknown or of the wrong length, or time
                runs backwards.
        """
        last = self._records[-1] if self._records else None
        for name, number in (("epoch", epoch), ("step", step)):
            least = last[name] if last else 0
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if not whole or not least <= number < 2**63:
                raise ValueError(
                    f"{name} must be an integer of at least {least}, received {number!r}"
                )
        layer_values = layer_values or {}
        layer_names = last["layer_values"] if last else layer_values
        log_rows = {name: [value] for name, value in (logs or {}).items()}
        log_arrays = _arrays("logs", log_rows, self._log_names, 1)
        self._records.append(
            {
                "epoch": int(epoch),
                "step": int(step),
                "values": _arrays("values", values, self.statistics, len(self.weights)),
                "layer_values": _arrays(
                    "layer_values", layer_values, layer_names, len(self.layers)
                ),
                "logs": {name: float(array[0]) for name, array in log_arrays.items()},
            }
        )

    def header(self) -> dict[str, Any]:
        """The first line of the history's file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "weights": [weight._asdict() for weight in self.weights],
            "statistics": self.statistics,
            "logs": self._log_names,
            "metadata": self.metadata,
        }

    def record(self, index: int) -> dict[str, Any]:
        """One record, as `append` takes it and as one line of the history's file."""
        return self._records[index]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole history as JSON Lines; `path` is replaced only once that is complete.

        Raises:
            OSError: if the file cannot be written; what stood at `path` is then untouched.
        """
        target = Path(path)
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with LineWriter(draft) as file:
                for line in [self.header(), *self._records]:
                    file.write(line)
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a saved history or a journal; a torn last line is ignored.

        Nothing in the file is executed or unpickled.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if a line is not what it should be; names the file, the line and what was
                expected.
        """
        history = None
        try:
            lines = read_lines(path)
            fields = header_fields(next(lines, {}))
            fields["weights"] = [Weight(*weight) for weight in fields["weights"]]
            history = cls(**fields)
            for line in lines:
                history.append(**record_fields(line))
        except ValueError as error:
            number = 1 if history is None else len(history) + 2
            raise ValueError(f"{os.fspath(path)}, line {number}: {error}") from error
        return history

    def _stacked(self, group: str, name: str, width: int) -> np.ndarray:
        if name not in self.statistics:
            raise KeyError(
                f"statistic {name!r} was not recorded; recorded were {', '.join(self.statistics)}"
            )
        rows = [record[group][name] for record in self._records]
        return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def _combine(statistic: str, values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(records, weights of a layer) → (records,), as `GradientHistory.by_layer` says."""
    if statistic in ("mean_abs", "zero_fraction"):
        return values @ (sizes / sizes.sum())
    if statistic in ("l2_norm", "weight_l2", "update_l2"):
        # hypot neither overflows nor underflows where a sum of squares would.
        return np.hypot.reduce(values, axis=1)
    if statistic in ("max_abs", "nonfinite_steps"):
        return values.max(axis=1)
    raise ValueError(f"there is no rule to combine the weights of a layer for {statistic!r}")


def _require_distinct(names: Sequence[str], what: str) -> None:
    if not names:
        raise ValueError(f"a history needs at least one {what}, received none")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"each {what} must be unique, received {name!r} more than once")


def _arrays(
    group: str, given: Mapping[str, Any], wanted: Iterable[str], width: int
) -> dict[str, np.ndarray]:
    """Check that every wanted name has its numbers, and return them as float64 (width,)."""
    if set(given) != set(wanted):
        raise ValueError(f"{group} must name {sorted(wanted)}, received {sorted(given)}")
    arrays = {}
    for name in wanted:
        array = numbers(given[name], width)
        if array is None:
            raise ValueError(
                f"{group}[{name!r}] must be {width} numbers, received {given[name]!r:.80}"
            )
        arrays[name] = array
    return arrays
