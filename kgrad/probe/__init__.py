"""What the layers of a model put out on a fixed batch, and what gradient comes back to them."""

from kgrad.probe.measure import STATISTICS, Probe

__all__ = ["STATISTICS", "Probe"]
