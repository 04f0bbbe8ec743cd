"""The rules on histories: each looks at the evidence and returns a finding, or None."""

from collections.abc import Callable

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Finding
from kgrad.diagnosis.gradient_rules import (
    always_clipped,
    dead_units,
    exploding,
    saturated,
    vanishing,
)
from kgrad.diagnosis.thresholds import Thresholds
from kgrad.diagnosis.weight_rules import (
    badly_scaled_weights,
    layer_out_of_line,
    moving_too_far,
    not_improving,
    not_moving,
)

Rule = Callable[[Evidence, Thresholds], Finding | None]

HISTORY_RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        exploding,
        vanishing,
        dead_units,
        saturated,
        layer_out_of_line,
        badly_scaled_weights,
        moving_too_far,
        not_moving,
        always_clipped,
        not_improving,
    )
}
