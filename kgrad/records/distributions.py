"""Distributions of a gradient's entries: counts of their float32 exponents.

An exponent is one shift of an entry's bits and needs no range chosen in advance. The counts add up
exactly over weights, layers, steps and replicas. A bin is a factor of 2, or 0.3 decades, wide.
"""

from typing import Annotated, Any

import msgspec
import numpy as np

BINS = 256
# Bin b holds |g| from LOG10_EDGES[b] to below LOG10_EDGES[b + 1]. Two bins are special: bin 0, from
# minus infinity, holds zeros and values below float32's normal range; bin 255, to infinity, holds
# infinities and NaN.
LOG10_EDGES = np.concatenate([[-np.inf], np.arange(-126, 129) * np.log10(2), [np.inf]])
LOG10_EDGES.setflags(write=False)

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class PackedCounts(msgspec.Struct, forbid_unknown_fields=True):
    """A record's counts in a file, see `pack_counts`; all lists are empty if there are none."""

    zeros: list[_Count] = []
    first: list[_Count] = []
    counts: list[list[_Count]] = []
    nonfinite: list[_Count] = []

    def __post_init__(self) -> None:
        lengths = {len(column) for column in msgspec.structs.astuple(self)}
        if len(lengths) > 1:
            raise ValueError(
                "expected distributions with zeros, first, counts and nonfinite, each with one "
                "entry per weight"
            )
        for first, kept in zip(self.first, self.counts, strict=True):
            if not 1 <= first <= BINS - 1 - len(kept):
                raise ValueError(
                    f"expected counts of bins from 1 to {BINS - 2}, received {len(kept)} from "
                    f"bin {first}"
                )


def checked_counts(given: Any, weights: int) -> np.ndarray:
    """Return the counts as an integer array, (weights, 256).

    Raises:
        ValueError: if they are not such counts.
    """
    counts = np.asarray(given)
    if counts.shape != (weights, BINS) or counts.dtype.kind not in "iu" or (counts < 0).any():
        least = f", the least {counts.min()}" if counts.size and counts.dtype.kind in "if" else ""
        raise ValueError(
            f"distributions must be counts of shape ({weights}, {BINS}), "
            f"received {counts.dtype} of shape {counts.shape}{least}"
        )
    return counts


def pack_counts(counts: np.ndarray) -> dict[str, Any]:
    """Drop the empty bins around the counts; this form is kept in memory and on disk.

    Args:
        counts: integers, (weights, 256).

    Returns:
        For each weight: `zeros`, the count of bin 0; `counts`, from the first to the last of bins 1
        to 254 that is not empty; `first`, the number of that first bin, or 1 if there is none; and
        `nonfinite`, the count of bin 255.

    Example:
        >>> counts = np.zeros((1, 256), int)
        >>> counts[0, [0, 120, 122]] = 5, 3, 4
        >>> pack_counts(counts)["first"], pack_counts(counts)["counts"]
        ([120], [array([3, 0, 4], dtype=uint8)])
    """
    counts = counts.astype(np.min_scalar_type(counts.max(initial=0)))  # a long run keeps millions
    first, kept = [], []
    for row in counts:
        filled = np.flatnonzero(row[1:-1]) + 1
        start, stop = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (1, 1)
        first.append(start)
        kept.append(row[start:stop].copy())
    zeros, nonfinite = counts[:, 0].copy(), counts[:, -1].copy()
    return {"zeros": zeros, "first": first, "counts": kept, "nonfinite": nonfinite}


def unpack_counts(content: dict[str, Any]) -> np.ndarray:
    """Undo `pack_counts`: int64, (weights, 256)."""
    counts = np.zeros((len(content["first"]), BINS), dtype=np.int64)
    counts[:, 0] = content["zeros"]
    counts[:, -1] = content["nonfinite"]
    for row, first, kept in zip(counts, content["first"], content["counts"], strict=True):
        row[first : first + len(kept)] = kept
    return counts
