"""The rules about inputs and targets.

They need the data: kgrad.diagnose(history, model, X, y). Only `inputs_out_of_scale` also reads the
size of the inputs off the gradients.
"""

import math

import numpy as np

from kgrad.diagnosis.evidence import Evidence, Head
from kgrad.diagnosis.findings import Measurement
from kgrad.diagnosis.model_rules import is_one_hot
from kgrad.diagnosis.rules import (
    INPUT_SIZE,
    INPUTS,
    MODEL,
    TARGETS,
    Observation,
    Remedy,
    Rule,
    Threshold,
    ThresholdValues,
    fall_of_loss,
    first_lasting,
    measured,
    number,
    of_data,
    percent,
)

# Layers that bring any input to a usual scale.
_SCALING = ("Normalization", "BatchNormalization", "LayerNormalization", "Rescaling", "Embedding")


_STANDARDIZE = Remedy(
    "Standardize the inputs: layer = keras.layers.Normalization(); layer.adapt(X); make it the "
    "first layer.",
    ("inputs", "data"),
)
_LOGARITHM = Remedy("Take the logarithm of columns that span orders of magnitude.", ())
_PIXELS = Remedy(
    "Divide the pixels by 255: keras.layers.Rescaling(1 / 255) as the first layer.",
    ("inputs", "data"),
)
_TOO_SMALL = Remedy(
    "Look for a division that is made twice, such as that of pixels by 255.", ("inputs", "data")
)


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "large_input",
            10.0,
            "root mean square of an input column above which it is too large for weights that are "
            "initialized for inputs near 1; reported unless the loss falls well",
        ),
        Threshold(
            "small_input",
            0.03,
            "root mean square of all inputs below which they are too small; reported unless the "
            "loss falls well",
        ),
        Threshold(
            "large_input_by_gradient",
            30.0,
            "the same size read off the gradients of the first layer, which overestimate it where "
            "errors cancel",
        ),
    ),
    explanation="Initializers and learning rates are made for inputs of size 1. Larger inputs make "
    "the first layer's outputs and gradients as much larger; smaller ones hide behind its bias.",
    remedies=(_STANDARDIZE, _LOGARITHM),
    reference="LeCun, Bottou, Orr & Müller, Efficient BackProp (1998), section 4.3",
    needs=(),
    independent=True,
)
def inputs_out_of_scale(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect inputs far from size 1, in the data or by the gradients of the first layer."""
    if e.falls_by(t.falls_well) or e.structure.begins_with(_SCALING):
        return None
    if e.data.inputs:
        return _inputs_by_data(e, t)
    if not e.kernels:
        return None
    sizes = e.input_size[:, :1]
    r = first_lasting((sizes > t.large_input_by_gradient).any(axis=1), sizes, t.persistent)
    if r is None:
        return None
    evidence = [measured(e, r, INPUT_SIZE, sizes[r, 0], t.large_input_by_gradient, e.layers[0])]
    return Observation(e.layers[:1], r, evidence + fall_of_loss(e, t))


def _inputs_by_data(e: Evidence, t: ThresholdValues) -> Observation | None:
    layers = e.layers[:1]
    for place, x in enumerate(e.data.inputs):
        columns = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1).astype(float)
        known = columns[:, np.isfinite(columns).all(axis=0)]
        if not known.size:
            continue
        size = np.zeros(columns.shape[1])
        size[np.isfinite(columns).all(axis=0)] = np.sqrt(np.mean(known**2, axis=0))
        whole = float(np.sqrt(np.mean(known**2)))
        c = int(np.argmax(size))
        name = f"input {place + 1}, " if len(e.data.inputs) > 1 else ""
        if size[c] > t.large_input:
            which = f"{name}column {c} (from 0)" if len(size) > 1 else f"{name}X"
            more = int((size > t.large_input).sum()) - 1
            sentence = (
                f"{which} has a root mean square of {number(size[c])} (threshold "
                f"{number(t.large_input)}); it goes from {number(columns[:, c].min())} to "
                f"{number(columns[:, c].max())}"
            ) + f"; {more} more columns are above the threshold" * (more > 0)
            found = of_data("root mean square of an input column", size[c], t.large_input, sentence)
            is_image = x.ndim >= 3 and columns.min() >= 0 and 200 < columns.max() <= 255
            remedies = [_PIXELS] if is_image else [_STANDARDIZE, _LOGARITHM]
            evidence = [found, *fall_of_loss(e, t)]
            return Observation(layers, 0, evidence, "", remedies)
        if 0 < whole < t.small_input:
            sentence = (
                f"{name}X has a root mean square of {number(whole)} (threshold "
                f"{number(t.small_input)})"
            )
            found = of_data("root mean square of the inputs", whole, t.small_input, sentence)
            evidence = [found, *fall_of_loss(e, t)]
            return Observation(layers, 0, evidence, "", [_TOO_SMALL, _STANDARDIZE])
    return None


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "large_target",
            10.0,
            "root mean square of the targets above which a linear output is far from them at the "
            "start; reported unless the loss falls well",
        ),
        Threshold(
            "small_target",
            0.01,
            "the same for a standard deviation that is too small",
        ),
    ),
    explanation="A new network's outputs are near 1 in size. To reach such targets, its last layer "
    "must first grow or shrink by orders of magnitude, and the errors on the way are as large.",
    remedies=(
        Remedy(
            "Standardize the targets: y = (y - y.mean(0)) / y.std(0); scale the predictions back.",
            ("targets", "data"),
        ),
        Remedy(
            "Alternatively, end the model with keras.layers.Rescaling(y.std(), y.mean()).",
            (),
        ),
    ),
    reference="LeCun, Bottou, Orr & Müller, Efficient BackProp (1998), section 4.5",
    needs=(MODEL, TARGETS),
    independent=True,
)
def targets_out_of_scale(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect targets of a linear output that are far from size 1."""
    if e.falls_by(t.falls_well) or e.structure.ends_with("Rescaling"):
        return None
    for head, y in e.heads:
        if y is None or head.activation not in ("linear", "relu"):
            continue
        if head.loss.endswith(("crossentropy", "hinge")):
            continue
        found = _far_from_1(y.astype(float), t, head.layer)
        if found is not None:
            return Observation([head.layer], 0, [found, *fall_of_loss(e, t)])
    return None


def _far_from_1(y: np.ndarray, t: ThresholdValues, layer: str) -> Measurement | None:
    size, spread = float(np.sqrt(np.mean(y**2))), float(y.std())
    if size > t.large_target:
        value, threshold = size, t.large_target
        sentence = f"y has a root mean square of {number(size)}"
    elif 0 < spread < t.small_target and size < 1:
        value, threshold = spread, t.small_target
        sentence = f"y has a standard deviation of {number(spread)}"
    else:
        return None
    sentence += (
        f" (threshold {number(threshold)}): mean {number(float(y.mean()))}, standard deviation "
        f"{number(spread)}"
    )
    return of_data("size of the targets", value, threshold, sentence, layer)


_ONE_HOT = (
    "An Embedding takes the number of a row. It reads each column of a one-hot row as a number of "
    "its own, 0 or 1, so that only two rows of the table are used."
)


@Rule(
    severity="critical",
    thresholds=(),
    explanation="An Embedding looks up rows by integers from 0 to its size. Fractions are cut off, "
    "so that different inputs become the same one; integers beyond the last row have no row.",
    remedies=(
        Remedy(
            "Pass integers: keras.layers.StringLookup or IntegerLookup for categories, "
            "TextVectorization for text.",
            (),
        ),
        Remedy("For numbers that measure something, use a Dense layer in place of Embedding.", ()),
        Remedy("Raise input_dim to the largest integer + 1.", ()),
    ),
    reference="Keras documentation: Embedding turns positive integers (indexes) into vectors",
    needs=(MODEL, INPUTS),
    before_training=True,
    independent=True,
)
def wrong_embedding_inputs(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect inputs of an Embedding that are not integers, or that it has no row for."""
    if e.facts is None or len(e.facts.embeddings) != len(e.data.inputs):
        return None
    for rows, x in zip(e.facts.embeddings, e.data.inputs, strict=True):
        found = _not_rows(e, t, x, rows) if rows else None
        if found is not None:
            return found
    return None


def _not_rows(e: Evidence, t: ThresholdValues, x: np.ndarray, rows: int) -> Observation | None:
    fractions = float(np.mean(x != np.floor(x)))
    outside = float(np.mean((x < 0) | (x >= rows)))
    if is_one_hot(x) and x.shape[-1] > 2 and not e.falls_by(t.falls_well):
        sentence = f"each row has one 1 among {x.shape[-1]} columns, as one-hot rows have"
        found = of_data("sum of each row of the inputs", 1, np.inf, sentence)
        return Observation([], 0, [found], _ONE_HOT, [Remedy("Pass X.argmax(axis=-1).", ())])
    if fractions:
        sentence = f"{percent(fractions)} of the inputs are not integers, such as "
        sentence += number(float(x[x != np.floor(x)][0]), 6)
        found = of_data("share of inputs that are not integers", fractions, 0, sentence)
    elif outside:
        beyond = x[(x < 0) | (x >= rows)]
        sentence = f"{percent(outside)} of the inputs are outside 0 to {rows - 1}, such as "
        sentence += number(float(beyond[0]))
        found = of_data("share of inputs without a row", outside, 0, sentence)
    else:
        return None
    return Observation([], 0, [found])


@Rule(
    severity="warning",
    thresholds=(),
    explanation="A column that is constant, or a copy of another one, tells the model nothing. "
    "It may be a sign that preprocessing went wrong.",
    remedies=(Remedy("Look at how the columns are made; remove those that say nothing.", ()),),
    reference="Zheng & Casari, Feature engineering for machine learning (2018), chapter 2",
    needs=(INPUTS,),
)
def idle_columns(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Note columns of a table that are constant or copies."""
    for place, x in enumerate(e.data.inputs):
        if x.ndim != 2 or len(x) < 20 or x.shape[1] > _COLUMNS or x.shape[1] < 2:
            continue
        name = f"input {place + 1}, column" if len(e.data.inputs) > 1 else "column"
        constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
        _, first = np.unique(x, axis=1, return_index=True)
        copies = np.setdiff1d(np.arange(x.shape[1]), [*first, *constant])
        if not constant.size and not copies.size:
            continue
        if constant.size:
            c = int(constant[0])
            sentence = f"{name} {c} (from 0) is always {number(float(x[0, c]))}"
            sentence += f", and {constant.size - 1} more are constant" * (constant.size > 1)
        else:
            c = int(copies[0])
            original = int(np.flatnonzero((x == x[:, [c]]).all(axis=0))[0])
            sentence = f"{name} {c} (from 0) is the same as column {original}"
            sentence += f", and {copies.size - 1} more are copies" * (copies.size > 1)
        value = float(constant.size + copies.size)
        found = of_data("constant or copied columns", value, 0, sentence)
        return Observation([], 0, [found], harmless=True)
    return None


# Of more columns, such as the pixels of an image, some are always constant.
_COLUMNS = 50


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "column_is_target",
            0.999,
            "squared correlation of an input column with the target from which the column gives "
            "the answer away",
        ),
        Threshold(
            "copied_share",
            0.05,
            "share of the samples that are copies of others above which a random split puts copies "
            "of training samples among the validation samples",
        ),
    ),
    explanation="This column alone gives the target. If it is known only when the target is, the "
    "model looks the answer up and is of no use on new data.",
    remedies=(
        Remedy(
            "Remove the column, unless it is known before the target when the model is used.", ()
        ),
    ),
    reference="Kaufman, Rosset & Perlich, Leakage in data mining (2011)",
    needs=(INPUTS, TARGETS),
)
def leakage(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Note an input column that is the target, and samples that occur several times."""
    if len(e.data.inputs) != 1 or len(e.data.targets) != 1:
        return None
    x, y = e.data.inputs[0], e.data.targets[0]
    if len(x) != len(y) or len(x) < 20:
        return None
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1).astype(float)
    if e.data.inputs[0].ndim == 2 and 2 <= x.shape[1] <= 1000 and y.shape[1] <= 20:
        with np.errstate(all="ignore"):
            squared = np.nan_to_num(_correlations(x.astype(float), y) ** 2)
        c, k = np.unravel_index(int(squared.argmax()), squared.shape)
        if squared[c, k] > t.column_is_target:
            column = f" column {k}" if y.shape[1] > 1 else ""
            sentence = (
                f"column {c} (from 0) of X alone explains {percent(squared[c, k], 4)} of the "
                f"variance of y{column} (threshold {percent(t.column_is_target)})"
            )
            value = float(squared[c, k])
            found = of_data("squared correlation", value, t.column_is_target, sentence)
            return Observation([], 0, [found], harmless=True)
    # Rows of few integers are often the same; fractions hardly ever.
    if np.mean(x != np.floor(x)) < 0.1:
        return None
    different = {a.tobytes() + b.tobytes() for a, b in zip(x, y, strict=True)}
    share = 1 - len(different) / len(x)
    if not share > t.copied_share:
        return None
    sentence = (
        f"{percent(share)} of the {len(x)} samples that were looked at are copies of others "
        f"(threshold {percent(t.copied_share)})"
    )
    found = of_data("share of copied samples", share, t.copied_share, sentence)
    return Observation([], 0, [found], _COPIES, [_SPLIT_BY_GROUP], harmless=True)


_COPIES = (
    "A random split puts copies of training samples among the validation samples. The validation "
    "loss then shows what the model remembers, not what it understands."
)
_SPLIT_BY_GROUP = Remedy(
    "Split first and oversample then, or keep all copies of a sample on one side: "
    "sklearn.model_selection.GroupShuffleSplit.",
    (),
)


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the correlation of each column of x with each of y; NaN for constant columns."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return (x.T @ y) / np.outer(np.linalg.norm(x, axis=0), np.linalg.norm(y, axis=0))


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "explained_by_codes",
            0.2,
            "share of the variance of y that an integer column explains as names, beyond what it "
            "explains as a number, from which its integers seem to name categories",
        ),
    ),
    explanation="The targets jump from integer to integer, so the integers seem to be names. "
    "Dense layers take them as sizes: category 4 as twice category 2.",
    remedies=(
        Remedy(
            "One-hot encode the column: keras.layers.CategoryEncoding(num_tokens=..., "
            "output_mode='one_hot').",
            (),
        ),
        Remedy("For many categories, use keras.layers.Embedding.", ()),
    ),
    reference="Hastie, Tibshirani & Friedman, The elements of statistical learning (2009), "
    "section 2.2",
    needs=(INPUTS, TARGETS),
)
def categories_as_numbers(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Note a column of integers that name categories, in a table of numbers."""
    if len(e.data.inputs) != 1 or len(e.data.targets) != 1 or e.structure.begins_with(_CODED):
        return None
    x, y = e.data.inputs[0], e.data.targets[0]
    if x.ndim != 2 or len(x) != len(y) or x.shape[1] > _COLUMNS:
        return None
    labels = _labels(e)
    if labels is not None:
        y = (labels[:, None] == np.unique(labels)).astype(float)
    y = y.reshape(len(y), -1).astype(float)
    if not np.isfinite(y).all() or not np.ptp(y, axis=0).any():
        return None
    for c, column in enumerate(x.T.astype(float)):
        values, places, counts = np.unique(column, return_inverse=True, return_counts=True)
        if not (5 <= len(values) <= 100 and (values == np.floor(values)).all()):
            continue
        if len(y) < 10 * len(values):
            continue
        sums = np.stack([np.bincount(places, weights=one) for one in y.T], axis=1)
        named = _explained(y, (sums / counts[:, None])[places], len(values))
        powers = np.vander((column - column.mean()) / column.std(), 4)
        ordered = _explained(y, powers @ np.linalg.lstsq(powers, y, rcond=None)[0], 4)
        if not named - ordered > t.explained_by_codes:
            continue
        sentence = (
            f"column {c} (from 0) has {len(values)} different integers; as names they explain "
            f"{percent(named)} of the variance of y, as a number (up to its cube) "
            f"{percent(max(ordered, 0))}"
        )
        gain = named - ordered
        found = of_data("variance explained by names", gain, t.explained_by_codes, sentence)
        return Observation([], 0, [found], harmless=True)
    return None


# Layers that take integers as names.
_CODED = ("Embedding", "CategoryEncoding", "IntegerLookup", "Hashing", "HashedCrossing")


def _explained(y: np.ndarray, fit: np.ndarray, parameters: int) -> float:
    """Return the share of the variance of y that a fit explains, adjusted for its parameters.

    The adjusted R², 1 − (1 − R²)(n − 1) / (n − p), is 0 on average for a fit to noise.
    """
    left = ((y - fit) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()
    return float(1 - left * (len(y) - 1) / (len(y) - parameters))


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "majority",
            0.7,
            "share of the largest class above which classes count as imbalanced",
        ),
    ),
    explanation="The model predicts the largest class for nearly every sample. That alone gives a "
    "high accuracy, and the gradients of the rare classes are lost in those of the large one.",
    remedies=(
        Remedy(
            "Weight the classes: fit(..., class_weight={0: 1, 1: n_0 / n_1}), or draw batches with "
            "as many samples of each class.",
            ("class_weights",),
        ),
        Remedy("Judge by the recall of each class or by the area under the ROC curve.", ()),
    ),
    reference="Japkowicz & Stephen, The class imbalance problem: a systematic study (2002)",
    needs=(MODEL, INPUTS, TARGETS),
)
def imbalanced_classes(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a model that predicts only the largest class, of classes of very different sizes."""
    labels = _labels(e)
    if labels is None or e.falls_by(t.falls_well) or e.data.predict is None:
        return None
    classes, counts = np.unique(labels, return_counts=True)
    share = counts.max() / counts.sum()
    if len(classes) < 2 or share < t.majority:
        return None
    outputs = e.data.predict()[-1]
    if len(outputs) != len(labels) or not np.isfinite(outputs).all():
        return None
    outputs = outputs.reshape(len(outputs), -1)
    logits = e.facts is not None and e.facts.head.from_logits
    one = outputs.shape[1] == 1
    predicted = (outputs[:, 0] > (0 if logits else 0.5)) if one else outputs.argmax(axis=1)
    recall = [float(np.mean(predicted[labels == c] == c)) for c in classes]
    largest = int(np.argmax(counts))
    rest = [r for i, r in enumerate(recall) if i != largest]
    if recall[largest] < 0.95 or max(rest) > 0.05:
        return None
    rarest = int(np.argmin(counts))
    sentence = (
        f"{percent(share)} of the samples are of class {number(float(classes[largest]))}; of class "
        f"{number(float(classes[rarest]))} the model finds {percent(recall[rarest])} "
        f"({counts[rarest]} samples looked at)"
    )
    found = of_data("share of the largest class", share, t.majority, sentence)
    return Observation([], 0, [found, *fall_of_loss(e, t)])


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "neighbors_gain",
            0.1,
            "share of the variance of y that the five nearest neighbors explain, below which y "
            "seems unrelated to X",
        ),
    ),
    explanation="The nearest neighbors of a sample say nothing about its target, and this model "
    "learned little or by heart. The targets may be shuffled against the inputs, be noise, or need "
    "inputs that are not there. Nearest neighbors cannot see every relation, such as parity or "
    "objects that move in an image.",
    remedies=(
        Remedy(
            "Look at ten inputs with their targets, after all preprocessing and shuffling: are "
            "they pairs?",
            (),
        ),
        Remedy("Compare the loss with that on samples the model was not trained on.", ()),
    ),
    reference="Karpathy, A recipe for training neural networks (2019): become one with the data",
    needs=(INPUTS, TARGETS),
    fallback=True,
)
def unrelated_targets(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect targets that neither the model nor its sample's nearest neighbors predict."""
    y = e.data.targets[-1]
    if np.ptp(y, axis=0).max(initial=0) == 0 and len(y) > 1:
        value = number(float(y.reshape(-1)[0]))
        sentence = f"all {len(y)} targets that were looked at are the same, such as {value}"
        found = of_data("range of the targets", 0, 0, sentence)
        return Observation([], 0, [found])
    if e.falls_by(t.falls_well) or len(e.data.inputs) != 1:
        return None
    gain = _gain_of_neighbors(e.data.inputs[0], y, _labels(e))
    if not gain < t.neighbors_gain:
        return None
    sentence = (
        f"the five nearest neighbors of each of {min(len(y), _NEIGHBORS)} samples explain "
        f"{percent(max(gain, 0))} of the variance of y (threshold {percent(t.neighbors_gain)})"
    )
    found = of_data("variance of y that neighbors explain", gain, t.neighbors_gain, sentence)
    return Observation([], 0, [found, *fall_of_loss(e, t)])


_NEIGHBORS = 500


def _gain_of_neighbors(x: np.ndarray, y: np.ndarray, labels: np.ndarray | None) -> float:
    """Return the share of the variance of y that the five nearest neighbors explain; NaN if few.

    Columns count equally. Classes count as one-hot rows.
    """
    step = max(1, math.ceil(len(x) / _NEIGHBORS))
    x = x[::step].reshape(len(x[::step]), -1).astype(float)
    if labels is not None:
        classes = np.unique(labels)
        y = (labels[:, None] == classes).astype(float)
    y = y[::step].reshape(len(x), -1).astype(float)
    spread = x.std(axis=0)
    if len(np.unique(x, axis=0)) < 50 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    x = (x - x.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    squares = (x**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * x @ x.T
    distance[distance < 1e-9] = np.inf  # the sample itself and its copies
    nearest = np.argsort(distance, axis=1)[:, :5]
    guess = y[nearest].mean(axis=1)
    # The mean of five samples has a fifth more error than the mean of all, if y is noise.
    noise = 1.2 * ((y - y.mean(axis=0)) ** 2).mean()
    return float(1 - ((y - guess) ** 2).mean() / noise)


def _labels(e: Evidence) -> np.ndarray | None:
    """Return the class of each sample; None unless each has one class."""
    head = Head() if e.facts is None else e.facts.head
    if not head.loss.endswith("crossentropy") or not e.data.targets:
        return None
    y = e.data.targets[-1]
    if y.ndim > 1 and y.shape[-1] > 1:
        return y.argmax(axis=1) if y.ndim == 2 and is_one_hot(y) else None
    flat = y.reshape(len(y), -1)
    is_label = flat.shape[1] == 1 and (flat == np.floor(flat)).all()
    return flat[:, 0] if is_label else None
