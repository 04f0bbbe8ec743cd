"""The rules that need the model: its weights' values, its last layer, its loss."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Finding
from kgrad.diagnosis.of_models import equal_units, mismatches, read_output
from kgrad.diagnosis.statements import finding, measured
from kgrad.diagnosis.thresholds import Thresholds

ModelRule = Callable[[Evidence, Thresholds, Any, Any], list[Finding]]


def badly_scaled_weights(e: Evidence, t: Thresholds, model: Any, y: Any) -> list[Finding]:
    """Units that all start equal, whatever their size."""
    equal = equal_units(model)
    if not equal:
        return []
    names = [name for name, _ in equal]
    quantity = "largest difference between the incoming weights of two units"
    limit = float(np.finfo(np.float32).tiny)
    evidence = [measured(e, 0, quantity, 0.0, limit, names[0])]
    return [finding("badly_scaled_weights", "critical", names, e, 0, evidence)]


def output_loss_mismatch(e: Evidence, t: Thresholds, model: Any, y: Any) -> list[Finding]:
    """A loss that cannot be met by what the last layer puts out."""
    output = read_output(model)
    if output is None:
        return []
    for m in mismatches(output, y):
        evidence = [measured(e, 0, m.quantity, m.value, m.threshold, output.layer)]
        found = finding("output_loss_mismatch", "critical", [output.layer], e, 0, evidence)
        return [replace(found, explanation=m.meaning)]  # the first tells most
    return []


MODEL_RULES: dict[str, ModelRule] = {
    rule.__name__: rule for rule in (output_loss_mismatch, badly_scaled_weights)
}
