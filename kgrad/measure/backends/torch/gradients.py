"""Gradients of torch: what may be read of them, and the operations that `keras.ops` lacks."""

from collections.abc import Sequence
from typing import Any

import keras
import torch

# The field of a float32 that holds its exponent begins at this bit.
_EXPONENT = 23


def readable_gradients(gradients: Sequence[Any]) -> list[Any]:
    """Return gradients as dense tensors without a graph.

    Under `DistributedDataParallel` they are those of the whole batch: the backward pass has
    averaged them over the processes.

    Args:
        gradients: tensors, sparse tensors, or None.
    """
    return [None if g is None else g.detach().to_dense() for g in gradients]


def update_made(optimizer: keras.optimizers.Optimizer) -> None:
    """Return whether an update stays; None, as every update does."""
    return None


def sum_of_squares(gradient: torch.Tensor) -> torch.Tensor:
    """Sum the squares of a gradient's entries."""
    return torch.sum(torch.square(gradient))


def exponents(entries: torch.Tensor) -> torch.Tensor:
    """Return the exponent field of each float32: int32, 0 to 255."""
    return (entries.view(torch.int32) >> _EXPONENT) & 255


def count_places(places: torch.Tensor, length: int) -> torch.Tensor:
    """Count how often each of the integers 0 to `length` - 1 occurs: int32 (length,)."""
    return torch.bincount(places, minlength=length).to(torch.int32)
