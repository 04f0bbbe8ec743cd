"""Ctrl-C and SIGTERM at a place where nothing is half done, and never lost."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_collected() -> Iterator[Callable[[], bool]]:
    """Collect the first Ctrl-C; yields a function that returns whether there was one.

    Workers that stopped at different steps would wait for each other forever. A second Ctrl-C is
    for a worker that waits for one that died.
    """
    if not _handles_interrupts():
        yield lambda: False
        return
    received: list[int] = []

    def collect(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, handler)

    handler = signal.signal(signal.SIGINT, collect)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, handler)


def _handles_interrupts() -> bool:
    """Return whether Ctrl-C comes to this thread, and to a handler that was set in Python."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and callable(signal.getsignal(signal.SIGINT))


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Delay a Ctrl-C until the block has ended: a record is made completely or not at all."""
    if not _handles_interrupts():
        yield
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
def interrupts_noticed() -> Iterator[Callable[[], bool]]:
    """Note that Ctrl-C raised; yields a function that returns whether it did.

    Python prints and drops what is raised in a destructor or in a callback of the garbage
    collector, and the graphs that TensorFlow has compiled have long destructors.
    """
    if not _handles_interrupts():
        yield lambda: False
        return
    handler: Any = signal.getsignal(signal.SIGINT)
    raised: list[int] = []

    def handle(number: int, frame: Any) -> None:
        try:
            handler(number, frame)
        except KeyboardInterrupt:
            raised.append(number)
            raise

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(raised)
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which batch systems and containers send, as Ctrl-C; then end the process.

    A program that handles SIGTERM or Ctrl-C itself is left alone.
    """
    if not (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        yield
        return
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if received:
            print("ended by SIGTERM", file=sys.stderr, flush=True)
            sys.stdout.flush()
            signal.raise_signal(signal.SIGTERM)
