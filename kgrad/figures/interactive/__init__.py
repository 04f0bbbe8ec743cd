"""Interactive figures, with the names of the static ones."""

from kgrad.figures.interactive.activations import plot_activations
from kgrad.figures.interactive.depth import (
    plot_gradient_by_depth,
    plot_prediction,
    plot_seed_spread,
)
from kgrad.figures.interactive.distributions import plot_distributions
from kgrad.figures.interactive.flow import plot_flow_graph
from kgrad.figures.interactive.gradients import plot_gradients, plot_heatmap, plot_lines
from kgrad.figures.interactive.phases import plot_phase_diagram
from kgrad.figures.interactive.remedies import plot_remedies
from kgrad.figures.interactive.sweeps import plot_sweep, plot_trainability

__all__ = [
    "plot_activations",
    "plot_distributions",
    "plot_flow_graph",
    "plot_gradient_by_depth",
    "plot_gradients",
    "plot_heatmap",
    "plot_lines",
    "plot_phase_diagram",
    "plot_prediction",
    "plot_remedies",
    "plot_seed_spread",
    "plot_sweep",
    "plot_trainability",
]
