"""The rules about weights, updates, clipping and the loss."""

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Measurement
from kgrad.diagnosis.rules import (
    CLIPPING,
    KERNELS,
    KERNELS_OR_MODEL,
    LOSS,
    Observation,
    Quantity,
    Remedy,
    Rule,
    Threshold,
    ThresholdValues,
    affected_layers,
    fall_of_loss,
    first_lasting,
    measured,
    percent,
)

_OUT_OF_LINE = Quantity(
    "factor between σ_w² and its median over the layers",
    "σ_w² differs from the median of all layers by a factor of {value} (threshold {threshold})",
)
_SIGMA_W2 = Quantity(
    "σ_w², fan-in times the mean square of the weights",
    "σ_w² (fan-in times the mean square of the weights) is {value} (threshold {threshold})",
)
_MOVED = Quantity(
    "change divided by the weight norm and by the square root of the updates",
    "the weights' change divided by their norm and by √updates is {value} (threshold {threshold})",
)
_STEP = Quantity(
    "largest change per update divided by the weight norm",
    "an update changes the weights by {value} of their norm, the most of all layers (threshold "
    "{threshold})",
)
_LEFT = Quantity(
    "share of the gradient norm left by clipping",
    "clipping left {value} of the gradient norm (threshold {threshold})",
    percent,
)
_CLIPPED = Quantity(
    "share of the updates that were clipped",
    "{value} of the updates were clipped (threshold {threshold})",
    percent,
)


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "out_of_line",
            100.0,
            "factor between a layer's σ_w² and the median of all layers, in either direction; one "
            "learning rate cannot suit weights that differ by more",
        ),
    ),
    explanation="The initial weights of this layer differ in scale from those of the other layers "
    "by orders of magnitude. One learning rate cannot suit both.",
    remedies=(
        Remedy("Use the initializer of the neighboring layers.", ("initializer",)),
        Remedy(
            "Alternatively, scale the layer's input or add normalization before it.",
            ("normalization",),
        ),
    ),
    reference="Glorot & Bengio (2010): equal variances in all layers",
)
def layer_out_of_line(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a layer whose initial weights are on a different scale from the others'."""
    sigma_w2 = e.sigma_w2[0]
    if len(sigma_w2) < 3:
        return None
    with np.errstate(all="ignore"):
        factor = np.exp(np.abs(np.log(sigma_w2 / np.median(sigma_w2))))
    usual = (sigma_w2 > t.small_sigma_w2) & (sigma_w2 < t.large_sigma_w2)
    out = (factor > t.out_of_line) & ~usual
    out[-1] &= sigma_w2[-1] > 1  # a last layer may start near 0
    if not out.any() or out.sum() > len(out) // 3 or e.falls_by(t.falls_well):
        return None
    k = int(np.argmax(np.where(np.isnan(factor), 0, factor)))
    evidence = [
        measured(e, 0, _OUT_OF_LINE, factor[k], t.out_of_line, e.layers[k]),
        *fall_of_loss(e, t.falls_well),
    ]
    return Observation(affected_layers(e.layers, out), 0, evidence)


@Rule(
    severity="critical",
    thresholds=(
        Threshold(
            "small_sigma_w2",
            0.02,
            "smallest σ_w² with which networks of any activation train",
        ),
        Threshold(
            "large_sigma_w2",
            20.0,
            "largest σ_w² with which networks of any activation train",
        ),
        Threshold(
            "saturating_sigma_w2",
            100.0,
            "σ_w² above which tanh is flat; reported even if the loss falls well",
        ),
    ),
    explanation="Initial weights are badly scaled: signals vanish, saturate, or become identical "
    "across units.",
    remedies=(
        Remedy("Use he for relu, xavier for tanh and sigmoid, lecun for selu.", ("initializer",)),
        Remedy(
            "Do not initialize a kernel with one constant: all units of the layer would stay "
            "equal.",
            (),
        ),
    ),
    reference="He et al., Delving deep into rectifiers (2015), section 2.2",
    needs=(KERNELS_OR_MODEL,),
)
def badly_scaled_weights(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect initial weights that are too small or too large, or equal across units."""
    return (_badly_scaled(e, t) if e.kernels else None) or _equal_units(e)


def _badly_scaled(e: Evidence, t: ThresholdValues) -> Observation | None:
    sigma_w2 = e.sigma_w2[0]
    out = (sigma_w2 < t.small_sigma_w2) | (sigma_w2 > t.large_sigma_w2)
    hidden = out[:-1] if len(out) > 1 else out
    # After normalization any scale works.
    far = not e.normalized and sigma_w2[out].max(initial=0) > t.saturating_sigma_w2
    if hidden.mean() < 0.5 or (e.falls_by(t.falls_well) and not far):
        return None
    k = int(np.argmax(out))
    limit = t.small_sigma_w2 if sigma_w2[k] < t.small_sigma_w2 else t.large_sigma_w2
    evidence = [
        measured(e, 0, _SIGMA_W2, sigma_w2[k], limit, e.layers[k]),
        *fall_of_loss(e, t.falls_well),
    ]
    return Observation(affected_layers(e.layers, out), 0, evidence)


def _equal_units(e: Evidence) -> Observation | None:
    """Detect units that all have the same incoming weights, whatever their size.

    Such units get equal gradients and stay equal, so the layer acts like a single unit.
    """
    if e.facts is None or not e.facts.equal_units:
        return None
    first = e.facts.equal_units[0]
    evidence = Measurement(
        "largest difference between the incoming weights of two units",
        0.0,
        float(np.finfo(np.float32).tiny),
        first,
        int(e.epochs[0]),
        f"{first}: all units have the same incoming weights.",
    )
    return Observation(e.facts.equal_units, 0, [evidence])


@Rule(
    severity="critical",
    thresholds=(
        Threshold(
            "far",
            0.5,
            "‖ΔW‖/‖W‖ of a record divided by the square root of its updates, because updates in "
            "random directions add up like a random walk; reported if the loss rises or does not "
            "fall well",
        ),
        Threshold("very_far", 2.5, "the same ratio, reported whatever the loss does"),
    ),
    explanation="Updates are so large that successive gradients are unrelated, so the loss jumps "
    "instead of falling.",
    remedies=(
        Remedy("Reduce the learning rate; start with 10× smaller.", ("learning_rate",)),
        Remedy("Warm up the learning rate over the first epochs.", ()),
        Remedy("Clip the gradients: set global_clipnorm=1 in the optimizer.", ("clipping",)),
    ),
    reference="Karpathy, CS231n notes: ratio of updates to weights about 1e-3 a step",
)
def moving_too_far(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect kernels that change by more than their own size while the loss jumps or stays."""
    # Updates in random directions add up like a random walk.
    walked = e.movement / np.sqrt(e.updates)
    movement = np.where(np.isfinite(walked), walked, 0).max(axis=1)
    harmful = e.rises | (not e.falls_by(t.falls_well))
    for threshold, where in ((t.very_far, True), (t.far, harmful)):
        far = (movement > threshold) & where
        if far.any():
            r = int(np.argmax(far))
            k = int(np.nanargmax(walked[r]))
            evidence = [measured(e, r, _MOVED, movement[r], threshold, e.layers[k])]
            evidence += fall_of_loss(e, t.falls_well)
            return Observation(affected_layers(e.layers, walked[r] > threshold), r, evidence)
    return None


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "still",
            1e-4,
            "‖ΔW‖/‖W‖ of an update below which weights do not move; Karpathy calls 1e-3 healthy",
        ),
    ),
    explanation="The gradients have a healthy size, but the updates are so small compared with the "
    "weights that training would take thousands of epochs.",
    remedies=(
        Remedy("Increase the learning rate; start with 10× larger.", ("learning_rate",)),
        Remedy("Check the learning rate schedule: it may decay too early.", ()),
    ),
    reference="Karpathy, CS231n notes: ratio of updates to weights about 1e-3 a step",
)
def not_moving(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect updates that hardly change any kernel although the gradients are healthy."""
    step = e.movement / e.updates
    largest = np.fmax.reduce(step, axis=1)
    r = first_lasting(largest < t.still, step, 1.0, after=1)
    # A schedule that ends at 0 stops the weights in the last records.
    if r is None or r > len(largest) // 2 or (r > 1 and e.falls_by(t.falls_well)):
        return None
    if e.falls_from_first_epoch_by(t.falls_hardly) and r == 1:
        return None
    if e.begins_trained and r == 1:  # fine-tuning takes small steps
        return None
    if not np.fmin.reduce(e.level[r]) >= t.vanishing_level:  # NaN if nothing has a gradient
        return None
    k = int(np.nanargmax(step[r]))
    evidence = [
        measured(e, r, _STEP, largest[r], t.still, e.layers[k]),
        *fall_of_loss(e, t.falls_hardly),
    ]
    return Observation([], r, evidence)


@Rule(
    severity="warning",
    thresholds=(
        Threshold("clipped_share", 0.9, "share of the updates that were clipped: nearly all"),
        Threshold(
            "clipped_left",
            0.1,
            "share of the gradient norm that clipping left: a tenth or less changes the effective "
            "learning rate tenfold",
        ),
    ),
    explanation="Clipping acts at nearly every update and leaves only a small part of the "
    "gradient. The bound, not the gradient, determines the step size.",
    remedies=(
        Remedy("Raise the bound to a few times the usual gradient norm.", ("clipping",)),
        Remedy(
            "Alternatively, remove clipping and reduce the learning rate.",
            ("clipping", "learning_rate"),
        ),
    ),
    reference="Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks "
    "(2013): the bound is half to ten times the average norm",
    needs=(KERNELS, CLIPPING),
)
def always_clipped(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect clipping that acts at nearly every update and leaves little of the gradient."""
    with np.errstate(all="ignore"):
        share = e.history["clipped_steps"].max(axis=1) / e.all_updates.max(axis=1)
        before, after = (
            np.hypot.reduce(np.where(e.all_present, e.history[name], 0), axis=1)
            for name in ("l2_norm", "clipped_l2")
        )
        left = after / before
    clipped = (share >= t.clipped_share) & (left < t.clipped_left)
    r = first_lasting(clipped, left[:, None], t.persistent)
    if r is None or e.falls_by(t.falls_well):
        return None
    evidence = [
        measured(e, r, _LEFT, left[r], t.clipped_left),
        measured(e, r, _CLIPPED, share[r], t.clipped_share),
        *fall_of_loss(e, t.falls_well),
    ]
    return Observation([], r, evidence)


@Rule(
    severity="warning",
    thresholds=(),
    explanation="The loss has not fallen since training began.",
    remedies=(
        Remedy(
            "Train on ten samples until the model fits them exactly. If it cannot, check the data, "
            "the labels and the loss.",
            (),
        ),
        Remedy("Try learning rates 10× larger and 10× smaller.", ("learning_rate",)),
    ),
    reference="Karpathy, A recipe for training neural networks (2019)",
    needs=(KERNELS, LOSS),
    fallback=True,
)
def not_improving(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a loss that does not fall and is not already low."""
    if not e.fails or np.isnan(e.fall) or e.fall > t.falls_hardly:
        return None
    return Observation([], min(1, len(e.epochs) - 1), fall_of_loss(e, t.falls_hardly))
