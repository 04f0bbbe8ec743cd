"""Figures to point at and the report to send. They need plotly: `pip install "kgrad[app]"`."""

try:
    import plotly  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'kgrad.web needs plotly: pip install "kgrad[app]"', name=error.name
    ) from error

from kgrad.web.distributions import distributions
from kgrad.web.figures import depth_profile, lines
from kgrad.web.flow import flow
from kgrad.web.flow_page import write_flow_graph
from kgrad.web.heatmaps import comparison, heatmap
from kgrad.web.report import write_report

__all__ = [
    "comparison",
    "depth_profile",
    "distributions",
    "flow",
    "heatmap",
    "lines",
    "write_flow_graph",
    "write_report",
]
