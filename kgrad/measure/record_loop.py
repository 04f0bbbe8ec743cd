"""What happens between the calls of the compiled steps: records, a progress bar, Ctrl-C."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from kgrad.measure.backends.tensorflow.probe import Probe
from kgrad.measure.backends.tensorflow.recorder import Recorder
from kgrad.measure.backends.tensorflow.steps import TrainingLoop
from kgrad.records.history import GradientHistory

# Float32 buffers lose the fifth digit when they are added to for longer; a fixed number, so that
# the same run is read at the same steps.
_STEPS_BETWEEN_READINGS = 8192
# Python sees a Ctrl-C only between calls of the compiled function.
_SECONDS_BETWEEN_CALLS = 0.2


def track(
    loop: TrainingLoop,
    recorder: Recorder,
    probe: Probe | None,
    epochs: int,
    every: int | Literal["epoch"],
    seed: int | None,
    verbose: int,
) -> GradientHistory:
    """Run the loop; make the records, and move the progress bar, between its calls."""
    random = None if seed is None else np.random.default_rng(seed)
    steps_a_record = loop.steps_per_epoch if every == "epoch" else every
    probed = (lambda: None) if probe is None else probe.measure
    activations_before = probed()
    loop.reset_logs()
    steps = epochs * loop.steps_per_epoch
    done = 0
    begun = False
    seconds_a_step = math.inf  # the first call compiles, and tells nothing
    with _progress(steps, verbose) as show:
        try:
            while done < steps:
                epoch, first = divmod(done, loop.steps_per_epoch)
                if first == 0 and random is not None:
                    loop.set_order(random.permutation(loop.samples))
                start = time.perf_counter()
                pending = done - recorder.last[1]
                most = min(
                    max(1, int(_SECONDS_BETWEEN_CALLS / seconds_a_step)),
                    steps_a_record - pending,
                    _STEPS_BETWEEN_READINGS - pending % _STEPS_BETWEEN_READINGS,
                )
                count = loop.run(first, most if begun else 1)
                seconds_a_step = (time.perf_counter() - start) / count
                done += count
                show(epoch + 1, done, loop.logs)
                with _interrupt_deferred():
                    # An optimizer that accumulates gradients updates nothing in its first step.
                    if not begun and (recorder.pending_steps or done == steps_a_record):
                        begun = True
                        recorder.record(
                            0, 0, loop.logs(), before_training=True, activations=activations_before
                        )
                    if pending + count == steps_a_record:
                        recorder.record(epoch + 1, done, loop.logs(), activations=probed())
                        loop.reset_logs()
                    elif (pending + count) % _STEPS_BETWEEN_READINGS == 0:
                        recorder.read()
        except KeyboardInterrupt:
            if not len(recorder.history):
                raise
            recorder.history.metadata["interrupted"] = True
    try:
        with _interrupt_deferred():
            if recorder.pending_steps:  # cut off, or `every` does not divide the run
                # Ctrl-C may have come between the last call's end and its being counted.
                done = max(done, recorder.last[1] + recorder.pending_steps)
                epoch = -(-done // loop.steps_per_epoch)
                recorder.record(epoch, done, loop.logs(), activations=probed())
    except KeyboardInterrupt:
        recorder.history.metadata["interrupted"] = True
    return recorder.history


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Hold a Ctrl-C back until the block has ended: a record is made whole or not at all."""
    if threading.current_thread() is not threading.main_thread() or not signal.getsignal(
        signal.SIGINT
    ):
        yield  # the signal comes to another thread, or to a handler that Python did not set
        return
    received: list[tuple[Any, ...]] = []
    handler = signal.signal(
        signal.SIGINT, lambda *signal_and_frame: received.append(signal_and_frame)
    )
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received and callable(handler):
        handler(*received[0])


@contextmanager
def _progress(steps: int, verbose: int) -> Iterator[Callable[[int, int, Callable], None]]:
    """A progress bar as a function of (epoch, steps done, function that returns the logs)."""
    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not verbose) as bar:
        task = bar.add_task("compiling", total=steps)

        def show(epoch: int, done: int, logs: Callable[[], dict[str, float]]) -> None:
            if bar.disable:
                return
            text = "  ".join(f"{name} {value:.4g}" for name, value in logs().items())
            bar.update(task, completed=done, description=f"epoch {epoch}  {text}")

        yield show
