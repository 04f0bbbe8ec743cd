"""The rules: each looks at the evidence and returns a finding, or None.

A gradient's size alone never makes a finding. What counts is its level against a healthy network's
of the same shape, over the records, together with whether the loss falls.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Finding, Measurement, Severity
from kgrad.diagnosis.texts import TEXTS
from kgrad.diagnosis.thresholds import Thresholds

Rule = Callable[[Evidence, Thresholds], Finding | None]

_LEVEL = "gradient against a healthy network's"
_SATURATED = "share of activations where the slope is nearly 0"
_BIAS = "size of the biases"
_MOVED = "change over the weight's norm, by the root of the steps"
_SIGMA_W2 = "σ_w², fan-in times the mean square of the weights"
_STEP = "change of a step over the weight's norm, the largest of all kernels"
_INPUT = "size of the entries of the model's input"


def first_nonfinite_record(e: Evidence) -> int | None:
    """The first record with a NaN or an infinity in gradients or loss, but for skipped steps."""
    bad = e.nonfinite_steps.any(axis=1)
    if e.loss is not None:
        bad = bad | ~np.isfinite(e.loss)
    return int(np.argmax(bad)) if bad.any() else None


def nonfinite(e: Evidence, r: int) -> Finding:
    """What `first_nonfinite_record` found, with the layers and the step."""
    steps = e.nonfinite_steps[r]
    layers = [name for name, n in zip(e.history.layers, steps, strict=True) if n]
    evidence = []
    if layers:
        worst = int(np.argmax(steps))
        first = e.history.by_layer("first_nonfinite_step")[r, worst]
        where = e.history.layers[worst]
        evidence.append(_at(e, r, "steps with a NaN or infinity", steps[worst], 0, where))
        evidence.append(_at(e, r, "first such step", first, 0, where))
    if e.loss is not None and not np.isfinite(e.loss[r]):
        evidence.append(_at(e, r, "loss", e.loss[r], np.inf))
    return _finding("nonfinite", "critical", layers, e, r, evidence)


def vanishing(e: Evidence, t: Thresholds) -> Finding | None:
    """Gradients of several kernels far below a healthy network's, and a loss that hardly falls."""
    least = min(2, max(1, len(e.kernels) - 1))
    for threshold, fall, harms in (
        (t.far_vanishing_level, t.falls_well, not e.falls_by(t.falls_well)),
        (t.vanishing_level, t.falls_hardly, e.falls_less(t.falls_hardly)),
    ):
        r = _first(
            (e.level < threshold).sum(axis=1) >= least,
            e.level,
            t.persistent,
            stays=(e.level < t.vanishing_level).sum(axis=1) >= least,
        )
        if r is not None and harms:
            k = int(np.nanargmin(e.level[r]))
            evidence = [_at(e, r, _LEVEL, e.level[r, k], threshold, e.layers[k]), *_fall(e, fall)]
            layers = _named(e, e.level[r] < threshold)
            return _finding("vanishing", "critical", layers, e, r, evidence)
    return None


def exploding(e: Evidence, t: Thresholds) -> Finding | None:
    """Gradients far above a healthy network's, from layer to layer or from record to record."""
    level = e.level_by_bias
    near = t.exploding_level
    limits = [
        (t.far_exploding_level, t.falls_well, not e.falls_by(t.falls_well)),
        (near, t.falls_hardly, e.falls_less(t.falls_hardly)),
    ]
    if e.fall == -np.inf:  # what ends in NaN needs less proof
        near = t.exploding_level_before_nonfinite
        limits = [(near, t.falls_hardly, True)]
    for threshold, fall, harms in limits:
        high = (level > threshold).any(axis=1)
        r = _first(high, level, t.persistent, stays=(level > near).any(axis=1))
        if r is not None and harms:
            k = int(np.nanargmax(level[r]))
            evidence = [_at(e, r, _LEVEL, level[r, k], threshold, e.layers[k]), *_fall(e, fall)]
            layers = _named(e, level[r] > threshold)
            return _finding("exploding", "critical", layers, e, r, evidence)
    norm = np.hypot.reduce(e.gradient, axis=1)
    grown = norm / norm[0]
    # What grew from nearly nothing to what is usual has not exploded.
    held = np.isfinite(grown) & (grown > t.growth) & (np.fmax.reduce(level, axis=1) > 1)
    if e.falls_by(t.falls_hardly) or not held.any():
        return None
    r = int(np.argmax(held))
    k = int(np.nanargmax(e.gradient[r]))
    evidence = [_at(e, r, "growth of the gradient norm", grown[r], t.growth, e.layers[k])]
    return _finding("exploding", "critical", [e.layers[k]], e, r, evidence)


def dead_units(e: Evidence, t: Thresholds) -> Finding | None:
    """Units that are 0 on the whole probe; without a probe, kernels without any gradient."""
    names, share, what = e.dead
    dead = share > t.dead_share
    r = _first(dead.any(axis=1), share, t.persistent)
    if r is None or e.falls_by(t.falls_well):
        return None
    worst = int(np.nanargmax(share[r]))
    layers = [name for name, is_dead in zip(names, dead[r], strict=True) if is_dead]
    evidence = [_at(e, r, what, share[r, worst], t.dead_share, names[worst])]
    evidence += _fall(e, t.falls_well)
    return _finding("dead_units", "critical", layers, e, r, evidence)


def saturated(e: Evidence, t: Thresholds) -> Finding | None:
    """Activations that lie where the function is flat; without a probe, huge inputs or biases."""
    if e.saturated is not None:
        signs = [(*e.saturated, _SATURATED, t.saturated_share)]
    else:
        signs = [
            (e.layers[:1], e.input_size[:, :1], _INPUT, t.saturating_input),
            (e.layers[:-1], e.bias_size[:, :-1], _BIAS, t.saturating_bias),
        ]
    for names, sizes, what, threshold in signs:
        flat = sizes > threshold
        r = _first(flat.any(axis=1), sizes, t.persistent)
        all_flat = (
            what == _SATURATED and r is not None and np.nanmax(sizes[r]) > t.far_saturated_share
        )
        if r is not None and (all_flat or not e.falls_by(t.falls_well)):
            worst = int(np.nanargmax(sizes[r]))
            layers = [name for name, is_flat in zip(names, flat[r], strict=True) if is_flat]
            evidence = [_at(e, r, what, sizes[r, worst], threshold, names[worst])]
            evidence += _fall(e, t.falls_well)
            return _finding("saturated", "warning", layers, e, r, evidence)
    return None


def not_moving(e: Evidence, t: Thresholds) -> Finding | None:
    """Gradients as they should be, and updates that hardly change any kernel."""
    step = e.movement / e.steps[:, None]
    largest = np.fmax.reduce(step, axis=1)
    r = _first(largest < t.still, step, 1.0, after=1)
    # A schedule that ends at 0 leaves the last records still.
    if r is None or r > len(largest) // 2 or (r > 1 and e.falls_by(t.falls_well)):
        return None
    if e.falls_from_first_epoch_by(t.falls_hardly) and r == 1:
        return None
    if not np.fmin.reduce(e.level[r]) >= t.vanishing_level:  # NaN where nothing has a gradient
        return None
    k = int(np.nanargmax(step[r]))
    evidence = [_at(e, r, _STEP, largest[r], t.still, e.layers[k]), *_fall(e, t.falls_hardly)]
    return _finding("not_moving", "warning", [], e, r, evidence)


def moving_too_far(e: Evidence, t: Thresholds) -> Finding | None:
    """Kernels that a record moves by more than their own size, and a loss that jumps or stays."""
    # Steps in many directions add up like a random walk's.
    walked = e.movement / np.sqrt(e.steps)[:, None]
    movement = np.where(np.isfinite(walked), walked, 0).max(axis=1)
    harmful = e.rises | (not e.falls_by(t.falls_well))
    for threshold, where in ((t.very_far, True), (t.far, harmful)):
        far = (movement > threshold) & where
        if far.any():
            r = int(np.argmax(far))
            layers = _named(e, walked[r] > threshold)
            k = int(np.nanargmax(walked[r]))
            evidence = [_at(e, r, _MOVED, movement[r], threshold, e.layers[k])]
            evidence += _fall(e, t.falls_well)
            return _finding("moving_too_far", "critical", layers, e, r, evidence)
    return None


def always_clipped(e: Evidence, t: Thresholds) -> Finding | None:
    """Clipping that acts at nearly every step and leaves little."""
    if "clipped_steps" not in e.history.statistics:
        return None
    share = e.history["clipped_steps"].max(axis=1) / e.steps
    with np.errstate(all="ignore"):
        before = np.hypot.reduce(e.history["l2_norm"], axis=1)
        left = np.hypot.reduce(e.history["clipped_l2"], axis=1) / before
    held = (share >= t.clipped_share) & (left < t.clipped_left)
    r = _first(held, left[:, None], t.persistent)
    if r is None or e.falls_by(t.falls_well):
        return None
    evidence = [
        _at(e, r, "share of the gradient norm that clipping left", left[r], t.clipped_left),
        _at(e, r, "share of the steps clipped", share[r], t.clipped_share),
    ]
    return _finding("always_clipped", "warning", [], e, r, evidence + _fall(e, t.falls_well))


def not_improving(e: Evidence, t: Thresholds) -> Finding | None:
    """A loss that does not fall, and is not low already."""
    if not e.fails or np.isnan(e.fall) or e.fall > t.falls_hardly:
        return None
    r = len(e.epochs) - 1
    evidence = [_at(e, r, "share by which the loss fell", e.fall, t.falls_hardly)]
    return _finding("not_improving", "warning", [], e, min(1, r), evidence)


def layer_out_of_line(e: Evidence, t: Thresholds) -> Finding | None:
    """One layer whose weights begin orders of magnitude from the others'."""
    sigma_w2 = e.sigma_w2[0]
    if len(sigma_w2) < 3:
        return None
    with np.errstate(all="ignore"):
        factor = np.exp(np.abs(np.log(sigma_w2 / np.median(sigma_w2))))
    usual = (sigma_w2 > t.small_sigma_w2) & (sigma_w2 < t.large_sigma_w2)
    out = (factor > t.out_of_line) & ~usual
    out[-1] &= sigma_w2[-1] > 1  # a last layer may begin at nothing
    if not out.any() or out.sum() > len(out) // 3 or e.falls_by(t.falls_well):
        return None
    k = int(np.argmax(np.where(np.isnan(factor), 0, factor)))
    text = "factor between σ_w² and the median of all layers"
    evidence = [_at(e, 0, text, factor[k], t.out_of_line, e.layers[k]), *_fall(e, t.falls_well)]
    return _finding("layer_out_of_line", "warning", _named(e, out), e, 0, evidence)


def badly_scaled_weights(e: Evidence, t: Thresholds) -> Finding | None:
    """Weights of most layers that begin so large or so small that no signal keeps its size."""
    sigma_w2 = e.sigma_w2[0]
    out = (sigma_w2 < t.small_sigma_w2) | (sigma_w2 > t.large_sigma_w2)
    hidden = out[:-1] if len(out) > 1 else out
    # Behind normalization any size will do.
    far = not e.normalized and sigma_w2[out].max(initial=0) > t.saturating_sigma_w2
    if hidden.mean() < 0.5 or (e.falls_by(t.falls_well) and not far):
        return None
    k = int(np.argmax(out))
    limit = t.small_sigma_w2 if sigma_w2[k] < t.small_sigma_w2 else t.large_sigma_w2
    evidence = [_at(e, 0, _SIGMA_W2, sigma_w2[k], limit, e.layers[k]), *_fall(e, t.falls_well)]
    return _finding("badly_scaled_weights", "critical", _named(e, out), e, 0, evidence)


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


def _first(
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


def _at(
    e: Evidence, r: int, quantity: str, value: float, threshold: float, layer: str = ""
) -> Measurement:
    return Measurement(quantity, float(value), float(threshold), layer, int(e.epochs[r]))


def _fall(e: Evidence, threshold: float) -> list[Measurement]:
    """By how much the loss fell, if that is known."""
    if np.isnan(e.fall):
        return []
    return [_at(e, len(e.epochs) - 1, "share by which the loss fell", e.fall, threshold)]


def _named(e: Evidence, mask: np.ndarray) -> list[str]:
    """The layers of the kernels that a mask chooses, each once."""
    return list(dict.fromkeys(name for name, m in zip(e.layers, mask, strict=True) if m))


def _finding(
    rule: str,
    severity: Severity,
    layers: Sequence[str],
    e: Evidence,
    r: int,
    evidence: Sequence[Measurement],
) -> Finding:
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
