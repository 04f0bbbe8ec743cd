"""The engines of a sweep: where its tasks run.

An engine is a set of lanes. A lane runs one task at a time, and keeps to a network, which its
process has compiled, as long as that has runs left.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotReady
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from typing import Any, TypeAlias

from kgrad.records.checks import did_you_mean
from kgrad.records.requirements import how_to_install

Engine: TypeAlias = str | Executor | Any
"""The name of an engine, an address of a cluster, an executor or a client of Dask."""

NAMES = ("here", "processes", "dask")

# One core for each process: several that each use all cores slow one another down.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    # Otherwise the first process on a GPU takes all of its memory.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
# Tasks in a cluster for each thread: the next one is there before the last one's result is back.
_AHEAD = 2
_SECONDS_TO_CONNECT = 10
_SECONDS_TO_BEGIN = 10  # for a new process, before it imports Keras


@dataclass
class Lane:
    """A place where one task runs at a time.

    Attributes:
        executor: runs the tasks.
        network: the network that was compiled there last.
        address: the cluster's worker that ran the last task; empty elsewhere.
    """

    executor: Executor
    network: str = ""
    address: str = ""

    def submit(self, task: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Run a task."""
        return self.executor.submit(task, *arguments)

    def renew(self) -> None:
        """Replace an executor whose process died.

        Raises:
            RuntimeError: if that is not this program's to do.
        """
        raise RuntimeError("the executor's processes died")


@dataclass
class Lanes:
    """The lanes of an engine.

    Attributes:
        lanes: the lanes there are.
        writes: whether tasks can write into the sweep's folder.
        together: whether a task is all runs of a network, as its lane may be in any process.
        more: returns lanes that were added since the last call.
    """

    lanes: Sequence[Lane]
    writes: bool
    together: bool = False
    more: Callable[[], Sequence[Lane]] = field(default=lambda: ())


@contextmanager
def opened(engine: Engine, most: int) -> Iterator[Lanes]:
    """Open an engine, and close it at the end; an error ends its running tasks.

    Args:
        engine: see `run_sweep`.
        most: the number of lanes that can be used.

    Raises:
        ModuleNotFoundError: if Dask is needed and not installed.
        OSError: if a cluster cannot be reached.
        TypeError, ValueError: if there is no such engine.
    """
    if isinstance(engine, Executor):
        yield Lanes([Lane(engine) for _ in range(most)], writes=False, together=True)
    elif isinstance(engine, str) and engine == "here":
        yield Lanes([Lane(_Here())], writes=True)
    elif isinstance(engine, str) and engine == "processes":
        with _processes(min(most, cores())) as lanes:
            yield Lanes(lanes, writes=True)
    else:
        with _cluster(engine, most) as lanes:
            yield lanes


def require_engine(engine: Engine) -> None:
    """Raise unless an engine is one of those that `run_sweep` takes."""
    if isinstance(engine, Executor) or _is_client(engine):
        return
    accepted = '"here", "processes", "dask", a cluster\'s address such as "tcp://host:8786"'
    if not isinstance(engine, str):
        raise TypeError(
            f"engine must be {accepted}, a client of Dask or an executor, received "
            f"{type(engine).__name__}"
        )
    if engine not in NAMES and "://" not in engine:
        raise ValueError(
            f"engine must be {accepted}, received {engine!r}{did_you_mean(engine, NAMES)}"
        )
    if engine not in ("here", "processes"):
        _require_dask()


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


class _Here(Executor):
    """Runs tasks in this thread, while they are submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


# ---- Processes -----------------------------------------------------------------------------------


class _Process(Lane):
    """A lane with a process of its own."""

    def __init__(self) -> None:
        super().__init__(_one_process())
        self._pid = self.executor.submit(os.getpid)

    def renew(self) -> None:
        self.executor.shutdown()
        self.executor, self.network = _one_process(), ""
        self._pid = self.executor.submit(os.getpid)

    def end(self) -> None:
        """End the process, whatever it does."""
        with suppress(BrokenExecutor, NotReady, ProcessLookupError):
            os.kill(self._pid.result(timeout=_SECONDS_TO_BEGIN), signal.SIGTERM)
        self.executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _processes(count: int) -> Iterator[list[_Process]]:
    lanes = [_Process() for _ in range(count)]
    try:
        yield lanes
    except BaseException:
        for lane in lanes:
            lane.end()
        raise
    for lane in lanes:
        lane.executor.shutdown()


def _one_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin_process)


def _begin_process() -> None:
    """Prepare a process of a sweep; Keras is not imported yet."""
    os.environ.update(_ONE_THREAD)
    # Ctrl-C in a terminal goes to all processes: the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process with the one that started it, which may have been killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ---- Dask ----------------------------------------------------------------------------------------


class _Remote(Lane):
    """A lane in a cluster: it prefers the worker that ran its last task."""

    def __init__(self, client: Any) -> None:
        super().__init__(client.get_executor(pure=False))
        self._client = client

    def submit(self, task: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        options: dict[str, Any] = {"pure": False}
        if self.address:
            options |= {"workers": [self.address], "allow_other_workers": True}
        return self._client.get_executor(**options).submit(task, *arguments)


@contextmanager
def _cluster(engine: Engine, most: int) -> Iterator[Lanes]:
    _require_dask()
    from distributed import Client, LocalCluster

    if _is_client(engine):
        yield _remote_lanes(engine, most)
        return
    if engine == "dask":
        with (
            LocalCluster(
                n_workers=min(most, cores()),
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=logging.ERROR,
                env=_ONE_THREAD,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield _remote_lanes(client, most)
        return
    try:
        client = Client(engine, timeout=_SECONDS_TO_CONNECT)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionError(
            f"engine must be a cluster that can be reached, received {engine!r}: "
            f"{str(error) or type(error).__name__}"
        ) from error
    with client:
        yield _remote_lanes(client, most)


def _remote_lanes(client: Any, most: int) -> Lanes:
    lanes: list[Lane] = []

    def more() -> list[Lane]:
        # A cluster that starts workers as they are needed sees that some are.
        threads = max(1, sum(client.nthreads().values()))
        added: list[Lane] = [
            _Remote(client) for _ in range(min(most, _AHEAD * threads) - len(lanes))
        ]
        lanes.extend(added)
        return added

    return Lanes(more(), writes=False, more=more)


def _is_client(engine: Engine) -> bool:
    return hasattr(engine, "get_executor") and hasattr(engine, "nthreads")


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine needs Dask for clusters: {how_to_install('cluster')}", name=error.name
        ) from error
