"""Figures: histories and predictions in, matplotlib Figures out."""

from kgrad.plots.activations import plot_activations
from kgrad.plots.distributions import plot_distributions
from kgrad.plots.flow import plot_flow_graph
from kgrad.plots.gradients import (
    compare_gradients,
    plot_gradient_by_depth,
    plot_seed_spread,
    visualize_gradients,
)
from kgrad.plots.phases import plot_phase_diagram
from kgrad.plots.predictions import plot_prediction
from kgrad.plots.remedies import plot_remedies

__all__ = [
    "compare_gradients",
    "plot_activations",
    "plot_distributions",
    "plot_flow_graph",
    "plot_gradient_by_depth",
    "plot_phase_diagram",
    "plot_prediction",
    "plot_remedies",
    "plot_seed_spread",
    "visualize_gradients",
]
