"""The rules about weights, about their updates and about the loss that comes of them."""

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Finding
from kgrad.diagnosis.statements import fall_of_loss, finding, first_lasting, layers_of, measured
from kgrad.diagnosis.thresholds import Thresholds

_MOVED = "change over the weight's norm, by the root of the steps"
_SIGMA_W2 = "σ_w², fan-in times the mean square of the weights"
_STEP = "change of a step over the weight's norm, the largest of all kernels"


def not_moving(e: Evidence, t: Thresholds) -> Finding | None:
    """Gradients as they should be, and updates that hardly change any kernel."""
    step = e.movement / e.steps[:, None]
    largest = np.fmax.reduce(step, axis=1)
    r = first_lasting(largest < t.still, step, 1.0, after=1)
    # A schedule that ends at 0 leaves the last records still.
    if r is None or r > len(largest) // 2 or (r > 1 and e.falls_by(t.falls_well)):
        return None
    if e.falls_from_first_epoch_by(t.falls_hardly) and r == 1:
        return None
    if e.begins_trained and r == 1:  # fine-tuning takes small steps
        return None
    if not np.fmin.reduce(e.level[r]) >= t.vanishing_level:  # NaN where nothing has a gradient
        return None
    k = int(np.nanargmax(step[r]))
    evidence = [
        measured(e, r, _STEP, largest[r], t.still, e.layers[k]),
        *fall_of_loss(e, t.falls_hardly),
    ]
    return finding("not_moving", "warning", [], e, r, evidence)


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
            layers = layers_of(e, walked[r] > threshold)
            k = int(np.nanargmax(walked[r]))
            evidence = [measured(e, r, _MOVED, movement[r], threshold, e.layers[k])]
            evidence += fall_of_loss(e, t.falls_well)
            return finding("moving_too_far", "critical", layers, e, r, evidence)
    return None


def not_improving(e: Evidence, t: Thresholds) -> Finding | None:
    """A loss that does not fall, and is not low already."""
    if not e.fails or np.isnan(e.fall) or e.fall > t.falls_hardly:
        return None
    r = len(e.epochs) - 1
    evidence = [measured(e, r, "share by which the loss fell", e.fall, t.falls_hardly)]
    return finding("not_improving", "warning", [], e, min(1, r), evidence)


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
    evidence = [
        measured(e, 0, text, factor[k], t.out_of_line, e.layers[k]),
        *fall_of_loss(e, t.falls_well),
    ]
    return finding("layer_out_of_line", "warning", layers_of(e, out), e, 0, evidence)


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
    evidence = [
        measured(e, 0, _SIGMA_W2, sigma_w2[k], limit, e.layers[k]),
        *fall_of_loss(e, t.falls_well),
    ]
    return finding("badly_scaled_weights", "critical", layers_of(e, out), e, 0, evidence)
