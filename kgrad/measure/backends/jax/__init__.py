"""Measuring on JAX."""

from kgrad.measure.backends.jax.differentiate import (
    compile_dry_run,
    floats_of_this_trace,
    intermediate_gradients,
)

__all__ = ["compile_dry_run", "floats_of_this_trace", "intermediate_gradients"]
