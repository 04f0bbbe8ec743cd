"""Measuring inside TensorFlow graphs."""
