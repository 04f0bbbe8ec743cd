"""Recorded runs as values and as files. Imports no other room of kgrad, no Keras, no backend."""
