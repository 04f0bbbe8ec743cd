"""The report: recorded runs in one HTML file that opens offline."""

from kgrad.apps.report.flow_page import write_flow_graph
from kgrad.apps.report.report import write_report

__all__ = ["write_flow_graph", "write_report"]
