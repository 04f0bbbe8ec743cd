"""The rules about gradients and activations.

No rule judges a gradient by its size alone. It is compared with a healthy network of the same
shape, over several records, and together with the fall of the loss.
"""

from collections.abc import Sequence

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Measurement
from kgrad.diagnosis.rules import (
    CLIP,
    INPUT_SIZE,
    LOWER_RATE,
    Observation,
    Quantity,
    Remedy,
    Rule,
    Threshold,
    ThresholdValues,
    affected_layers,
    count,
    fall_of_loss,
    first_lasting,
    has_only_open_activations,
    has_usual_inputs,
    is_initialized_well,
    measured,
    number,
    percent,
)

_LEVEL = "gradient relative to a healthy network's"
_SMALL_LEVEL = Quantity(
    _LEVEL, "the gradient is {value} of a healthy network's (threshold {threshold})"
)
_LARGE_LEVEL = Quantity(
    _LEVEL, "the gradient is {value} times a healthy network's (threshold {threshold})"
)
_GROWTH = Quantity(
    "growth of the gradient norm",
    "the model's gradient norm is {value} times its first value (threshold {threshold}); most of "
    "it is in this layer",
)
_BAD_STEPS = Quantity(
    "updates with a NaN or infinity",
    "the gradient of {value} of the updates has a NaN or infinity",
    count,
)
_FIRST_BAD_STEP = Quantity(
    "first such step",
    "the first NaN or infinity occurred in training step {value}",
    count,
)
_WEIGHT_NORM = Quantity("norm of the weights", "the norm of the weights is {value}")
_LOSS = Quantity("loss", "the loss is {value}")
_DEAD = {
    "units": Quantity(
        "share of units that are 0 on the whole probe",
        "{value} of the units are 0 for every sample of the probe (threshold {threshold})",
        percent,
    ),
    "entries": Quantity(
        "share of gradient entries that are exactly 0",
        "{value} of the gradient's entries are exactly 0 (threshold {threshold})",
        percent,
    ),
    "updates": Quantity(
        "share of updates with a gradient of 0",
        "the whole gradient is exactly 0 in {value} of the updates (threshold {threshold})",
        percent,
    ),
}
_DEAD_OR_UNUSED = (
    "The kernels of these layers have a gradient of exactly 0. Either the loss does not depend on "
    "them, or most units of at least one of the layers are 0 for every sample, so that no gradient "
    "passes through it and the next layer gets nothing to learn from. A probe shows which layer it "
    "is: GradientTracker(probe=(X, y))."
)
_FLAT_FROM_THE_START = (
    "Every gradient is exactly 0 from the first update on, that of the last layer, too: the loss "
    "is flat there. Either the outputs are so large that sigmoid or softmax is exactly 0 or 1, "
    "where Keras's cross-entropy cuts probabilities off on JAX and PyTorch, or all units are 0 for "
    "every sample."
)
_FOR_A_FLAT_START = (
    Remedy("Use smaller initial weights: he for relu, xavier for tanh.", ("initializer",)),
    Remedy("Keep the output linear and pass from_logits=True to the loss.", ()),
    Remedy("Standardize the inputs to mean 0 and variance 1.", ("inputs",)),
)
_START_ANEW = Remedy(
    "Start biases at 0 and kernels with he: bias_initializer='zeros', "
    "kernel_initializer='he_normal'.",
    ("initializer",),
)
_OPEN_UNITS = Remedy("Replace relu with leaky_relu, elu or gelu.", ("activation gelu",))
_SMALL_BIASES = Remedy("Start the biases at 0: bias_initializer='zeros'.", ())
_STANDS = Quantity(
    "loss since every gradient is 0",
    "every gradient is exactly 0 from here on, and the loss stays at {value}",
)
_SATURATED = Quantity(
    "share of activations with a slope near 0",
    "the slope of {value} of the activations is nearly 0 (threshold {threshold})",
    percent,
)
_BIAS = Quantity(
    "size of the biases",
    "the biases have a root mean square of {value} (threshold {threshold})",
)

# Activations that grow so fast that a few layers overflow.
_GROWING = ("exponential",)
_BAD_DATA = (
    "The data have a NaN or an infinity. Every batch that contains it has such a gradient, and "
    "every later update spreads it through the weights."
)
_CHECK_LOSS = Remedy("Check the loss for logarithms of 0 and divisions by 0.", ())
_CHECK_DATA = Remedy(
    "Check the data for NaN and very large numbers, and the loss for logarithms and divisions.",
    ("samples",),
)


@Rule(
    severity="critical",
    thresholds=(),
    explanation="A NaN or an infinity entered the gradients, and every later update spreads it "
    "through the weights.",
    remedies=(
        Remedy("Reduce the learning rate; start with 10× smaller.", LOWER_RATE),
        CLIP,
        _CHECK_DATA,
    ),
    reference="Goodfellow, Bengio & Courville, Deep Learning (2016), section 10.11.1",
    needs=(),
)
def nonfinite(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a NaN or infinity in gradients, weights or loss."""
    r = e.first_nonfinite_record
    if r is None:
        return None
    steps = e.nonfinite_steps[r]
    layers = affected_layers(e.history.layers, steps)
    evidence = []
    before_training = False
    if layers:
        worst = int(np.argmax(steps))
        layer = e.history.layers[worst]
        evidence.append(measured(e, r, _BAD_STEPS, steps[worst], 0, layer))
        if "first_nonfinite_step" in e.history.statistics:  # old histories lack it
            first = e.history.by_layer("first_nonfinite_step")[r, worst]
            evidence.append(measured(e, r, _FIRST_BAD_STEP, first, np.inf, layer))
            before_training = r == 0 and first == 1
    norms = e.history.by_layer("weight_l2")[r]
    bad = ~np.isfinite(norms)
    if bad.any() and not evidence:
        layers = affected_layers(e.history.layers, bad)
        evidence.append(measured(e, r, _WEIGHT_NORM, norms[bad][0], np.inf, layers[0]))
    if e.loss is not None and not np.isfinite(e.loss[r]):
        evidence.append(measured(e, r, _LOSS, e.loss[r], np.inf))
    if not all(np.isfinite(one).all() for one in (*e.data.inputs, *e.data.targets)):
        return Observation(layers, r, evidence, _BAD_DATA, [_CHECK_DATA])
    if before_training:
        return Observation(layers, r, evidence, *_before_the_first_update(e))
    return Observation(layers, r, evidence)


def _before_the_first_update(e: Evidence) -> tuple[str, list[Remedy]]:
    """Return where a NaN comes from that no update can have caused, and what to do."""
    start = "The gradient of the very first batch has a NaN or an infinity, so no update caused it"
    overflowing = [layer for layer, f in (e.facts.activations if e.facts else ()) if f in _GROWING]
    if overflowing:
        named = ", ".join(overflowing[:3])
        remedy = Remedy(
            f"Use relu in {named}.", ("activation relu", "activation relu, initializer he")
        )
        return f"{start}. Activations such as exponential overflow from layer to layer.", [remedy]
    if e.data.inputs and e.data.targets:
        largest = max(
            float(np.abs(one).max(initial=0)) for one in (*e.data.inputs, *e.data.targets)
        )
        known = f"the data that were looked at are finite, the largest number is {number(largest)}"
        remedies = [
            _CHECK_LOSS,
            Remedy("Scale inputs, targets and initial weights to 1.", ("inputs",)),
        ]
        return f"{start}: {known}. It comes from the loss or the initial weights.", remedies
    unseen = "targets" if e.data.inputs else "inputs" if e.data.targets else "data"
    return f"{start}: it comes from the {unseen}, the loss or the initial weights.", [_CHECK_DATA]


@Rule(
    severity="critical",
    thresholds=(
        Threshold(
            "exploding_level",
            1e2,
            "level above which gradients explode if the loss does not fall; healthy networks have "
            "up to 80",
        ),
        Threshold(
            "far_exploding_level",
            1e3,
            "level above which gradients explode unless the loss falls well; more than ten times "
            "the level of any healthy network",
        ),
        Threshold(
            "exploding_level_before_nonfinite",
            10.0,
            "level above which gradients explode if a NaN or infinity follows, which is evidence "
            "by itself",
        ),
        Threshold(
            "growth",
            1e3,
            "growth of the gradient norm since the first record; growth from nearly 0 to a "
            "healthy size does not count",
        ),
    ),
    explanation="Gradients are far larger than in a healthy network of this shape, so an optimizer "
    "step overshoots. Either the backward gradient or the forward signal grows layer by layer.",
    remedies=(
        Remedy(
            "Use an initializer that preserves the variance: he for relu, xavier for tanh.",
            ("initializer",),
            is_initialized_well,
        ),
        CLIP,
        Remedy("Add normalization, and reduce the learning rate.", ("normalization", *LOWER_RATE)),
    ),
    reference="Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks "
    "(2013)",
)
def exploding(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect gradients far above a healthy network's, or a gradient norm that grows."""
    level = e.level_by_bias
    near = t.exploding_level
    limits = [
        (t.far_exploding_level, t.falls_well, not e.falls_by(t.falls_well)),
        (near, t.falls_hardly, e.falls_less(t.falls_hardly)),
    ]
    if e.fall == -np.inf:  # a NaN follows
        near = t.exploding_level_before_nonfinite
        limits = [(near, t.falls_hardly, True)]
    for threshold, fall, harms in limits:
        high = (level > threshold).any(axis=1)
        r = first_lasting(high, level, t.persistent, remains=(level > near).any(axis=1))
        if r is not None and harms:
            k = int(np.nanargmax(level[r]))
            evidence = [
                measured(e, r, _LARGE_LEVEL, level[r, k], threshold, e.layers[k]),
                *fall_of_loss(e, t, fall),
            ]
            return Observation(affected_layers(e.layers, level[r] > threshold), r, evidence)
    # Of the kernels that have a gradient in the first record, too.
    both = e.present & e.present[0]
    first = np.hypot.reduce(np.where(both, e.gradient[0], 0), axis=1)
    grown = np.hypot.reduce(np.where(both, e.gradient, 0), axis=1) / first
    # A gradient that grew from nearly 0 to a healthy size has not exploded.
    high = np.isfinite(grown) & (grown > t.growth) & (np.fmax.reduce(level, axis=1) > 1)
    if e.falls_by(t.falls_hardly) or not high.any():
        return None
    r = int(np.argmax(high))
    k = int(np.nanargmax(e.gradient[r]))
    evidence = [measured(e, r, _GROWTH, grown[r], t.growth, e.layers[k])]
    return Observation([e.layers[k]], r, evidence)


@Rule(
    severity="critical",
    thresholds=(
        Threshold(
            "vanishing_level",
            0.03,
            "second smallest level below which gradients vanish if the loss does not fall; the few "
            "healthy networks below it have a falling loss",
        ),
        Threshold(
            "far_vanishing_level",
            1e-4,
            "second smallest level below which gradients vanish unless the loss falls well; a "
            "thirtieth of the smallest level of any healthy network",
        ),
    ),
    explanation="Gradients in these layers are tiny for a network of this shape, so they barely "
    "learn. Either the backward gradient or the forward signal shrinks layer by layer.",
    remedies=(
        Remedy(
            "Match the initializer to the activation: relu he, selu lecun, tanh and sigmoid "
            "xavier.",
            ("initializer",),
            is_initialized_well,
        ),
        Remedy(
            "Replace sigmoid or tanh in hidden layers with relu, gelu or elu.",
            ("activation relu, initializer he", "activation gelu"),
            has_only_open_activations,
        ),
        Remedy("Add skip connections or normalization.", ("skip_connections", "normalization")),
    ),
    reference="Glorot & Bengio, Understanding the difficulty of training deep feedforward neural "
    "networks (2010); He et al., Delving deep into rectifiers (2015)",
)
def vanishing(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect several kernels whose gradients are far below a healthy network's."""
    least = min(2, max(1, len(e.kernels) - 1))
    for threshold, fall, harms in (
        (t.far_vanishing_level, t.falls_well, not e.falls_by(t.falls_well)),
        (t.vanishing_level, t.falls_hardly, e.falls_less(t.falls_hardly)),
    ):
        r = first_lasting(
            (e.level < threshold).sum(axis=1) >= least,
            e.level,
            t.persistent,
            remains=(e.level < t.vanishing_level).sum(axis=1) >= least,
        )
        if r is not None and harms:
            k = int(np.nanargmin(e.level[r]))
            evidence = [
                measured(e, r, _SMALL_LEVEL, e.level[r, k], threshold, e.layers[k]),
                *fall_of_loss(e, t, fall),
            ]
            layers = affected_layers(e.layers, e.level[r] < threshold)
            return Observation(layers, r, evidence, *_of_hidden_softmax(e))
    return None


def _of_hidden_softmax(e: Evidence) -> tuple[str, list[Remedy]]:
    """Return the meaning of, and the remedy for, softmax in hidden layers, if there is any."""
    layers = [layer for layer, f in (e.facts.activations if e.facts else ()) if f == "softmax"]
    if not layers:
        return "", []
    named = ", ".join(layers[:3])
    return (
        "Softmax in hidden layers shares out a total of 1 among the units, so that signals and "
        "gradients shrink from layer to layer.",
        [Remedy(f"Use relu in {named}; keep softmax for the output.", ("activation relu",))],
    )


@Rule(
    severity="critical",
    thresholds=(
        Threshold(
            "dead_share",
            0.9,
            "share of a layer's units that are 0 on the whole probe, or of a kernel's gradient "
            "entries that are exactly 0; a ReLU layer still learns with many dead units",
        ),
    ),
    explanation="Most units of these layers are 0 for every sample. No gradient passes through "
    "them, so they do not recover.",
    remedies=(
        Remedy("Reduce the learning rate, or warm it up.", LOWER_RATE),
        _OPEN_UNITS,
        _START_ANEW,
    ),
    reference="Lu et al., Dying ReLU and initialization (2019)",
)
def dead_units(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect units that are 0 on the whole probe; without a probe, kernels without a gradient."""
    if e.first_nonfinite_record == 0:  # processors differ in whether relu(NaN) is NaN or 0
        return None
    # The loss may have fallen well before the network died.
    died = e.zero_from is not None and not e.falls_after(e.zero_from, t.falls_hardly)
    if e.falls_by(t.falls_well) and not died:
        return None
    for names, share, counted_in in e.dead:
        dead = share > t.dead_share
        r = first_lasting(dead.any(axis=1), share, t.persistent)
        if r is None:
            continue
        found = dead[r]
        if counted_in != "units":
            # Where a bias has a gradient, the kernel's zeros come from inputs of 0: the layer
            # before it is the dead one.
            reached = e.bias_zeros[r, -len(names) :] <= t.dead_share
            found = found & ~reached if (found & ~reached).any() else found
        worst = int(np.argmax(np.where(found, share[r], -np.inf)))
        layers = [name for name, is_dead in zip(names, found, strict=True) if is_dead]
        evidence = [measured(e, r, _DEAD[counted_in], share[r, worst], t.dead_share, names[worst])]
        explanation = "" if counted_in == "units" else _DEAD_OR_UNUSED
        remedies: Sequence[Remedy] = ()
        if e.zero_from == 0:
            explanation, remedies = _FLAT_FROM_THE_START, _FOR_A_FLAT_START
        elif r == 0:  # before any update, so that the learning rate is not the cause
            remedies = [_START_ANEW, _OPEN_UNITS]
        if e.falls_by(t.falls_well) and e.loss is not None and e.zero_from is not None:
            evidence.append(measured(e, e.zero_from, _STANDS, e.loss[e.zero_from], np.inf))
        else:
            evidence += fall_of_loss(e, t)
        return Observation(layers, r, evidence, explanation, remedies)
    return None


@Rule(
    severity="warning",
    thresholds=(),
    explanation="The loss does not depend on these weights: their layer is unused, or it is behind "
    "an operation without a gradient. They are never trained.",
    remedies=(
        Remedy(
            "Check the model's call: the layer's output must reach the loss. Remove a layer that "
            "is not needed.",
            (),
        ),
        Remedy(
            "Replace operations without a gradient between the layer and the loss, such as round, "
            "sign, argmax, comparisons, casts to integers and NumPy functions.",
            (),
        ),
        Remedy("If the weights are to stay as they are, set layer.trainable = False.", ()),
    ),
    reference="Baydin et al., Automatic differentiation in machine learning: a survey (2018), "
    "section 3.2: the gradient follows the operations between a weight and the loss",
    needs=(),
    independent=True,
)
def no_path_to_loss(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect weights that are updated, but have no gradient in any update."""
    if not e.without_path:
        return None
    weights, without = e.history.weights, e.without_path
    evidence = []
    for layer in dict.fromkeys(weights[i].layer for i in without):
        own = [i for i in without if weights[i].layer == layer]
        whole = len(own) == sum(weight.layer == layer for weight in weights)
        which = "the weights" if whole else " and ".join(weights[i].name for i in own)
        updates = max(without[i] for i in own)
        sentence = f"{layer}: {which} had no gradient in any of {count(updates)} updates."
        measurement = ("updates with a gradient", 0.0, 0.0, layer, int(e.epochs[0]), sentence)
        evidence.append(Measurement(*measurement))
    return Observation([one.layer for one in evidence], 0, evidence)


@Rule(
    severity="warning",
    thresholds=(
        Threshold(
            "saturated_share",
            0.8,
            "share of a hidden layer's activations whose slope is below 1 % of the largest slope; "
            "reported unless the loss falls well",
        ),
        Threshold(
            "far_saturated_share",
            0.95,
            "the same share, reported whatever the loss does; almost no gradient passes such a "
            "layer",
        ),
        Threshold(
            "saturating_input",
            30.0,
            "norm of the model's input divided by √fan_in, for histories without a probe; tanh and "
            "sigmoid are flat for such inputs",
        ),
        Threshold(
            "saturating_bias",
            3.0,
            "root mean square of a layer's biases, for histories without a probe; at 3 the slope "
            "of tanh is below 1 %",
        ),
    ),
    explanation="Most inputs of these activations lie where the activation function is flat. Its "
    "slope is nearly 0 there, and so is the gradient.",
    remedies=(
        Remedy("Standardize the inputs to mean 0 and variance 1.", ("inputs",), has_usual_inputs),
        Remedy("Use a smaller initialization: xavier for tanh and sigmoid.", ("initializer",)),
        Remedy(
            "Add normalization before the activation, or use relu.",
            ("normalization", "activation relu, initializer he"),
        ),
    ),
    reference="Glorot & Bengio, Understanding the difficulty of training deep feedforward neural "
    "networks (2010), section 3",
)
def saturated(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect activations with a slope near 0; without a probe, very large inputs or biases."""
    signs = [] if e.saturated is None else [(*e.saturated, _SATURATED, t.saturated_share)]
    can = e.can_saturate[:-1]
    signs += [
        (
            e.layers[:1],
            np.where(can[:1], e.input_size[:, :1], np.nan),
            INPUT_SIZE,
            t.saturating_input,
        ),
        (e.layers[:-1], np.where(can, e.bias_size[:, :-1], np.nan), _BIAS, t.saturating_bias),
    ]
    for names, sizes, quantity, threshold in signs:
        flat = sizes > threshold
        r = first_lasting(flat.any(axis=1), sizes, t.persistent)
        if r is None:
            continue
        all_flat = quantity is _SATURATED and np.nanmax(sizes[r]) > t.far_saturated_share
        if all_flat or not e.falls_by(t.falls_well):
            worst = int(np.nanargmax(sizes[r]))
            layers = [name for name, is_flat in zip(names, flat[r], strict=True) if is_flat]
            evidence = [measured(e, r, quantity, sizes[r, worst], threshold, names[worst])]
            large_biases = r == 0 and e.bias_size[0, :-1].max(initial=0) > t.saturating_bias
            remedies = [_SMALL_BIASES] if large_biases else []
            return Observation(layers, r, evidence + fall_of_loss(e, t), "", remedies)
    return None
