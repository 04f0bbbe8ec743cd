"""Experiments: data sets, models, training runs described as values, predictions, remedies."""

import lazy_loader

# __init__.pyi lists the names. Each is imported at its first use, as Keras takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
