"""The runs that a page shows, and what belongs to its browser tab: a process and a folder."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.processes import Spare, Worker
from kgrad.records.history import GradientHistory
from kgrad.records.journal import Journal
from kgrad.records.prediction import Prediction


@dataclass
class Run:
    """A training as the page follows it: its own, or a file's.

    Attributes:
        name: what the page calls it.
        journal: what is followed.
        configuration: what is trained; None for a file.
        prediction: what theory expects of it, if it can tell.
        unpredicted: why it cannot.
        error: why the file can be followed no further; empty if it can.
        made: figures and texts made of it, kept while it does not change.
    """

    name: str
    journal: Journal
    configuration: Configuration | None = None
    prediction: Prediction | None = None
    unpredicted: str = ""
    error: str = ""
    made: dict[Any, Any] = field(default_factory=dict)
    _first_seen: tuple[float, int] | None = None

    @property
    def history(self) -> GradientHistory | None:
        """What was recorded, once there is a record."""
        history = self.journal.history
        return history if history is not None and len(history) else None

    @property
    def epochs(self) -> tuple[int, int | None]:
        """How many epochs are recorded, and of how many if that is known."""
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
        return asked is not None and done >= asked

    def follow(self) -> None:
        """Read what was appended."""
        if self.error:
            return
        try:
            self.journal.read()
        except (OSError, ValueError) as error:
            self.error = str(error)
        done, _ = self.epochs
        if done and self._first_seen is None:
            self._first_seen = time.monotonic(), done

    def seconds_left(self) -> float | None:
        """How long the rest will take, by the time that epochs have taken; None if unknown."""
        done, asked = self.epochs
        if self._first_seen is None or asked is None:
            return None
        since, before = self._first_seen
        if done <= before:
            return None
        return (time.monotonic() - since) / (done - before) * (asked - done)


class Tab:
    """What a browser tab holds outside of the page: a folder, and while it trains a process.

    Args:
        spare: where processes come from, and go when they are done.
    """

    def __init__(self, spare: Spare) -> None:
        self._spare = spare
        self._folder = tempfile.TemporaryDirectory(prefix="kgrad_", ignore_cleanup_errors=True)
        self._worker: Worker | None = None
        self._count = 0
        self.error = ""

    @property
    def training(self) -> bool:
        """Whether the process is at work; one that is done goes back."""
        worker = self._worker
        if worker is not None and not worker.running:
            self._worker, self.error = None, worker.error
            self._spare.give(worker)
        return self._worker is not None

    def train(self, configurations: Sequence[Configuration], names: Sequence[str]) -> list[Run]:
        """Begin to train, one after the other."""
        if self._worker is not None:
            self._worker.close()
        runs = [
            Run(name, Journal(self.new_path()), one)
            for name, one in zip(names, configurations, strict=True)
        ]
        self.error = ""
        self._worker = self._spare.take()
        self._worker.start(
            [one.experiment() for one in configurations], [run.journal.path for run in runs]
        )
        return runs

    def stop(self) -> None:
        """End the training; what was recorded stays."""
        if self._worker is not None:
            self._worker.stop()

    def new_path(self) -> Path:
        """A path for a file of its own."""
        self._count += 1
        return Path(self._folder.name) / f"run_{self._count}.jsonl"

    def close(self) -> None:
        """End the process and remove the folder: the browser's tab was closed."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self._spare.give()
        self._folder.cleanup()
