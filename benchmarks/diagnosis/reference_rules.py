"""The published rules, with their authors' thresholds, applied to the same histories.

Each function takes a history and returns the families that the rule would name. The rules were
written for other measurements. If a history contains a similar one, it is used, as each docstring
says. If it contains none (no probe, no share of zeros, no accuracy), the rule reports nothing.
"""

import math
import warnings
from collections.abc import Callable, Iterable

import numpy as np

from kgrad import GradientHistory

Rule = Callable[[GradientHistory], set[str]]


def autotrainer(history: GradientHistory) -> set[str]:
    """Check AutoTrainer's vanishing, exploding and dying-ReLU symptoms.

    They count only in an epoch whose accuracy is below 0.6, or in which training stalls: within 3
    epochs the accuracy (without accuracy: the loss, relative to itself) changed by less than 0.01.
    The share of zeros is computed over all gradients together.

    References:
        Zhang, Zhai, Ma, Shen, "AutoTrainer: An Automatic DNN Training Problem Detection and
        Repair System", 2021.
    """
    found = set()
    first, last = history.by_layer("l2_norm")[:, [0, -1]].T
    zeros = _zero_share(history)
    for i in np.flatnonzero(_failing(history)):
        if _has_nonfinite(history)[i]:
            found.add("nonfinite")
        elif first[i] < 1e-4 and first[i] < 1e-3 * last[i]:
            found.add("vanishing")
        elif first[i] > 70 * last[i]:
            found.add("exploding")
        if zeros is not None and zeros[i] >= 0.7:
            found.add("dead_units")
    return found


def deep_diagnosis(history: GradientHistory) -> set[str]:
    """Check DeepDiagnosis's symptoms, in any kernel or layer and any epoch.

    - mean |g| < 1e-7;
    - at least 70 % of a layer's outputs are 0 (original: ≤ 0, which is the same for a ReLU);
    - more than half of the pre-activations beyond ±5 (here: where the activation is flat);
    - relative change of a weight per step outside [1e-5, 0.1] (original: lr ‖g‖ / ‖w‖; here: the
      optimizer's change over the epoch, divided by the number of steps);
    - NaN or infinity.

    References:
        Wardat, Cruz, Le, Rajan, "DeepDiagnosis: Automatically Diagnosing Faults and Recommending
        Actionable Fixes in Deep Learning Programs", 2022.
    """
    trained, kernels = _trained(history), _kernels(history)
    change = _relative_change(history, per_step=True)[:, kernels]
    return _named(
        ("nonfinite", _has_nonfinite(history)[trained]),
        ("vanishing", history["mean_abs"][trained][:, kernels] < 1e-7),
        ("dead_units", _probed(history, "activation_zero_fraction") >= 0.7),
        ("saturated", _probed(history, "activation_saturated") > 0.5),
        ("not_moving", change < 1e-5),
        ("moving_too_far", change > 0.1),
    )


def sagemaker(history: GradientHistory) -> set[str]:
    """Check SageMaker Debugger's built-in rules, in any kernel and any epoch.

    - mean |g| < 1e-7;
    - a gradient with NaN or infinity;
    - relative change of a weight between two records above 10 or below 1e-8;
    - variances of the initial weights that differ by more than 10 times between kernels.

    The rule on inputs of tanh beyond ±9.4999 is missing: a history does not contain them.

    References:
        Rauschmayr et al., "Amazon SageMaker Debugger: A System for Real-Time Insights into Machine
        Learning Model Training", 2021.
    """
    trained, kernels = _trained(history), _kernels(history)
    change = _relative_change(history, per_step=False)[:, kernels]
    sizes = np.array([history.weights[k].size for k in kernels])
    variance = history["weight_l2"][0, kernels] ** 2 / sizes
    return _named(
        ("nonfinite", _has_nonfinite(history)[trained]),
        ("vanishing", history["mean_abs"][trained][:, kernels] < 1e-7),
        ("not_moving", change < 1e-8),
        ("moving_too_far", change > 10),
        ("badly_scaled_weights", variance.max() > 10 * variance.min()),
    )


def the_deep_checker(history: GradientHistory) -> set[str]:
    """Check TheDeepChecker's rules, in any epoch.

    - a kernel's mean |g| < 1e-6 or > 1e6;
    - mean |g| that halves or doubles (or more), four times in a row, from a kernel to the one
      before it;
    - log10 of the relative change per step, averaged over the kernels, outside [-4, -1];
    - more than half of a layer's units dead (original: 95th percentile of |a| < 1e-5; here: 0 on
      the whole batch).

    References:
        Ben Braiek, Khomh, "Testing Feedforward Neural Networks Training Programs", 2023.
    """
    trained, kernels = _trained(history), _kernels(history)
    mean_abs = history["mean_abs"][trained][:, kernels]
    change = _relative_change(history, per_step=True)[:, kernels]
    with np.errstate(all="ignore"):
        # A weight that does not change at all gives the lower limit instead of log10(0).
        mean_log = np.log10(np.maximum(change, 1e-30)).mean(axis=1)
        ratio = mean_abs[:, :-1] / mean_abs[:, 1:]
    return _named(
        ("nonfinite", _has_nonfinite(history)[trained]),
        ("vanishing", mean_abs < 1e-6),
        ("vanishing", _runs_of_four(ratio <= 0.5)),
        ("exploding", mean_abs > 1e6),
        ("exploding", _runs_of_four(ratio >= 2)),
        ("not_moving", mean_log < -4),
        ("moving_too_far", mean_log > -1),
        ("dead_units", _probed(history, "activation_dead") > 0.5),
    )


def bttackler(history: GradientHistory) -> set[str]:
    """Check BTTackler's gradient rules, in any epoch.

    - the median over the kernels of mean |g| above 1e4 or below 1e-5;
    - mean |g| of a kernel more than 1000 times, or less than 1e-4 times, that of the next kernel;
    - more than half of a kernel's gradient exactly 0, from the fifth epoch on.

    References:
        Pei et al., "BTTackler: A Diagnosis-based Framework for Efficient Deep Learning
        Hyperparameter Optimization", 2024.
    """
    trained, kernels = _trained(history), _kernels(history)
    mean_abs = history["mean_abs"][trained][:, kernels]
    median = np.median(mean_abs, axis=1)
    with np.errstate(all="ignore"):
        quotient = mean_abs[:, :-1] / mean_abs[:, 1:]
    late = np.zeros(0)
    if "zero_fraction" in history.statistics:
        late = history["zero_fraction"][history.epochs >= 5][:, kernels]
    return _named(
        ("nonfinite", _has_nonfinite(history)[trained]),
        ("exploding", median > 1e4),
        ("exploding", quotient > 1000),
        ("vanishing", median < 1e-5),
        ("vanishing", quotient < 1e-4),
        ("dead_units", late > 0.5),
    )


PUBLISHED: dict[str, Rule] = {
    "AutoTrainer": autotrainer,
    "DeepDiagnosis": deep_diagnosis,
    "SageMaker Debugger": sagemaker,
    "TheDeepChecker": the_deep_checker,
    "BTTackler": bttackler,
}


def _named(*checks: tuple[str, np.ndarray | bool]) -> set[str]:
    return {family for family, holds in checks if np.any(holds)}


def _trained(history: GradientHistory) -> np.ndarray:
    """Mark the records made during training, not before it: bool, (records,)."""
    return history.epochs > 0


def _kernels(history: GradientHistory) -> list[int]:
    return [i for i, weight in enumerate(history.weights) if len(weight.shape) > 1]


def _has_nonfinite(history: GradientHistory) -> np.ndarray:
    """Mark the records that have a gradient or a loss with NaN or infinity: bool, (records,)."""
    broken = (history["nonfinite_steps"] > 0).any(axis=1)
    loss = history.logs.get("loss")
    return broken if loss is None else broken | ~np.isfinite(loss)


def _relative_change(history: GradientHistory, per_step: bool) -> np.ndarray:
    """Return ‖Δw‖ / ‖w‖ per record, or per step: (records of training, weights)."""
    with np.errstate(all="ignore"):
        change = history["update_l2"] / history["weight_l2"]
    if per_step:
        change = change / np.maximum(np.diff(history.steps, prepend=0), 1)[:, None]
    return change[_trained(history)]


def _probed(history: GradientHistory, statistic: str) -> np.ndarray:
    """Return a statistic of the hidden layers' outputs in training; empty without a probe."""
    table = history.activations.get(statistic)
    return np.zeros(0) if table is None else table[_trained(history)][:, :-1]


def _runs_of_four(holds: np.ndarray) -> bool:
    """Check if a row of (records, places) has four true places in a row."""
    width = holds.shape[1] - 3
    runs: Iterable[np.ndarray] = (holds[:, i : i + 4].all(axis=1) for i in range(width))
    return any(run.any() for run in runs)


def _zero_share(history: GradientHistory) -> np.ndarray | None:
    if "zero_fraction" not in history.statistics:
        return None
    sizes = [math.prod(weight.shape) for weight in history.weights]
    return np.average(history["zero_fraction"], axis=1, weights=sizes)


def _failing(history: GradientHistory) -> np.ndarray:
    """Mark failing records, (records,): accuracy below 0.6, or no progress for 3 epochs."""
    trained = _trained(history)
    accuracy, loss = history.logs.get("accuracy"), history.logs.get("loss")
    measure = accuracy if accuracy is not None else loss
    failing = np.zeros(len(history), dtype=bool)
    if measure is None:
        return failing
    if accuracy is not None:
        failing |= accuracy < 0.6
    for i in range(len(history)):
        window = measure[max(0, i - 3) : i + 1][trained[max(0, i - 3) : i + 1]]
        if len(window) == 4:
            scale = 1.0 if accuracy is not None else max(abs(window[-1]), 1e-12)
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                failing[i] |= bool(np.ptp(window) < 0.01 * scale)
        if loss is not None and not math.isfinite(loss[i]):
            failing[i] = True
    return failing & trained
