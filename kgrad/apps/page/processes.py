"""Training processes, and a spare one that has TensorFlow imported before it is needed."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_SECONDS_TO_STOP = 2.0


class Worker:
    """A process that runs `kgrad.apps.page.worker`.

    Attributes:
        ready: set when TensorFlow is imported; also if the process ends before.
        error: the reason why the last job failed; empty if it did not fail.
    """

    def __init__(self) -> None:
        self._idle = threading.Event()
        self._idle.set()
        self.error = ""
        self._number = 0  # of the last job: answers to earlier jobs are ignored
        self._orders, self._paused = 0, -1  # sent, and the one after which it paused
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kgrad.apps.page.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            text=True,
            bufsize=1,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": _search_path()},
            # Ctrl-C in a terminal must reach only the app, which then closes its workers' inputs.
            start_new_session=True,
        )
        self.ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def running(self) -> bool:
        """Whether a job is running."""
        return not self._idle.is_set()

    @property
    def paused(self) -> bool:
        """Whether the job has paused as the last order asked for."""
        return self._paused == self._orders

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def start(
        self, experiments: Sequence[Mapping[str, Any]], journals: Sequence[Path], order: str
    ) -> None:
        """Start a job: train the experiments side by side, each with its journal.

        Args:
            experiments: the arguments of each `Experiment`.
            journals: the file of each history.
            order: the first order, as in `order`.
        """
        self._number += 1
        self._orders += 1
        self.error = ""
        self._idle.clear()
        paths = [str(journal) for journal in journals]
        self._write(
            {
                "number": self._number,
                "experiments": list(experiments),
                "journals": paths,
                "order": order,
            }
        )

    def order(self, order: str) -> None:
        """Tell how to go on: "play", "pause", or "step" or "epoch", after which it pauses."""
        self._orders += 1
        self._write({"order": order})

    def stop(self) -> None:
        """End the job and wait until it has ended.

        The process is killed if it has not imported TensorFlow yet, or does not end the job within
        `_SECONDS_TO_STOP`.
        """
        if not self.ready.is_set():  # still importing TensorFlow: it would not answer in time
            self.close()
            return
        self._write({"stop": self._number})
        self._idle.wait(_SECONDS_TO_STOP)
        if self.running:
            self.close()

    def close(self) -> None:
        """Kill the process; a running job ends with it."""
        self._idle.set()
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()
        self._printed.close()

    def _write(self, content: Mapping[str, Any]) -> None:
        """Send a message to the process; `kgrad.apps.page.worker` describes the messages."""
        pipe = self._pipe(self._process.stdin)
        try:
            pipe.write(json.dumps(content) + "\n")
        except (OSError, ValueError):  # ValueError: the pipe is closed
            self.error = "The training process has ended."
            self._idle.set()

    def _listen(self) -> None:
        """Read the process's answers until it ends, in a separate thread."""
        pipe = self._pipe(self._process.stdout)
        for line in pipe:
            answer = json.loads(line)
            if "ready" in answer:
                self.ready.set()
            elif "paused" in answer:
                self._paused = answer["paused"]
            elif answer["number"] == self._number:
                self.error = answer["error"]
                self._idle.set()
        status = self._process.wait()
        if self.running:  # it ended by itself
            self.error = f"The training process ended: {self._last_line() or status}"
        self._idle.set()
        self.ready.set()

    def _last_line(self) -> str:
        """Return the last line that the process printed: after a crash, the exception."""
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise RuntimeError("the process was started without pipes")
        return pipe


class Spare:
    """One idle worker that has imported TensorFlow, kept so that a training starts at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Worker | None = None

    def take(self) -> Worker:
        """Return a worker: the idle one if there is one, otherwise a new one."""
        with self._lock:
            worker, self._waiting = self._waiting, None
        return worker if worker is not None and worker.alive else Worker()

    def give(self, worker: Worker | None = None) -> None:
        """Keep an idle worker for the next training, unless one is kept already.

        Args:
            worker: the worker to keep, which is closed if it is not needed. If it is None or has
                ended, a new one is started.
        """
        with self._lock:
            if self._waiting is None or not self._waiting.alive:
                if worker is None or not worker.alive:
                    worker = Worker()
                worker, self._waiting = None, worker
        if worker is not None:
            worker.close()


def _search_path() -> str:
    """Return the PYTHONPATH with which a new process imports the same kgrad as this one."""
    here = str(Path(__file__).parents[3])
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([here, given] if given else [here])
