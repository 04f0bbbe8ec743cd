"""What was measured: `GradientHistory`, in memory and on disk.

A history has three axes: *record* (time), *weight* (a trainable variable, in forward order) and
*statistic* (what was computed from the weight's gradient). Beside them stand, for each record, the
logs and, where asked for, how the gradients' entries are distributed and what the layers put out.
On disk it is JSON Lines, a header and then one line a record, so that a file can grow while
training runs and be read after a crash.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from kgrad.records.checks import require_integer
from kgrad.records.distributions import BINS, checked_counts, packed, unpacked
from kgrad.records.files import (
    FORMAT,
    VERSION,
    LineWriter,
    header_fields,
    numbers,
    read_lines,
    record_fields,
)
from kgrad.records.statistics import by_layer, layers_of


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
        outputs: names of the layer outputs that were probed, in forward order; may be empty.

    Args:
        weights: the trainable variables, in forward order, with unique paths.
        statistics: names of the statistics that every record will carry.
        metadata: whatever describes the run, in JSON's types.
        outputs: names of the layer outputs whose activations records may carry.

    Raises:
        ValueError: if there is no weight or statistic, or two weights share a path, or two
            statistics or outputs a name.

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
        metadata: Mapping[str, Any] | None = None,
        *,
        outputs: Iterable[str] = (),
    ) -> None:
        self.weights: tuple[Weight, ...] = tuple(weights)
        self.statistics: tuple[str, ...] = tuple(statistics)
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.outputs: tuple[str, ...] = tuple(outputs)
        for names, what in (
            ([weight.path for weight in self.weights], "weight path"),
            (self.statistics, "statistic"),
        ):
            if not names:
                raise ValueError(f"a history needs at least one {what}, received none")
            _require_distinct(names, what)
        _require_distinct(self.outputs, "output")
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
        return layers_of(self.weights)

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
        """Loss and metrics: name → float64 (records,), NaN for a record without it."""
        return {name: table[:, 0] for name, table in self._gathered("logs", 1).items()}

    @property
    def activations(self) -> dict[str, np.ndarray]:
        """What layers put out: statistic → float64 (records, outputs), NaN for a record without."""
        return self._gathered("activations", len(self.outputs))

    @property
    def distributions(self) -> np.ndarray:
        """How many entries of each gradient have which exponent: int64, (records, weights, 256).

        Bin b counts |g| from 2^(b-127) to below 2^(b-126); bin 0 counts zeros and what is below
        2^-126, bin 255 NaN and infinities. The bins' edges are in
        `kgrad.records.distributions.LOG10_EDGES`. A record without distributions has zeros.
        """
        counts = np.zeros((len(self), len(self.weights), BINS), dtype=np.int64)
        for table, record in zip(counts, self._records, strict=True):
            if record["distributions"]:
                table[:] = unpacked(record["distributions"])
        return counts

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
        return by_layer(statistic, values, self.weights)

    def to_frame(self) -> pd.DataFrame:
        """Tidy table: one row per record × weight × statistic.

        Returns:
            DataFrame with columns record, epoch, step, layer, weight, path, statistic, value.
        """
        columns = zip(*((w.layer, w.name, w.path) for w in self.weights), strict=True)
        named = dict(zip(("layer", "weight", "path"), columns, strict=True))
        return self._tidy(named, {name: self[name] for name in self.statistics})

    def activations_to_frame(self) -> pd.DataFrame:
        """Tidy table of the activations: one row per record × output × statistic.

        Returns:
            DataFrame with columns record, epoch, step, output, statistic, value.
        """
        return self._tidy({"output": self.outputs}, self.activations)

    def append(
        self,
        epoch: int,
        step: int,
        values: Mapping[str, Sequence[float] | np.ndarray],
        logs: Mapping[str, float] | None = None,
        layer_values: Mapping[str, Sequence[float] | np.ndarray] | None = None,
        *,
        activations: Mapping[str, Sequence[float] | np.ndarray] | None = None,
        distributions: np.ndarray | None = None,
    ) -> None:
        """Add one record.

        Args:
            epoch: the epoch it belongs to, from 1; 0 for the state before training.
            step: the last training step in it, not less than the record before.
            values: for each of `self.statistics`, one number a weight.
            logs: loss, metrics and whatever else is one number; each record may name others.
            layer_values: where a layer's value does not follow from its weights' (the number of
                non-finite steps), one number a layer; the same statistics in every record.
            activations: for each statistic of what layers put out, one number an output.
            distributions: integers, (weights, 256): see `GradientHistory.distributions`.

        Raises:
            ValueError: if a statistic is missing, unknown or of the wrong length, a log is no
                number, distributions are no counts, or time runs backwards.
        """
        last = self._records[-1] if self._records else None
        layer_names = last["layer_values"] if last else layer_values or {}
        record = {
            "epoch": _checked_time("epoch", epoch, last["epoch"] if last else 0),
            "step": _checked_time("step", step, last["step"] if last else 0),
            "values": _checked_rows("values", values, len(self.weights), self.statistics),
            "layer_values": _checked_rows(
                "layer_values", layer_values or {}, len(self.layers), layer_names
            ),
            "logs": _checked_logs(logs or {}),
            "activations": _checked_rows("activations", activations or {}, len(self.outputs)),
            "distributions": {},
        }
        if distributions is not None:
            record["distributions"] = packed(checked_counts(distributions, len(self.weights)))
        self._records.append(record)

    def header(self) -> dict[str, Any]:
        """The first line of the history's file."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "weights": [weight._asdict() for weight in self.weights],
            "statistics": self.statistics,
            "outputs": self.outputs,
            "metadata": self.metadata,
        }

    def record(self, index: int) -> dict[str, Any]:
        """One record, as one line of the history's file."""
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

    def _gathered(self, group: str, width: int) -> dict[str, np.ndarray]:
        """Tables, (records, width), of every name that occurs; NaN for a record without it."""
        names = dict.fromkeys(name for record in self._records for name in record[group])
        tables = {name: np.full((len(self), width), np.nan) for name in names}
        for i, record in enumerate(self._records):
            for name, row in record[group].items():
                tables[name][i] = row
        return tables

    def _tidy(
        self, named: Mapping[str, Sequence[str]], tables: Mapping[str, np.ndarray]
    ) -> pd.DataFrame:
        """One row a number of each table, (records, n); `named` has n names a column."""
        records, width = len(self), len(next(iter(named.values())))
        by_record = {"record": np.arange(records), "epoch": self.epochs, "step": self.steps}
        repeated = {key: np.repeat(column, width) for key, column in by_record.items()}
        tiled = {
            key: np.tile(np.array(names, dtype=object), records) for key, names in named.items()
        }
        frames = [
            pd.DataFrame(repeated | tiled | {"statistic": name, "value": table.ravel()})
            for name, table in tables.items()
        ]
        if not frames:
            return pd.DataFrame(columns=[*repeated, *tiled, "statistic", "value"])
        return pd.concat(frames, ignore_index=True)


def _require_distinct(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"each {what} must be unique, received {name!r} more than once")


def _checked_time(name: str, number: Any, least: int) -> int:
    """The number of an epoch or a step, not before `least`.

    Raises:
        ValueError: if it is not such a number.
    """
    if require_integer(name, number, least) >= 2**63:
        raise ValueError(f"{name} must be below 2**63, received {number!r}")
    return int(number)


def _checked_rows(
    group: str, given: Mapping[str, Any], width: int, wanted: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """The numbers of every name: float64, (width,).

    Args:
        group: what the names are names of, for the error.
        given: name → numbers.
        width: how many numbers each name has.
        wanted: the names that must be there, and no others; None for any names.

    Raises:
        ValueError: if a name is missing, unknown or no text, or what it names are not `width`
            numbers.
    """
    if not all(isinstance(name, str) for name in given):
        raise ValueError(f"{group} must have names that are text, received {list(given)!r:.80}")
    if wanted is not None and set(given) != set(wanted):
        raise ValueError(f"{group} must name {sorted(wanted)}, received {sorted(given)}")
    rows = {}
    for name in given if wanted is None else wanted:
        row = numbers(given[name], width)
        if row is None:
            raise ValueError(
                f"{group}[{name!r}] must be {width} numbers, received {given[name]!r:.80}"
            )
        rows[name] = row
    return rows


def _checked_logs(given: Mapping[str, Any]) -> dict[str, float]:
    """The number of every name.

    Raises:
        ValueError: if a name is no text, or what it names is no number.
    """
    rows = _checked_rows("logs", {name: [value] for name, value in given.items()}, 1)
    return {name: float(row[0]) for name, row in rows.items()}


def require_history(argument: str, history: Any) -> None:
    """Raise unless the argument is a history with at least one record."""
    if not isinstance(history, GradientHistory):
        raise TypeError(
            f"{argument} must be a GradientHistory, received {type(history).__name__}: pass "
            "tracker.history, what train_and_track_gradients returned, or "
            "GradientHistory.load(path)"
        )
    if not len(history):
        raise ValueError(
            f"{argument} must have at least one record, received none: train for an epoch or "
            "measure once"
        )
