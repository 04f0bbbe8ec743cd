"""`Journal`: reads a history's file while it grows, each byte once."""

import os
from pathlib import Path

from kgrad.records.files import MOST_LINE_BYTES, is_object
from kgrad.records.history import GradientHistory

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
            given = file.read(_MOST_BYTES)
        self._offset += len(given)
        *lines, self._rest = (self._rest + given).split(b"\n")
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
        count, offset = self.read(), -1
        while offset != self._offset:
            offset = self._offset
            count += self.read()
        if not is_object(self._rest):  # torn, or empty
            return count
        line, self._rest = self._rest, b""
        return count + self._take(line)

    def _take(self, line: bytes) -> int:
        """Add a line to the history and return 1 for a record, 0 for the header."""
        self._lines += 1
        try:
            if self.history is None:
                self.history = GradientHistory.from_header(line)
                return 0
            self.history.append_line(line)
        except ValueError as error:
            # The error does not quote a line that is not JSON: the file may be anything.
            raise ValueError(
                f"{self.path.name} is no history, line {self._lines}: {error}"
            ) from error
        return 1
