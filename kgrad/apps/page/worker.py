"""The process that trains: `python -m kgrad.apps.page.worker`, one per running training.

Standard input: one JSON object per line. {"number": 1, "experiments": […], "journals": […]} is a
job: the experiments are trained one after the other, each with its journal. {"stop": 1} ends job 1.
When the input is closed, because the page or the app has ended, the process ends at once.

Standard output: {"ready": true} once, then {"number": 1, "error": "…"} after each job; the error is
empty if there was none.
"""

import _thread
import json
import os
import queue
import sys
import threading
from typing import Any


class Jobs:
    """The jobs in the input, read by a separate thread."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._training, self._stopped = False, 0
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any]:
        """Wait for the next job and return it."""
        return self._waiting.get()

    def do(self, job: dict[str, Any]) -> None:
        """Train the experiments of a job, until it is stopped."""
        try:
            for experiment, journal in zip(job["experiments"], job["journals"], strict=True):
                with self._lock:
                    if self._stopped >= job["number"]:
                        break
                    self._training = True
                train(experiment, journal)
                with self._lock:
                    self._training = False
        finally:
            self._training = False

    def _read(self) -> None:
        for line in sys.stdin:
            content = json.loads(line)
            if "stop" not in content:
                self._waiting.put(content)
                continue
            with self._lock:
                self._stopped = content["stop"]
                if self._training:
                    _thread.interrupt_main()
        # Not sys.exit, which ends only this thread: the process must not wait for a running step.
        os._exit(0)


def train(settings: dict[str, Any], journal: str) -> None:
    """Train an experiment and record all that the page can show, with distributions and a probe."""
    from kgrad.experiments import Experiment, run_experiment

    run_experiment(Experiment(**settings, distributions=True, probe=True), journal)


def main() -> None:
    """Run jobs until the input is closed."""
    # Whatever libraries print goes to standard error, so that it is not read as an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs = Jobs()
    import keras

    import kgrad.experiments.engines  # noqa: F401 (takes seconds)

    answers.write('{"ready": true}\n')
    while True:
        job, error = jobs.next(), ""
        keras.utils.clear_session()
        try:
            jobs.do(job)
        except (MemoryError, OSError, TypeError, ValueError) as raised:
            error = str(raised)
        except KeyboardInterrupt:  # before the first record or after the last
            pass
        answers.write(json.dumps({"number": job["number"], "error": error}) + "\n")


if __name__ == "__main__":
    main()
