"""The report: recorded runs in one HTML file that opens offline. It needs plotly and Jinja2."""

try:
    import jinja2  # noqa: F401
    import plotly  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'the report needs {error.name}: pip install "kgrad[app]"', name=error.name
    ) from error

from kgrad.apps.report.flow_page import write_flow_graph
from kgrad.apps.report.report import write_report

__all__ = ["write_flow_graph", "write_report"]
