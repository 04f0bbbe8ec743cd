"""The rules about weights, updates, clipping and the loss."""

import numpy as np

from kgrad.diagnosis.evidence import Evidence, ModelFacts
from kgrad.diagnosis.findings import Measurement
from kgrad.diagnosis.gradient_rules import dead_units, vanishing
from kgrad.diagnosis.rules import (
    CLIP,
    CLIPPING,
    HIGHER_RATE,
    KERNELS,
    KERNELS_OR_MODEL,
    LOSS,
    LOWER_RATE,
    Observation,
    Quantity,
    Remedy,
    Rule,
    Threshold,
    ThresholdValues,
    affected_layers,
    clips,
    fall_of_loss,
    first_lasting,
    higher_rate,
    lower_rate,
    measured,
    number,
    of_data,
    percent,
)

_OUT_OF_LINE = Quantity(
    "factor between σ_w² and its median over the layers",
    "σ_w², fan-in times the mean square of the weights, is {value} times DIRECTION than the median "
    "of all layers (threshold {threshold})",
)
_SIGMA_W2 = Quantity(
    "σ_w², fan-in times the mean square of the weights",
    "σ_w² (fan-in times the mean square of the weights) is {value} (threshold {threshold})",
)
_MOVED = Quantity(
    "change divided by the weight norm and by the square root of the updates",
    "the weights changed by {value} times their norm, divided by the square root of the number of "
    "updates (threshold {threshold})",
)
_STEP = Quantity(
    "largest change of a kernel per update divided by its norm",
    "an update changes the kernel by {value} of its norm, the most of all kernels (threshold "
    "{threshold})",
)
_TOTAL = Quantity(
    "change of a kernel over all records, divided by its norm",
    "over the whole run, the kernel changed by {value} of its norm, the most of all kernels "
    "(threshold {threshold})",
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


_STILL_FALLING = Quantity(
    "fall of the loss in the second half of the records",
    "the loss fell by {value} in the second half of the records (threshold {threshold})",
    percent,
)
_OVERFIT = Quantity(
    "validation loss divided by its smallest value",
    "the validation loss is {value} times its smallest value (threshold {threshold})",
)
_VALIDATION_FAR = Quantity(
    "smallest validation loss divided by the training loss at its start",
    "even the smallest validation loss is {value} times the training loss at its start (threshold "
    "{threshold})",
)
_BELOW = Quantity(
    "validation loss divided by the training loss of the next epoch",
    "over the second half of the run, the validation loss is {value} of the training loss of the "
    "next epoch (median, threshold {threshold})",
    percent,
)
_EASIER = (
    "The validation samples are much easier than the training samples. They may be few, of one "
    "kind, or hold something that gives the answer away. Class weights, sample weights and "
    "augmentation of the training data do the same."
)
_SAME_KIND = Remedy(
    "Shuffle before splitting: validation_split of fit takes the last samples as they are.", ()
)
_OTHER_DATA = (
    "The validation data seem to have another scale, other preprocessing or other labels than the "
    "training data."
)
_SAME_PREPROCESSING = Remedy(
    "Compare mean and standard deviation of both inputs and both targets; scale both by those of "
    "the training data.",
    (),
)
_FIRST_STEP = Quantity(
    "first update divided by the weight norm",
    "the first update is {value} times the norm of the weights (threshold {threshold})",
)
_COLLAPSED = (
    "The gradients were healthy at first. After updates as large as these they collapse, and they "
    "do not recover."
)
WARM_UP = Remedy("Warm up the learning rate over the first epochs.", ())
_LONGER = Remedy("Train for more epochs, or with smaller batches.", ())
_SCHEDULE = Remedy("Check the learning rate schedule: it may decay too early.", ())
_COPIES = (
    "Units that begin with the same weights get the same gradients, so they stay copies of one "
    "unit."
)
_POSITIVE = ("learning rate made positive",)


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
    independent=True,
)
def layer_out_of_line(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a layer whose initial weights are on a different scale from the others'."""
    sigma_w2 = e.scale
    if np.isfinite(sigma_w2).sum() < 3:
        return None
    with np.errstate(all="ignore"):
        factor = np.exp(np.abs(np.log(sigma_w2 / np.nanmedian(sigma_w2))))
    usual = (sigma_w2 > t.small_sigma_w2) & (sigma_w2 < t.large_sigma_w2)
    out = (factor > t.out_of_line) & ~usual
    out &= ~e.is_head | (sigma_w2 > 1)  # a last layer may start near 0
    if not out.any() or out.sum() > len(out) // 3 or e.falls_by(t.falls_well):
        return None
    k = int(np.argmax(np.where(np.isnan(factor), 0, factor)))
    found = measured(e, 0, _OUT_OF_LINE, factor[k], t.out_of_line, e.layers[k])
    direction = "larger" if sigma_w2[k] > np.nanmedian(sigma_w2) else "smaller"
    evidence = [
        found._replace(sentence=found.sentence.replace("DIRECTION", direction)),
        *fall_of_loss(e, t),
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
    ),
    reference="He et al., Delving deep into rectifiers (2015), section 2.2",
    needs=(KERNELS_OR_MODEL,),
    independent=True,
)
def badly_scaled_weights(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect initial weights that are too small or too large, or equal across units."""
    return (_badly_scaled(e, t) if e.kernels else None) or _equal_units(e)


def _badly_scaled(e: Evidence, t: ThresholdValues) -> Observation | None:
    sigma_w2 = e.scale
    out = (sigma_w2 < t.small_sigma_w2) | (sigma_w2 > t.large_sigma_w2)
    judged = np.isfinite(sigma_w2)
    if (judged & ~e.is_head).any():
        judged &= ~e.is_head
    # After normalization any scale works.
    far = not e.normalized and sigma_w2[out].max(initial=0) > t.saturating_sigma_w2
    if not judged.any() or out[judged].mean() < 0.5 or (e.falls_by(t.falls_well) and not far):
        return None
    k = int(np.argmax(out))
    limit = t.small_sigma_w2 if sigma_w2[k] < t.small_sigma_w2 else t.large_sigma_w2
    evidence = [
        measured(e, 0, _SIGMA_W2, sigma_w2[k], limit, e.layers[k]),
        *fall_of_loss(e, t),
    ]
    return Observation(affected_layers(e.layers, out), 0, evidence)


def _equal_units(e: Evidence) -> Observation | None:
    """Detect units that all have the same incoming weights, whatever their size.

    Such units get equal gradients and stay equal, so the layer acts like a single unit.
    """
    begin = affected_layers(e.layers, e.only_begins_at_0)  # as residual branches may by design
    equal = [layer for layer in (e.facts or ModelFacts()).equal_units if layer not in begin]
    if not equal:
        return None
    first = equal[0]
    remedy = Remedy("Draw the weights at random: kernel_initializer='he_normal'.", ("initializer",))
    evidence = Measurement(
        "largest difference between the incoming weights of two units",
        0.0,
        float(np.finfo(np.float32).tiny),
        first,
        int(e.epochs[0]),
        f"{first}: all units have the same incoming weights.",
    )
    return Observation(equal, 0, [evidence], _COPIES, [remedy])


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
        Threshold(
            "first_step",
            1.0,
            "size of the first update divided by the weight norm, by the learning rate; reported "
            "if the run breaks down or the loss hardly falls",
        ),
        Threshold(
            "far_before_collapse",
            0.25,
            "the same ratio, reported if the gradients were healthy, vanished or died soon after, "
            "and the loss hardly fell",
        ),
    ),
    explanation="Updates are so large that successive gradients are unrelated, so the loss jumps "
    "instead of falling.",
    remedies=(
        Remedy("Reduce the learning rate; start with 10× smaller.", LOWER_RATE),
        WARM_UP,
        CLIP,
    ),
    reference="Karpathy, CS231n notes: ratio of updates to weights about 1e-3 a step",
    needs=(KERNELS_OR_MODEL,),
    before_training=True,
)
def moving_too_far(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect kernels that change by more than their own size while the loss jumps or stays."""
    if e.facts is not None and e.facts.learning_rate < 0:
        rate = number(e.facts.learning_rate)
        found = of_data("learning rate", e.facts.learning_rate, 0, f"the learning rate is {rate}")
        explanation = "With a negative learning rate, every update raises the loss."
        better = Remedy(f"Set the learning rate to {rate.removeprefix('-')}.", _POSITIVE)
        return Observation([], 0, [found, *fall_of_loss(e, t)], explanation, [better])
    if not len(e.epochs):  # before training
        return None
    # Updates in random directions add up like a random walk.
    walked = np.where(e.is_normalized, np.nan, e.movement / np.sqrt(e.updates))
    movement = np.where(np.isfinite(walked), walked, 0).max(axis=1, initial=0)
    harmful = e.rises | e.falls_less(t.falls_hardly)
    if not e.falls_by(t.falls_well):  # a single large step may have been one in the right direction
        lasting = [np.mean(movement[r:] > t.far) >= t.persistent for r in range(len(movement))]
        harmful |= np.array(lasting, bool)
    for threshold, where in ((t.very_far, True), (t.far, harmful)):
        far = (movement > threshold) & where
        if far.any():
            r = int(np.argmax(far))
            k = int(np.nanargmax(walked[r]))
            evidence = [measured(e, r, _MOVED, movement[r], threshold, e.layers[k])]
            evidence += fall_of_loss(e, t)
            layers = affected_layers(e.layers, walked[r] > threshold)
            return Observation(layers, r, evidence, remedies=[lower_rate(e), WARM_UP, CLIP])
    return _first_step(e, t) or _before_collapse(e, t, walked)


def _first_step(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a learning rate with which the very first update is larger than the weights.

    It finds runs that break down before the second record. Gradients that explode by themselves are
    a finding of their own.
    """
    step = np.where(np.isfinite(e.first_step) & ~e.is_normalized, e.first_step, 0)
    breaks_down = e.fall == -np.inf or e.falls_less(t.falls_hardly)
    level = np.fmax.reduce(e.level_by_bias[:1], axis=1, initial=-np.inf)
    if not (step > t.first_step).any() or clips(e) or not breaks_down:
        return None
    if e.facts is None or not (level < t.exploding_level).all():
        return None
    k = int(np.argmax(step))
    rate = number(e.facts.learning_rate)
    found = measured(e, 0, _FIRST_STEP, step[k], t.first_step, e.layers[k])
    found = found._replace(sentence=f"{found.sentence[:-1]}, at a learning rate of {rate}.")
    layers = affected_layers(e.layers, step > t.first_step)
    evidence = [found, *fall_of_loss(e, t)]
    return Observation(layers, 0, evidence, remedies=[lower_rate(e), WARM_UP, CLIP])


def _before_collapse(e: Evidence, t: ThresholdValues, walked: np.ndarray) -> Observation | None:
    """Detect large steps after which gradients that were healthy vanish for good."""
    if not e.falls_less(t.falls_hardly):
        return None
    collapses = [rule.check(e, t) for rule in (vanishing, dead_units)]
    record = min((found.record for found in collapses if found is not None), default=0)
    healthy = np.nanmin(e.level[:2], initial=np.inf) > t.vanishing_level
    far = np.where(np.isfinite(walked), walked, 0)[: record + 1].max(axis=1, initial=0)
    if record < 2 or not healthy or not (far > t.far_before_collapse).any():
        return None
    r = int(np.argmax(far))
    k = int(np.nanargmax(walked[r]))
    evidence = [
        measured(e, r, _MOVED, far[r], t.far_before_collapse, e.layers[k]),
        *fall_of_loss(e, t),
    ]
    layers = affected_layers(e.layers, walked[r] > t.far_before_collapse)
    return Observation(layers, r, evidence, _COLLAPSED, [lower_rate(e), WARM_UP, CLIP])


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "still",
            1e-4,
            "‖ΔW‖/‖W‖ of an update below which weights do not move; Karpathy calls 1e-3 healthy",
        ),
        Threshold(
            "hardly_moved",
            0.2,
            "sum of ‖ΔW‖/‖W‖ over the records below which a run ends as it began; reported if the "
            "loss is no better than a constant's",
        ),
        Threshold(
            "few_updates",
            50,
            "number of updates below which they are too few, unless the learning rate is ten times "
            "smaller than the optimizer's default",
        ),
    ),
    explanation="The gradients have a healthy size, but the updates are so small compared with the "
    "weights that training would take thousands of epochs.",
    remedies=(
        Remedy("Increase the learning rate; start with 10× larger.", HIGHER_RATE),
        _SCHEDULE,
    ),
    reference="Karpathy, CS231n notes: ratio of updates to weights about 1e-3 a step",
)
def not_moving(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect updates that hardly change any kernel, by the update or over the whole run."""
    return _hardly_moved(e, t) or _still(e, t)


def _hardly_moved(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a run that ends as it began, with a loss that is no better than a constant's."""
    if not e.is_stuck or e.begins_trained or not e.kernels:
        return None
    if vanishing.check(e, t) or (clips(e) and always_clipped.check(e, t)):
        return None
    if e.zero_from is not None:  # nothing moves without a gradient, whatever the rate
        return None
    largest = np.fmax.reduce(np.nansum(e.movement, axis=0))
    if not largest < t.hardly_moved:
        return None
    k = int(np.argmax(np.nansum(e.movement, axis=0)))
    evidence = [
        measured(e, len(e.epochs) - 1, _TOTAL, largest, t.hardly_moved, e.layers[k]),
        *fall_of_loss(e, t, t.falls_hardly),
    ]
    explanation = (
        "The updates add up to so little that the network at the end is nearly the one at the "
        "start: the learning rate is too small for this number of steps."
    )
    # Far below the usual rate, this is the cause of what else is left undone.
    leads = e.facts is not None and 10 * e.facts.learning_rate <= e.facts.usual_rate
    remedies = [higher_rate(e), _SCHEDULE]
    updates = int(e.history.steps[-1])
    if updates < t.few_updates and not leads:
        explanation = f"Training has hardly begun: {updates} updates were made."
        remedies = [_LONGER, higher_rate(e)]
    return Observation([], 1, evidence, explanation, remedies, leads=leads)


def _still(e: Evidence, t: ThresholdValues) -> Observation | None:
    step = e.movement / e.updates
    largest = np.fmax.reduce(step, axis=1)
    r = first_lasting(largest < t.still, step, 1.0, after=1)
    # A schedule that ends at 0 stops the weights in the last records.
    if r is None or r > len(largest) // 2:
        return None
    if r > 1 and (e.falls_by(t.falls_well) or e.falls_after(r, t.falls_hardly)):
        return None
    if e.falls_from_first_epoch_by(t.falls_hardly) and r == 1:
        return None
    if e.begins_trained and r == 1:  # fine-tuning takes small steps
        return None
    if not np.fmin.reduce(e.level[r]) >= t.vanishing_level:  # NaN if nothing has a gradient
        return None
    k = int(np.nanargmax(step[r]))
    evidence = [measured(e, r, _STEP, largest[r], t.still, e.layers[k])]
    if not e.falls_by(t.falls_hardly):  # a fall above that would seem to speak against it
        evidence += fall_of_loss(e, t, t.falls_hardly)
    return Observation([], r, evidence, remedies=[higher_rate(e), _SCHEDULE])


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
        Remedy("Raise the bound to a few times the usual gradient norm.", ("no clipping",)),
        Remedy(
            "Alternatively, remove clipping and reduce the learning rate.",
            ("no clipping", "learning rate ×0.1"),
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
        *fall_of_loss(e, t),
    ]
    return Observation([], r, evidence)


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "still_falling",
            0.1,
            "share by which the loss fell in the second half of the records, above which more "
            "epochs would help; noted unless the loss falls well",
        ),
    ),
    explanation="Nothing seems wrong, but training ended while the loss was still falling.",
    remedies=(
        Remedy("Train for more epochs.", ()),
        Remedy("Try a learning rate that is three times larger.", ()),
    ),
    reference="Goodfellow, Bengio & Courville, Deep Learning (2016), section 11.4",
    needs=(LOSS,),
    fallback=True,
)
def too_few_steps(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Note a loss that was still falling when training ended."""
    if e.loss is None or len(e.loss) < 4 or e.falls_by(t.falls_well) or np.isnan(e.floor):
        return None
    half = len(e.loss) // 2
    before, last = e.loss[half] - e.floor, e.loss[-1] - e.floor
    fallen = (before - last) / before if before > 0 else 0.0
    if not fallen > t.still_falling:
        return None
    r = len(e.loss) - 1
    found = measured(e, r, _STILL_FALLING, fallen, t.still_falling)
    return Observation([], r, [found], harmless=True)


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "overfit",
            1.2,
            "validation loss at the end divided by its smallest value, from which it counts as "
            "overfitting if the training loss fell on by a fifth",
        ),
        Threshold(
            "validation_easier",
            0.5,
            "validation loss divided by the training loss of the next epoch, below which the "
            "validation samples are easier; not judged with layers that work in training only",
        ),
        Threshold(
            "validation_far",
            3.0,
            "smallest validation loss divided by the training loss's first value, or that of a "
            "constant, above which the validation data seem to be of another kind",
        ),
    ),
    explanation="The model fits the training data better and better, and other data worse.",
    remedies=(
        Remedy(
            "Keep the best epoch: keras.callbacks.EarlyStopping(patience=3, "
            "restore_best_weights=True).",
            (),
        ),
        Remedy("Use more data, augmentation, dropout of 0.2 to 0.5, or weight decay.", ()),
    ),
    reference="Goodfellow, Bengio & Courville, Deep Learning (2016), sections 5.2 and 7.8",
    needs=(LOSS,),
)
def validation_differs(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Note a validation loss that rises while the training loss falls, or is far from it."""
    validation = e.history.logs.get("val_loss")
    if validation is None or e.loss is None or np.isnan(e.floor):
        return None
    known = np.flatnonzero(np.isfinite(validation))
    if len(known) < 3:
        return None
    best = int(known[np.argmin(validation[known])])
    last = int(known[-1])
    smallest, now = validation[best] - e.floor, validation[last] - e.floor
    usual = e.first_loss - e.floor
    if usual > 0 and smallest > t.validation_far * usual and e.falls_by(t.falls_well):
        found = measured(e, best, _VALIDATION_FAR, smallest / usual, t.validation_far)
        return Observation([], best, [found], _OTHER_DATA, [_SAME_PREPROCESSING], harmless=True)
    below = _far_below(e, t, validation)
    if below is not None:
        return Observation([], last, [below], _EASIER, [_SAME_KIND], harmless=True)
    fell_on = e.loss[last] - e.floor < 0.8 * (e.loss[best] - e.floor)
    if smallest <= 0 or not fell_on or not now > t.overfit * smallest:
        return None
    found = measured(e, last, _OVERFIT, now / smallest, t.overfit)
    sentence = f"{found.sentence[:-1]}, at epoch {int(e.epochs[best])}."
    return Observation([], best, [found._replace(sentence=sentence)], harmless=True)


# Layers whose work in training makes the training loss larger.
_IN_TRAINING_ONLY = ("Dropout", "Noise", "BatchNormalization", "Random", "MixUp", "CutMix")


def _far_below(e: Evidence, t: ThresholdValues, validation: np.ndarray) -> Measurement | None:
    """Return the evidence of a validation loss far below the training loss, if it is.

    The training loss of an epoch is a mean over its steps. That of the next epoch belongs to
    weights that are at least as good as those of the validation.
    """
    loss = e.loss
    if loss is None or e.facts is None or e.facts.regularized or e.facts.penalties:
        return None
    if not e.structure.is_known or e.structure.has_part(_IN_TRAINING_ONLY):
        return None
    with np.errstate(all="ignore"):
        left = (loss[1:] - e.floor) / (e.first_loss - e.floor)
        ratio = (validation[:-1] - e.floor) / (loss[1:] - e.floor)
    ratio = np.where(left > 0.01, ratio, np.nan)[len(ratio) // 2 :]  # not of two tiny losses
    known = ratio[np.isfinite(ratio)]
    if len(known) < 3 or not (np.median(known) < t.validation_easier and known.max() < 0.8):
        return None
    r = len(loss) - 2
    return measured(e, r, _BELOW, float(np.median(known)), t.validation_easier)


@Rule(
    severity="warning",
    thresholds=(),
    explanation="The loss is no better than that of a constant answer, or has risen since training "
    "began.",
    remedies=(
        Remedy(
            "Train on ten samples until the model fits them exactly. If it cannot, check the data, "
            "the labels and the loss.",
            (),
        ),
        Remedy(
            "Try learning rates 10× larger and 10× smaller, and Adam.",
            ("learning rate ×10", "learning rate ×0.1", "optimizer"),
        ),
    ),
    reference="Karpathy, A recipe for training neural networks (2019)",
    needs=(LOSS,),
    fallback=True,
)
def not_improving(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a loss that is hardly better than that of the best constant prediction."""
    if not e.fails or np.isnan(e.fall) or e.fall > t.falls_hardly:
        return None
    return Observation([], min(1, len(e.epochs) - 1), fall_of_loss(e, t, t.falls_hardly))
