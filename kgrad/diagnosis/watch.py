"""The rules while a run trains: each finding told once, when it first holds."""

import logging
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from kgrad.diagnosis.diagnose import checked_rules, diagnose
from kgrad.diagnosis.findings import Finding
from kgrad.records.history import GradientHistory

# Below this many records each is looked at; later every tenth: looking costs more the longer the
# history, and what ails a long run does not come and go from record to record.
_ALL = 100

logger = logging.getLogger("kgrad")


class Watch:
    """Diagnoses histories as they grow.

    Args:
        stop_on: the rules whose findings shall end the training.

    Raises:
        TypeError: if `stop_on` is one string.
        ValueError: if a rule is unknown.
    """

    def __init__(self, stop_on: Iterable[str] = ()) -> None:
        if isinstance(stop_on, str):
            raise TypeError(f"stop_on must be a sequence of rules, received {stop_on!r}")
        self._stop_on = checked_rules("stop_on", stop_on)
        self._told: WeakKeyDictionary[GradientHistory, set[str]] = WeakKeyDictionary()

    def look(self, history: GradientHistory, model: Any) -> Finding | None:
        """Warn of what is new, a line each; return the finding that shall end the training."""
        records, last = len(history), history.record(-1)
        is_bad = any(last["values"]["nonfinite_steps"])
        # Of the first step alone only NaN is told: networks may begin in ways that soon pass.
        if records == 1 and not is_bad:
            return None
        if records > _ALL and records % 10 and not is_bad:
            return None
        stops = None
        for finding in diagnose(history, model):
            told = self._told.setdefault(history, set())
            if finding.rule not in told:
                told.add(finding.rule)
                logger.warning("epoch %d: %s", last["epoch"], finding)
            if finding.rule in self._stop_on:
                stops = stops or finding
        return stops
