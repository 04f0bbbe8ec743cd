"""A task of a sweep that ends its process; nothing is imported that takes long in a new process."""

import os
import signal
from typing import Any


def end_process(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_check(*arguments: Any) -> Any:
    from kgrad._version import __version__
    from kgrad.experiments.sweep_tasks import Worker

    return Worker(__version__, "")
