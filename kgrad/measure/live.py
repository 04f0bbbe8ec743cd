"""`LiveView`: one picture of a run, redrawn while it trains, in a notebook or in a terminal."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from rich.console import Console, Group
from rich.live import Live

from kgrad.diagnosis import ModelFacts
from kgrad.diagnosis.diagnosing import diagnose
from kgrad.figures.live import as_html, as_text
from kgrad.records.history import GradientHistory

MOST_TIME = 0.02  # share of the time since the first record that drawing may take
_MOST_FINDINGS = 3
_ROWS_BESIDE = 6  # of a terminal, for everything but the layers
_MOST_LAYERS = 16


class LiveView:
    """Draws histories while they grow, as often as the time that drawing takes allows.

    The first record is drawn, the last one when the view is closed, and others if all drawings
    together, this one included, take at most `MOST_TIME` of the time. Neither a notebook nor a
    terminal: nothing is drawn.

    Args:
        console: where to draw; by default the standard output.
        clock: seconds, for tests.
    """

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._console = Console() if console is None else console
        self._clock = clock
        self._draw: _Notebook | _Terminal | None = None
        if self._console.is_jupyter:
            self._draw = _Notebook()
        elif self._console.is_terminal:
            self._draw = _Terminal(self._console)
        self._began: float | None = None
        self._spent = self._last = 0.0
        self._pending: tuple[dict[str, GradientHistory], Callable[[], ModelFacts] | None] | None
        self._pending = None

    def replace_progress_bar(self, verbose: object) -> None:
        """Silence Keras's progress bar in a terminal, whose lines would break those of the view."""
        if isinstance(self._draw, _Terminal) and verbose in (1, "auto", True):
            self._draw.silence()

    def show(
        self,
        histories: Mapping[str, GradientHistory],
        read_facts: Callable[[], ModelFacts] | None = None,
    ) -> None:
        """Draw the histories, unless that would take too much of the time.

        Args:
            histories: name → history.
            read_facts: function that returns the facts about the model, for the findings.
        """
        if self._draw is None:
            return
        now = self._clock()
        if self._began is None:
            self._began = now
        self._pending = dict(histories), read_facts
        if not self._spent or self._spent + self._last <= MOST_TIME * (now - self._began):
            self._draw_pending()

    def close(self) -> None:
        """Draw the last record, if it was not, and leave the picture where it is."""
        if self._draw is not None:
            self._draw_pending()
            self._draw.close()
        self._began, self._spent, self._last = None, 0.0, 0.0

    def _draw_pending(self) -> None:
        if self._draw is None or self._pending is None:
            return
        histories, read_facts = self._pending
        self._pending = None
        began = self._clock()
        shown = {name: one for name, one in histories.items() if len(one)}
        facts = None if read_facts is None else read_facts()
        findings = {name: _findings(one, facts) for name, one in shown.items()}
        self._draw.draw(shown, findings)
        self._last = self._clock() - began
        self._spent += self._last


class _Notebook:
    """An output of the cell that is replaced."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(
        self,
        histories: Mapping[str, GradientHistory],
        findings: Mapping[str, Sequence[str]],
    ) -> None:
        from IPython.display import HTML, display

        pages = [
            as_html(history, findings[name], name if len(histories) > 1 else "")
            for name, history in histories.items()
        ]
        page = HTML("".join(pages))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)

    def close(self) -> None:
        self._handle = None  # the next fit has a picture of its own


class _Terminal:
    """Lines that are replaced; what others print appears above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._silenced = False

    def silence(self) -> None:
        if keras.config.is_interactive_logging_enabled():
            keras.config.disable_interactive_logging()
            self._silenced = True

    def draw(
        self,
        histories: Mapping[str, GradientHistory],
        findings: Mapping[str, Sequence[str]],
    ) -> None:
        room = max(3, self._console.height // max(1, len(histories)) - _ROWS_BESIDE)
        texts = [
            as_text(
                history,
                findings[name],
                name if len(histories) > 1 else "",
                width=self._console.width,
                most=min(room, _MOST_LAYERS),
            )
            for name, history in histories.items()
        ]
        if self._live is None:
            # Without a thread of its own, which would take time from the training.
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(Group(*texts), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._silenced:
            keras.config.enable_interactive_logging()
            self._silenced = False


def _findings(history: GradientHistory, facts: ModelFacts | None) -> list[str]:
    """Return the findings so far, a line each; of a first record only what is not finite."""
    found = diagnose(history, facts)
    if len(history) == 1:  # most problems of the first step disappear
        found = [one for one in found if one.rule == "nonfinite"]  # type: ignore[assignment]
    return [str(finding) for finding in found[:_MOST_FINDINGS]]
