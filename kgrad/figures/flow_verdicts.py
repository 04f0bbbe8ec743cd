"""What a gradient's norm is next to a threshold, and what the norms mean where they are special."""

import math
from collections.abc import Iterable
from typing import Literal

Verdict = Literal["above", "below", "zero", "NaN", "infinite", "not measured"]


def limit_of(norms: Iterable[float | None], threshold: float, relative: bool) -> float:
    """The norm up to which a gradient counts as small.

    Args:
        norms: of all edges.
        threshold: a norm, or with `relative` a share of the largest finite one of `norms`.
        relative: see `threshold`.

    Raises:
        ValueError: if the threshold is no finite number of at least 0, or as a share above 1.
    """
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold < (math.inf if not relative else 1 + 1e-12):
        accepted = "a share from 0 to 1" if relative else "a finite number of at least 0"
        raise ValueError(f"threshold must be {accepted}, received {threshold!r}")
    if not relative:
        return float(threshold)
    return threshold * max((n for n in norms if n is not None and math.isfinite(n)), default=0.0)


def verdict_of(norm: float | None, limit: float) -> Verdict:
    """Which of its looks an edge has: small is what is at or below the limit."""
    if norm is None:
        return "not measured"
    if math.isnan(norm):
        return "NaN"
    if math.isinf(norm):
        return "infinite"
    if norm == 0:
        return "zero"
    return "above" if norm > limit else "below"
