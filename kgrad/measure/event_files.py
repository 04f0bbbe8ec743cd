"""`TensorBoardWriter`: gradient records as event files, which TensorBoard shows.

An event file is a TFRecord file of `Event` protocol buffers; the package `tensorboard` has both and
needs no backend. Its own writer hands events to a thread, which would report a full disk late, and
`tf.summary` can be turned off by other code: while Keras's own TensorBoard callback does so, events
would be lost silently.
"""

import io
import itertools
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kgrad.records.distributions import LOG10_EDGES
from kgrad.records.files import write_whole
from kgrad.records.requirements import how_to_install

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util.tensor_util import make_tensor_proto
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"log_dir needs tensorboard: {how_to_install('tensorboard')}", name=error.name
    ) from error


def _metadata(plugin: str, description: str = "") -> SummaryMetadata:
    metadata = SummaryMetadata(summary_description=description)
    metadata.plugin_data.plugin_name = plugin
    return metadata


_SCALAR = _metadata("scalars")
_HISTOGRAM = _metadata(
    "histograms",
    "log10 of the magnitude of each entry. Entries that are 0 or below 2^-126, NaN or infinite "
    "are left out.",
)
_numbers = itertools.count()


class TensorBoardWriter:
    """Writes scalars and histograms that TensorBoard shows.

    Each call writes one event to an unbuffered file: a killed process leaves all events that it
    finished, followed by at most one incomplete event, which TensorBoard ignores.

    Args:
        log_dir: folder for a new event file; created if it does not exist. For TensorBoard a folder
            is a run: give each run its own.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if the folder is not on a disk of this machine.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._log_dir = os.fspath(log_dir)
        if re.match(r"[a-z][a-z0-9]+:/", self._log_dir):  # not C:/ of Windows
            raise ValueError(
                f"log_dir must be a folder on this machine, received {self._log_dir!r}: write to "
                "a local folder and copy it there"
            )
        # TensorBoard reads files with "tfevents" in their names, in the order of the names.
        name = (
            f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
            f".{os.getpid()}.{next(_numbers)}"
        )
        with self._os_errors():
            Path(self._log_dir).mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(Path(self._log_dir, name), "w")
        self._write(file_version="brain.Event:2")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one number per tag; NaN and infinity are written as they are.

        Args:
            step: training step, the horizontal axis.
            values: tag → number, stored as float32. The part of a tag before the first "/" names
                its section on the page.

        Raises:
            OSError: if the file can no longer be written.
        """
        with np.errstate(over="ignore"):
            # TensorBoard's fast reader skips numbers of other types.
            arrays = {tag: np.array(value, np.float32) for tag, value in values.items()}
        self._write(step=step, summary=_summary(arrays, _SCALAR))

    def exponent_histograms(self, step: int, counts: Mapping[str, np.ndarray]) -> None:
        """Write the distribution of log10 |g| over the entries g of a gradient.

        Bins 1 to 254 of the counts are written. Bin 0 is left out: at -38 on the axis it would
        squeeze the others, because TensorBoard draws 30 bars over the whole range.

        Args:
            step: training step.
            counts: tag → (256,) int, number of entries by the exponent field of their float32. Bin
                0 counts entries that are 0 or below 2**-126, bin b = 1 to 254 those in
                [2**(b - 127), 2**(b - 126)), bin 255 NaN and infinity. A tag with entries in bins 0
                and 255 only is not written.

        Raises:
            OSError: if the file can no longer be written.
        """
        arrays = {tag: _buckets(bins) for tag, bins in counts.items() if np.any(bins[1:-1])}
        self._write(step=step, summary=_summary(arrays, _HISTOGRAM))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._os_errors():
            self._file.close()

    def _write(self, **content: int | str | Summary) -> None:
        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **content).SerializeToString())
        with self._os_errors():
            write_whole(self._file, record.getvalue())

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"log_dir must be a folder that can be written, received {self._log_dir!r}: "
                f"{error.strerror}"
            ) from error


def _buckets(counts: np.ndarray) -> np.ndarray:
    """Return (left edge, right edge, count) of the bins from the first to the last filled one."""
    rows = np.stack([LOG10_EDGES[:-1], LOG10_EDGES[1:], counts], axis=1)[1:-1]
    filled = np.flatnonzero(rows[:, 2])
    return rows[filled[0] : filled[-1] + 1]


def _summary(arrays: Mapping[str, np.ndarray], metadata: SummaryMetadata) -> Summary:
    return Summary(
        value=[
            Summary.Value(tag=tag, tensor=make_tensor_proto(array), metadata=metadata)
            for tag, array in arrays.items()
        ]
    )
