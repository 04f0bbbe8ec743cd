"""Experiments: data, models, runs described as values, predictions and remedies."""

import lazy_loader

# The names stand in __init__.pyi. Each is imported when it is first used: Keras takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
