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


class Trial(NamedTuple):
    """One training run.

    Attributes:
        name: name of the change; "unchanged" for the baseline.
        change: description of the change; empty for the baseline.
        history: gradients of the run.
        loss: mean loss over the steps of the last epoch.
        note: how the run compares with the baseline, in words.
    """

    name: str
    change: str
    history: GradientHistory
    loss: float
    note: str


class Trials(Listing[Trial]):
    """The unchanged run, which is the baseline, and the other runs, best first; prints as a table.

    Trials are ranked by their loss, rounded to two significant digits. Ties are broken by how many
    powers of ten the gradients span in the last record; fewer are better. Runs that broke down,
    with a loss or weights that ended as NaN or infinity, rank last.

    Attributes:
        not_possible: (name of a change, reason why it could not be made or trained).

    Args:
        trials: the trials, the unchanged run first.
        not_possible: changes that were not tried, each with the reason in one sentence.
    """

    def __init__(
        self, trials: Iterable[Trial], not_possible: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__(trials)
        self.not_possible: tuple[tuple[str, str], ...] = tuple(not_possible)

    @classmethod
    def ranked(
        cls,
        unchanged: GradientHistory,
        changed: Iterable[tuple[str, str, GradientHistory]],
        not_possible: Iterable[tuple[str, str]] = (),
    ) -> Self:
        """Compare runs with the unchanged one and rank them.

        Args:
            unchanged: history of the baseline.
            changed: (name, change, history) of each other run.
            not_possible: changes that were not tried, each with the reason in one sentence.
        """
        note = "baseline"
        if _broken(unchanged):
            note += "; training breaks down"
        trials = [Trial(UNCHANGED, "", unchanged, _last_loss(unchanged), note)]
        for name, change, history in changed:
            note = _verdict(unchanged, history)
            trials.append(Trial(name, change, history, _last_loss(history), note))
        found = cls(trials)
        return cls([trials[0], *sorted(trials[1:], key=found._rank)], not_possible)

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
            DataFrame with columns name, change, loss_first (of the first step), loss,
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
        table.add_column("loss, first step\n→ last epoch", no_wrap=True)
        table.add_column("gradient, first\nlayer ÷ last", justify="right", no_wrap=True)
        table.add_column("result", overflow="fold")
        for trial in self:
            good = trial.note.startswith(("improvement", "large improvement"))
            style = "bold green" if good else "bold" if trial.name == UNCHANGED else ""
            table.add_row(
                Text(trial.name, style=style),
                Text(trial.change),
                Text(f"{_first_loss(trial.history):.3g} → {trial.loss:.3g}"),
                Text(f"{self.first_to_last(trial):.2g}"),
                Text(trial.note),
            )
        lines = [Text(f"not tried: {name}: {reason}") for name, reason in self.not_possible]
        return Group(table, *lines)

    def __repr__(self) -> str:
        return f"Trials([{', '.join(f'{t.name}: {t.loss:.3g}' for t in self)}])"

    def _rank(self, trial: Trial) -> tuple[bool, bool, float, float]:
        unknown = math.isnan(trial.loss)
        loss = 0.0 if unknown else float(f"{trial.loss:.1e}")
        decades = self.decades(trial)
        decades = math.inf if math.isnan(decades) else decades
        return _broken(trial.history), unknown, loss, decades


def kernel_layers(history: GradientHistory) -> list[str]:
    """Return layers with a weight of two axes or more, in forward order; all if there is none."""
    found = [weight.layer for weight in history.weights if len(weight.shape) >= 2]
    return list(dict.fromkeys(found)) or list(history.layers)


def _last_loss(history: GradientHistory) -> float:
    return float(history.logs["loss"][-1])


def _first_loss(history: GradientHistory) -> float:
    return float(history.logs["loss"][0])


def _broken(history: GradientHistory) -> bool:
    """Return whether the loss or the weights ended as NaN or infinity.

    The loss alone is not enough: it may be finite again after weights have become NaN.
    """
    weights = history["weight_l2"][-1] if "weight_l2" in history.statistics else np.zeros(1)
    return not (math.isfinite(_last_loss(history)) and np.isfinite(weights).all())


def _verdict(unchanged: GradientHistory, history: GradientHistory) -> str:
    """Compare a run with the baseline, in words."""
    was, now = _broken(unchanged), _broken(history)
    if now:
        return "training breaks down, as in the baseline" if was else "worse: training breaks down"
    if was:
        return "large improvement: training no longer breaks down"
    before, after = _last_loss(unchanged), _last_loss(history)
    if before <= 0:  # a share means nothing if the loss may be negative
        return "improvement" if after < before else "worse" if after > before else "no change"
    share = after / before
    if share < 0.9:
        size = "large improvement" if share < 0.5 else "improvement"
        return f"{size}: loss is {_percent(share)} of the baseline's"
    if share > 1.1:
        return f"worse: loss is {share:.2g} times the baseline's"
    return "little change in this time"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
