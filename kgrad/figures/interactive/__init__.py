"""Interactive figures. They need plotly: `pip install "kgrad[app]"`."""

try:
    import plotly  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'kgrad.interactive needs plotly: pip install "kgrad[app]"', name=error.name
    ) from error

from kgrad.figures.interactive.distributions import distributions
from kgrad.figures.interactive.flow import flow
from kgrad.figures.interactive.gradients import depth_profile, lines
from kgrad.figures.interactive.heatmaps import comparison, heatmap

__all__ = ["comparison", "depth_profile", "distributions", "flow", "heatmap", "lines"]
