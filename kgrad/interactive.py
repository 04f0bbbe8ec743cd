"""`import kgrad.interactive`: the interactive figures, which are in `kgrad.figures.interactive`."""

import sys

from kgrad.records.requirements import saying_what_to_install

with saying_what_to_install("kgrad.interactive"):
    from kgrad.figures import interactive
    from kgrad.figures.interactive import *  # noqa: F403 (for type checkers)

# One module under two names: its functions and its state are there once.
sys.modules[__name__] = interactive
