"""The process that trains: `python -m kgrad.apps.page.worker`, one for each training that goes on.

It reads jobs from its standard input, a JSON object a line. {"number": 1, "experiments": […],
"journals": […]} is trained one after the other, each with its journal; {"stop": 1} ends that. When
the input is closed, because the page or the whole app is gone, the process ends at once. On its
standard output it says {"ready": true}, and of each job {"number": 1, "error": a sentence, or ""}.
"""

import _thread
import json
import os
import queue
import sys
import threading
from typing import Any


class Jobs:
    """What the input asks for, read by a thread of its own."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._training, self._stopped = False, 0
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any]:
        """Wait for a job."""
        return self._waiting.get()

    def do(self, job: dict[str, Any]) -> None:
        """Train what a job asks for, until it is stopped."""
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
        # Not sys.exit: that ends a thread, and a compiled step would still run to its end.
        os._exit(0)


def train(settings: dict[str, Any], journal: str) -> None:
    """Train an experiment, with all that the page can show: distributions, a probe's signals."""
    from kgrad.experiments import Experiment, run_experiment

    run_experiment(Experiment(**settings, distributions=True, probe=True), journal)


def main() -> None:
    """Do jobs until the input is closed."""
    # What libraries print must not pass for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs = Jobs()
    import keras

    import kgrad.experiments.experiment  # noqa: F401 (seconds, before there is a job)

    answers.write('{"ready": true}\n')
    while True:
        job, error = jobs.next(), ""
        keras.utils.clear_session()
        try:
            jobs.do(job)
        except (MemoryError, OSError, TypeError, ValueError) as raised:
            error = str(raised)
        except KeyboardInterrupt:  # before the first record, or behind the last
            pass
        answers.write(json.dumps({"number": job["number"], "error": error}) + "\n")


if __name__ == "__main__":
    main()
