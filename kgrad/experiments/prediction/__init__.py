"""Predict a Keras model's gradients before training, and recommend initializers."""
