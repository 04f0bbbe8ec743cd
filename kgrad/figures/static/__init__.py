"""Static figures: histories and predictions in, matplotlib figures out."""

from kgrad.figures.static.activations import plot_activations
from kgrad.figures.static.distributions import plot_distributions
from kgrad.figures.static.flow import plot_flow_graph
from kgrad.figures.static.gradients import (
    compare_gradients,
    plot_gradient_by_depth,
    plot_gradients,
    plot_heatmap,
    plot_lines,
    plot_seed_spread,
    visualize_gradients,
)
from kgrad.figures.static.phases import plot_phase_diagram
from kgrad.figures.static.predictions import plot_prediction
from kgrad.figures.static.remedies import plot_remedies

__all__ = [
    "compare_gradients",
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
    "visualize_gradients",
]
