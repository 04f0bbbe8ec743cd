"""The rules that need the model: its weights' values, its last layer, its loss."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Finding, Measurement
from kgrad.diagnosis.of_models import equal_units, mismatches, read_output
from kgrad.diagnosis.texts import TEXTS
from kgrad.diagnosis.thresholds import Thresholds

ModelRule = Callable[[Evidence, Thresholds, Any, Any], list[Finding]]


def badly_scaled_weights(e: Evidence, t: Thresholds, model: Any, y: Any) -> list[Finding]:
    """Units that all start equal, whatever their size."""
    equal = equal_units(model)
    if not equal:
        return []
    text, start = TEXTS["badly_scaled_weights"], int(e.epochs[0])
    quantity = "largest difference between the incoming weights of two units"
    limit = float(np.finfo(np.float32).tiny)
    return [
        Finding(
            "badly_scaled_weights",
            "critical",
            tuple(name for name, _ in equal),
            start,
            (Measurement(quantity, 0.0, limit, equal[0][0], start),),
            text.explanation,
            text.remedies,
            text.reference,
        )
    ]


def output_loss_mismatch(e: Evidence, t: Thresholds, model: Any, y: Any) -> list[Finding]:
    """A loss that cannot be met by what the last layer puts out."""
    output = read_output(model)
    if output is None:
        return []
    text, start = TEXTS["output_loss_mismatch"], int(e.epochs[0])
    return [
        Finding(
            "output_loss_mismatch",
            "critical",
            (output.layer,),
            start,
            (Measurement(m.quantity, float(m.value), float(m.threshold), output.layer, start),),
            m.meaning,
            text.remedies,
            text.reference,
        )
        for m in mismatches(output, y)
    ][:1]


MODEL_RULES: dict[str, ModelRule] = {
    rule.__name__: rule for rule in (output_loss_mismatch, badly_scaled_weights)
}
