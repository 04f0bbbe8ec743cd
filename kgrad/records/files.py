"""The history's file, JSON Lines: whole lines written one at a time, read back after a crash.

The first line is a header, each further line one record.

Standard JSON has no NaN and no infinity; here the strings "NaN", "Infinity" and "-Infinity" stand
for them, so that any JSON reader can open a file.
"""

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from kgrad.records.distributions import is_packed, unpacked

FORMAT = "kgrad-history"
VERSION = 1

_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class LineWriter:
    """A file that grows by whole lines.

    Each line is a `write` of its own to an unbuffered file: a killed process leaves every line
    that it finished, and at most one torn line behind them.

    Args:
        path: file to write; an existing one is replaced.
        append: go on behind what an existing one holds instead.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self._file = io.FileIO(path, "a" if append else "w")

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


def header_fields(line: dict[str, Any]) -> dict[str, Any]:
    """What a file's first line says: weights as (layer, name, path, shape), and other fields.

    Raises:
        ValueError: if it is not the header of a history, or of another version.
    """
    if line.get("format") != FORMAT:
        raise ValueError(f'expected a header with "format": "{FORMAT}"')
    if line.get("version") != VERSION or isinstance(line["version"], bool):
        raise ValueError(
            f"expected format version {VERSION}, received {line.get('version')!r}: "
            "read the file with the kgrad that wrote it"
        )
    try:
        return {
            "weights": [
                (*(_text(w[key]) for key in ("layer", "name", "path")), _sizes(w["shape"]))
                for w in line["weights"]
            ],
            "statistics": [_text(name) for name in _list(line["statistics"])],
            "outputs": [_text(name) for name in _list(line["outputs"])],
            "metadata": dict(line["metadata"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "expected weights (each with layer, name, path, shape), statistics, outputs and "
            f"metadata, received {line!r:.120}"
        ) from error


def record_fields(line: dict[str, Any]) -> dict[str, Any]:
    """What a line behind the header says: the arguments of `GradientHistory.append`.

    Raises:
        ValueError: if it is not a record.
    """
    kinds = dict.fromkeys(("epoch", "step"), int) | dict.fromkeys(
        ("values", "layer_values", "logs", "activations", "distributions"), dict
    )
    # Not isinstance: True is an int to Python.
    if {name: type(value) for name, value in line.items()} != kinds:
        raise ValueError(f"expected a record with {', '.join(kinds)}, received {line!r:.120}")
    distributions = line["distributions"]
    if distributions and not is_packed(distributions):
        raise ValueError(
            "expected distributions with zeros, first, counts and nonfinite, each with one entry "
            f"a weight, received {distributions!r:.120}"
        )
    return line | {"distributions": unpacked(distributions) if distributions else None}


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
    if isinstance(value, np.ndarray) and (value.dtype.kind in "iu" or np.isfinite(value).all()):
        return value.tolist()
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


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _sizes(value: Any) -> tuple[int, ...]:
    if any(
        isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in _list(value)
    ):
        raise TypeError
    return tuple(value)
