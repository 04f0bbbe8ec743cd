"""The short names of an experiment's fields, without imports: `--help` and links read them."""

SHORT_NAMES = {
    "num_layers": "layers",
    "weight_initializer": "initializer",
    "skip_connections": "skip",
    "jit_compile": "jit",
}
"""Field of an `Experiment` → its option on the command line, which is also its parameter in a link,
its word in a run's name, and its name in kgrad 0.1. The other fields have one name."""

LONG_NAMES = {short: field for field, short in SHORT_NAMES.items()}
