"""Gradients of JAX: what may be read of them, and the operations that `keras.ops` lacks."""

from collections.abc import Sequence
from typing import Any

import jax
import keras
from jax.experimental.sparse import JAXSparse

# The field of a float32 that holds its exponent begins at this bit.
_EXPONENT = 23


def readable_gradients(gradients: Sequence[Any]) -> list[Any]:
    """Return gradients as dense arrays; those of a step on several devices are of all its data.

    Args:
        gradients: arrays, sparse arrays, or None.
    """
    return [g.todense() if isinstance(g, JAXSparse) else g for g in gradients]


def update_made(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return whether an update stays, a scalar bool; None if every one does.

    An optimizer that accumulates gradients makes an update in each step, and takes it back in all
    but every n-th.
    """
    steps = optimizer.gradient_accumulation_steps
    return None if not steps else (optimizer._iterations.value + 1) % steps == 0


def sum_of_squares(gradient: jax.Array) -> jax.Array:
    """Sum the squares of a gradient's entries."""
    return jax.numpy.sum(jax.numpy.square(gradient))


def exponents(entries: jax.Array) -> jax.Array:
    """Return the exponent field of each float32: int32, 0 to 255."""
    return (jax.lax.bitcast_convert_type(entries, jax.numpy.int32) >> _EXPONENT) & 255


def count_places(places: jax.Array, length: int) -> jax.Array:
    """Count how often each of the integers 0 to `length` - 1 occurs: int32 (length,)."""
    return jax.numpy.bincount(places, length=length).astype(jax.numpy.int32)
