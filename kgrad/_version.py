"""The version, read by the packaging and written into every history."""

VERSION = "0.1.0"
