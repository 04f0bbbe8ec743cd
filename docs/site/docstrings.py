"""An extension of Griffe, which reads the docstrings for the site."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Make a section of `Example:`, as Keras writes it; Griffe knows `Examples:` alone."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:  # noqa: D102
        if obj.docstring is not None:
            value = obj.docstring.value
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", value, flags=re.M)
