"""`Listing`: a fixed sequence that prints as a table."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

from kgrad.records.notebook import Shown

_T = TypeVar("_T")


class Listing(Shown, Sequence[_T]):
    """A fixed sequence that prints as a table, in a terminal and in a notebook.

    A subclass draws the table in `__rich__`.

    Args:
        items: the items, in order.
    """

    def __init__(self, items: Iterable[_T]) -> None:
        self._items = tuple(items)

    @overload
    def __getitem__(self, index: int) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[_T, ...]: ...
    def __getitem__(self, index: int | slice) -> _T | tuple[_T, ...]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __rich__(self) -> Any:
        """Return what rich prints."""
        raise NotImplementedError

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=110, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()
