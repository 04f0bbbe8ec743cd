"""`progress_bar`: a bar in a terminal or in a notebook, whatever is installed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Show = Callable[[int, Callable[[], str]], None]
"""A function of the number of steps done and of a function that returns what is being done."""

_SECONDS_BETWEEN = 0.1  # updates of a bar in a notebook


@contextmanager
def progress_bar(total: int, verbose: int, *columns: str | ProgressColumn) -> Iterator[Show]:
    """Show a progress bar on the standard output; of a file only the end.

    rich draws in a notebook only with ipywidgets, and warns if they are missing: there the bar is
    an element of the page.

    Args:
        total: the number of steps.
        verbose: 0 for no bar.
        *columns: what rich shows beside the bar; by default the share done and the time left.
    """
    console = Console()
    if not verbose:
        yield lambda done, text: None
        return
    if console.is_jupyter:
        yield _in_notebook(total)
        return
    columns = columns or (TaskProgressColumn(), TimeRemainingColumn())
    with Progress(_Description(), BarColumn(), *columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, text: bar.update(task, completed=done, description=text())


class _Description(ProgressColumn):
    """The description as it is: names must not be read as markup."""

    def render(self, task: Any) -> Text:
        return Text(task.description)


def _in_notebook(total: int) -> Show:
    from IPython.display import HTML, display

    handle: Any = None
    last = float("-inf")

    def show(done: int, text: Callable[[], str]) -> None:
        nonlocal handle, last
        if time.monotonic() - last < _SECONDS_BETWEEN and done < total:
            return
        last = time.monotonic()
        page = HTML(
            f'<progress value="{done}" max="{total}"></progress> {done}/{total} '
            f'<span style="font-variant-numeric: tabular-nums">{escape(text())}</span>'
        )
        if handle is None:
            handle = display(page, display_id=True)
        else:
            handle.update(page)

    return show
