"""Tasks of a sweep's workers: `check` and `train` experiments.

A worker is this process, a process of its own or one of a cluster. Keras is imported there, and
not where a sweep is only asked for.
"""

import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kgrad._version import __version__
from kgrad.experiments.experiment import Experiment

if TYPE_CHECKING:
    from kgrad.experiments.engines import Compiled
    from kgrad.records.history import GradientHistory

_MOST_COMPILED = 4  # a process of a cluster may be given runs of a few networks in turns


class Worker(NamedTuple):
    """The worker that ran a task.

    Attributes:
        version: its kgrad.
        address: address of a cluster's worker; empty elsewhere.
    """

    version: str
    address: str


@dataclass
class Outcome:
    """The result of a run.

    Attributes:
        experiment: the experiment.
        history: the finished history's file; None if the worker wrote it, or there is none.
        error: the error in one sentence; empty if the run is finished.
        traceback: of the error.
        interrupted: whether Ctrl-C ended the run.
    """

    experiment: Experiment
    history: bytes | None = None
    error: str = ""
    traceback: str = ""
    interrupted: bool = False


def check(experiment: Experiment) -> Worker:
    """Build what an experiment describes, without training.

    Raises:
        ModuleNotFoundError: if something that training needs is not installed.
        ValueError: if a field has a value that is not accepted.
    """
    with _lock:
        from kgrad.measure.backends import import_quietly

        import_quietly("training")
        from kgrad.experiments.engines import prepare

        prepare(experiment)
    return _worker()


def train(
    experiments: Sequence[Experiment], files: Sequence[Path] | None
) -> tuple[Worker, list[Outcome]]:
    """Train experiments that differ only in the seed; an error ends one of them, not the others.

    Args:
        experiments: the experiments.
        files: for each the file that its finished history is written to; its journal has the same
            name with `.part`. None returns histories as bytes.

    Raises:
        OSError: if a file cannot be written.
    """
    with _lock:
        return _worker(), [
            _train(experiment, None if files is None else files[i])
            for i, experiment in enumerate(experiments)
        ]


# Keras has state that the threads of a process share.
_lock = threading.Lock()
_compiled: "dict[Experiment, Compiled]" = {}


def _train(experiment: Experiment, file: Path | None) -> Outcome:
    from kgrad.measure.backends import import_quietly

    import_quietly("training")
    part = None if file is None else file.with_suffix(".jsonl.part")
    begun = time.perf_counter()
    try:
        history = _run(experiment, part)
    except OSError:  # the disk, which the next run needs too
        raise
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}"
        return Outcome(experiment, error=sentence, traceback=traceback.format_exc())
    # A run that was ended by an error of its values is finished: it diverged.
    if history.metadata.get("interrupted") and not history.metadata.get("error"):
        return Outcome(experiment, interrupted=True)
    from kgrad.diagnosis import diagnose

    history.metadata |= {
        "seconds": round(time.perf_counter() - begun, 3),
        "findings": list(diagnose(history).rules),
    }
    if file is None or part is None:
        return Outcome(experiment, history=history.to_bytes())
    history.save(file)
    part.unlink(missing_ok=True)
    return Outcome(experiment)


def _run(experiment: Experiment, journal: Path | None) -> "GradientHistory":
    """Train an experiment, in a training that was compiled for another seed if there is one."""
    from kgrad.experiments.engines import Compiled, prepare

    network = replace(experiment, name="", seed=0)
    prepared = prepare(experiment)
    compiled = _compiled.pop(network, None) or Compiled(prepared)
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
    history = compiled.run(prepared, journal, journal_mode="replace")
    history.metadata["skill"] = compiled.skill(prepared.dataset)
    _compiled[network] = compiled  # the last one is the newest
    while len(_compiled) > _MOST_COMPILED:
        del _compiled[next(iter(_compiled))]
    return history


def _worker() -> Worker:
    address = ""
    if "distributed" in sys.modules:  # otherwise this is no worker of a cluster
        from distributed import get_worker

        with suppress(ValueError):
            address = get_worker().address
    return Worker(__version__, address)
