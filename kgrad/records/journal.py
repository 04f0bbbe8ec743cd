"""A history's file followed while it grows: only what was appended is read."""

import json
import os
from pathlib import Path
from typing import Any

from kgrad.records.files import header_fields, record_fields
from kgrad.records.history import GradientHistory, Weight

# Read at once; the rest is read the next time.
_MOST_BYTES = 32_000_000


class Journal:
    """Follows a journal or a saved history.

    Nothing in the file is executed or unpickled. A file that is replaced or becomes shorter is read
    anew.

    Args:
        path: the file; it need not exist yet.

    Attributes:
        path: see there.
        history: what was read; None before there is a header.
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
            The number of new records; 0 if the file is not there.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is no history; names the file, the line and what was expected.
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
        """Read all that is there, and a last line whose newline an editor took.

        Returns:
            The number of new records.

        Raises:
            OSError, ValueError: as `read`.
        """
        count, offset = self.read(), -1
        while offset != self._offset:
            offset = self._offset
            count += self.read()
        try:
            json.loads(self._rest)
        except ValueError:  # torn, or nothing
            return count
        line, self._rest = self._rest, b""
        return count + self._take(line)

    def _take(self, line: bytes) -> int:
        """Add a line to the history: 1 for a record, 0 for the header."""
        self._lines += 1
        try:
            content = _object(line)
            if self.history is None:
                fields = header_fields(content)
                fields["weights"] = [Weight(*weight) for weight in fields["weights"]]
                self.history = GradientHistory(**fields)
                return 0
            self.history.append(**record_fields(content))
        except ValueError as error:
            raise ValueError(
                f"{self.path.name} is no history, line {self._lines}: {error}"
            ) from error
        return 1


def _object(line: bytes) -> dict[str, Any]:
    """What a line says. It is not shown: the file may be anything."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content
