"""The version, read by the packaging and written into every history."""

__version__ = "0.1.0"
