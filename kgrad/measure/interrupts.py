"""Delays a Ctrl-C until a place where nothing is half done: `interrupt_deferred`."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Delay a Ctrl-C until the block has ended: what is in it is done completely or not at all."""
    if threading.current_thread() is not threading.main_thread() or not signal.getsignal(
        signal.SIGINT
    ):
        yield  # the signal goes to another thread, or to a handler that was not set in Python
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
