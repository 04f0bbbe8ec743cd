"""The runs that the page shows, and what belongs to a browser tab: a process and a folder."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.processes import Spare, Worker
from kgrad.apps.page.snapshots import Snapshots
from kgrad.records.history import GradientHistory
from kgrad.records.journal import Journal
from kgrad.records.prediction import Prediction


@dataclass
class Run:
    """A training that the page follows: its own, or that of a file.

    Attributes:
        name: the name that the page shows.
        journal: the file that is followed.
        configuration: what is trained; None for a file.
        prediction: the gradients that theory expects; None if there is no prediction.
        no_prediction: the reason why there is none; empty if there is one, or before it is known.
        error: the reason why the file cannot be followed further; empty if it can.
        made: figures and texts made of the run, kept until it changes.
        snapshots: its decision boundaries and activations; none of a file.
    """

    name: str
    journal: Journal
    configuration: Configuration | None = None
    prediction: Prediction | None = None
    no_prediction: str = ""
    error: str = ""
    made: dict[Any, Any] = field(default_factory=dict)
    snapshots: Snapshots = field(init=False)
    _first_seen: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        self.snapshots = Snapshots(self.journal.path)

    @property
    def history(self) -> GradientHistory | None:
        """The recorded history, once there is a record."""
        history = self.journal.history
        return history if history is not None and len(history) else None

    def recorded(self) -> GradientHistory:
        """Return the recorded history.

        Raises:
            ValueError: if there is no record.
        """
        if self.history is None:
            raise ValueError(f"{self.name} has no record")
        return self.history

    @property
    def epochs(self) -> tuple[int, int | None]:
        """The number of recorded epochs, and of all epochs if that is known."""
        history = self.journal.history
        done = int(self.history.epochs[-1]) if self.history else 0
        asked = None if history is None else history.metadata.get("epochs")
        if self.configuration is not None:
            asked = self.configuration.epochs
        known = isinstance(asked, int) and not isinstance(asked, bool) and asked >= done
        return done, asked if known else None

    @property
    def complete(self) -> bool:
        """Whether all its epochs are recorded."""
        done, asked = self.epochs
        if self.history is None or asked is None or done < asked:
            return False
        per_epoch = _steps_per_epoch(self.history)
        return per_epoch is None or int(self.history.steps[-1]) % per_epoch == 0

    def follow(self) -> None:
        """Read what was appended to the file."""
        if self.error:
            return
        before = self.journal.history
        try:
            if self.configuration is not None:
                self.snapshots.read()
            self.journal.read()
        except (OSError, ValueError) as error:
            self.error = str(error)
        if before is not None and self.journal.history is not before:  # the file was replaced
            self.prediction, self.no_prediction, self._first_seen = None, "", None
            self.made.clear()
        done, _ = self.epochs
        if done and self._first_seen is None:
            self._first_seen = time.monotonic(), done

    def time_left(self) -> str:
        """Return the time that the remaining epochs will take: ", about 12 s left"; or nothing."""
        done, asked = self.epochs
        if self._first_seen is None or asked is None:
            return ""
        since, before = self._first_seen
        if done <= before:
            return ""
        seconds = (time.monotonic() - since) / (done - before) * (asked - done)
        if seconds < 0.5:
            return ""
        if seconds < 90:
            return f", about {seconds:.0f} s left"
        return f", about {seconds / 60:.0f} min left"


def is_regular(history: GradientHistory) -> bool:
    """Return whether every epoch has one record, at its end: no single steps were made."""
    epochs, per_epoch = history.epochs, _steps_per_epoch(history)
    whole = per_epoch is None or (history.steps == per_epoch * epochs).all()
    return bool(whole) and epochs.tolist() == list(range(len(history)))


def _steps_per_epoch(history: GradientHistory) -> int | None:
    """Return the number of steps of an epoch; None if the file does not say it."""
    samples, batch_size = (history.metadata.get(name) for name in ("samples", "batch_size"))
    known = all(type(one) is int and one > 0 for one in (samples, batch_size))
    return -(-samples // batch_size) if known else None  # type: ignore[operator]


def drawable_predictions(runs: Sequence[Run], statistic: str) -> dict[str, Prediction]:
    """Return name → prediction of the runs for which the statistic is predicted."""
    return {
        run.name: run.prediction
        for run in runs
        if run.prediction is not None and statistic in run.prediction.statistics
    }


class Tab:
    """The state of a browser tab outside of the page: a folder, and a process during a training.

    Args:
        spare: where processes are taken from and returned to.
    """

    def __init__(self, spare: Spare) -> None:
        self._spare = spare
        self._folder = tempfile.TemporaryDirectory(prefix="kgrad_", ignore_cleanup_errors=True)
        self._worker: Worker | None = None
        self._count = 0
        self.error = ""

    @property
    def training(self) -> bool:
        """Whether a training is running; a process that has finished is returned."""
        worker = self._worker
        if worker is not None and not worker.running:
            self._worker, self.error = None, worker.error
            self._spare.give(worker)
        return self._worker is not None

    @property
    def paused(self) -> bool:
        """Whether a training is running that waits for an order."""
        return self._worker is not None and self._worker.paused

    def train(
        self, configurations: Sequence[Configuration], names: Sequence[str], order: str
    ) -> list[Run]:
        """Start to train the configurations side by side.

        Args:
            configurations: what to train.
            names: the names that the page shows.
            order: "play"; or "step" or "epoch", after which the training pauses.
        """
        if self._worker is not None:
            self._worker.close()
        runs = [
            Run(name, Journal(self.new_path()), one)
            for name, one in zip(names, configurations, strict=True)
        ]
        self.error = ""
        self._worker = self._spare.take()
        self._worker.start(
            [one.experiment() for one in configurations],
            [run.journal.path for run in runs],
            order,
        )
        return runs

    def order(self, order: str) -> None:
        """Tell the training how to go on, as in `Worker.order`."""
        if self._worker is not None:
            self._worker.order(order)

    def stop(self) -> None:
        """Stop the training; the recorded epochs stay."""
        if self._worker is not None:
            self._worker.stop()

    def new_path(self) -> Path:
        """Return the path of a new file."""
        self._count += 1
        return Path(self._folder.name) / f"run_{self._count}.jsonl"

    def close(self) -> None:
        """End the process and remove the folder, because the browser tab was closed."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self._spare.give()
        self._folder.cleanup()
