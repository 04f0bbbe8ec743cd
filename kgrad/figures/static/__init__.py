"""Static figures: histories and predictions in, matplotlib figures out.

pyplot does not manage these figures: `plt.show()` does not open them, and nothing needs closing. A
notebook shows a figure if it is the value of a cell's last line; a script calls
`figure.savefig(path)` or `show([figure])`.
"""

from kgrad.figures.static.activations import plot_activations
from kgrad.figures.static.depth import plot_gradient_by_depth, plot_prediction, plot_seed_spread
from kgrad.figures.static.distributions import plot_distributions
from kgrad.figures.static.flow import plot_flow_graph
from kgrad.figures.static.gradients import (
    plot_gradients,
    plot_heatmap,
    plot_lines,
    visualize_gradients,
)
from kgrad.figures.static.parts import show
from kgrad.figures.static.phases import plot_phase_diagram
from kgrad.figures.static.remedies import plot_remedies
from kgrad.figures.static.sweeps import plot_sweep, plot_trainability

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
    "show",
    "visualize_gradients",
]
