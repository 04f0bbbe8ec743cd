"""`diagnose`: find the problems of a training run, with evidence and remedies.

`Watch` does the same while the run trains.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import make_dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from kgrad.diagnosis import calibration, data_rules, gradient_rules, model_rules, weight_rules
from kgrad.diagnosis.evidence import Data, Evidence, ModelFacts
from kgrad.diagnosis.findings import Confidence, Diagnosis, Finding
from kgrad.diagnosis.rules import SHARED, Rule, ThresholdValues
from kgrad.records.checks import did_you_mean
from kgrad.records.history import GradientHistory, Weight, require_history

DECLARED: dict[str, Rule] = {
    rule.name: rule
    for module in (gradient_rules, weight_rules, model_rules, data_rules)
    for rule in vars(module).values()
    if isinstance(rule, Rule)
}
# Names of all rules, in the order in which they are applied.
RULES = tuple(DECLARED)
_THRESHOLDS = (*SHARED, *(one for rule in DECLARED.values() for one in rule.thresholds))

_DESCRIPTION = """The thresholds of all rules, chosen on one half of a gallery of training runs.

A level is a kernel's gradient divided by that of a network of the same shape that keeps signals and
errors at their size (see `Evidence.level`): every healthy run of the gallery has levels of 0.003 to
80. docs/diagnosis.md describes the choice, and how often the rules err.

Attributes:
"""
_INDENTED = {"initial_indent": " " * 4, "subsequent_indent": " " * 8}

if TYPE_CHECKING:

    class Thresholds(ThresholdValues):
        """The thresholds of all rules."""

else:
    Thresholds = make_dataclass(
        "Thresholds",
        [(one.name, float, one.value) for one in _THRESHOLDS],
        bases=(ThresholdValues,),
        namespace={
            "__module__": __name__,
            "__doc__": _DESCRIPTION
            + "\n".join(
                fill(f"{one.name} ({one.value:g}): {one.reason}.", 100, **_INDENTED)
                for one in _THRESHOLDS
            ),
        },
        frozen=True,
        kw_only=True,
    )

# Causes before what follows from them: what is asked of the network, what it is given, how it is
# built, how it is trained, and then what the gradients show.
CAUSES_FIRST = (
    "output_loss_mismatch",
    "wrong_embedding_inputs",
    "inputs_out_of_scale",
    "targets_out_of_scale",
    "badly_scaled_weights",
    "layer_out_of_line",
    "no_path_to_loss",
    "too_much_dropout",
    "too_strong_penalty",
    "moving_too_far",
    "always_clipped",
    "exploding",
    "saturated",
    "vanishing",
    "dead_units",
    "no_nonlinearity",
    "unsettled_batchnorm",
    "not_moving",
    "imbalanced_classes",
    "nonfinite",
    "unrelated_targets",
    "not_improving",
    "validation_differs",
    "too_few_steps",
    "leakage",
    "categories_as_numbers",
    "idle_columns",
)
# Runs of the gallery from which a share of them says something.
_FEWEST_RUNS = 5
_NEEDED = ("l2_norm", "weight_l2", "update_l2", "nonfinite_steps")
# Up to this many records every record is diagnosed, later every tenth: the time per diagnosis grows
# with the history, and problems of a long run persist for more than a record.
_DIAGNOSE_ALL = 100

logger = logging.getLogger("kgrad")


def diagnose(
    history: GradientHistory,
    facts: ModelFacts | None = None,
    data: Data | None = None,
    *,
    rules: Iterable[str] | None = None,
    thresholds: Thresholds | None = None,
) -> Diagnosis:
    """Find the problems of a recorded training run.

    This is `kgrad.diagnose` without Keras: it takes facts about the model and the data instead of
    the model and the data.

    Args:
        history: the recorded run.
        facts: facts about the model, for the rules about its weights, output and loss.
        data: what is known about the data, for the rules about inputs and targets.
        rules: names of the rules to apply; None for all.
        thresholds: the thresholds to use, such as `Thresholds(falls_well=0.3)`.

    Returns:
        The findings, the most severe first.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the history has no record or lacks a statistic that is always recorded, if a
            rule is unknown or its data are missing, or if data are given without facts.
    """
    _check(history, facts, data, thresholds)
    chosen = RULES if rules is None else checked_rules("rules", rules)
    limits = Thresholds() if thresholds is None else thresholds
    with np.errstate(all="ignore"):  # NaN and infinity are data
        evidence = Evidence(history, facts, data)
        if rules is not None:
            _check_needs(chosen, evidence)
        found = []
        bad = evidence.first_nonfinite_record
        if bad is not None:
            # What follows after a NaN is its consequence; its cause is in the records before.
            found += [DECLARED["nonfinite"].find(evidence, limits)] if "nonfinite" in chosen else []
            before = _first_records(history, max(bad, 1))
            evidence = Evidence(before, facts, data, diverges=True)
        found += [DECLARED[name].find(evidence, limits) for name in chosen if name != "nonfinite"]
    findings = [finding for finding in found if finding is not None]
    notes = [finding for finding in findings if finding.severity == "note"]
    findings = [finding for finding in findings if finding.severity != "note"]
    if findings:
        notes = [note for note in notes if not DECLARED[note.rule].fallback]
    if any(not DECLARED[finding.rule].fallback for finding in findings):
        findings = [finding for finding in findings if not DECLARED[finding.rule].fallback]
    findings.sort(key=lambda finding: (not finding.leads, CAUSES_FIRST.index(finding.rule)))
    as_on_the_gallery = rules is None and thresholds is None
    sure = _confidence(findings[0], data) if findings and as_on_the_gallery else None
    return Diagnosis(findings, _missing(history, evidence), notes, sure, history)


def _confidence(cause: Finding, data: Data | None) -> Confidence | None:
    """Return how often such a cause was right on the gallery; None with too few runs."""
    has_data = data is not None and bool(data.inputs and data.targets)
    counts = calibration.WITH_DATA if has_data else calibration.HISTORY_ALONE
    found = Confidence(*counts.get(cause.rule, (0, 0)))
    return found if found.runs >= _FEWEST_RUNS else None


def diagnose_before_training(facts: ModelFacts, data: Data | None = None) -> Diagnosis:
    """Find what keeps a model from training before its first step."""
    history = GradientHistory([Weight("model", "none", "", (1,))], _NEEDED)
    evidence, limits = Evidence(history, facts, data), Thresholds()
    rules = [rule for rule in DECLARED.values() if rule.before_training]
    found = [rule.find(evidence, limits) for rule in rules]
    return Diagnosis(one for one in found if one is not None and one.severity != "note")


def checked_rules(argument: str, rules: Iterable[str]) -> list[str]:
    """Return the requested rules in the order in which they are applied.

    Raises:
        TypeError: if `rules` is not a sequence of names.
        ValueError: if a name is unknown.
    """
    if not isinstance(rules, Iterable):
        raise TypeError(f"{argument} must be names of rules, received {rules!r}")
    names = [rules] if isinstance(rules, str) else list(rules)
    for name in names:
        if name not in RULES:
            raise ValueError(
                f"{argument} must be among {', '.join(RULES)}, received {name!r}"
                f"{did_you_mean(name, RULES)}"
            )
    return [name for name in RULES if name in names]


class Watch:
    """Diagnose histories while they grow.

    Args:
        stop_on: the rules whose findings stop the training.

    Raises:
        TypeError: if `stop_on` is a single string.
        ValueError: if a rule is unknown.
    """

    def __init__(self, stop_on: Iterable[str] = ()) -> None:
        if isinstance(stop_on, str):
            raise TypeError(f"stop_on must be a sequence of rules, received {stop_on!r}")
        self._stop_on = checked_rules("stop_on", stop_on)
        self._before: set[str] = set()
        self._reported: WeakKeyDictionary[GradientHistory, set[str]] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy keeps; weak references cannot be copied."""
        return {"_stop_on": self._stop_on}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_stop_on"])  # type: ignore[misc]

    def look_before_training(self, facts: ModelFacts, data: Data | None) -> None:
        """Log a warning for each finding on the model and its data.

        Raises:
            ValueError: if the finding is one that stops the training.
        """
        for finding in diagnose_before_training(facts, data):
            if finding.rule in self._stop_on:
                raise ValueError(
                    f"training was not started, because stop_on has {finding.rule!r}: {finding} "
                    f"{finding.remedies[0]}"
                )
            self._before.add(finding.rule)
            logger.warning("before training: %s", finding)

    def look(
        self, history: GradientHistory, read_facts: Callable[[], ModelFacts] | None
    ) -> Finding | None:
        """Log a warning for each new finding; return the finding that stops the training.

        Args:
            history: the history, after a new record.
            read_facts: function that returns the facts about the model; None without a model.
        """
        records, last = len(history), history.record(-1)
        is_bad = any(last["values"]["nonfinite_steps"])
        if records > _DIAGNOSE_ALL and records % 10 and not is_bad:
            return None
        facts = None if read_facts is None else read_facts()
        found: Iterable[Finding] = diagnose(history, facts)
        if records == 1 and not is_bad:  # most problems of the first step disappear
            found = [one for one in found if DECLARED[one.rule].before_training]
        reported = self._reported.setdefault(history, set(self._before))
        for finding in found:
            if finding.rule not in reported:
                reported.add(finding.rule)
                logger.warning("epoch %d: %s", last["epoch"], finding)
        for rule in sorted(reported - {finding.rule for finding in found}):
            reported.remove(rule)
            if not DECLARED[rule].fallback:  # which another finding may have replaced
                logger.warning("epoch %d: %s no longer holds", last["epoch"], rule)
        return next((finding for finding in found if finding.rule in self._stop_on), None)


def _missing(history: GradientHistory, evidence: Evidence) -> str:
    """Return what could not be checked, as the continuation of "No findings, but"."""
    if not evidence.kernels:
        lacks = "has a gradient" if evidence.without_path else "is watched"
        return f"no weight with two or more axes {lacks}, so only NaN and infinity were checked"
    if "loss" not in history.logs:
        return "the loss was not recorded, so only extreme values were checked"
    if len(history) < 3:
        count = "one record is" if len(history) == 1 else "two records are"
        return f"{count} too few to see the loss fall, so only extreme values were checked"
    return ""


def _first_records(history: GradientHistory, count: int) -> GradientHistory:
    part = GradientHistory(
        history.weights, history.statistics, history.metadata, outputs=history.outputs
    )
    for r in range(count):
        record = {key: value for key, value in history.record(r).items() if key != "distributions"}
        part.append(**record)
    return part


def _check(history: Any, facts: Any, data: Any, thresholds: Any) -> None:
    require_history("history", history)
    missing = [name for name in _NEEDED if name not in history.statistics]
    if missing:
        raise ValueError(
            f"history must have {', '.join(_NEEDED)}, received one without {', '.join(missing)}: "
            "record it with GradientTracker or train_and_track_gradients"
        )
    if not isinstance(facts, ModelFacts | None):
        raise TypeError(
            f"facts must be a ModelFacts, received {type(facts).__name__}: "
            "kgrad.diagnose(history, model) reads a model"
        )
    if facts is None and data is not None:
        raise ValueError(
            "X and y are compared with the model, received data without a model: call "
            "diagnose(history, model, X, y)"
        )
    if not isinstance(thresholds, Thresholds | None):
        raise TypeError(
            f"thresholds must be a kgrad.Thresholds, received {type(thresholds).__name__}: "
            "pass for example Thresholds(falls_well=0.3)"
        )


def _check_needs(rules: Iterable[str], evidence: Evidence) -> None:
    """Raise an error for a rule that was requested by name and lacks its data."""
    for name in rules:
        for need in DECLARED[name].needs:
            if not need.is_met(evidence):
                raise ValueError(f"rule {name!r} {need.error}")
