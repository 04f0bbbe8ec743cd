"""Rules: what a declaration consists of, and what the rules share.

A rule is a function that compares the evidence with thresholds, declared with `@Rule(...)`. The
declaration holds everything that belongs to the rule: severity, thresholds with their reasons,
explanation, remedies, reference. It raises an error at import if a part is missing. To add a rule,
declare it in `gradient_rules`, `weight_rules` or `model_rules`; `diagnose`, the report, the command
line and `try_remedies` read the declarations.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kgrad.diagnosis.evidence import FLAT, Evidence
from kgrad.diagnosis.findings import Finding, Measurement, Severity


class Threshold(NamedTuple):
    """A number that a rule compares measurements with; a field of `kgrad.Thresholds`."""

    name: str
    value: float
    reason: str


class Remedy(NamedTuple):
    """A change that may help.

    Attributes:
        text: the change as an instruction.
        tries: the changes with which `try_remedies` tries it, by kind or by name; empty if it
            cannot.
        in_place: whether the run has it already; None if that cannot be told.
    """

    text: str
    tries: tuple[str, ...]
    in_place: Callable[[Evidence], bool] | None = None


class Need(NamedTuple):
    """Data without which a rule cannot be applied.

    Attributes:
        error: the end of the error for a rule that was requested by name.
        is_met: whether the evidence contains the data.
    """

    error: str
    is_met: Callable[[Evidence], bool]


class Observation(NamedTuple):
    """The result of a rule's function if the rule applies.

    Attributes:
        layers: the affected layers.
        record: the record from which the problem persists.
        evidence: the measurements that show it, the most important one first.
        explanation: a more specific explanation than the rule's; empty for the rule's.
        remedies: the remedies that can help here; empty for all of the rule's.
        harmless: whether the run trains well all the same, so that this is a note.
        leads: whether the evidence is so strong that this is the cause, whatever else was found.
    """

    layers: Sequence[str]
    record: int
    evidence: Sequence[Measurement]
    explanation: str = ""
    remedies: Sequence[Remedy] = ()
    harmless: bool = False
    leads: bool = False


class ThresholdValues:
    """Thresholds as attributes; the fields of its subclass `Thresholds` come from the rules."""

    if TYPE_CHECKING:

        def __init__(self, **values: float) -> None: ...
        def __getattr__(self, name: str) -> float: ...

    def __post_init__(self) -> None:
        """Check that every threshold is a number.

        Raises:
            TypeError: if a threshold is not a number, or NaN.
        """
        for name, value in vars(self).items():
            if not isinstance(value, int | float) or math.isnan(value):
                raise TypeError(f"{name} must be a number, received {value!r}")


Check = Callable[[Evidence, ThresholdValues], Observation | None]


def clips(e: Evidence) -> bool:
    """Return whether the optimizer clips gradients."""
    return "clipped_steps" in e.history.statistics


# Remedies that several rules have, and the changes that try them.
LOWER_RATE = (
    "constant learning rate",
    "learning rate ×0.1",
    "learning rate for updates of 0.3 %",
    "default learning rate",
    "learning rate ×0.01",
)
HIGHER_RATE = (
    "constant learning rate",
    "learning rate for updates of 0.3 %",
    "default learning rate",
    "learning rate ×10",
    "learning rate ×100",
    "optimizer",
)


def lower_rate(e: Evidence) -> Remedy:
    """Return the advice to reduce the learning rate, with both numbers if they are known."""
    now, usual = _rates(e)
    to = usual if now > 10 * usual else now / 10
    words = (
        f" from {number(now)} to {number(to)}" if math.isfinite(to) else "; start with 10× smaller"
    )
    return Remedy(f"Reduce the learning rate{words}.", LOWER_RATE)


def higher_rate(e: Evidence) -> Remedy:
    """Return the advice to increase the learning rate, with both numbers if they are known."""
    now, usual = _rates(e)
    to = usual if 10 * now < usual else 10 * now
    words = (
        f" from {number(now)} to {number(to)}" if math.isfinite(to) else "; start with 10× larger"
    )
    return Remedy(f"Increase the learning rate{words}.", HIGHER_RATE)


def _rates(e: Evidence) -> tuple[float, float]:
    """Return the learning rate and the default of the optimizer; NaN if unknown."""
    return (math.nan, math.nan) if e.facts is None else (e.facts.learning_rate, e.facts.usual_rate)


CLIP = Remedy(
    "Clip the gradients: set global_clipnorm=1 in the optimizer.", ("clipping, norm 1",), clips
)


def has_only_open_activations(e: Evidence) -> bool:
    """Return whether the hidden layers are known, and none has an activation that gets flat."""
    hidden = () if e.facts is None else e.facts.activations
    return bool(hidden) and not any(name in FLAT for _, name in hidden)


def has_usual_inputs(e: Evidence) -> bool:
    """Return whether the inputs are known to be about 1 in size, or seem so by the gradients."""
    if e.data.inputs:
        sizes = [float(np.sqrt(np.mean(np.square(x, dtype=float)))) for x in e.data.inputs]
    else:  # which overestimate the size
        sizes = list(e.input_size[0, :1])
    return bool(sizes) and all(0.1 < size < 3 for size in sizes)


def is_initialized_well(e: Evidence) -> bool:
    """Return whether all kernels begin with a usual σ_w², 0.5 to 2.5."""
    scale = e.scale[np.isfinite(e.scale)]
    return bool(scale.size and scale.min() > 0.5 and scale.max() < 2.5)


KERNELS = Need(
    "needs a weight with two or more axes and a gradient, which the history lacks: let the tracker "
    "watch kernels",
    lambda e: bool(e.kernels),
)
MODEL = Need(
    "needs the model, received none: call kgrad.diagnose(history, model)",
    lambda e: e.facts is not None,
)
INPUTS = Need(
    "needs the model's inputs, received none: call kgrad.diagnose(history, model, X, y)",
    lambda e: bool(e.data.inputs),
)
TARGETS = Need(
    "needs the targets, received none: call kgrad.diagnose(history, model, X, y)",
    lambda e: bool(e.data.targets),
)
KERNELS_OR_MODEL = Need(
    "needs a weight with two or more axes and a gradient, which the history lacks, or the model: "
    "let the tracker watch kernels",
    lambda e: bool(e.kernels) or e.facts is not None,
)
LOSS = Need(
    "needs the loss, which the history's logs lack: pass it to tracker.record",
    lambda e: e.loss is not None,
)
CLIPPING = Need(
    "needs the statistic clipped_steps, which the history lacks: track an optimizer that clips",
    lambda e: "clipped_steps" in e.history.statistics,
)

# Thresholds that several rules use.
SHARED = (
    Threshold(
        "falls_hardly",
        0.1,
        "relative fall in loss below which it counts as not falling; moderately unusual values are "
        "reported only then",
    ),
    Threshold(
        "falls_well",
        0.5,
        "relative fall in loss from which training counts as successful; most rules report nothing "
        "then",
    ),
    Threshold(
        "persistent",
        0.6,
        "share of the records, from the first affected one, in which a problem must be present; "
        "single records may deviate by chance",
    ),
)


@dataclass(kw_only=True)
class Rule:
    """The declaration of a rule, used as a decorator of its function.

    Args:
        severity: "critical" if training cannot succeed this way, otherwise "warning".
        thresholds: the thresholds that only this rule introduces, each with its reason.
        explanation: the meaning of the problem, in a sentence or two.
        remedies: possible changes, the most likely one first.
        reference: the literature on the problem.
        needs: the data without which the rule cannot be applied.
        fallback: whether to report the problem only if no other rule applies.
        before_training: whether the problem shows before the first update, in the model alone.
        independent: whether the problem lies in the model or the data themselves, so that it
            follows from no other.

    Raises:
        TypeError: if a part is left out.
        ValueError: if a part is empty.
    """

    severity: Severity
    thresholds: tuple[Threshold, ...]
    explanation: str
    remedies: tuple[Remedy, ...]
    reference: str
    needs: tuple[Need, ...] = (KERNELS,)
    fallback: bool = False
    before_training: bool = False
    independent: bool = False
    name: str = field(init=False, default="")
    check: Check = field(init=False)

    def __call__(self, check: Check) -> "Rule":
        """Complete the declaration with the rule's function, whose name becomes the rule's."""
        self.name, self.check = check.__name__, check
        texts = {
            "an explanation": self.explanation,
            "a reference": self.reference,
            "a remedy": self.remedies,
            **{f"the text of remedy {i}": one.text for i, one in enumerate(self.remedies, 1)},
            **{f"the reason for threshold {one.name!r}": one.reason for one in self.thresholds},
        }
        for part, text in texts.items():
            if not text:
                raise ValueError(f"rule {self.name!r} must have {part}, received {text!r}")
        return self

    def find(self, e: Evidence, t: ThresholdValues) -> Finding | None:
        """Apply the rule; return None if it lacks data or does not apply."""
        found = self.check(e, t) if all(need.is_met(e) for need in self.needs) else None
        if found is None:
            return None
        remedies = found.remedies or self.remedies
        open_ones = [one for one in remedies if one.in_place is None or not one.in_place(e)]
        return Finding(
            self.name,
            "note" if found.harmless else self.severity,
            tuple(found.layers),
            int(e.epochs[found.record]) if len(e.epochs) else 0,  # before training
            tuple(found.evidence),
            found.explanation or self.explanation,
            tuple(remedy.text for remedy in open_ones or remedies),
            self.reference,
            tuple(dict.fromkeys(name for one in open_ones or remedies for name in one.tries)),
            self.independent,
            found.leads,
        )


# Sentences.


def number(value: float, digits: int = 0) -> str:
    """Return a number for a sentence, such as "2.8e-10", "0.03", "21.6" or "5,880".

    Args:
        value: the number.
        digits: significant digits; 0 for two below 0.001 and three above.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = digits or (2 if abs(value) < 1e-3 else 3)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if not -3 <= int(exponent) < 6:
        short = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{short}e{int(exponent)}"
    text = f"{float(f'{value:.{digits}g}'):,.{max(digits - 1 - int(exponent), 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float, digits: int = 0) -> str:
    """Return a share in percent, such as "0.3 %", "5.4 %" or "82 %"."""
    value = 100 * share
    if not digits and abs(value) >= 1 and math.isfinite(value):
        digits = max(2, len(f"{abs(value):.0f}"))
    return f"{number(value, digits or 1)} %"


def count(value: float, digits: int = 0) -> str:
    """Return an integer with thousands separators."""
    return f"{value:,.0f}"


class Quantity(NamedTuple):
    """A quantity that a rule measures.

    Attributes:
        name: what is measured, for tables.
        sentence: its sentence, with the places "{value}" and "{threshold}".
        text: the format of both numbers.
    """

    name: str
    sentence: str
    text: Callable[[float, int], str] = number


# Read off the gradients of the first layer.
INPUT_SIZE = Quantity(
    "size of the entries of the model's input",
    "the entries of the model's input are about {value} in size (threshold {threshold})",
)


def measured(
    e: Evidence, r: int, quantity: Quantity, value: float, threshold: float, layer: str = ""
) -> Measurement:
    """Return a number that was measured in record `r`, with its threshold and its sentence."""
    value, threshold, epoch = float(value), float(threshold), int(e.epochs[r])
    texts = quantity.text(value, 0), quantity.text(threshold, 0)
    for digits in range(2, 7):  # enough to show the difference
        if texts[0] != texts[1]:
            break
        texts = quantity.text(value, digits), quantity.text(threshold, digits)
    place = f"{layer}, epoch {epoch}" if layer else f"Epoch {epoch}"
    sentence = quantity.sentence.format(value=texts[0], threshold=texts[1])
    return Measurement(quantity.name, value, threshold, layer, epoch, f"{place}: {sentence}.")


def of_data(
    quantity: str, value: float, threshold: float, sentence: str, layer: str = ""
) -> Measurement:
    """Return a number that was measured in the data or read off the model, with its sentence."""
    text = f"{layer}: {sentence}." if layer else f"{sentence[0].upper()}{sentence[1:]}."
    return Measurement(quantity, float(value), float(threshold), layer, 0, text)


def fall_of_loss(
    e: Evidence, t: ThresholdValues, threshold: float | None = None
) -> list[Measurement]:
    """Return the relative fall of the loss as evidence, if it is known.

    Args:
        e: the evidence.
        t: the thresholds; the sentence compares with `falls_well`, from which a run is healthy.
        threshold: the fall below which the rule reports something; None for `falls_well`.
    """
    if not np.isfinite(e.fall):  # a loss that ends in NaN is a finding of its own
        return []
    epoch, left, well = int(e.epochs[-1]), 1 - e.fall, t.falls_well
    healthy = "at least halves it" if well == 0.5 else f"lowers it by at least {percent(well)}"
    if e.starts_worse_than_constant:
        size = f"{number(left)} times" if left > 2 else f"{percent(left)} of"
        constant = (
            "the best constant prediction" if np.isfinite(e.data.constant_loss) else "guessing"
        )
        sentence = f"The loss at epoch {epoch} is {size} that of {constant}"
        healthy = f"reaches {percent(1 - well)} or less"
    elif left > 2 and e.first_loss > 0:
        sentence = f"The loss rose to {number(left)} times its first value by epoch {epoch}"
    else:
        verb = "rose" if e.fall < 0 else "fell"
        sentence = f"The loss {verb} by {percent(abs(e.fall))} by epoch {epoch}"
    sentence += f"; a healthy run {healthy}." if e.fall < well else "."
    limit = well if threshold is None else threshold
    return [Measurement("relative fall of the loss", e.fall, limit, "", epoch, sentence)]


# Records and layers.


def first_lasting(
    present: Any,
    values: np.ndarray,
    persistent: float,
    *,
    remains: Any = None,
    after: int = 0,
) -> int | None:
    """Return the first record from which a condition persists; None if there is none.

    Args:
        present: whether the condition is met, (R,).
        values: the numbers it was computed from, (R, ...); records without a finite one are left
            out.
        persistent: share of the records from there on in which the condition must be met.
        remains: the condition for the later records, if it is weaker than `present`.
        after: the first record to consider.
    """
    known = np.isfinite(values).any(axis=1)
    remains = present if remains is None else remains
    for r in after + np.flatnonzero(present[after:]):
        if known[r] and remains[r:][known[r:]].mean() >= persistent:
            return int(r)
    return None


def affected_layers(layers: Sequence[str], mask: np.ndarray) -> list[str]:
    """Return the layers that a mask selects, each once."""
    return list(dict.fromkeys(name for name, m in zip(layers, mask, strict=True) if m))
