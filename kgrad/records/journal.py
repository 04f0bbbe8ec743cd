"""A history's file that grows: `Journal` reads it, each line once; `JournalWriter` writes it."""

import copy
import errno
import io
import mmap
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary, finalize

from kgrad.records.files import MOST_LINE_BYTES, LineWriter, is_object
from kgrad.records.history import GradientHistory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

JournalMode = Literal["refuse", "continue", "replace"]
JOURNAL_MODES = ("refuse", "continue", "replace")

# The writers of this process, by the device and the number of their file.
_OPEN: "WeakValueDictionary[tuple[int, int], JournalWriter]" = WeakValueDictionary()

# A call reads at most this many bytes, so that it takes seconds at most; the next one continues.
_MOST_BYTES = MOST_LINE_BYTES // 2


class Journal:
    """A reader that follows a journal or a saved history.

    Nothing in the file is executed or unpickled. A file that was replaced or became shorter is read
    from its beginning.

    Args:
        path: the file; it need not exist yet.

    Attributes:
        path: the file, see above.
        history: the records read so far; None before there is a header.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file_id: tuple[int, int] | None = None
        self._start_anew()

    def _start_anew(self) -> None:
        self.history: GradientHistory | None = None
        self._offset, self._lines = 0, 0
        self._rest = b""

    def read(self) -> int:
        """Read the lines that were finished since the last call.

        Returns:
            The number of new records; 0 if the file does not exist.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is not a history; names the file, the line and what was expected.
        """
        if not self.path.exists():
            return 0
        if not self.path.is_file():  # a device or a pipe may never end
            raise ValueError(f"{self.path.name} is not a file")
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            found = (status.st_dev, status.st_ino)
            if found != self._file_id or status.st_size < self._offset:
                self._start_anew()
                self._file_id = found
            file.seek(self._offset)
            # An unfinished line is read again: a writer that continues the file removes a torn one.
            given = file.read(len(self._rest) + _MOST_BYTES)
        *lines, self._rest = given.split(b"\n")
        self._offset += len(given) - len(self._rest)
        if len(self._rest) > 2 * _MOST_BYTES:
            raise ValueError(f"{self.path.name} is no history: line {self._lines + 1} never ends")
        return sum(self._take(line) for line in lines)

    def finish(self) -> int:
        """Read the rest of the file, including a last line whose newline an editor removed.

        Returns:
            The number of new records.

        Raises:
            OSError, ValueError: as `read`.
        """
        count, before = self.read(), (-1, -1)
        while before != (self._offset, len(self._rest)):
            before = self._offset, len(self._rest)
            count += self.read()
        if not is_object(self._rest):  # torn, or empty
            return count
        line, self._rest = self._rest, b""
        return count + self._take(line)

    def _take(self, line: bytes) -> int:
        """Add a line to the history and return 1 for a record, otherwise 0."""
        self._lines += 1
        try:
            if self.history is None:
                self.history = GradientHistory.from_header(line)
                return 0
            before = len(self.history)
            self.history.append_line(line)
            if len(self.history) <= before:  # training resumed
                # Another object: what was made of the superseded records is out of date.
                self.history = copy.copy(self.history)
                return 0
        except ValueError as error:
            # The error does not quote a line that is not JSON: the file may be anything.
            raise ValueError(
                f"{self.path.name} is no history, line {self._lines}: {error}"
            ) from error
        return 1


class JournalWriter(LineWriter):
    """Writes a history to a file, record by record, while training runs.

    One writer at a time has the file, in this process or another.

    Args:
        path: the file.
        mode: what to do with a file that holds records: "refuse" continues it if the training
            resumes, otherwise raises; "continue" appends to it; "replace" overwrites it.
        initial_epoch: number of epochs that the training had done before; 0 if it does not resume.
        owner: what is trained. A file that a writer with another owner has in this process is
            taken from it: its training ended with an exception, without closing the file.

    Attributes:
        path: the file, see above.
        recorded: the history in the file, which `begin` continues; None to begin a new one.
        is_taken: whether another writer took the file.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if another writer has the file, if it is no history and must not be replaced, or
            if the mode refuses it. The file is then as it was.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: JournalMode = "refuse",
        initial_epoch: int = 0,
        owner: Any = None,
    ) -> None:
        self.path, self._initial_epoch, self._owner = Path(path), initial_epoch, owner
        self.is_taken = False
        self._written = -1  # records of the history that the file has; -1 without a header
        self._failed: OSError | None = None  # since the last time that everything was written
        self._open()
        try:
            self.recorded = None if mode == "replace" else self._found(mode)
        except BaseException:
            self.close()
            raise

    def begin(
        self, history: GradientHistory, steps_per_epoch: int | None = None
    ) -> GradientHistory:
        """Write the header of a history, or continue the recorded one.

        Args:
            history: a history without records.
            steps_per_epoch: number of steps of an epoch, None if unknown: it counts the steps that
                were made after the last record.

        Returns:
            The history to append to: the given or the recorded one.

        Raises:
            OSError: if the file cannot be written.
            ValueError: if the recorded history is of other weights, or has other statistics.
        """
        recorded = self.recorded
        if recorded is None:
            if self._identity()[2]:  # a pipe, for example, cannot be truncated
                self._file.truncate(0)
            self._write_missing(history)
            return history
        _require_same_columns(self.path, recorded, history)
        self._mend()
        epoch = self._initial_epoch or int(recorded.epochs[-1])
        before = recorded.steps[recorded.epochs <= epoch]
        step = int(before[-1]) if len(before) else 0
        whole = recorded.metadata.get("every") == "epoch" and epoch in recorded.epochs
        if self._initial_epoch and steps_per_epoch and not whole:
            step = max(step, self._initial_epoch * steps_per_epoch)
        changed = {
            name: value
            for name, value in history.metadata.items()
            if name != "graph" and recorded.metadata.get(name) != value
        }
        self.write(recorded.resume(epoch, step, changed))
        self._written = len(recorded)
        return recorded

    def write_records(self, history: GradientHistory) -> None:
        """Write the records that the file does not have yet.

        A file that can no longer be written, on a full disk or in a folder that was removed, does
        not end the training: a warning says so once, and every later call tries again to write all
        that is missing.

        Args:
            history: the history that `begin` returned, with more records.

        Raises:
            ValueError: if another writer took the file.
        """
        self._require_not_taken()
        try:
            if self._is_removed():
                self._make_again()
            elif self._failed is not None:
                self._mend(complete=False)  # a line without its newline is not counted as written
            self._write_missing(history)
            self._failed = None
        except OSError as error:
            if self._failed is None:
                warnings.warn(
                    f"journal {str(self.path)!r} cannot be written ({error}): training goes on, "
                    "the history keeps all records, and each new record tries again",
                    stacklevel=2,
                )
            self._failed = error

    def finish(self, history: GradientHistory) -> None:
        """Close the file, after a last try to write what is missing.

        Args:
            history: as in `write_records`.
        """
        if self._failed is not None and not self.is_taken:
            self.write_records(history)
            if self._failed is not None:
                warnings.warn(
                    f"journal {str(self.path)!r} has {max(self._written, 0)} of {len(history)} "
                    f"records, because it cannot be written ({self._failed}): history.save(path) "
                    "writes all to another file",
                    stacklevel=2,
                )
        self.close()

    def reopen(self, history: GradientHistory) -> None:
        """Continue with the file after `close`.

        Args:
            history: what the file holds; it is written again if the file is gone.

        Raises:
            OSError: if the file cannot be written.
            ValueError: if another writer has the file or has changed it.
        """
        is_gone = not self.path.exists()
        self._open()
        if is_gone:
            self._written = -1
        elif self._identity() != self._left:
            self.close()
            raise ValueError(
                f"journal {str(self.path)!r} was changed since this tracker last wrote to it: name "
                "another file"
            )
        self._mend(complete=self._failed is None)
        self.write_records(history)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if not self._file.closed:
            self._left = self._identity()
        super().close()

    def write(self, content: Mapping[str, Any]) -> None:
        """Write one object as one line.

        Raises:
            OSError: if the line cannot be written.
            ValueError: if another writer took the file.
        """
        self._require_not_taken()
        super().write(content)

    def _require_not_taken(self) -> None:
        if self.is_taken:
            raise ValueError(
                f"journal {str(self.path)!r} is being written by another tracker: give each a file "
                "of its own"
            )

    def _open(self) -> None:
        """Open the file to append to it, so that no other writer has it."""
        file = io.FileIO(self.path, "a")
        status = os.fstat(file.fileno())
        key = status.st_dev, status.st_ino
        holder = _OPEN.get(key)
        if holder is not None and holder._owner is not self._owner:
            holder.close()
            holder.is_taken = True
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise ValueError(
                    f"journal {str(self.path)!r} is being written by another tracker: give each a "
                    "file of its own"
                ) from None
            except OSError:  # a file system without locks
                pass
        self._file, _OPEN[key] = file, self
        finalize(self, file.close)  # a fit that an exception ended does not close it

    def _write_missing(self, history: GradientHistory) -> None:
        """Write the header and the records of a history that the file does not have yet."""
        while self._written < len(history):
            content = history.header() if self._written < 0 else history.record(self._written)
            self.write(content)
            self._written += 1

    def _is_removed(self) -> bool:
        return os.fstat(self._file.fileno()).st_nlink == 0

    def _make_again(self) -> None:
        """Open a new file in the place of one that was removed."""
        if self.path.exists():
            raise FileExistsError(errno.EEXIST, "another file has its name", str(self.path))
        removed, (device, number, _) = self._file, self._identity()
        self._open()
        removed.close()
        _OPEN.pop((device, number), None)  # another file may get the number
        self._written = -1

    def _found(self, mode: JournalMode) -> GradientHistory | None:
        """Return the history in the file if it has records."""
        if not self.path.stat().st_size:
            return None
        try:
            recorded = GradientHistory.load(self.path)
        except ValueError as error:
            raise ValueError(
                f"journal must name a new file or a recorded history, received another file "
                f"({error}): name a new one, or pass journal_mode='replace' to overwrite this one"
            ) from error
        if not len(recorded):
            return None
        if mode == "refuse" and not self._initial_epoch:
            raise ValueError(
                f"journal {str(self.path)!r} already has {len(recorded)} records: name another "
                "file, or pass journal_mode='continue' to append to it or 'replace' to overwrite it"
            )
        return recorded

    def _mend(self, complete: bool = True) -> None:
        """Complete or remove a last line without a newline."""
        with self.path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                end = content.rfind(b"\n") + 1
                rest = content[end:]
        if complete and is_object(rest):  # an editor removed the newline
            self._file.write(b"\n")
        elif rest:
            self._file.truncate(end)

    def _identity(self) -> tuple[int, int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_dev, status.st_ino, status.st_size


def _require_same_columns(path: Path, recorded: GradientHistory, history: GradientHistory) -> None:
    """Raise unless the records of a history fit into the recorded one."""
    for what, names_of, alike in (
        ("weights", lambda one: [f"{w.path} {w.shape}" for w in one.weights], _weight_places),
        ("statistics", lambda one: one.statistics, lambda one: sorted(one.statistics)),
        ("probed layers", lambda one: one.outputs, lambda one: [*map(_unnumbered, one.outputs)]),
    ):
        if alike(recorded) != alike(history):
            there, here = names_of(recorded), names_of(history)
            only_there = ", ".join(name for name in there if name not in here) or "none"
            only_here = ", ".join(name for name in here if name not in there) or "none"
            raise ValueError(
                f"journal {str(path)!r} can be continued only with the same {what}: only the file "
                f"has {only_there:.200}, only this training has {only_here:.200}; name another "
                "file, or pass journal_mode='replace'"
            )


def _weight_places(history: GradientHistory) -> list[tuple[Any, ...]]:
    """Describe weights by what they have in common in different processes.

    Keras numbers layers without a name of their own in the order in which a process makes them.
    """
    graph = history.metadata.get("graph")
    nodes = graph.get("nodes") if isinstance(graph, dict) else None
    names: list[Any] = []
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict):
            names += node.get("layers") or [node.get("id")]
    return [
        (
            _unnumbered(weight.path),
            weight.shape,
            names.index(weight.layer) if weight.layer in names else _unnumbered(weight.layer),
            history.layers.index(weight.layer),
        )
        for weight in history.weights
    ]


def _unnumbered(name: str) -> str:
    """Return a name or path without the numbers that make its parts unique."""
    return re.sub(r"(_\d+)?( \(\d+\))?(?=/|$)", "", name)
