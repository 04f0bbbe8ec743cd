"""`TensorBoardWriter`: gradient records as event files, which TensorBoard shows.

TensorBoard need not be installed where a run is recorded. An event file is a TFRecord file of
`Event` protocol buffers, and TensorFlow has both. `tf.summary` writes the same files, but other
code can turn it off: while Keras's own TensorBoard callback does so, events would be lost silently.
"""

import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from kgrad.records.distributions import LOG10_EDGES


def _metadata(plugin: str, description: str = "") -> tf.compat.v1.SummaryMetadata:
    metadata = tf.compat.v1.SummaryMetadata(summary_description=description)
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

    Each call writes one event and flushes it: a killed process leaves all events that it finished,
    followed by at most one incomplete event, which TensorBoard ignores.

    Args:
        log_dir: folder for a new event file; created if it does not exist. For TensorBoard a folder
            is a run: give each run its own.

    Raises:
        OSError: if the folder cannot be written.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._log_dir = os.fspath(log_dir)
        # TensorBoard reads files with "tfevents" in their names, in the order of the names.
        name = (
            f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
            f".{os.getpid()}.{next(_numbers)}"
        )
        with self._os_errors():
            tf.io.gfile.makedirs(self._log_dir)
            # pathlib would remove the second slash of gs://bucket.
            self._file = tf.io.TFRecordWriter(os.path.join(self._log_dir, name))  # noqa: PTH118
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

    def _write(self, **content: int | str | tf.compat.v1.Summary) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **content)
        with self._os_errors():
            self._file.write(event.SerializeToString())
            self._file.flush()

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise OSError(
                f"log_dir must be a folder that can be written, received {self._log_dir!r}: "
                f"{error.message}"
            ) from error


def _buckets(counts: np.ndarray) -> np.ndarray:
    """Return (left edge, right edge, count) of the bins from the first to the last filled one."""
    rows = np.stack([LOG10_EDGES[:-1], LOG10_EDGES[1:], counts], axis=1)[1:-1]
    filled = np.flatnonzero(rows[:, 2])
    return rows[filled[0] : filled[-1] + 1]


def _summary(
    arrays: Mapping[str, np.ndarray], metadata: tf.compat.v1.SummaryMetadata
) -> tf.compat.v1.Summary:
    value = tf.compat.v1.Summary.Value
    return tf.compat.v1.Summary(
        value=[
            value(tag=tag, tensor=tf.make_tensor_proto(array), metadata=metadata)
            for tag, array in arrays.items()
        ]
    )
