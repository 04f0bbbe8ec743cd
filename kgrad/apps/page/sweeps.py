"""An opened sweep: its map, whose cells open the runs that they are made of."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import streamlit as st

from kgrad.apps.findings import escape_markdown, first_findings
from kgrad.apps.page.figures import draw
from kgrad.experiments.experiment import option_value
from kgrad.figures.interactive import plot_sweep
from kgrad.figures.sweep_maps import GAINED, SweepMap, column_label, known_runs, map_axes
from kgrad.records.sweep import NUMBERS, Sweep

_HEIGHT = 480  # pixels
_MOST_ERRORS = 5  # kinds of errors


class OpenSweep(NamedTuple):
    """A sweep as it was when it was read.

    Attributes:
        sweep: the sweep.
        table: the rows of its table whose experiment is known.
        status: how many runs are done, in words, and what was found first.
        axes: the columns of the map, and the other fields that vary; None if nothing does.
    """

    sweep: Sweep
    table: pd.DataFrame
    status: str
    axes: tuple[str, str, list[str]] | None

    @classmethod
    def read(cls, folder: Path) -> "OpenSweep":
        """Read a sweep.

        Raises:
            ValueError: if it has no run that is finished or failed.
        """
        sweep = Sweep(folder)
        table, status = known_runs(sweep.to_frame()), sweep.status()
        if table.empty:
            raise ValueError(f"{str(folder)!r} has no finished run yet: {status}")
        found = ", ".join(f"{count:,} {name}" for name, count in first_findings(table).items())
        words = f"{status}. First findings: {found}." if found else f"{status}."
        return cls(sweep, table, words, map_axes(table))


def show_sweep(opened: OpenSweep, open_run: Callable[[str, Path], None]) -> None:
    """Draw the map of a sweep, and the runs of the cell that was clicked.

    Args:
        opened: the sweep.
        open_run: shows a run, given its name and the file of its history.
    """
    sweep, table, status, axes = opened
    st.markdown(f"**Sweep {escape_markdown(sweep.folder)}**: {escape_markdown(status)}")
    numbers = [one for one in NUMBERS if one in table.columns and table[one].notna().any()]
    if axes is None or not numbers:
        _choose(table, open_run, sweep)
        return
    x, y, others = axes
    columns = st.columns(1 + len(others))
    values = [GAINED] * ("loss_last" in numbers) + numbers
    value = str(columns[0].selectbox("Color", values, format_func=column_label, key="sweep_value"))
    for field, column in zip(others, columns[1:], strict=True):
        words = table[field].map(option_value)
        chosen = column.selectbox(
            column_label(field), list(dict.fromkeys(words)), key=f"sweep_{field}"
        )
        table = table[words == chosen]

    def clicked() -> None:
        at = st.session_state.sweep_map.clicked
        cells = SweepMap.of(table, x, y, value, None).cells
        found = [cell.runs["run"].tolist() for cell in cells if [cell.row, cell.column] == at]
        st.session_state.sweep_cell = found[0] if found else []

    draw(plot_sweep(table, x, y, value).update_layout(height=_HEIGHT), "sweep_map", clicked)
    in_cell = table[table.index.isin(st.session_state.get("sweep_cell") or [])]
    if in_cell.empty:
        st.caption("Click a cell to see its runs.")
    else:
        _choose(in_cell, open_run, sweep)


def _choose(runs: pd.DataFrame, open_run: Callable[[str, Path], None], sweep: Sweep) -> None:
    """Draw a button for each run, which shows it, and say which failed."""
    done = runs[runs["error"] == ""].sort_values("seed")
    name = str(runs["name"].iloc[0])
    if len(done):
        st.caption(f"Runs of {escape_markdown(name)}:")
    with st.container(horizontal=True):
        for run, row in done.iterrows():
            st.button(
                f"seed {row['seed']}: loss {row['loss_last']:.3g}",
                key=f"open {run}",
                on_click=open_run,
                args=(f"{name}, seed {row['seed']}", sweep.file(str(run))),
            )
    errors = runs["error"][runs["error"] != ""].value_counts()
    for error, count in errors.head(_MOST_ERRORS).items():
        st.warning(f"{count:,} failed: {escape_markdown(error)}")
