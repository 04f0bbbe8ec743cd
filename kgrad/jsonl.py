"""JSON Lines on disk: whole lines written one at a time, and read back after a crash.

Standard JSON has no NaN and no infinity; here the strings "NaN", "Infinity" and "-Infinity" stand
for them, so that any JSON reader can open a file.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class LineWriter:
    """A file that grows by whole lines.

    Each line is a `write` of its own to an unbuffered file: a killed process leaves every line
    that it finished, and at most one torn line behind them.

    Args:
        path: file to write; an existing one is replaced.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file: BinaryIO = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, content: Mapping[str, Any]) -> None:
        """Write one object as one line; NumPy arrays and numbers are taken as JSON's."""
        line = memoryview(json.dumps(_to_json(content), allow_nan=False).encode() + b"\n")
        while line:  # a raw write may take only a part, on a disk that is nearly full
            line = line[self._file.write(line) :]

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._file.close()


def read_lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Read the objects of a file that `LineWriter` wrote, without a torn last line.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if a finished line is not a JSON object.
    """
    *lines, rest = Path(path).read_bytes().split(b"\n")
    for line in lines:
        content = _parse(line)
        if content is None:
            raise ValueError(f"expected a JSON object, received {line[:60]!r}")
        yield content
    # What follows the last newline was cut off in the writing, unless an editor took the newline.
    content = _parse(rest)
    if content is not None:
        yield content


def numbers(values: Any, width: int) -> np.ndarray | None:
    """Turn a sequence of numbers, as written here or in memory, into float64 of shape (width,).

    Returns:
        The array, or None if `values` is not `width` numbers.
    """
    if isinstance(values, list | tuple):
        values = [_NONFINITE.get(v, v) if isinstance(v, str) else v for v in values]
    try:
        array = np.array(values)
    except ValueError:  # ragged
        return None
    if array.shape != (width,) or array.dtype.kind not in "fiu":
        return None
    return array.astype(np.float64)


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
