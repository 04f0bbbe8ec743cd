"""How the entries of a gradient are distributed: counts of their float32 exponents.

An exponent is one shift of an entry's bits, needs no range chosen beforehand, and its counts add up
exactly over weights, layers, steps and replicas. A bin is a factor of 2, or 0.3 decades, wide.
"""

from typing import Any

import numpy as np

BINS = 256
# Bin b holds |g| from LOG10_EDGES[b] to below LOG10_EDGES[b + 1]. Two bins are special: bin 0, from
# minus infinity, holds zeros and what is below float32's normal range; bin 255, to infinity, holds
# infinities and NaN.
LOG10_EDGES = np.concatenate([[-np.inf], np.arange(-126, 129) * np.log10(2), [np.inf]])
LOG10_EDGES.setflags(write=False)


def checked_counts(given: Any, weights: int) -> np.ndarray:
    """The counts as an integer array, (weights, 256).

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


def packed(counts: np.ndarray) -> dict[str, Any]:
    """The counts without the empty bins around them, as they are kept in memory and on disk.

    Args:
        counts: integers, (weights, 256).

    Returns:
        For each weight: `zeros`, the count of bin 0; `counts`, those from the first to the last
        bin between the special ones that is not empty; `first`, the number of that first bin, 1
        where there is none; and `nonfinite`, the count of bin 255.

    Example:
        >>> counts = np.zeros((1, 256), int)
        >>> counts[0, [0, 120, 122]] = 5, 3, 4
        >>> packed(counts)["first"], packed(counts)["counts"]
        ([120], [array([3, 0, 4], dtype=uint8)])
    """
    counts = counts.astype(np.min_scalar_type(counts.max(initial=0)))  # a long run keeps many
    first, kept = [], []
    for row in counts:
        filled = np.flatnonzero(row[1:-1]) + 1
        start, stop = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (1, 1)
        first.append(start)
        kept.append(row[start:stop].copy())
    zeros, nonfinite = counts[:, 0].copy(), counts[:, -1].copy()
    return {"zeros": zeros, "first": first, "counts": kept, "nonfinite": nonfinite}


def unpacked(content: dict[str, Any]) -> np.ndarray:
    """What `packed` was given: int64, (weights, 256)."""
    counts = np.zeros((len(content["first"]), BINS), dtype=np.int64)
    counts[:, 0] = content["zeros"]
    counts[:, -1] = content["nonfinite"]
    for row, first, kept in zip(counts, content["first"], content["counts"], strict=True):
        row[first : first + len(kept)] = kept
    return counts


def is_packed(content: Any) -> bool:
    """Whether `content`, from a file, is what `packed` returns."""
    names = ("zeros", "first", "counts", "nonfinite")
    if not isinstance(content, dict) or set(content) != set(names):
        return False
    zeros, first, counts, nonfinite = columns = [content[name] for name in names]
    return (
        all(isinstance(column, list) and len(column) == len(first) for column in columns)
        and all(_are_counts(column) for column in (zeros, first, nonfinite, *counts))
        and all(1 <= a <= BINS - 1 - len(kept) for a, kept in zip(first, counts, strict=True))
    )


def _are_counts(values: Any) -> bool:
    # Not isinstance: True is an int to Python. A set, as a long run has millions of counts.
    if not isinstance(values, list) or not {type(value) for value in values} <= {int}:
        return False
    return not values or (min(values) >= 0 and max(values) < 2**63)
