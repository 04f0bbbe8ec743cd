"""The only place that imports a backend: one package for each that Keras runs on."""
