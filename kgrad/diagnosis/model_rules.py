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
    """Units that all start equal; variances from which no signal flows."""
    text, start = TEXTS["badly_scaled_weights"], int(e.epochs[0])
    equal = equal_units(model)
    if equal:
        layers = tuple(name for name, _ in equal)
        quantity = "largest difference between the incoming weights of two units"
        evidence = (Measurement(quantity, 0.0, float(np.finfo(np.float32).tiny), layers[0], start),)
    else:
        sigma_w2 = e.sigma_w2[0]
        small, large = sigma_w2 < t.small_sigma_w2, sigma_w2 > t.large_sigma_w2
        out = small | large
        hidden = out[:-1] if len(out) > 1 else out
        # Behind normalization any size will do.
        far = not e.normalized and sigma_w2[out].max(initial=0) > t.saturating_sigma_w2
        if hidden.mean() < 0.5 or (e.falls_by(t.falls_well) and not far):
            return []
        k = int(np.argmax(out))
        limit = t.small_sigma_w2 if small[k] else t.large_sigma_w2
        quantity = "σ_w², fan-in times the mean square of the weights"
        evidence = (Measurement(quantity, float(sigma_w2[k]), limit, e.layers[k], start),)
        layers = tuple(dict.fromkeys(n for n, is_out in zip(e.layers, out, strict=True) if is_out))
    return [
        Finding(
            "badly_scaled_weights",
            "critical",
            layers,
            start,
            evidence,
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
