"""`GradientHistory`: the recorded statistics of a training run, in memory and on disk.

A history has three axes: *record* (time), *weight* (a trainable variable, in forward order) and
*statistic* (what was computed from the weight's gradient). Each record also holds the logs and, if
they were requested, the distributions of the gradients' entries and the statistics of the layers'
outputs. `kgrad.records.files` describes the file.
"""

import copy
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from typing_extensions import Self

from kgrad.records.checks import require_integer, require_path, require_shallow
from kgrad.records.distributions import BINS, checked_counts, pack_counts, unpack_counts
from kgrad.records.files import (
    FORMAT,
    MOST_NAMES,
    VERSION,
    LineWriter,
    decode_header,
    decode_record,
    decode_resumption,
    is_object,
    line_of,
    numbers,
    read_lines,
    written_whole,
)
from kgrad.records.notebook import Shown
from kgrad.records.statistics import by_layer, layers_of, needs_gradient, why_missing


class Weight(NamedTuple):
    """A trainable variable of the model.

    Attributes:
        layer: name of the layer that owns the variable, unique within the history.
        name: the variable's own name, for example `"kernel"`.
        path: the variable's path, for example `"dense_1/kernel"`, unique within the history.
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


class GradientHistory(Shown):
    """A training run's gradient statistics, record by record.

    `history["mean_abs"]` is a float64 array of shape (records, weights), and
    `history.by_layer("mean_abs")` has shape (records, layers). NaN and infinity are data and are
    kept. The statistics of a gradient are also NaN for a weight without a gradient; `missing` says
    for which weights, and why.

    Attributes:
        weights: the trainable variables, in forward order.
        statistics: names of the statistics in every record.
        metadata: description of the run: versions, device, seed, settings, start.
        outputs: names of the layer outputs that were probed, in forward order; may be empty.

    Args:
        weights: the trainable variables, in forward order, with unique paths.
        statistics: names of the statistics that every record will hold.
        metadata: description of the run, in JSON's types.
        outputs: names of the layer outputs whose activations records may hold.

    Raises:
        ValueError: if there is no weight or no statistic, if two weights have the same path, or if
            two statistics or two outputs have the same name.

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
        for weight in self.weights:
            if not isinstance(weight, Weight):
                raise TypeError(f"weights must be kgrad.Weight, received {weight!r:.100}")
        for argument, names in (("statistics", statistics), ("outputs", outputs)):
            if isinstance(names, str):
                raise TypeError(f"{argument} must be a sequence of names, received {names!r:.100}")
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
        # Names of logs and of activations in any record, in the order of their first record.
        self._names: dict[str, dict[str, Any]] = {"logs": {}, "activations": {}}

    def __len__(self) -> int:
        """Number of records."""
        return len(self._records)

    def __repr__(self) -> str:
        records = "1 record" if len(self) == 1 else f"{len(self)} records"
        return (
            f"GradientHistory({records} of {len(self.weights)} weights in "
            f"{len(self.layers)} layers; statistics: {', '.join(self.statistics)})"
        )

    def first(self, count: int) -> Self:
        """Return a history of the first `count` records, which it shares with this one."""
        cut = copy.copy(self)
        cut._records = self._records[:count]
        return cut

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names in forward order, each once."""
        return layers_of(self.weights)

    @property
    def epochs(self) -> np.ndarray:
        """Epoch of each record: int64, (records,); counted from 1, 0 is before training."""
        return np.array([record["epoch"] for record in self._records], dtype=np.int64)

    @property
    def steps(self) -> np.ndarray:
        """Last training step in each record: int64, (records,); 0 is before training."""
        return np.array([record["step"] for record in self._records], dtype=np.int64)

    @property
    def logs(self) -> dict[str, np.ndarray]:
        """Loss and metrics: name → float64 (records,), NaN for records without that name."""
        return {name: table[:, 0] for name, table in self._gathered("logs", 1).items()}

    @property
    def activations(self) -> dict[str, np.ndarray]:
        """Statistics of layer outputs: name → float64 (records, outputs), NaN where unrecorded."""
        return self._gathered("activations", len(self.outputs))

    @property
    def has_distributions(self) -> bool:
        """Whether a record counts the entries of the gradients by magnitude."""
        return any(record["distributions"] for record in self._records)

    @property
    def distributions(self) -> np.ndarray:
        """Counts of each gradient's entries by exponent: int64, (records, weights, 256).

        Bin b counts |g| from 2^(b-127) to below 2^(b-126). Bin 0 counts zeros and values below
        2^-126; bin 255 counts NaN and infinities. The bins' edges are
        `kgrad.records.distributions.LOG10_EDGES`. A record without distributions has zeros. If no
        record has any, the array is read-only and needs no memory.
        """
        shape = len(self), len(self.weights), BINS
        if not self.has_distributions:
            return np.broadcast_to(np.int64(0), shape)
        counts = np.zeros(shape, dtype=np.int64)
        for table, record in zip(counts, self._records, strict=True):
            if record["distributions"]:
                table[:] = unpack_counts(record["distributions"])
        return counts

    def __getitem__(self, statistic: str) -> np.ndarray:
        """Return the values of one statistic: float64, (records, weights).

        Raises:
            KeyError: if the statistic was not recorded.
        """
        return self._stacked("values", statistic, len(self.weights))

    def by_layer(self, statistic: str) -> np.ndarray:
        """Return the values of one statistic per layer, with the layer's weights as one vector.

        Means are weighted by the number of entries, norms add in squares, and maxima combine to
        the largest. Weights without a gradient are left out of the statistics of gradients; a layer
        of which no weight had one has NaN. An update is non-finite in a layer if it is so in any of
        the layer's weights.

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
        present = self["gradients_present"] > 0 if self._counts_updates else None
        return by_layer(statistic, values, self.weights, present)

    @property
    def missing(self) -> np.ndarray:
        """Why each weight has no gradient in each record: strings, (records, weights).

        "not updated" if no update contained the weight, "no path to the loss" if updates did but
        its gradient was always None; "" if there is a gradient, NaN or not, and in histories
        without the statistics `updates` and `gradients_present`.
        """
        if not self._counts_updates:
            return np.full((len(self), len(self.weights)), "", dtype=object)
        return why_missing(self["updates"], self["gradients_present"])

    @property
    def missing_by_layer(self) -> np.ndarray:
        """Why no weight of each layer has a gradient in each record: strings, (records, layers).

        They are those of `missing`; "" if any of the layer's weights has a gradient.
        """
        if not self._counts_updates:
            return np.full((len(self), len(self.layers)), "", dtype=object)
        return why_missing(self.by_layer("updates"), self.by_layer("gradients_present"))

    def to_frame(self) -> pd.DataFrame:
        """Return a tidy table: one row per record × weight × statistic.

        Returns:
            DataFrame with columns record, epoch, step, layer, weight, path, statistic, value and
            missing: why there is no value, as `GradientHistory.missing`; "" if there is one, which
            may be NaN.
        """
        columns = zip(*((w.layer, w.name, w.path) for w in self.weights), strict=True)
        named = dict(zip(("layer", "weight", "path"), columns, strict=True))
        table = self._tidy(named, {name: self[name] for name in self.statistics})
        why = {True: self.missing.ravel(), False: np.full(self.missing.size, "", dtype=object)}
        table["missing"] = np.concatenate([why[needs_gradient(name)] for name in self.statistics])
        return table

    def activations_to_frame(self) -> pd.DataFrame:
        """Return a tidy table of the activations: one row per record × output × statistic.

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
            epoch: the record's epoch, from 1; 0 for the state before training.
            step: the record's last training step, not before that of the previous record.
            values: for each of `self.statistics`, one number per weight.
            logs: loss, metrics and other numbers; their names may differ from record to record.
            layer_values: one number per layer for statistics whose layer value does not follow from
                the values of its weights (the number of non-finite steps); the same statistics in
                every record.
            activations: for each statistic of layer outputs, one number per output.
            distributions: integers, (weights, 256), see `GradientHistory.distributions`.

        Raises:
            ValueError: if a statistic is missing, unknown or of the wrong length, a log is not a
                number, distributions are not counts, or epoch or step decreases.
        """
        last = self._records[-1] if self._records else None
        layer_names = last["layer_values"] if last else layer_values or {}
        record: dict[str, Any] = {
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
            counts = checked_counts(distributions, len(self.weights))
            record["distributions"] = pack_counts(counts)
        names = {
            group: all_names | dict.fromkeys(record[group])
            for group, all_names in self._names.items()
        }
        for group, all_names in names.items():
            if len(all_names) > MOST_NAMES:  # each is a column over all records
                raise ValueError(
                    f"{group} must have at most {MOST_NAMES} names in all records, "
                    f"received {len(all_names)}"
                )
        self._names = names
        self._records.append(record)

    def resume(
        self, epoch: int, step: int, metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Note that training resumed, in another process perhaps.

        Records of later epochs are removed: training resumed from weights that were saved before
        them, and repeats these epochs. Each call adds its arguments to `metadata["resumed"]`.

        Args:
            epoch: number of epochs that the resumed training had done.
            step: number of steps that it had done.
            metadata: what differs from the history's metadata since then.

        Returns:
            The line of a journal that says so.

        Raises:
            ValueError: if epoch or step is not an integer of at least 0, or step is before the last
                record that stays.
        """
        epoch = _checked_time("epoch", epoch, 0)
        while self._records and self._records[-1]["epoch"] > epoch:
            self._records.pop()
        last = self._records[-1] if self._records else None
        resumption = {
            "epoch": epoch,
            "step": _checked_time("step", step, last["step"] if last else 0),
            "metadata": dict(metadata or {}),
        }
        if not isinstance(self.metadata.get("resumed"), list):
            self.metadata["resumed"] = []
        self.metadata["resumed"].append(resumption)
        return {"resumed": resumption}

    def header(self) -> dict[str, Any]:
        """Return the first line of the history's file.

        Raises:
            ValueError: if the metadata are nested too deeply for a file.
        """
        require_shallow("metadata", self.metadata)
        return {
            "format": FORMAT,
            "version": VERSION,
            "weights": [weight._asdict() for weight in self.weights],
            "statistics": self.statistics,
            "outputs": self.outputs,
            "metadata": self.metadata,
        }

    def record(self, index: int) -> dict[str, Any]:
        """Return one record, as one line of the history's file."""
        return self._records[index]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole history as JSON Lines; `path` is replaced only once that is complete.

        Raises:
            OSError: if the file cannot be written; an existing file is then unchanged.
        """
        require_path("path", path)
        with written_whole(path) as draft, LineWriter(draft) as file:
            for line in [self.header(), *self._records]:
                file.write(line)

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        return b"".join(map(line_of, [self.header(), *self._records]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a saved history or a journal; a torn last line is ignored.

        Of a journal that was continued the records are read that were not superseded, see `resume`.
        Nothing in the file is executed or unpickled.

        Raises:
            OSError: if the file cannot be read.
            TypeError: if `path` is no path.
            ValueError: if a line is malformed; names the file, the line and what was expected.
        """
        require_path("path", path)
        number, line = 1, b""
        try:
            lines = read_lines(path)
            line = next(lines, b"{}")
            history = cls.from_header(line)
            number = 2
            for line in lines:
                history.append_line(line)
                number += 1
        except ValueError as error:
            received = "" if is_object(line) else f", received {line[:60]!r}"
            raise ValueError(f"{os.fspath(path)}, line {number}: {error}{received}") from error
        return history

    @classmethod
    def from_header(cls, line: bytes) -> Self:
        """Return the history, without records, that a file's first line describes.

        Raises:
            ValueError: if the line is not the header of a history.
        """
        header = decode_header(line)
        weights = [Weight(*msgspec.structs.astuple(weight)) for weight in header.weights]
        return cls(weights, header.statistics, header.metadata, outputs=header.outputs)

    def append_line(self, line: bytes) -> None:
        """Add the record, or note the resumption, that a line of a file describes.

        Raises:
            ValueError: if the line is neither a record of this history nor a resumption.
        """
        resumption = decode_resumption(line)
        if resumption is None:
            self.append(**decode_record(line))
        else:
            self.resume(**resumption)

    @property
    def _counts_updates(self) -> bool:
        return {"updates", "gradients_present"} <= set(self.statistics)

    def _stacked(self, group: str, name: str, width: int) -> np.ndarray:
        if name not in self.statistics:
            raise KeyError(
                f"statistic {name!r} was not recorded; recorded were {', '.join(self.statistics)}"
            )
        rows = [record[group][name] for record in self._records]
        return np.array(rows, dtype=np.float64).reshape(len(rows), width)

    def _gathered(self, group: str, width: int) -> dict[str, np.ndarray]:
        """Return a table (records, width) per name; NaN for records without that name."""
        tables = {name: np.full((len(self), width), np.nan) for name in self._names[group]}
        for i, record in enumerate(self._records):
            for name, row in record[group].items():
                tables[name][i] = row
        return tables

    def _tidy(
        self, named: Mapping[str, Sequence[str]], tables: Mapping[str, np.ndarray]
    ) -> pd.DataFrame:
        """Return one row per number of each table (records, n); `named` has columns of n names."""
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
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"each {what} must be unique, received {twice!r} more than once")


def _checked_time(name: str, number: Any, least: int) -> int:
    """Return an epoch or a step as int.

    Raises:
        ValueError: if it is not an integer, is below `least` or does not fit into int64.
    """
    if require_integer(name, number, least) >= 2**63:
        raise ValueError(f"{name} must be below 2**63, received {number!r:.40}")
    return int(number)


def _checked_rows(
    group: str, given: Mapping[str, Any], width: int, wanted: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the numbers of every name: float64, (width,).

    Args:
        group: the argument, for the error.
        given: name → numbers.
        width: length of each row.
        wanted: the names that must be present, and no others; None for any names.

    Raises:
        ValueError: if a name is missing, unknown or not a string, or a row is not `width` numbers.
    """
    _require_text(group, given)
    if wanted is not None and set(given) != set(wanted):
        raise ValueError(f"{group} must name {sorted(wanted)}, received {sorted(given)!r:.200}")
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
    """Return the number of every name.

    Raises:
        ValueError: if a name is not a string, or a value is not a number.
    """
    _require_text("logs", given)
    logs = {}
    for name, value in given.items():
        row = numbers([value], 1)
        if row is None:
            raise ValueError(f"logs[{name!r}] must be a number, received {value!r:.80}")
        logs[name] = float(row[0])
    return logs


def _require_text(group: str, names: Iterable[Any]) -> None:
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{group} must have strings as names, received {list(names)!r:.80}")


def require_history(argument: str, history: Any) -> None:
    """Raise unless `history` is a `GradientHistory` with at least one record."""
    refuse_tracker(argument, history)
    if not isinstance(history, GradientHistory):
        raise TypeError(
            f"{argument} must be a GradientHistory, received {type(history).__name__}: pass "
            "tracker.history, the result of train_and_track_gradients, or "
            "GradientHistory.load(path)"
        )
    if not len(history):
        raise ValueError(
            f"{argument} must have at least one record, received none: train for an epoch or "
            "measure once"
        )


def refuse_tracker(argument: str, given: Any) -> None:
    """Raise if an object holds a history, as a `GradientTracker` does, instead of being one."""
    # The type is asked, because a tracker that has not tracked yet raises another error.
    if hasattr(type(given), "history"):
        raise TypeError(
            f"{argument} must be a GradientHistory, received a {type(given).__name__}, which holds "
            "one: pass tracker.history"
        )


def load_runs(paths: Iterable[str | os.PathLike[str]]) -> dict[Path, GradientHistory]:
    """Load history files, and all .jsonl files of the folders among the paths, or their sweep's.

    Files without a record in a folder are left out: their run was stopped before its first record.

    Returns:
        File → history, in order.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is malformed, or a path has no recorded run.
    """
    histories: dict[Path, GradientHistory] = {}
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            files = sorted(path.glob("*.jsonl")) or sorted(path.glob("runs/*/*.jsonl"))
        loaded = {file: GradientHistory.load(file) for file in files}
        recorded = {file: history for file, history in loaded.items() if len(history)}
        if not recorded:
            raise ValueError(f"no recorded run (.jsonl with at least one record) in {str(path)!r}")
        histories |= recorded
    return histories
