"""`diagnose`: what is wrong with a run, where, since when, how that is known and what to change."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.findings import Diagnosis, Finding
from kgrad.diagnosis.gradient_rules import first_nonfinite_record, nonfinite
from kgrad.diagnosis.model_rules import MODEL_RULES
from kgrad.diagnosis.of_models import read_output
from kgrad.diagnosis.rules import HISTORY_RULES
from kgrad.diagnosis.thresholds import Thresholds
from kgrad.records.checks import did_you_mean
from kgrad.records.history import GradientHistory, require_history

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
        TypeError: if an argument is of another kind.
        ValueError: if the history has no record or lacks a statistic that is always recorded, a
            rule is unknown or lacks what it looks at, or targets come without a model.

    Example:
        >>> from kgrad.experiments import Experiment, run_experiment
        >>> deep = Experiment(
        ...     activation="sigmoid", weight_initializer="normal", samples=256, epochs=3
        ... )
        >>> diagnose(run_experiment(deep)).rules
        ('vanishing',)
    """
    _check(history, model, y, thresholds)
    chosen = RULES if rules is None else checked_rules("rules", rules)
    if rules is not None:
        _check_needs(chosen, history, model)
    limits = Thresholds() if thresholds is None else thresholds
    found: list[Finding] = []
    with np.errstate(all="ignore"):  # NaN and infinity are data
        evidence = _evidence(history, model)
        # What follows on a NaN is its consequence; what led to it stands in the records before.
        bad = first_nonfinite_record(evidence)
        if bad is not None:
            found += [nonfinite(evidence, bad)] if "nonfinite" in chosen else []
            evidence = _evidence(_first_records(history, max(bad, 1)), model, diverges=True)
        for name in chosen:
            on_history = name in HISTORY_RULES and evidence.kernels
            finding = HISTORY_RULES[name](evidence, limits) if on_history else None
            if finding is not None:
                found.append(finding)
            elif name in MODEL_RULES and model is not None:
                found += MODEL_RULES[name](evidence, limits, model, y)
    if len(found) > 1:  # a loss that does not fall is then what was to be expected
        found = [finding for finding in found if finding.rule != "not_improving"]
    return Diagnosis(found, _missing(history, evidence))


def _missing(history: GradientHistory, evidence: Evidence) -> str:
    """What no rule could look at, in the words that follow on "but"."""
    if not evidence.kernels:
        return "no weight of two or more axes is watched: only NaN and infinity were looked for"
    if "loss" not in history.logs:
        return "the loss was not recorded: only what is far out was looked for"
    if len(history) < 3:
        count = "one record is" if len(history) == 1 else "two records are"
        return f"{count} too few to see the loss fall: only what is far out was looked for"
    return ""


def _evidence(history: GradientHistory, model: Any, *, diverges: bool = False) -> Evidence:
    output = None if model is None else read_output(model)
    if output is None:
        return Evidence(history, diverges=diverges)
    loss, units = output.loss, output.units
    return Evidence(history, loss, units, regularized=output.regularized, diverges=diverges)


def _first_records(history: GradientHistory, count: int) -> GradientHistory:
    part = GradientHistory(
        history.weights, history.statistics, history.metadata, outputs=history.outputs
    )
    for r in range(count):
        record = {key: value for key, value in history.record(r).items() if key != "distributions"}
        part.append(**record)
    return part


def _check(history: Any, model: Any, y: Any, thresholds: Any) -> None:
    require_history("history", history)
    missing = [name for name in _NEEDED if name not in history.statistics]
    if missing:
        raise ValueError(
            f"history must have {', '.join(_NEEDED)}, received one without {', '.join(missing)}: "
            "record it with GradientTracker or train_and_track_gradients"
        )
    if model is not None and not (hasattr(model, "layers") and hasattr(model, "compile")):
        raise TypeError(f"model must be a Keras model, received {type(model).__name__}")
    if model is None and y is not None:
        raise ValueError("y is compared with what a model puts out, received it without a model")
    if not isinstance(thresholds, Thresholds | None):
        raise TypeError(
            f"thresholds must be a kgrad.Thresholds, received {type(thresholds).__name__}: "
            "Thresholds(falls_well=0.3) moves one"
        )


def _check_needs(rules: Iterable[str], history: GradientHistory, model: Any) -> None:
    """Refuse a rule that was asked for by name and cannot look at anything."""
    for rule, is_there, needed in (
        ("output_loss_mismatch", model is not None, "the model: diagnose(history, model)"),
        ("always_clipped", "clipped_steps" in history.statistics, "the statistic clipped_steps"),
        ("not_improving", "loss" in history.logs, "the loss in the history's logs"),
    ):
        if rule in rules and not is_there:
            raise ValueError(f"rule {rule!r} needs {needed}, received none")
    if set(rules) & set(HISTORY_RULES) and not Evidence(history).kernels:
        raise ValueError(
            "history must have a weight of two or more axes, received one without: watch kernels"
        )


def checked_rules(argument: str, rules: Iterable[str]) -> list[str]:
    """The rules named, in the order in which they are applied.

    Raises:
        TypeError: if they are no sequence of names.
        ValueError: if one is unknown.
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
