"""`diagnose`: what is wrong with a run, where, since when, how that is known and what to change."""

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Diagnosis, Finding
from kgrad.diagnosis.model_rules import MODEL_RULES
from kgrad.diagnosis.of_models import read_output
from kgrad.diagnosis.rules import HISTORY_RULES, first_nonfinite_record, nonfinite
from kgrad.diagnosis.thresholds import Thresholds
from kgrad.history import GradientHistory

RULES = tuple(dict.fromkeys(("nonfinite", *HISTORY_RULES, *MODEL_RULES)))
_NEEDED = ("l2_norm", "weight_l2", "update_l2", "nonfinite_steps")


def diagnose(
    history: GradientHistory,
    model: Any = None,
    y: Any = None,
    *,
    rules: Iterable[str] | None = None,
    thresholds: Thresholds | None = None,
) -> Diagnosis:
    """Find what is wrong with a training run.

    A healthy run gives an empty diagnosis: a small gradient, a converged network's say, is no
    finding. What is compared, with which thresholds, and how often that errs is in
    docs/diagnosis.md.

    Args:
        history: the run. The more it holds the more is seen: activations of a probe tell dead and
            saturated units, `zero_fraction` stands in for them.
        model: the Keras model, for the rules about its weights, its last layer and its loss.
        y: the targets, to compare with what the last layer can put out.
        rules: names of the rules to apply; None for all.
        thresholds: other thresholds: `Thresholds(falls_well=0.3)`.

    Returns:
        The findings, the gravest first.

    Raises:
        TypeError: if `history` is not a GradientHistory.
        ValueError: if it has no record or lacks a statistic that is always recorded, or a rule is
            unknown.

    Example:
        >>> from kgrad.experiments import Experiment, run_experiment
        >>> deep = Experiment(activation="sigmoid", initializer="normal", samples=256, epochs=3)
        >>> diagnose(run_experiment(deep)).rules
        ('vanishing',)
    """
    _check(history)
    chosen = RULES if rules is None else checked_rules("rules", rules)
    output = None if model is None else read_output(model)
    evidence = Evidence(history, "" if output is None else output.loss)
    limits = Thresholds() if thresholds is None else thresholds
    found: list[Finding] = []
    if not evidence.kernels:
        return Diagnosis(found)
    with np.errstate(all="ignore"):  # NaN and infinity are data
        # What follows on a NaN is its consequence; what led to it stands in the records before.
        bad = first_nonfinite_record(evidence)
        if bad is not None:
            found += [nonfinite(evidence, bad)] if "nonfinite" in chosen else []
            before = _first_records(history, max(bad, 1))
            evidence = Evidence(before, "" if output is None else output.loss, diverges=True)
        for name in chosen:
            finding = HISTORY_RULES[name](evidence, limits) if name in HISTORY_RULES else None
            if finding is not None:
                found.append(finding)
            elif name in MODEL_RULES and model is not None:
                found += MODEL_RULES[name](evidence, limits, model, y)
    if len(found) > 1:  # a loss that does not fall is then what was to be expected
        found = [finding for finding in found if finding.rule != "not_improving"]
    return Diagnosis(found)


def _first_records(history: GradientHistory, count: int) -> GradientHistory:
    part = GradientHistory(
        history.weights, history.statistics, history.metadata, outputs=history.outputs
    )
    for r in range(count):
        record = {key: value for key, value in history.record(r).items() if key != "distributions"}
        part.append(**record)
    return part


def _check(history: GradientHistory) -> None:
    if not isinstance(history, GradientHistory):
        raise TypeError(
            f"history must be a GradientHistory, received {type(history).__name__}: pass "
            "tracker.history or GradientHistory.load(path)"
        )
    if not len(history):
        raise ValueError("history must have at least one record, received none: train first")
    missing = [name for name in _NEEDED if name not in history.statistics]
    if missing:
        raise ValueError(
            f"history must have {', '.join(_NEEDED)}, received one without {', '.join(missing)}: "
            "record it with GradientTracker or train_and_track_gradients"
        )


def checked_rules(argument: str, rules: Iterable[str]) -> list[str]:
    """The rules named, in the order in which they are applied.

    Raises:
        ValueError: if one is unknown.
    """
    names = [rules] if isinstance(rules, str) else list(rules)
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(str(name), RULES, 1, 0.4)
            hint = f", did you mean {near[0]!r}?" if near else ":"
            raise ValueError(f"{argument} received {name!r}{hint} Known are {', '.join(RULES)}")
    return [name for name in RULES if name in names]
