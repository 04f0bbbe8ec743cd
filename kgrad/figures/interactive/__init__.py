"""Interactive figures. They need plotly: `pip install "kgrad[app]"`."""

try:
    import plotly  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'kgrad.interactive needs plotly: pip install "kgrad[app]"', name=error.name
    ) from error

from kgrad.figures.interactive.distributions import plot_distributions
from kgrad.figures.interactive.flow import plot_flow_graph
from kgrad.figures.interactive.gradients import plot_gradient_by_depth, plot_lines
from kgrad.figures.interactive.heatmaps import plot_heatmap

__all__ = [
    "plot_distributions",
    "plot_flow_graph",
    "plot_gradient_by_depth",
    "plot_heatmap",
    "plot_lines",
]
