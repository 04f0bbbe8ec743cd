"""Figures of what was recorded and predicted: static with matplotlib, interactive with plotly."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["interactive", "looks", "static"])
