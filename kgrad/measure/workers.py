"""The processes that run one training together: `Workers`."""

from collections.abc import Sequence

import numpy as np


class Workers:
    """The processes that run one training together: here one, which needs no agreement.

    A backend that trains in several processes has a subclass.

    Attributes:
        count: number of processes.
        replicas: number of copies of the model, each of which takes a part of every batch.
        is_chief: whether this process writes files; exactly one process does.
    """

    count = 1
    is_chief = True

    def __init__(self, replicas: int = 1) -> None:
        self.replicas = replicas

    def everyone(self, values: Sequence[int]) -> np.ndarray:
        """Exchange integers: all processes call this at the same time.

        Returns:
            int64 (processes, values), the chief's row first.
        """
        return np.array([values], np.int64)
