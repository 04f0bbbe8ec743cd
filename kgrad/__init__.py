"""See, explain and predict the gradients of a Keras model while it trains."""

import lazy_loader

# TensorFlow takes seconds to import: a name's module is imported when the name is first used.
# The names and where they are defined stand in __init__.pyi, which type checkers read, too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
