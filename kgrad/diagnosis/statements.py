"""What rules have in common: since when something holds, and how a finding is stated."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Finding, Measurement, Severity
from kgrad.diagnosis.texts import TEXTS


def first_lasting(
    held: Any,
    values: np.ndarray,
    persistent: float,
    *,
    stays: Any = None,
    after: int = 0,
) -> int | None:
    """The first record in which something held and from which on it persists; None if none.

    Args:
        held: whether it held, (R,).
        values: what it was read from, (R, ...): records without a finite value say nothing.
        persistent: in what share of the records from there on it must hold.
        stays: what must persist, if that is less than must hold at first.
        after: the first record to look at.
    """
    known = np.isfinite(values).any(axis=1)
    stays = held if stays is None else stays
    for r in after + np.flatnonzero(held[after:]):
        if known[r] and stays[r:][known[r:]].mean() >= persistent:
            return int(r)
    return None


def measured(
    e: Evidence, r: int, quantity: str, value: float, threshold: float, layer: str = ""
) -> Measurement:
    """A number at a record, and what it was compared with."""
    return Measurement(quantity, float(value), float(threshold), layer, int(e.epochs[r]))


def fall_of_loss(e: Evidence, threshold: float) -> list[Measurement]:
    """By how much the loss fell, if that is known."""
    if not np.isfinite(e.fall):  # -inf: it ended in NaN, which is told by itself
        return []
    return [measured(e, len(e.epochs) - 1, "share by which the loss fell", e.fall, threshold)]


def layers_of(e: Evidence, mask: np.ndarray) -> list[str]:
    """The layers of the kernels that a mask chooses, each once."""
    return list(dict.fromkeys(name for name, m in zip(e.layers, mask, strict=True) if m))


def finding(
    rule: str,
    severity: Severity,
    layers: Sequence[str],
    e: Evidence,
    r: int,
    evidence: Sequence[Measurement],
) -> Finding:
    """What a rule found from record `r` on, with the rule's words."""
    text = TEXTS[rule]
    return Finding(
        rule,
        severity,
        tuple(layers),
        int(e.epochs[r]),
        tuple(evidence),
        text.explanation,
        text.remedies,
        text.reference,
    )
