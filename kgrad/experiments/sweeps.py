"""`run_sweep`: many runs in a folder, on the cores of this machine or on a cluster.

Nothing here imports Keras: a worker does, and a sweep whose runs are all done needs none.
"""

import hashlib
import json
import os
import queue
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from kgrad._version import __version__
from kgrad.experiments import lanes as engines
from kgrad.experiments.checks import require_valid
from kgrad.experiments.experiment import Experiment
from kgrad.experiments.lanes import Engine, Lane, Lanes
from kgrad.experiments.sweep_tasks import Outcome, Worker, check, train
from kgrad.measure.progress import progress_bar
from kgrad.records.checks import require_integer
from kgrad.records.files import to_json, written_whole
from kgrad.records.sweep import MANIFEST, Sweep, begin_sweep, history_file, write_failure

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MOST_DEATHS = 3  # of processes that train the same run
_SECONDS = 0.5  # between looks at a cluster that may have grown


def run_sweep(
    experiments: Iterable[Experiment],
    folder: str | os.PathLike[str],
    engine: Engine = "here",
    *,
    verbose: int = 1,
) -> Sweep:
    """Run experiments, keep each run's history in a folder, and go on where a sweep was left.

    A run that is finished is not run again, and one that was cut off is run anew: after Ctrl-C, a
    crash or a full disk, call the function again with the same experiments. More experiments may be
    added to them. A run that raises an error leaves its traceback in the folder, the others go on,
    and a warning says at the end what failed; the next call tries it again. Runs that differ only
    in the seed are compiled once per process.

    The same seed gives the same history, bit for bit, in every process with one thread. "here" uses
    all cores for one run, which adds the products of wide layers, from some 1,000 units, in another
    order: its last digits may differ. The history's metadata have the experiment, `started`,
    `seconds`, and in `findings` the rules of its diagnosis.

    Args:
        experiments: the experiments, all different. A run is known by its experiment without the
            name, which may change.
        folder: folder of the sweep, made if necessary; nothing else may be in it.
        engine: where the runs are trained.

            - "here": in this process, one after another.
            - "processes": in a process for each core, with one thread each. A program that is not
              a notebook must call this function under `if __name__ == "__main__":`.
            - "dask": in a cluster of Dask on this machine, with a worker for each core.
            - "tcp://host:port" or a `distributed.Client`: in a cluster that is there. Its workers
              need kgrad; they send the histories back and need no shared files.
            - any `concurrent.futures.Executor`: a task is all runs that differ only in the seed.
        verbose: 1 for a progress bar with the runs done and failed and the time left.

    Returns:
        The sweep; `to_frame()` is its table.

    Raises:
        KeyboardInterrupt: at Ctrl-C. Runs that are finished stay.
        ModuleNotFoundError: if a cluster is asked for and Dask is not installed.
        OSError: if a file cannot be written, or a cluster cannot be reached or was lost.
        TypeError: if the engine is none.
        ValueError: before training, if an experiment has a value that is not accepted, two are the
            same, or the folder has another sweep or is in use by one.

    Example:
        >>> import tempfile
        >>> from kgrad.experiments import Experiment, grid, replicates
        >>> small = Experiment(units=4, samples=64, features=3, epochs=1)
        >>> networks = grid(small, num_layers=[2, 4])
        >>> runs = [run for network in networks for run in replicates(network, 2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sweep = run_sweep(runs, folder, verbose=0)
        ...     sweep.to_frame()[["num_layers", "seed", "findings"]].shape
        (4, 3)
    """
    engines.require_engine(engine)
    runs = _numbered(experiments)
    left = {run: one for run, one in runs.items() if not history_file(Path(folder), run).exists()}
    for network in {_network_of(run): one for run, one in left.items()}.values():
        require_valid(network)
    is_new = not Path(folder).exists()
    sweep = begin_sweep(folder, {run: asdict(one) for run, one in runs.items()})
    if left:
        try:
            with _alone(sweep.folder):
                _remove_drafts(sweep.folder)
                # Another sweep may have finished some in the meantime.
                left = {run: one for run, one in left.items() if not sweep.file(run).exists()}
                _run(sweep, left, engine, verbose)
        except Exception:
            # Refused before anything ran: nothing is left behind.
            if is_new and {path.name for path in sweep.folder.iterdir()} == {MANIFEST}:
                (sweep.folder / MANIFEST).unlink()
                sweep.folder.rmdir()
            raise
    status = sweep.status()
    if status.failed:
        run, error = next(
            (run, text.strip().rpartition("\n")[2]) for run, text in sweep.failures().items()
        )
        warnings.warn(
            f"{status.failed:,} of {sum(status):,} runs failed, such as {runs[run].name!r} with "
            f"seed {runs[run].seed} ({error:.200}): sweep.failures() returns the tracebacks",
            stacklevel=2,
        )
    return sweep


def run_name(experiment: Experiment) -> str:
    """Return the name of an experiment's run in a sweep.

    It is the hash of the network and its training, the same for experiments that differ only in the
    seed, and the seed. A field with its default value is not part of it, so that the names stay as
    they are when `Experiment` gets a new field.
    """
    described = {
        field.name: _plain(value)
        for field in fields(experiment)
        if (value := getattr(experiment, field.name)) != field.default
        and field.name not in ("name", "seed")
    }
    try:
        text = json.dumps(described, sort_keys=True)
    except TypeError as error:
        raise ValueError(
            f"experiments must have fields of text and numbers, received {experiment!r:.300} "
            f"({error})"
        ) from None
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{experiment.seed}"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, with 1 and 1.0 alike, as they are for Python."""
    value = to_json(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _network_of(run: str) -> str:
    return run.rpartition("-")[0]


def _numbered(experiments: Iterable[Experiment]) -> dict[str, Experiment]:
    """Return run → experiment."""
    runs: dict[str, Experiment] = {}
    for experiment in experiments:
        if not isinstance(experiment, Experiment):
            raise TypeError(
                f"experiments must be a sequence of Experiment, received one with "
                f"{type(experiment).__name__}"
            )
        require_integer("seed", experiment.seed, 0, 2**63 - 1)
        run = run_name(experiment)
        if run in runs:
            raise ValueError(
                f"experiments must differ, received {experiment.name!r} with seed "
                f"{experiment.seed} twice"
            )
        runs[run] = experiment
    if not runs:
        raise ValueError("experiments must have at least one, received none")
    return runs


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder."""
    with (folder / MANIFEST).open("rb") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"folder must not be in use, received {str(folder)!r}, where another sweep runs"
                ) from None
            except OSError:  # a file system without locks
                pass
        yield


def _remove_drafts(folder: Path) -> None:
    """Remove what a kill left of files that were being written, and of runs that were just done."""
    for draft in folder.rglob(".*.tmp"):
        draft.unlink(missing_ok=True)
    for part in folder.glob("runs/*/*.jsonl.part"):
        if part.with_suffix("").exists():
            part.unlink(missing_ok=True)


def _run(sweep: Sweep, left: Mapping[str, Experiment], engine: Engine, verbose: int) -> None:
    """Run what is left of a sweep."""
    schedule = _Schedule(left)
    deaths = Counter[str]()
    done: queue.SimpleQueue[tuple[Lane, list[str], Future[Any]]] = queue.SimpleQueue()

    def give(lane: Lane, runs: list[str], writes: bool) -> None:
        lane.network = _network_of(runs[0])
        files = [sweep.file(run) for run in runs] if writes else None
        future = lane.submit(train, [left[run] for run in runs], files)
        future.add_done_callback(lambda ended: done.put((lane, runs, ended)))

    def outcomes_of(lane: Lane, runs: list[str], future: "Future[Any]") -> list[Outcome]:
        try:
            worker, outcomes = future.result()
        except BrokenExecutor as error:
            lane.renew()
            deaths.update(runs)
            schedule.put_back(run for run in runs if deaths[run] < _MOST_DEATHS)
            often = [run for run in runs if deaths[run] >= _MOST_DEATHS]
            sentence = f"its process was ended {_MOST_DEATHS} times ({error})"
            return [Outcome(left[run], error=sentence) for run in often]
        except CancelledError:
            raise ConnectionError(
                f"the cluster was lost; {sweep.status()}: call run_sweep again to go on"
            ) from None
        except OSError:
            raise
        except Exception as error:  # of the cluster: a worker that died again and again
            sentence = f"{type(error).__name__}: {error}"
            return [Outcome(left[run], error=sentence) for run in runs]
        lane.address = worker.address
        return outcomes

    with engines.opened(engine, len(left)) as lanes, progress_bar(len(left), verbose) as show:
        _check(lanes, next(iter(left.values())))
        ended = failed = running = 0
        before = len(sweep.planned) - len(left)
        show(0, partial(_counted, before, 0, len(sweep.planned)))
        idle = deque(lanes.lanes)
        while True:
            while idle and (runs := schedule.next(idle[0].network, lanes.together)):
                give(idle.popleft(), runs, lanes.writes)
                running += 1
            if not running:
                return
            try:
                lane, runs, future = done.get(timeout=_SECONDS)
            except queue.Empty:
                idle.extend(lanes.more())
                continue
            running -= 1
            idle.appendleft(lane)
            for outcome in outcomes_of(lane, runs, future):
                _keep(sweep, outcome)
                ended, failed = ended + 1, failed + bool(outcome.error)
            done_now = before + ended - failed
            show(ended, partial(_counted, done_now, failed, len(sweep.planned)))


def _counted(done: int, failed: int, planned: int) -> str:
    return f"{done:,} of {planned:,} runs done" + f", {failed:,} failed" * bool(failed)


def _keep(sweep: Sweep, outcome: Outcome) -> None:
    """Write what a run left into the sweep's folder."""
    if outcome.interrupted:
        raise KeyboardInterrupt
    run = run_name(outcome.experiment)
    failure = sweep.failure_file(run)
    if outcome.error:
        text = outcome.traceback or outcome.error
        write_failure(failure, asdict(outcome.experiment), outcome.error, text)
        return
    if outcome.history is not None:
        file = sweep.file(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as draft:
            draft.write_bytes(outcome.history)
    failure.unlink(missing_ok=True)
    sweep.add_to_index(run)


def _check(lanes: Lanes, first: Experiment) -> None:
    """Build an experiment on a worker: what a run needs is there, before one is trained."""
    lane = lanes.lanes[0]
    try:
        worker: Worker = lane.submit(check, first).result()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine must have workers with kgrad {__version__}, Keras and a backend, received "
            f"some without {error.name}",
            name=error.name,
        ) from error
    lane.address = worker.address
    if worker.version != __version__:
        raise ValueError(
            f"engine must have workers with kgrad {__version__}, received ones with "
            f"{worker.version}: install the same version everywhere"
        )


class _Schedule:
    """The order of the runs: a lane keeps to its network, then begins another or helps with one."""

    def __init__(self, runs: Iterable[str]) -> None:
        self._left: dict[str, deque[str]] = {}
        for run in runs:
            self._left.setdefault(_network_of(run), deque()).append(run)
        self._new = deque(self._left)

    def next(self, network: str, together: bool) -> list[str]:
        """Return the next run, or with `together` all that are left of its network."""
        if network not in self._left:
            if self._new:
                network = self._new.popleft()
            elif self._left:
                network = max(self._left, key=lambda one: len(self._left[one]))
            else:
                return []
        runs = self._left[network]
        taken = list(runs) if together else [runs.popleft()]
        if together or not runs:
            del self._left[network]
        return taken

    def put_back(self, runs: Iterable[str]) -> None:
        """Return runs that were not finished."""
        for run in runs:
            self._left.setdefault(_network_of(run), deque()).append(run)
