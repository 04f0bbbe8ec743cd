"""The numbers that the rules compare with, each with its reason."""

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where a healthy run ends. Chosen on one half of a gallery of runs: docs/diagnosis.md.

    A level is a kernel's gradient over that of a network of its shape that keeps signals and errors
    at their size (see `Evidence.level`): healthy networks of all kinds have 0.05 to 80. Beyond the
    thresholds named `far_` a level is ill unless the loss falls well; beyond the others only if
    the loss hardly falls.

    Attributes:
        vanishing_level, far_vanishing_level: of the second smallest level.
        exploding_level, far_exploding_level: of the largest level.
        exploding_level_before_nonfinite: of the largest, where the loss ends in NaN.
        growth: of the gradient norm over its first value.
        falls_hardly: share of the loss by which it falls hardly.
        falls_well: share of the loss by which it falls well.
        dead_share: of the units of a layer that are 0 in the whole probe, or of a kernel's
            gradients that are exactly 0.
        saturated_share, far_saturated_share: of a hidden layer's activations whose slope is below
            1 % of the largest; beyond the second whatever the loss does.
        saturating_input: norm of a layer's input against √fan_in from which tanh and sigmoid
            are flat, for histories without a probe.
        saturating_bias: root mean square of a layer's biases, likewise.
        still: ‖ΔW‖/‖W‖ of a step, below which weights do not move. Karpathy: 1e-3 is healthy.
        far, very_far: ‖ΔW‖/‖W‖ of a record by the root of its steps: beyond the second weights
            move too far, beyond the first where the loss rises or does not fall well.
        clipped_share: of the steps that clipping acted on.
        clipped_left: of the gradient norm, what clipping left of it.
        out_of_line: factor between a layer's σ_w² and the median of all layers, either way.
        small_sigma_w2, large_sigma_w2: of σ_w², between which networks of any activation train.
        saturating_sigma_w2: of σ_w², above which tanh is flat, whatever the loss does.
        persistent: share of the records, from the first where a rule holds, in which it must hold.
    """

    vanishing_level: float = 0.03
    far_vanishing_level: float = 1e-4
    exploding_level: float = 1e2
    far_exploding_level: float = 1e3
    exploding_level_before_nonfinite: float = 10.0
    growth: float = 1e3
    falls_hardly: float = 0.1
    falls_well: float = 0.5
    dead_share: float = 0.9
    saturated_share: float = 0.8
    far_saturated_share: float = 0.95
    saturating_input: float = 30.0
    saturating_bias: float = 3.0
    still: float = 1e-4
    far: float = 0.5
    very_far: float = 2.5
    clipped_share: float = 0.9
    clipped_left: float = 0.1
    out_of_line: float = 100.0
    small_sigma_w2: float = 0.02
    large_sigma_w2: float = 20.0
    saturating_sigma_w2: float = 100.0
    persistent: float = 0.6

    def __post_init__(self) -> None:
        """Refuse what is no number.

        Raises:
            TypeError: if a threshold is no number or NaN.
        """
        for name, value in asdict(self).items():
            if not isinstance(value, int | float) or math.isnan(value):
                raise TypeError(f"{name} must be a number, received {value!r}")
