"""A history's file in JSON Lines: a header, then one line per record.

A journal that was continued also has a line per continuation: after which epoch training resumed.
Records of later epochs that stand before it are superseded: training repeated them.

Lines are written whole, one at a time, so that a file can grow while training runs and can be read
after a crash. Standard JSON has no NaN and no infinity; here the strings "NaN", "Infinity" and
"-Infinity" stand for them, so that any JSON reader can open a file.
"""

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from typing_extensions import Self

from kgrad.records.checks import require_shallow
from kgrad.records.distributions import PackedCounts, unpack_counts

FORMAT = "kgrad-history"
VERSION = 1
NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_T = TypeVar("_T")

# A file from somebody else must not fill the memory or take minutes to read. Training stays far
# below these limits.
MOST_LINE_BYTES = 64_000_000
MOST_PARTS = 100_000  # weights, outputs, nodes or edges of a model
MOST_NAMES = 5_000  # logs or statistics of a history
MOST_ENTRIES = 2**53  # of a weight; float64 represents every integer up to here


class LineWriter:
    """A file that grows by whole lines.

    Each line is one `write` to an unbuffered file: a killed process leaves every line that it
    finished, and at most one torn line after them.

    Args:
        path: file to write; an existing one is replaced.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = io.FileIO(path, "w")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, content: Mapping[str, Any]) -> None:
        """Write one object as `line_of` returns it.

        Raises:
            OSError: if the line cannot be written.
            ValueError: as `line_of`.
        """
        line = line_of(content)
        try:
            write_whole(self._file, line)
        except OSError as error:
            error.filename = os.fspath(self._file.name)
            raise

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._file.close()


def line_of(content: Mapping[str, Any]) -> bytes:
    """Return one object as one line; NumPy arrays and numbers become JSON arrays and numbers.

    Raises:
        ValueError: if a text has half a surrogate pair, which could not be read back.
    """
    line = json.dumps(to_json(content), allow_nan=False).encode() + b"\n"
    if b"\\ud" in line:
        _require_whole_characters(line)
    return line


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a draft beside a file, which takes the file's place when the block ends.

    An error in the block, or a kill at any moment, leaves the file as it was. The draft has another
    ending, so that nothing takes it for the file. What is no regular file, such as a pipe, is its
    own draft. An OSError names the file.
    """
    if Path(path).exists() and not Path(path).is_file():
        yield Path(path)
        return
    place = Path(os.path.realpath(path))  # of a link, which stays one
    draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        yield draft
        with draft.open("r+b") as file:  # Windows flushes only files that may be written
            os.fsync(file.fileno())
        os.replace(draft, place)
    except OSError as error:  # a write to an open file names no file
        if error.filename in (None, draft, str(draft)):
            error.filename = os.fspath(path)
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_whole(file: io.FileIO, content: bytes) -> None:
    """Write all bytes to an unbuffered file, or raise OSError."""
    rest = memoryview(content)
    while rest:  # a raw write may take only a part, on a disk that is nearly full
        rest = rest[file.write(rest) :]


def read_lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Read a file line by line, without newlines and without a torn last line.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if a line is longer than any that training writes.
    """
    with Path(path).open("rb") as file:
        while line := file.readline(MOST_LINE_BYTES + 1):
            if len(line) > MOST_LINE_BYTES:
                raise ValueError(f"expected a line of at most {MOST_LINE_BYTES:,} bytes")
            if line.endswith(b"\n"):
                yield line[:-1]
            # An editor may have removed the last newline; otherwise the line was cut off.
            elif is_object(line):
                yield line


def is_object(line: bytes) -> bool:
    """Return whether a line is a JSON object."""
    try:
        _OBJECT.decode(line)
    except RecursionError:  # something in an object is nested too deeply
        return True
    except ValueError:
        return False
    return True


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Format(msgspec.Struct):
    format: str = ""
    version: int | str | None = None


_Length = Annotated[int, msgspec.Meta(ge=0, le=MOST_ENTRIES)]


class _WeightLine(msgspec.Struct):
    """A weight as the header describes it: the fields of `Weight`."""

    layer: str
    name: str
    path: str
    shape: Annotated[tuple[_Length, ...], msgspec.Meta(max_length=64)]

    def __post_init__(self) -> None:
        if math.prod(self.shape) > MOST_ENTRIES:
            raise ValueError(f"expected a weight of at most {MOST_ENTRIES} entries")


class Header(msgspec.Struct):
    """The first line of a history's file."""

    weights: Annotated[list[_WeightLine], msgspec.Meta(max_length=MOST_PARTS)]
    statistics: Annotated[list[str], msgspec.Meta(max_length=MOST_NAMES)]
    outputs: Annotated[list[str], msgspec.Meta(max_length=MOST_PARTS)]
    metadata: dict[str, Any]


# `append` checks a row's length and strings: its error names the statistic.
_Rows = Annotated[dict[str, list[float | str]], msgspec.Meta(max_length=MOST_NAMES)]


class _Resumption(msgspec.Struct, forbid_unknown_fields=True):
    epoch: Annotated[int, msgspec.Meta(ge=0)]
    step: Annotated[int, msgspec.Meta(ge=0)]
    metadata: dict[str, Any]


class _ResumptionLine(msgspec.Struct, forbid_unknown_fields=True):
    resumed: _Resumption


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    epoch: int
    step: int
    values: _Rows
    layer_values: _Rows
    logs: Annotated[dict[str, float | str], msgspec.Meta(max_length=MOST_NAMES)]
    activations: _Rows
    distributions: PackedCounts


_FORMAT = msgspec.json.Decoder(_Format)
_HEADER = msgspec.json.Decoder(Header)
_RECORD = msgspec.json.Decoder(_Record)
_RESUMPTION = msgspec.json.Decoder(_ResumptionLine)


def decode_header(line: bytes) -> Header:
    """Read a file's first line.

    Raises:
        ValueError: if it is not the header of a history, or of another version.
    """
    found = _decode(_FORMAT, line, "a header")
    if found.format != FORMAT:
        raise ValueError(f'expected a header with "format": "{FORMAT}"')
    if found.version != VERSION:
        raise ValueError(
            f"expected format version {VERSION}, received {found.version!r:.40}: "
            "read the file with the kgrad that wrote it"
        )
    expected = "weights (each with layer, name, path, shape), statistics, outputs and metadata"
    header = _decode(_HEADER, line, expected)
    require_shallow("metadata", header.metadata)
    return header


def decode_record(line: bytes) -> dict[str, Any]:
    """Read a line after the header as the arguments of `GradientHistory.append`.

    Raises:
        ValueError: if it is not a record.
    """
    record = _decode(_RECORD, line, f"a record with {', '.join(_Record.__struct_fields__)}")
    packed = msgspec.structs.asdict(record.distributions)
    return msgspec.structs.asdict(record) | {
        "distributions": unpack_counts(packed) if record.distributions.zeros else None
    }


def decode_resumption(line: bytes) -> dict[str, Any] | None:
    """Read a line that says that training resumed as the arguments of `GradientHistory.resume`.

    Returns:
        The arguments, or None if the line begins as a record does.

    Raises:
        ValueError: if it begins as such a line and is none.
    """
    if not line.startswith(b'{"resumed"'):
        return None
    found = _decode(_RESUMPTION, line, "resumed with epoch, step, metadata").resumed
    require_shallow("metadata", found.metadata)
    return msgspec.structs.asdict(found)


def _decode(decoder: msgspec.json.Decoder[_T], line: bytes, expected: str) -> _T:
    try:
        return decoder.decode(line)
    except RecursionError:
        raise ValueError(
            f"expected {expected}, received a value that is nested too deeply"
        ) from None
    except ValueError as error:
        if not is_object(line):
            raise ValueError(f"expected a JSON object ({error})") from None
        raise ValueError(f"expected {expected} ({error})") from None


def numbers(values: Any, width: int) -> np.ndarray | None:
    """Convert a sequence of numbers, in memory or from a file, to float64 of shape (width,).

    Returns:
        The array, or None if `values` is not `width` numbers.
    """
    array = _array(values)
    if array.dtype.kind == "U" and isinstance(values, list | tuple):
        array = _array([NONFINITE.get(v, v) if isinstance(v, str) else v for v in values])
    if array.shape != (width,) or array.dtype.kind not in "fiu":
        return None
    return array.astype(np.float64)


def _array(values: Any) -> np.ndarray:
    try:
        return np.array(values)
    except ValueError:  # ragged
        return np.empty(0, dtype=object)


def number_to_json(number: float) -> float | str:
    """Replace NaN and infinity, which JSON does not have, by their names."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def to_json(value: Any) -> Any:
    """Return a value in the types that JSON has, with names for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and (value.dtype.kind in "iu" or np.isfinite(value).all()):
        return value.tolist()
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return number_to_json(value) if isinstance(value, float) else value


def _require_whole_characters(line: bytes) -> None:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        raise ValueError("texts must be valid Unicode, received half a surrogate pair") from None
