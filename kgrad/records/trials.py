"""`Trials`: what came of each change, against the unchanged run."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, overload

import numpy as np
import pandas as pd

from kgrad.records.history import GradientHistory

UNCHANGED = "as it is"


class Trial(NamedTuple):
    """One training run.

    Attributes:
        name: of the change, "as it is" for none.
        change: what was changed, in words; empty for nothing.
        history: the gradients of the run.
        loss: the mean over the steps of its last epoch.
        note: what came of it, in words.
    """

    name: str
    change: str
    history: GradientHistory
    loss: float
    note: str


class Trials(Sequence[Trial]):
    """The unchanged run, then the others, the best first; printed, a table.

    Ranked are losses in two digits. Among equals the one stands first whose gradients were spread
    over the fewest powers of ten in the last record. Last are runs that broke down: whose loss or
    weights ended as NaN or infinite.

    Attributes:
        not_possible: (name of a change, why it could not be made or trained).

    Args:
        trials: the unchanged run first.
        not_possible: changes that were not tried, each with the reason in a sentence.
    """

    def __init__(
        self, trials: Iterable[Trial], not_possible: Iterable[tuple[str, str]] = ()
    ) -> None:
        self._trials = tuple(trials)
        self.not_possible: tuple[tuple[str, str], ...] = tuple(not_possible)

    @classmethod
    def ranked(
        cls,
        unchanged: GradientHistory,
        changed: Iterable[tuple[str, str, GradientHistory]],
        not_possible: Iterable[tuple[str, str]] = (),
    ) -> Self:
        """Rank runs and say what came of each.

        Args:
            unchanged: the history that the others are compared with.
            changed: (name, change, history) of each.
            not_possible: changes that were not tried, each with the reason in a sentence.
        """
        note = "what the others are compared with"
        if _broken(unchanged):
            note += "; training breaks down"
        trials = [Trial(UNCHANGED, "", unchanged, _last_loss(unchanged), note)]
        for name, change, history in changed:
            note = _verdict(unchanged, history)
            trials.append(Trial(name, change, history, _last_loss(history), note))
        found = cls(trials)
        return cls([trials[0], *sorted(trials[1:], key=found._rank)], not_possible)

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Trial, ...]: ...
    def __getitem__(self, index: int | slice) -> Trial | tuple[Trial, ...]:
        return self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers with kernels that the unchanged run has, in forward order."""
        return tuple(kernel_layers(self[0].history))

    def by_layer(self, trial: Trial, statistic: str) -> np.ndarray:
        """A statistic of a trial in `layers`, without those that its change added.

        Returns:
            float64, (records, layers).
        """
        own = kernel_layers(trial.history)
        # A model of one's own code names its layers anew each time.
        names = [name for name in own if name in self.layers] or own
        places = [trial.history.layers.index(name) for name in names]
        return trial.history.by_layer(statistic)[:, places]

    def decades(self, trial: Trial) -> float:
        """Over how many powers of ten the layers' `l2_norm` is spread in the last record.

        Returns:
            log10 of the largest over the least; infinite if one is 0, NaN if one is NaN.
        """
        norms = self.by_layer(trial, "l2_norm")[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.ptp(np.log10(norms)))

    def first_to_last(self, trial: Trial) -> float:
        """Mean |gradient| of the first layer over that of the last, in the last record."""
        values = self.by_layer(trial, "mean_abs")[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(values[0] / values[-1])

    def to_frame(self) -> pd.DataFrame:
        """One row a trial.

        Returns:
            DataFrame with columns name, change, loss_first (of the first step), loss,
            gradient_first_to_last, gradient_decades, note.
        """
        return pd.DataFrame(self.to_dict()["trials"])

    def to_dict(self) -> dict[str, Any]:
        """Trials and what was not possible, in JSON's types but for numbers that are not finite."""
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
        """What rich prints."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(expand=False)
        for column in ("tried", "what was changed"):
            table.add_column(column, overflow="fold")
        table.add_column("loss, first step\n→ last epoch", no_wrap=True)
        table.add_column("gradient, first\nlayer ÷ last", justify="right", no_wrap=True)
        table.add_column("what came of it", overflow="fold")
        for trial in self:
            good = trial.note.startswith(("helps", "heals"))
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

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=110, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()

    def __repr__(self) -> str:
        return f"Trials([{', '.join(f'{t.name}: {t.loss:.3g}' for t in self)}])"

    def _rank(self, trial: Trial) -> tuple[bool, bool, float, float]:
        unknown = math.isnan(trial.loss)
        loss = 0.0 if unknown else float(f"{trial.loss:.1e}")
        decades = self.decades(trial)
        decades = math.inf if math.isnan(decades) else decades
        return _broken(trial.history), unknown, loss, decades


def kernel_layers(history: GradientHistory) -> list[str]:
    """The layers with a weight of two axes or more, in forward order; all if there is none."""
    found = [weight.layer for weight in history.weights if len(weight.shape) >= 2]
    return list(dict.fromkeys(found)) or list(history.layers)


def _last_loss(history: GradientHistory) -> float:
    return float(history.logs["loss"][-1])


def _first_loss(history: GradientHistory) -> float:
    return float(history.logs["loss"][0])


def _broken(history: GradientHistory) -> bool:
    """Whether loss or weights ended as no numbers; a loss may look well after that."""
    weights = history["weight_l2"][-1] if "weight_l2" in history.statistics else np.zeros(1)
    return not (math.isfinite(_last_loss(history)) and np.isfinite(weights).all())


def _verdict(unchanged: GradientHistory, history: GradientHistory) -> str:
    """What a run says against the unchanged one."""
    was, now = _broken(unchanged), _broken(history)
    if now:
        return "breaks down, as without it" if was else "harms: training breaks down"
    if was:
        return "heals: without it, training breaks down"
    before, after = _last_loss(unchanged), _last_loss(history)
    if before <= 0:  # of what may be negative there is no share
        return "helps" if after < before else "harms" if after > before else "changes nothing"
    share = after / before
    if share < 0.9:
        much = "helps much" if share < 0.5 else "helps"
        return f"{much}: {_percent(share)} of the loss as it is"
    if share > 1.1:
        return f"harms: {share:.2g} times the loss as it is"
    return "changes little in this time"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
