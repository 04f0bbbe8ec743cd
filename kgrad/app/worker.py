"""The process that trains: `python -m kgrad.app.worker`, one for each training that goes on.

It reads jobs from its standard input, a JSON object a line: {"experiments": […], "journals": […]}
is trained one after the other, each with its journal; {"stop": true} ends that. When the input is
closed, because the page or the whole app is gone, the process ends at once. On its standard output
it says {"ready": true}, and of each job {"finished": true} or {"error": a sentence}.
"""

import _thread
import json
import os
import queue
import sys
import threading
from typing import Any

# Of a larger batch a probe tells little more, and it costs a pass a record.
_PROBED = 64


class Jobs:
    """What the input asks for, read by a thread of its own."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._busy = self._stopped = False
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any]:
        """Wait for a job."""
        return self._waiting.get()

    def do(self, job: dict[str, Any]) -> None:
        """Train what a job asks for, until it is stopped."""
        try:
            with self._lock:
                self._busy = True
            for experiment, journal in zip(job["experiments"], job["journals"], strict=True):
                if not self._stopped:
                    train(experiment, journal)
        except KeyboardInterrupt:  # before the first record, or behind the last
            pass
        finally:
            with self._lock:
                self._busy = self._stopped = False

    def _read(self) -> None:
        for line in sys.stdin:
            job = json.loads(line)
            if "stop" not in job:
                self._waiting.put(job)
                continue
            with self._lock:
                if self._busy:
                    self._stopped = True
                    _thread.interrupt_main()
        # Not sys.exit: that ends a thread, and a compiled step would still run to its end.
        os._exit(0)


def train(settings: dict[str, Any], journal: str) -> None:
    """Train an experiment, with all that the page can show: distributions, a probe's signals."""
    from dataclasses import asdict

    from kgrad.experiments import Experiment, prepare
    from kgrad.training import train_and_track_gradients

    experiment, data, model, optimizer = prepare(Experiment(**settings))
    train_and_track_gradients(
        model,
        data.X,
        data.y,
        experiment.epochs,
        batch_size=experiment.batch_size,
        optimizer=optimizer,
        loss=data.loss,
        distributions=True,
        probe=(data.X[:_PROBED], data.y[:_PROBED]),
        seed=experiment.seed,
        jit_compile=experiment.jit,
        journal=journal,
        metadata={"experiment": asdict(experiment)},
    )


def main() -> None:
    """Do jobs until the input is closed."""
    # What libraries print must not pass for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs = Jobs()
    import keras

    import kgrad.experiments  # noqa: F401 (seconds, before there is a job)

    answers.write('{"ready": true}\n')
    while True:
        job = jobs.next()
        keras.utils.clear_session()
        try:
            jobs.do(job)
            answer: dict[str, Any] = {"finished": True}
        except (MemoryError, OSError, TypeError, ValueError) as error:
            answer = {"error": str(error)}
        except KeyboardInterrupt:  # a stop that came just as the job ended
            answer = {"finished": True}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
