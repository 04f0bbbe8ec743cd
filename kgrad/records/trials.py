"""`Trials`: runs with one change each, compared with the unchanged run."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from typing_extensions import Self

from kgrad.records.history import GradientHistory
from kgrad.records.listing import Listing

UNCHANGED = "unchanged"
SKILL = "skill"
"""The name of the skill in the logs of a trial's history."""
MEANING_OF_SKILL = (
    "skill: 1 means perfect answers, 0 means no better than always giving the best constant "
    "answer, below 0 means worse than that."
)

# Gains in skill from which a change is called an improvement, and a large one.
_BETTER, _MUCH_BETTER = 0.05, 0.3
_LITTLE_LOSS = 0.1  # share by which a loss hardly changes
# Reasons of changes that were not tried that a table has room for.
_MOST_REASONS = 4


class Trial(NamedTuple):
    """One training run.

    Attributes:
        name: name of the change; "unchanged" for the baseline.
        change: description of the change; empty for the baseline.
        history: gradients of the run.
        loss: mean loss over the steps of the last epoch.
        skill: skill at the end of the last epoch: 1 for perfect answers, 0 for no better than the
            best constant answer, below 0 for worse than that; NaN if it is unknown.
        note: how the run compares with the baseline, in words.
    """

    name: str
    change: str
    history: GradientHistory
    loss: float
    skill: float
    note: str


class Trials(Listing[Trial]):
    """The unchanged run, which is the baseline, and the other runs, best first; prints as a table.

    Trials are ranked by their skill, rounded to two digits, or if it is unknown by their loss,
    rounded to two significant digits. Ties are broken by how many powers of ten the gradients span
    in the last record; fewer are better. Runs that broke down, with a loss or weights that ended as
    NaN or infinity, rank last.

    Attributes:
        not_possible: (name of a change, reason why it could not be made or trained).
        metric: what the skill is computed from, such as "R²".

    Args:
        trials: the trials, the unchanged run first.
        not_possible: changes that were not tried, each with the reason in one sentence.
        metric: what the skill is computed from; empty if it is unknown.
    """

    def __init__(
        self,
        trials: Iterable[Trial],
        not_possible: Iterable[tuple[str, str]] = (),
        metric: str = "",
    ) -> None:
        super().__init__(trials)
        self.not_possible: tuple[tuple[str, str], ...] = tuple(not_possible)
        self.metric = metric

    @classmethod
    def ranked(
        cls,
        unchanged: GradientHistory,
        changed: Iterable[tuple[str, str, GradientHistory]],
        not_possible: Iterable[tuple[str, str]] = (),
        metric: str = "",
    ) -> Self:
        """Compare runs with the unchanged one and rank them.

        Args:
            unchanged: history of the baseline.
            changed: (name, change, history) of each other run.
            not_possible: changes that were not tried, each with the reason in one sentence.
            metric: what the skill in the histories' logs is computed from.
        """
        note = "baseline"
        if _broken(unchanged):
            note += "; training breaks down"
        runs = [(UNCHANGED, "", unchanged, note)]
        runs += [(*one, _verdict(unchanged, one[2])) for one in changed]
        trials = [
            Trial(name, change, history, _last(history, "loss"), _last(history, SKILL), note)
            for name, change, history, note in runs
        ]
        if not math.isfinite(max(trial.skill for trial in trials)):
            metric = ""
        found = cls(trials)
        return cls([trials[0], *sorted(trials[1:], key=found._rank)], not_possible, metric)

    @property
    def best(self) -> Trial | None:
        """The best trial that is an improvement; None if nothing that was tried helps."""
        return next((trial for trial in self[1:] if trial.note.startswith(_GOOD)), None)

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the baseline's layers that have a kernel, in forward order."""
        return tuple(kernel_layers(self[0].history))

    def by_layer(self, trial: Trial, statistic: str) -> np.ndarray:
        """Return a statistic of a trial in `layers`, without the layers that its change added.

        Returns:
            float64, (records, layers).
        """
        return trial.history.by_layer(statistic)[:, self._places(trial)]

    def missing(self, trial: Trial) -> np.ndarray:
        """Return why layers have no gradient, as `GradientHistory.missing_by_layer`.

        Returns:
            strings, (records, layers); the layers are those of `by_layer`.
        """
        return trial.history.missing_by_layer[:, self._places(trial)]

    def decades(self, trial: Trial) -> float:
        """Return the number of powers of ten that the layers' `l2_norm` spans in the last record.

        Returns:
            log10(largest / smallest) of the layers with a gradient; infinity if one is 0, NaN if
            one is NaN or none has a gradient.
        """
        norms = self._last(trial, "l2_norm")
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.ptp(np.log10(norms)))

    def first_to_last(self, trial: Trial) -> float:
        """Return mean |gradient| of the first layer over that of the last, in the last record.

        Layers without a gradient are left out; NaN if none has one.
        """
        values = self._last(trial, "mean_abs")
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(values[0] / values[-1])

    def _last(self, trial: Trial, statistic: str) -> np.ndarray:
        """Return the last record's values of the layers with a gradient; a NaN if none has one."""
        values = self.by_layer(trial, statistic)[-1][self.missing(trial)[-1] == ""]
        return values if values.size else np.array([np.nan])

    def _places(self, trial: Trial) -> list[int]:
        own = kernel_layers(trial.history)
        # A subclassed model may name its layers differently each time.
        names = [name for name in own if name in self.layers] or own
        return [trial.history.layers.index(name) for name in names]

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per trial.

        Returns:
            DataFrame with columns name, change, skill, loss_first (of the first step), loss,
            gradient_first_to_last, gradient_decades, note.
        """
        return pd.DataFrame(self.to_dict()["trials"])

    def to_dict(self) -> dict[str, Any]:
        """Return trials and impossible changes as dicts, lists, strings and numbers.

        The numbers include NaN and infinity, which strict JSON does not allow.
        """
        rows = [
            {
                "name": trial.name,
                "change": trial.change,
                "skill": trial.skill,
                "loss_first": _first_loss(trial.history),
                "loss": trial.loss,
                "gradient_first_to_last": self.first_to_last(trial),
                "gradient_decades": self.decades(trial),
                "note": trial.note,
            }
            for trial in self
        ]
        return {"trials": rows, "not_possible": [list(one) for one in self.not_possible]}

    def __rich__(self) -> Any:
        """Return the table and lines that rich prints."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(expand=False)
        for column in ("trial", "change"):
            table.add_column(column, overflow="fold")
        if self.metric:
            table.add_column("skill", justify="right", no_wrap=True)
        table.add_column("loss, first step\n→ last epoch", no_wrap=True)
        table.add_column("gradient, first\nlayer ÷ last", justify="right", no_wrap=True)
        table.add_column("result", overflow="fold")
        for trial in self:
            good = trial.note.startswith(_GOOD)
            style = "bold green" if good else "bold" if trial.name == UNCHANGED else ""
            table.add_row(
                Text(trial.name, style=style),
                Text(trial.change),
                *([Text(skill_text(trial.skill))] if self.metric else []),
                Text(f"{_first_loss(trial.history):.3g} → {trial.loss:.3g}"),
                Text(f"{self.first_to_last(trial):.2g}"),
                Text(trial.note),
            )
        lines = []
        if self.metric:
            lines.append(Text(f"{MEANING_OF_SKILL} Computed from {self.metric}."))
        if len(self) > 1 and self.best is None:
            lines.append(Text("Nothing that was tried helps.", style="bold yellow"))
        if len(self.not_possible) <= _MOST_REASONS:
            lines += [Text(f"not tried: {name}: {reason}") for name, reason in self.not_possible]
        else:
            # Some names contain a comma.
            names = "; ".join(name for name, _ in self.not_possible)
            lines.append(Text(f"not tried: {names}. trials.not_possible lists the reasons."))
        return Group(table, *lines)

    def __repr__(self) -> str:
        by = SKILL if self.metric else "loss"
        return f"Trials([{', '.join(f'{t.name}: {by} {getattr(t, by):.3g}' for t in self)}])"

    def _rank(self, trial: Trial) -> tuple[bool, float, bool, float, float]:
        skill = -math.inf if math.isnan(trial.skill) else round(trial.skill, 2)
        unknown = math.isnan(trial.loss)
        loss = 0.0 if unknown or math.isfinite(skill) else float(f"{trial.loss:.1e}")
        decades = self.decades(trial)
        decades = math.inf if math.isnan(decades) else decades
        return _broken(trial.history), -skill, unknown, loss, decades


def kernel_layers(history: GradientHistory) -> list[str]:
    """Return layers with a weight of two axes or more, in forward order; all if there is none."""
    found = [weight.layer for weight in history.weights if len(weight.shape) >= 2]
    return list(dict.fromkeys(found)) or list(history.layers)


def skill_text(skill: float) -> str:
    """Return a skill with two digits, without the sign of a rounded -0.

    Example:
        >>> skill_text(-0.004), skill_text(-0.37)
        ('0.00', '-0.37')
    """
    return f"{round(skill, 2) + 0.0:.2f}"


def _last(history: GradientHistory, log: str) -> float:
    """Return the last record's value of a log; NaN if it was not recorded."""
    return float(history.logs[log][-1]) if log in history.logs else math.nan


def _first_loss(history: GradientHistory) -> float:
    return float(history.logs["loss"][0])


def _broken(history: GradientHistory) -> bool:
    """Return whether the loss or the weights ended as NaN or infinity.

    The loss alone is not enough: it may be finite again after weights have become NaN.
    """
    weights = history["weight_l2"][-1] if "weight_l2" in history.statistics else np.zeros(1)
    return not (math.isfinite(_last(history, "loss")) and np.isfinite(weights).all())


_GOOD = ("improvement", "large improvement")


def _verdict(unchanged: GradientHistory, history: GradientHistory) -> str:
    """Compare a run with the baseline, in words."""
    was, now = _broken(unchanged), _broken(history)
    if now:
        return "training breaks down, as in the baseline" if was else "worse: training breaks down"
    after = _last(history, SKILL)
    if was and after < _BETTER:
        return "training no longer breaks down, but is no better than a constant answer"
    if was:
        size = "improvement" if after < _MUCH_BETTER else "large improvement"
        return f"{size}: training no longer breaks down"
    before = _last(unchanged, SKILL)
    if math.isnan(after) or math.isnan(before):
        return _verdict_by_loss(_last(unchanged, "loss"), _last(history, "loss"))
    # R² has no lower bound: below 0 changes are compared with the squared error, which is 1 - R².
    if abs(after - before) < _BETTER * max(1.0, 1.0 - before):
        return "little change in this time"
    # To be wrong by less than before is an improvement only as far as a constant answer is beaten.
    gain = after - max(before, 0.0)
    if after < before:
        words = "worse"
    elif gain < _BETTER:
        words = "no better than a constant answer"
    else:
        words = "large improvement" if gain >= _MUCH_BETTER else "improvement"
    skills = f"skill {skill_text(after)} instead of {skill_text(before)}"
    first, last = _first_loss(history), _last(history, "loss")
    if words == "large improvement" and abs(last - first) < _LITTLE_LOSS * abs(first):
        # Right answers by a hair's breadth, which the next epoch may undo.
        return f"improvement: {skills}, but its loss has hardly changed"
    return f"{words}: {skills}"


def _verdict_by_loss(before: float, after: float) -> str:
    if before <= 0:  # a share means nothing if the loss may be negative
        return "improvement" if after < before else "worse" if after > before else "no change"
    share = after / before
    if share < 1 - _LITTLE_LOSS:
        size = "large improvement" if share < 0.5 else "improvement"
        return f"{size}: loss is {_percent(share)} of the baseline's"
    if share > 1 + _LITTLE_LOSS:
        return f"worse: loss is {share:.2g} times the baseline's"
    return "little change in this time"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
