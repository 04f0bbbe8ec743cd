"""A finding's remedies as changes of a configuration, so that the page can race the two."""

from dataclasses import replace
from typing import Any, NamedTuple

from kgrad.apps.page.configuration import KNOBS, Configuration
from kgrad.diagnosis import Finding
from kgrad.experiments.remedies.plans import CHANGES
from kgrad.measure.aliases import fitting_initializer, short_initializer

_STEPS = {0.01: "100 times smaller", 0.1: "10 times smaller", 10.0: "10 times larger"}


class Cure(NamedTuple):
    """A configuration that applies a remedy.

    Attributes:
        name: the change in a few words.
        configuration: the configuration with the change.
    """

    name: str
    configuration: Configuration


def cures(finding: Finding, configuration: Configuration) -> list[Cure]:
    """Return the remedies of a finding that the knobs can apply, the most likely one first.

    Args:
        finding: the finding.
        configuration: the configuration of the run with this finding.
    """
    found: list[Cure] = []
    for wanted in finding.tries:
        for change in CHANGES:
            if wanted in (change.remedy, change.name):
                one = _changed(configuration, dict(change.settings))
                known = [configuration, *(cure.configuration for cure in found)]
                if one is not None and one.configuration not in known:
                    found.append(one)
    return found


def _changed(c: Configuration, settings: dict[str, Any]) -> Cure | None:
    """Return the configuration with the settings of a `Change`; None if no knob has them."""
    f = settings.get("activation", c.activation)
    rate = settings.get("learning_rate")
    if settings.keys() == {"initializer"}:
        fitting = short_initializer(fitting_initializer(f))
        return Cure(f"initial weights {fitting}", replace(c, initializer=fitting))
    if "activation" in settings:
        if "initializer" not in settings:
            return Cure(f"activation {f}", replace(c, activation=f))
        return Cure(
            f"activation {f}, initial weights he", replace(c, activation=f, initializer="he")
        )
    if "normalization" in settings:
        kind = settings["normalization"]
        return Cure(f"{kind} normalization", replace(c, normalization=kind))
    if "skip_connections" in settings:
        return Cure("skip connections", replace(c, skip=True))
    if "global_clipnorm" in settings:
        norm = settings["global_clipnorm"]
        name = "no clipping" if norm is None else f"gradients clipped to norm {norm:g}"
        return Cure(name, replace(c, clip_norm=norm))
    if "optimizer" in settings:
        return Cure("optimizer Adam", replace(c, optimizer="adam", learning_rate=0.001))
    if isinstance(rate, float) and rate in _STEPS:
        knob, changed = KNOBS["learning_rate"], float(f"{c.learning_rate * rate:.6g}")
        if knob.low <= changed <= knob.high:
            return Cure(
                f"learning rate {changed:g}, {_STEPS[rate]}", replace(c, learning_rate=changed)
            )
    return None
