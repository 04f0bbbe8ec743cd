"""The rules about gradients, and about activations and the clipping that shape them.

A gradient's size alone never makes a finding. What counts is its level against a healthy network's
of the same shape, over the records, together with whether the loss falls.
"""

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Finding
from kgrad.diagnosis.statements import fall_of_loss, finding, first_lasting, layers_of, measured
from kgrad.diagnosis.thresholds import Thresholds

_LEVEL = "gradient against a healthy network's"
_SATURATED = "share of activations where the slope is nearly 0"
_BIAS = "size of the biases"
_INPUT = "size of the entries of the model's input"


def first_nonfinite_record(e: Evidence) -> int | None:
    """The first record with a NaN or an infinity in gradients, weights or loss.

    Steps that a loss scale skipped do not count.
    """
    bad = e.nonfinite_steps.any(axis=1) | ~np.isfinite(e.history["weight_l2"]).all(axis=1)
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
        where = e.history.layers[worst]
        evidence.append(measured(e, r, "steps with a NaN or infinity", steps[worst], 0, where))
        if "first_nonfinite_step" in e.history.statistics:  # of old histories it is not known
            first = e.history.by_layer("first_nonfinite_step")[r, worst]
            evidence.append(measured(e, r, "first such step", first, np.inf, where))
    sizes = e.history.by_layer("weight_l2")[r]
    if not np.isfinite(sizes).all() and not evidence:
        layers = [n for n, size in zip(e.history.layers, sizes, strict=True) if size - size != 0]
        size = sizes[~np.isfinite(sizes)][0]
        evidence.append(measured(e, r, "norm of the weights", size, np.inf, layers[0]))
    if e.loss is not None and not np.isfinite(e.loss[r]):
        evidence.append(measured(e, r, "loss", e.loss[r], np.inf))
    return finding("nonfinite", "critical", layers, e, r, evidence)


def vanishing(e: Evidence, t: Thresholds) -> Finding | None:
    """Gradients of several kernels far below a healthy network's, and a loss that hardly falls."""
    least = min(2, max(1, len(e.kernels) - 1))
    for threshold, fall, harms in (
        (t.far_vanishing_level, t.falls_well, not e.falls_by(t.falls_well)),
        (t.vanishing_level, t.falls_hardly, e.falls_less(t.falls_hardly)),
    ):
        r = first_lasting(
            (e.level < threshold).sum(axis=1) >= least,
            e.level,
            t.persistent,
            stays=(e.level < t.vanishing_level).sum(axis=1) >= least,
        )
        if r is not None and harms:
            k = int(np.nanargmin(e.level[r]))
            evidence = [
                measured(e, r, _LEVEL, e.level[r, k], threshold, e.layers[k]),
                *fall_of_loss(e, fall),
            ]
            layers = layers_of(e, e.level[r] < threshold)
            return finding("vanishing", "critical", layers, e, r, evidence)
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
        r = first_lasting(high, level, t.persistent, stays=(level > near).any(axis=1))
        if r is not None and harms:
            k = int(np.nanargmax(level[r]))
            evidence = [
                measured(e, r, _LEVEL, level[r, k], threshold, e.layers[k]),
                *fall_of_loss(e, fall),
            ]
            layers = layers_of(e, level[r] > threshold)
            return finding("exploding", "critical", layers, e, r, evidence)
    norm = np.hypot.reduce(e.gradient, axis=1)
    grown = norm / norm[0]
    # What grew from nearly nothing to what is usual has not exploded.
    held = np.isfinite(grown) & (grown > t.growth) & (np.fmax.reduce(level, axis=1) > 1)
    if e.falls_by(t.falls_hardly) or not held.any():
        return None
    r = int(np.argmax(held))
    k = int(np.nanargmax(e.gradient[r]))
    evidence = [measured(e, r, "growth of the gradient norm", grown[r], t.growth, e.layers[k])]
    return finding("exploding", "critical", [e.layers[k]], e, r, evidence)


def dead_units(e: Evidence, t: Thresholds) -> Finding | None:
    """Units that are 0 on the whole probe; without a probe, kernels without any gradient."""
    names, share, what = e.dead
    dead = share > t.dead_share
    r = first_lasting(dead.any(axis=1), share, t.persistent)
    if r is None or e.falls_by(t.falls_well):
        return None
    worst = int(np.nanargmax(share[r]))
    layers = [name for name, is_dead in zip(names, dead[r], strict=True) if is_dead]
    evidence = [measured(e, r, what, share[r, worst], t.dead_share, names[worst])]
    evidence += fall_of_loss(e, t.falls_well)
    return finding("dead_units", "critical", layers, e, r, evidence)


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
        r = first_lasting(flat.any(axis=1), sizes, t.persistent)
        all_flat = (
            what == _SATURATED and r is not None and np.nanmax(sizes[r]) > t.far_saturated_share
        )
        if r is not None and (all_flat or not e.falls_by(t.falls_well)):
            worst = int(np.nanargmax(sizes[r]))
            layers = [name for name, is_flat in zip(names, flat[r], strict=True) if is_flat]
            evidence = [measured(e, r, what, sizes[r, worst], threshold, names[worst])]
            evidence += fall_of_loss(e, t.falls_well)
            return finding("saturated", "warning", layers, e, r, evidence)
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
    r = first_lasting(held, left[:, None], t.persistent)
    if r is None or e.falls_by(t.falls_well):
        return None
    evidence = [
        measured(e, r, "share of the gradient norm that clipping left", left[r], t.clipped_left),
        measured(e, r, "share of the steps clipped", share[r], t.clipped_share),
    ]
    return finding("always_clipped", "warning", [], e, r, evidence + fall_of_loss(e, t.falls_well))
