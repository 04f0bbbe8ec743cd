"""`Shown`: the base of results that a notebook shows as a picture with a few lines.

Such a page is made on the top floor, from figures that this room must not import. The package
itself, which stands above all rooms, says who makes it: `kgrad/__init__.py` calls `shown_by`.
"""

from collections.abc import Callable
from typing import Any

_makers: list[Callable[[Any], str]] = []


class Shown:
    """A result that shows itself in a notebook."""

    def _repr_html_(self) -> str | None:
        """Return the page as HTML; IPython calls it for the value of a cell's last line."""
        return _makers[-1](self) if _makers else None


def shown_by(make: Callable[[Any], str]) -> None:
    """Set the function that returns the page of a result as HTML."""
    _makers[:] = [make]
