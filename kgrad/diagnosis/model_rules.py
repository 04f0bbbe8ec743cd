"""The rules about the model: its output and its loss, and layers that keep it from learning."""

from typing import NamedTuple

import numpy as np

from kgrad.diagnosis.evidence import Evidence, Head, ModelFacts
from kgrad.diagnosis.findings import Measurement
from kgrad.diagnosis.rules import (
    INPUTS,
    MODEL,
    TARGETS,
    Observation,
    Quantity,
    Remedy,
    Rule,
    Threshold,
    ThresholdValues,
    affected_layers,
    fall_of_loss,
    measured,
    number,
    of_data,
    percent,
)

# Losses that are smallest if the output equals the target.
_COMPARING = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "log_cosh",
)
_REGRESSION = (
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
)

_LEFT = Quantity(
    "norm of the weights divided by the initial one",
    "the weights have {value} of their initial norm (threshold {threshold})",
    percent,
)


class _Mismatch(NamedTuple):
    """Something that does not fit: the measurement, its meaning, and the line that mends it.

    Many networks train well with a `soft` mismatch, which is a note unless the loss is known not to
    fall well, and with an `equal` one, which is a note unless the loss hardly falls.
    """

    evidence: Measurement
    explanation: str
    remedy: str
    tries: tuple[str, ...] = ("output", "data standardized, output and loss that fit")
    soft: bool = False
    equal: bool = False


@Rule(
    severity="critical",
    thresholds=(),
    explanation="The output layer cannot produce the values this loss expects.",
    remedies=(
        Remedy(
            "Match activation and loss: sigmoid with binary_crossentropy for one unit, softmax "
            "with categorical_crossentropy for several, linear with mean_squared_error for "
            "numbers.",
            ("output",),
        ),
        Remedy("Alternatively, keep the output linear and pass from_logits=True to the loss.", ()),
    ),
    reference="Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2",
    needs=(MODEL,),
    before_training=True,
    independent=True,
)
def output_loss_mismatch(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a loss that does not suit the last layer or the targets."""
    observations = []
    for head, y in e.heads:
        found = [mismatch for check in _CHECKS if (mismatch := check(head, y)) is not None]
        found += [_of_sum(head)] if e.data.summed else []
        observations += [_observed(e, t, head, mismatch) for mismatch in found]
    harmful = [one for one in observations if not one.harmless]
    return next(iter(harmful or observations), None)


def _observed(e: Evidence, t: ThresholdValues, head: Head, found: _Mismatch) -> Observation:
    harmless = (found.equal and not e.falls_less(t.falls_hardly)) or (
        found.soft and not e.falls_less(t.falls_well)
    )
    shown = fall_of_loss(e, t) if found.soft or found.equal else []
    return Observation(
        [head.layer],
        0,
        [found.evidence, *shown],
        found.explanation,
        [Remedy(found.remedy, found.tries)],
        harmless,
    )


def _single_unit(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find a softmax or a categorical loss on a single unit."""
    categorical = head.loss.startswith(("categorical", "sparse_cat"))
    if head.units != 1 or not (categorical or head.activation == "softmax"):
        return None
    needy = "softmax" if head.activation == "softmax" else head.loss
    classes = _classes(y)
    better = (
        f"Use Dense({classes}, 'softmax') with loss='{_cross_entropy(y)}'."
        if classes > 2 and head.loss.endswith("crossentropy")
        else "Use Dense(1, 'sigmoid') with loss='binary_crossentropy'."
        if classes == 2 or head.loss.endswith("crossentropy")
        else "Use a linear output: Dense(1)."
    )
    sentence = f"there is 1 output unit; {needy} needs at least 2"
    return _Mismatch(
        of_data("output units", 1, 2, sentence, head.layer),
        "Softmax over one unit is always 1, so every prediction is the same."
        if head.activation == "softmax"
        else f"With one output unit {head.loss} has a single class, so nothing can be learned.",
        better,
    )


def _no_probabilities(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find a cross-entropy on outputs that can be below 0 or above 1."""
    (low, high), activation = head.output_range, head.activation
    if not head.loss.endswith("crossentropy") or head.from_logits or not (low < 0 or high > 1):
        return None
    right = "sigmoid" if head.loss.startswith("binary") else "softmax"
    better = f"Give {head.layer} the activation '{right}'"
    better += ", or the loss from_logits=True" if activation == "linear" else ""
    extreme, end, limit, side = (
        ("smallest", low, 0, "below") if low < 0 else ("largest", high, 1, "above")
    )
    sentence = f"{activation} outputs can be {side} {limit}, probabilities cannot"
    return _Mismatch(
        of_data(f"{extreme} output of {activation}", end, limit, sentence, head.layer),
        f"{head.loss} takes the logarithm of probabilities, but receives values {side} {limit}.",
        f"{better}.",
    )


def _second_activation(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find a loss that applies the output's sigmoid or softmax once more."""
    activation = head.activation
    is_cross_entropy = head.loss.endswith("crossentropy")
    if not (is_cross_entropy and head.from_logits and activation in ("sigmoid", "softmax")):
        return None
    sentence = f"{activation} limits the logits to at most 1"
    return _Mismatch(
        of_data(f"largest logit of {activation}", 1, np.inf, sentence, head.layer),
        "Keras's TensorFlow backend takes the logits from before the activation, so this trains as "
        "intended there; on JAX and PyTorch the activation is applied twice, and no prediction can "
        "be confident."
        if head.from_activation
        else "The loss applies sigmoid or softmax a second time, so no prediction can be "
        "confident.",
        f"Remove {activation} from {head.layer}, or from_logits=True from the loss.",
        equal=head.from_activation,
    )


def _fractions_as_labels(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find labels that are no integers."""
    if y is None or not head.loss.startswith("sparse_cat"):
        return None
    between = y[y != np.floor(y)]
    if not between.size:
        return None
    share = between.size / y.size
    sentence = f"{percent(share)} of the labels are not integers, such as "
    sentence += number(float(between[0]))
    return _Mismatch(
        of_data("share of the labels that are not integers", share, 0, sentence, head.layer),
        f"{head.loss} takes the number of a class. It cuts fractions off, so that different "
        "classes become one.",
        "Pass integers from 0 to the number of classes − 1; do not scale the labels.",
    )


def _percentages_of_zero(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find targets of 0 for a percentage error."""
    if y is None or head.loss != "mean_absolute_percentage_error" or not (y == 0).any():
        return None
    share = float(np.mean(y == 0))
    sentence = f"{percent(share)} of the targets are 0"
    return _Mismatch(
        of_data("share of the targets that are 0", share, 0, sentence, head.layer),
        "The percentage error divides by the target, so targets of 0 outweigh all others.",
        "Use loss='mean_absolute_error', or the logarithm of the targets.",
        soft=True,
    )


def _unreachable_targets(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find targets outside what the loss is defined for, or what the output can reach."""
    if y is None:
        return None
    low, high = _possible_targets(head)
    if head.ignored_class is not None:
        y = y[y != head.ignored_class]
    if not y.size or not np.isfinite(y).any() or np.isnan(low):
        return None
    outside = float(np.mean((y < low) | (y > high)))
    if not outside:
        return None
    possible = f"{number(low)} to {number(high)}"
    what = f"of the targets outside {possible}, the range of the output"
    sentence = f"{percent(outside)} {what.replace('outside', 'are outside')}"
    return _Mismatch(
        of_data(f"share {what}", outside, 0, sentence, head.layer),
        "The loss cannot reach its minimum, because the output cannot reach all targets: they go "
        f"from {number(np.nanmin(y))} to {number(np.nanmax(y))}.",
        _output_that_reaches(head, y),
    )


def _possible_targets(head: Head) -> tuple[float, float]:
    """Return the range of the targets with which the loss can reach its minimum; NaN if unknown."""
    if head.loss.startswith("sparse_cat"):
        return 0, head.units - 1
    if head.loss.endswith("crossentropy"):
        return 0, 1
    if head.loss == "poisson":
        return 0, np.inf
    return head.output_range if head.loss in _COMPARING else (np.nan, np.nan)


def _output_that_reaches(head: Head, y: np.ndarray) -> str:
    classes = _classes(y)
    if head.loss.startswith("sparse_cat"):
        return f"Number the classes from 0, and give {head.layer} a unit for each."
    if head.loss == "poisson":
        return "Poisson is for counts: use loss='mean_squared_error'."
    if not head.loss.endswith("crossentropy"):
        scale = "; scale the targets if they are large" if np.abs(y).max() > 10 else ""
        return f"Give {head.layer} no activation: Dense({head.units or 1}){scale}."
    if classes > 2:
        right = f"Dense({classes}, 'softmax') with loss='{_cross_entropy(y)}'"
        return f"For {classes} classes, use {right}."
    if classes == 2:
        return "Code the two classes as 0 and 1."
    return "For numbers, use a linear output with loss='mean_squared_error'."


def _broadcast_targets(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find targets whose last axis differs from the output's, so that they are broadcast."""
    if y is None or head.loss not in _COMPARING or not head.units:
        return None
    columns = 1 if y.ndim == 1 else y.shape[-1]
    is_label = head.loss.startswith("sparse_cat")
    if is_label or columns == head.units or 1 not in (columns, head.units) or y.ndim > 2:
        return None
    of_targets = f"{columns} column{'s' * (columns > 1)}"
    of_output = f"{head.units} unit{'s' * (head.units > 1)}"
    sentence = f"the targets have {of_targets}, the output has {of_output}"
    classes = (
        f", or for classes the activation 'softmax' and loss='{_cross_entropy(y)}'"
        if columns == 1 and head.activation in ("softmax", "sigmoid")
        else ""
    )
    return _Mismatch(
        of_data("columns of the targets", columns, head.units, sentence, head.layer),
        "The loss compares each column with each unit, so all units learn the same mean.",
        f"Give {head.layer} {columns} unit{'s' * (columns > 1)}{classes}.",
    )


def _regression_of_classes(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find a regression loss for targets that name classes."""
    if y is None or head.loss not in _REGRESSION or not np.isin(y, (0, 1)).all():
        return None
    one_hot = is_one_hot(y)
    if head.activation in ("softmax", "sigmoid"):
        right = "categorical_crossentropy" if one_hot else "binary_crossentropy"
        sentence = f"all targets are 0 or 1, but the loss is {head.loss}"
        explanation = (
            f"Behind {head.activation}, the gradient of {head.loss} vanishes where a prediction is "
            "confident and wrong; that of a cross-entropy is largest there."
        )
        better = f"Use loss='{right}'."
    elif one_hot and head.activation == "linear":
        sentence = f"the targets are one-hot rows, but the loss is {head.loss}"
        explanation = (
            "The rows name classes. A cross-entropy learns them faster and gives probabilities."
        )
        better = (
            f"Give {head.layer} the activation 'softmax' and use loss='categorical_crossentropy'."
        )
    else:
        return None
    evidence = of_data("share of the targets that are 0 or 1", 1, 1, sentence, head.layer)
    return _Mismatch(evidence, explanation, better, soft=True)


def _several_labels(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find a softmax for rows with several labels or none."""
    if y is None or head.activation != "softmax" or not np.isin(y, (0, 1)).all():
        return None
    if y.ndim != 2 or y.shape[1] < 2 or is_one_hot(y):
        return None
    rows = float(np.mean(y.sum(axis=1) != 1))
    sentence = f"{percent(rows)} of the rows of y have no label or several"
    return _Mismatch(
        of_data("share of the rows without exactly one label", rows, 0, sentence, head.layer),
        "Softmax shares out a total of 1, so it cannot predict several labels at once.",
        f"Give {head.layer} the activation 'sigmoid' and use loss='binary_crossentropy'.",
    )


def _relu_for_numbers(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find a ReLU output for numbers, even if none is below 0."""
    if y is None or head.loss not in _REGRESSION or head.activation != "relu":
        return None
    sentence = f"relu outputs cannot be below 0, and the loss is {head.loss}"
    return _Mismatch(
        of_data("smallest output of relu", 0, -np.inf, sentence, head.layer),
        "Where a unit's input is negative, its output is 0 and it has no gradient: a unit that "
        "begins so for all samples never learns.",
        f"Give {head.layer} no activation: Dense({head.units or 1}).",
        soft=True,
    )


def _shares_without_softmax(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find rows of shares for an output that need not sum to 1."""
    if y is None or head.activation == "softmax" or not _are_shares(y):
        return None
    sentence = f"each row of y sums to 1, but {head.activation} outputs need not"
    return _Mismatch(
        of_data("sum of each row of the targets", 1, 1, sentence, head.layer),
        "The targets are the shares of a whole, of which softmax knows.",
        f"Give {head.layer} the activation 'softmax' and use loss='categorical_crossentropy'.",
        soft=True,
    )


def _independent_classes(head: Head, y: np.ndarray | None) -> _Mismatch | None:
    """Find exclusive classes with sigmoid or binary cross-entropy."""
    if y is None:
        return None
    loss, activation = head.loss, head.activation
    softmax, right = f"Give {head.layer} the activation 'softmax'", "categorical_crossentropy"
    if loss.startswith("binary_cross") and activation == "softmax" and is_one_hot(y):
        better = f"Use loss='{right}'."
    elif loss.startswith("binary_cross") and activation == "sigmoid" and is_one_hot(y):
        better = f"{softmax} and use loss='{right}'."
    elif loss.startswith(("categorical_c", "sparse_cat")) and activation == "sigmoid":
        better = f"{softmax}."
    else:
        return None
    sentence = f"{loss} with {activation}, but each sample has one class"
    taken_back = ": on TensorFlow, Keras takes the logits from before sigmoid"
    return _Mismatch(
        of_data("units with a probability of their own", head.units, 0, sentence, head.layer),
        "For classes that exclude each other, softmax with categorical cross-entropy is the "
        "likelihood. Other pairs often train as well"
        + (taken_back if head.from_activation and activation == "sigmoid" else "")
        + ".",
        better,
        equal=True,
    )


# In this order: the first one that does harm is the finding.
_CHECKS = (
    _single_unit,
    _no_probabilities,
    _second_activation,
    _fractions_as_labels,
    _percentages_of_zero,
    _unreachable_targets,
    _broadcast_targets,
    _regression_of_classes,
    _several_labels,
    _relu_for_numbers,
    _shares_without_softmax,
    _independent_classes,
)


def _of_sum(head: Head) -> _Mismatch:
    """Return what a loss that is a sum over the batch does."""
    return _Mismatch(
        of_data(
            "loss of a doubled batch divided by the loss",
            2,
            1,
            "the loss of a batch doubles with the batch size",
            head.layer,
        ),
        "The loss adds up over the batch instead of averaging, so the gradients, and with SGD "
        "the steps, grow with the batch size.",
        "Average over the batch: keras.ops.mean in place of keras.ops.sum.",
        tries=("learning rate ×0.01", "learning rate ×0.1"),
        soft=True,
    )


def is_one_hot(y: np.ndarray) -> bool:
    """Return whether each row of targets names one class by a 1 among zeros."""
    return bool(
        y.ndim >= 2 and y.shape[-1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all()
    )


def _are_shares(y: np.ndarray) -> bool:
    is_table = y.ndim == 2 and y.shape[1] > 2 and not np.isin(y, (0, 1)).all()
    return is_table and bool((y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-4))


def _classes(y: np.ndarray | None) -> int:
    """Return the number of classes that the targets name; 0 if they are numbers or unknown."""
    if y is None:
        return 0
    if is_one_hot(y):
        return int(y.shape[-1])
    values = np.unique(y)
    whole = np.isfinite(values).all() and (values == np.floor(values)).all()
    return len(values) if whole and len(values) <= 100 and values.min() >= -1 else 0


def _cross_entropy(y: np.ndarray | None) -> str:
    one_hot = y is not None and is_one_hot(y)
    return "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "linear_share",
            0.5,
            "share of the hidden layers without an activation above which the network is hardly "
            "more than a linear one; reported unless the loss falls well",
        ),
    ),
    explanation="Dense and convolutional layers without an activation between them are one linear "
    "layer, however many they are.",
    remedies=(
        Remedy("Give the hidden layers an activation: activation='relu'.", ("activation relu",)),
    ),
    reference="Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.1",
    needs=(MODEL,),
    independent=True,
)
def no_nonlinearity(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect hidden layers without an activation function."""
    if e.facts is None:
        return None
    hidden = e.facts.activations
    linear = [layer for layer, activation in hidden if activation == "linear"]
    if len(linear) <= t.linear_share * len(hidden) or e.falls_by(t.falls_well):
        return None
    if len(hidden) < 2 and not e.fails:
        return None
    share = len(linear) / len(hidden)
    sentence = f"{len(linear)} of {len(hidden)} hidden layers have no activation"
    found = of_data("share of hidden layers without an activation", share, t.linear_share, sentence)
    return Observation(linear, 0, [found, *fall_of_loss(e, t)])


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "dropout_rate",
            0.6,
            "rate above which too few units are left; reported unless the loss falls well",
        ),
    ),
    explanation="So much is dropped that the loss measures the noise of dropout more than the "
    "network.",
    remedies=(
        Remedy("Use rates of 0.1 to 0.5 in hidden layers.", ("dropout",)),
        Remedy("Drop nothing behind the last layer with weights.", ()),
    ),
    reference="Srivastava et al., Dropout: a simple way to prevent neural networks from "
    "overfitting (2014), section A.4",
    needs=(MODEL,),
    independent=True,
)
def too_much_dropout(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect dropout with a high rate, or of the model's outputs."""
    if e.facts is None:
        return None
    if e.falls_by(t.falls_well):
        return None
    found = [one for one in e.facts.dropouts if one.drops_outputs and one.rate > 0]
    if found:
        limit, sentence = 0.0, "drops {rate} of the model's outputs"
    else:
        found = [one for one in e.facts.dropouts if one.rate > t.dropout_rate]
        limit, sentence = t.dropout_rate, "drops {rate} of the units (threshold {limit})"
    if not found:
        return None
    worst = max(found, key=lambda one: one.rate)
    text = sentence.format(rate=percent(worst.rate), limit=percent(limit))
    evidence = of_data("rate of dropout", worst.rate, limit, text, worst.layer)
    layers = [one.layer for one in found]
    return Observation(layers, 0, [evidence, *fall_of_loss(e, t)])


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "penalty_share",
            0.5,
            "share of the last loss that is penalties on weights, above which they outweigh the "
            "data; reported if the rest is no better than a constant",
        ),
        Threshold(
            "weights_left",
            0.2,
            "share of the initial norm of a layer's weights that penalties leave, reported in the "
            "same case",
        ),
    ),
    explanation="The optimizer lowers the penalties on the weights instead of the loss of the "
    "predictions.",
    remedies=(
        Remedy(
            "Reduce the penalties a hundredfold, such as keras.regularizers.L2(1e-4).",
            ("penalties",),
        ),
    ),
    reference="Goodfellow, Bengio & Courville, Deep Learning (2016), section 7.1",
    needs=(MODEL,),
    independent=True,
)
def too_strong_penalty(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect penalties that outweigh the loss of the predictions."""
    if e.facts is None:
        return None
    if e.loss is None or not e.fails or not e.facts.penalties:
        return None
    with np.errstate(all="ignore"):
        left = e.weight[-1] / e.weight[0]
    if e.kernels and np.nanmin(left) < t.weights_left:
        layers = affected_layers(e.layers, left < t.weights_left)
        k, r = int(np.nanargmin(left)), len(e.epochs) - 1
        evidence = measured(e, r, _LEFT, left[k], t.weights_left, e.layers[k])
        return Observation(
            layers, 0, [evidence, *fall_of_loss(e, t)], "", [_smaller_penalty(e.facts)]
        )
    whole = e.loss[-1] + e.penalty[-1]
    share = e.penalty[-1] / whole if whole > 0 else 0.0
    if not share > t.penalty_share:
        return None
    sentence = (
        f"the penalties are {percent(share)} of the loss (threshold {percent(t.penalty_share)})"
    )
    found = of_data("share of the penalties in the loss", share, t.penalty_share, sentence)
    remedies = [_smaller_penalty(e.facts)]
    return Observation([], 0, [found, *fall_of_loss(e, t)], "", remedies)


def _smaller_penalty(facts: ModelFacts) -> Remedy:
    path, factor = max(facts.penalties, key=lambda one: one[1])
    place = path.rpartition("/")[0].rpartition("/")[2] or path
    words = f"L2({number(factor)}) of {place} to L2({number(factor / 100)})"
    return Remedy(f"Reduce the penalties a hundredfold, such as {words}.", ("penalties",))


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "skill_at_inference",
            0.1,
            "skill of the predictions, as a share of that of the training steps, below which batch "
            "normalization has not settled",
        ),
    ),
    explanation="The training steps normalize by the moments of the batch, predictions by moving "
    "averages. These are still near where they started, or follow batches that differ too much, so "
    "the predictions are far worse than the training loss says.",
    remedies=(
        Remedy(
            "Let the averages follow faster: BatchNormalization(momentum=0.9).",
            ("batch normalization, momentum 0.9",),
        ),
        Remedy("Train for more steps, or with larger batches.", ()),
        Remedy("Use LayerNormalization, which is the same in training and in prediction.", ()),
    ),
    reference="Wu & Johnson, Rethinking 'batch' in BatchNorm (2021), section 3",
    needs=(MODEL, INPUTS, TARGETS),
)
def unsettled_batchnorm(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect batch normalization whose moving averages make predictions useless."""
    if not e.has_batchnorm or e.data.inference_loss is None or not e.skill > 0.3:
        return None
    loss = e.data.inference_loss()
    skill = (e.data.constant_loss - loss) / (e.data.constant_loss - e.data.perfect_loss)
    if not skill < t.skill_at_inference * e.skill:
        return None
    sentence = (
        f"the loss of predictions for the sample is {number(loss)}, that of the best constant "
        f"prediction {number(e.data.constant_loss)}, that of the last training steps "
        f"{number(e.last_loss)}"
    )
    found = of_data("skill of the predictions", skill, t.skill_at_inference * e.skill, sentence)
    return Observation([], len(e.epochs) - 1, [found])
