"""The process that trains: `python -m kgrad.apps.page.worker`, one per running training.

Standard input: one JSON object per line. {"number": 1, "experiments": […], "journals": […],
"order": "play"} is a job: the experiments are trained together, an epoch of each in turn, each with
its journal and its snapshots. {"order": …} then tells how to go on: "play", "pause", "step" or
"epoch", of which the last two pause again after one step or at the end of an epoch. "pause" pauses
within 0.2 seconds, after a step that gets a record. {"stop": 1} ends job 1. When the input is
closed, because the page or the app has ended, the process ends at once.

Standard output: {"ready": true} once; {"paused": 3} whenever the training has paused as the third
order asked for; {"number": 1, "error": "…"} after each job; the error is empty if there was none.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgrad.apps.page.snapshots import is_taken, snapshot_of, snapshots_path

if TYPE_CHECKING:
    from kgrad.measure.loop import Pieces


class Jobs:
    """The jobs in the input, read by a separate thread.

    Args:
        answer: writes one answer.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], None]) -> None:
        self._answer = answer
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self._changed = threading.Condition()
        self._stopped, self._order, self._orders = 0, "pause", 0
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any]:
        """Wait for the next job and return it."""
        return self._waiting.get()

    def do(self, job: dict[str, Any]) -> None:
        """Train the experiments of a job, until it is stopped."""
        runs: list[_Training] = []
        try:
            for experiment, journal in zip(job["experiments"], job["journals"], strict=True):
                if self._stopped >= job["number"]:
                    return
                runs.append(_Training(experiment, Path(journal)))
            while any(not run.ended for run in runs):
                order = self._next_order(job["number"])
                for run in runs:
                    while not run.advance(order):
                        if self._stopped >= job["number"]:
                            return
                        if order == "play" and self._order == "pause":
                            order = "pause"  # after one step more, so that it has a record
                    if self._stopped >= job["number"]:
                        return
                    if order == "pause":
                        break  # the others pause where they are
        finally:
            for run in runs:
                run.close()

    def _next_order(self, number: int) -> str:
        """Wait while the training is paused; returns "play", "step", "epoch" or "stop"."""
        with self._changed:
            if self._order == "pause":
                self._answer({"paused": self._orders})
            self._changed.wait_for(lambda: self._stopped >= number or self._order != "pause")
            order = "stop" if self._stopped >= number else self._order
            if order != "play":
                self._order = "pause"
            return order

    def _read(self) -> None:
        for line in sys.stdin:
            content = json.loads(line)
            with self._changed:
                if "stop" in content:
                    self._stopped = content["stop"]
                else:
                    self._order = content["order"]
                    self._orders += 1
                self._changed.notify_all()
            if "experiments" in content:
                self._waiting.put(content)
        # Not sys.exit, which ends only this thread: the process must not wait for a running step.
        os._exit(0)


class _Training:
    """A training in pieces, which writes snapshots beside its journal.

    Args:
        settings: the arguments of the `Experiment`. Everything that the page can show is recorded,
            with distributions and a probe.
        journal: the file of the history.
    """

    def __init__(self, settings: dict[str, Any], journal: Path) -> None:
        import keras

        from kgrad.experiments import Experiment, prepare
        from kgrad.experiments.engines import run_in_pieces

        prepared = prepare(Experiment(**settings, distributions=True, probe=True))
        self._X, self._epochs = prepared.dataset.X, prepared.experiment.epochs
        self._per_epoch = -(-len(self._X) // prepared.experiment.batch_size)
        shown = [layer.output for layer in _activated_layers(prepared.model)]
        self._layers = keras.Model(prepared.model.inputs, shown)
        self._pieces: Pieces = run_in_pieces(prepared, journal)
        self._history = next(self._pieces)
        self._file = snapshots_path(journal).open("w")
        self._taken = -1
        self._snap(0)  # record 0 is of the weights before training
        self.ended = False

    def advance(self, order: str) -> bool:
        """Train for one piece; returns whether what was ordered is done."""
        if self.ended or order == "stop":
            return True
        before = len(self._history)
        try:
            self._pieces.send(1 if order in ("step", "pause") else None)
        except StopIteration:
            self.ended = True
        is_new = len(self._history) > before
        step = int(self._history.steps[-1]) if is_new else 0
        at_end = step > 0 and step % self._per_epoch == 0
        last = len(self._history) - 1
        if is_new and (order != "play" or self.ended or is_taken(last, self._epochs)):
            self._snap(last)
        return self.ended or (at_end if order == "epoch" else is_new)

    def close(self) -> None:
        """End the training where it is."""
        self._pieces.close()
        self._snap(len(self._history) - 1)
        self._file.close()

    def _snap(self, record: int) -> None:
        """Take the snapshot of a record, unless it is taken already."""
        if record <= self._taken:
            return
        self._taken = record
        taken = snapshot_of(record, self._X, lambda X: self._layers(X, training=False))
        self._file.write(taken.to_json() + "\n")
        self._file.flush()


def _activated_layers(model: Any) -> list[Any]:
    """Return the layers whose outputs are activations, from the input to the output."""
    names = {layer.name: layer for layer in model.layers}
    return [
        names.get(name.replace("hidden_", "activation_"), names[name])
        for name in names
        if name.startswith("hidden_") or name == "output"
    ]


def main() -> None:
    """Run jobs until the input is closed."""
    # Whatever libraries print goes to standard error, so that it is not read as an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")

    jobs = Jobs(answer)
    import keras

    import kgrad.experiments.engines  # noqa: F401 (takes seconds)

    answer({"ready": True})
    while True:
        job, error = jobs.next(), ""
        keras.utils.clear_session()
        try:
            jobs.do(job)
        except (MemoryError, OSError, TypeError, ValueError) as raised:
            error = str(raised)
        answer({"number": job["number"], "error": error})


if __name__ == "__main__":
    main()
