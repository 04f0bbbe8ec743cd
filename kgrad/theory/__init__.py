"""Mean-field theory: the gradients of a dense network at initialization, before any training.

Start with an activation function and a `DenseStack`: its widths and the variances of its weights.
`propagate` then returns the size of signals and gradients, layer by layer. In this sigmoid network,
whose weights have the variance 1/fan-in, the squared norm of the errors ∂L/∂h vanishes towards the
input:

    >>> stack = DenseStack((64,) * 4, (1 / 64,) * 3, (activation("sigmoid"),) * 2)
    >>> propagate(stack, a_0=1.0).S.round(4)
    array([0.0025, 0.0551, 1.    ])

Read the modules in this order: `activations`, `gaussian` (expectations), `mean_field` (the
recursion, also for mini-batches: `propagate_batch`), `phases` and `depths` (how far signals reach
in deep networks, and the critical initialization), `rates` (normalization and skip connections),
`finite_width` (how much single networks scatter) and `entries` (the mean size of an entry). All of
them need NumPy and SciPy only.
"""

from kgrad.theory.activations import Activation, activation
from kgrad.theory.depths import depth_table, phase_plane, trainable_depths
from kgrad.theory.entries import mean_abs_gradients
from kgrad.theory.finite_width import (
    backward_spread,
    born_dead_probability,
    forward_spread,
    log_gradient_variance,
    relu_log_ratio,
)
from kgrad.theory.gaussian import expectation, pair_expectation
from kgrad.theory.mean_field import (
    DenseStack,
    Moments,
    chi,
    correlation_map,
    gram_moments,
    propagate,
    propagate_batch,
    second_moment,
    squared_slope,
    variance_map,
)
from kgrad.theory.phases import (
    chi_1,
    correlation_depth_scale,
    critical_line,
    critical_point,
    doubly_critical_point,
    fixed_correlation,
    fixed_point,
    gradient_depth_scale,
    variance_depth_scale,
)
from kgrad.theory.rates import (
    batch_norm_linear_rate,
    batch_norm_rate,
    batch_norm_relu_rate,
    jacobian_moments,
    layer_norm_rate,
    residual_rate,
)

__all__ = [
    "Activation",
    "DenseStack",
    "Moments",
    "activation",
    "backward_spread",
    "batch_norm_linear_rate",
    "batch_norm_rate",
    "batch_norm_relu_rate",
    "born_dead_probability",
    "chi",
    "chi_1",
    "correlation_depth_scale",
    "correlation_map",
    "critical_line",
    "critical_point",
    "depth_table",
    "doubly_critical_point",
    "expectation",
    "fixed_correlation",
    "fixed_point",
    "forward_spread",
    "gradient_depth_scale",
    "gram_moments",
    "jacobian_moments",
    "layer_norm_rate",
    "log_gradient_variance",
    "mean_abs_gradients",
    "pair_expectation",
    "phase_plane",
    "propagate",
    "propagate_batch",
    "relu_log_ratio",
    "residual_rate",
    "second_moment",
    "squared_slope",
    "trainable_depths",
    "variance_depth_scale",
    "variance_map",
]
