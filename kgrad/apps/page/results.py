"""The main part of the page: the prediction, the running training, and its results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from kgrad.apps.findings import escape_markdown
from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.figures import draw, losses, profiles
from kgrad.apps.page.predicting import predicted, predicted_for_recording
from kgrad.apps.page.runs import Run, Tab, drawable_predictions
from kgrad.apps.page.views import LABELS, view
from kgrad.records.checks import unique_name
from kgrad.records.journal import Journal

_TICK = 0.8  # seconds; shorter would slow a short training by more than 10 %
_HEIGHT = 380  # pixels, of the figures that are redrawn during a training


def show(configurations: list[Configuration], tab: Tab, open_paths: bool) -> None:
    """Draw the main part.

    Args:
        configurations: one or two configurations.
        tab: the browser tab's process and folder.
        open_paths: whether files may be opened by path, because the user is at this machine.
    """
    state = st.session_state
    if state.to_follow:
        path, state.to_follow = Path(state.to_follow), ""
        _opened_once(lambda: _open(tab, path))
    busy = _busy(tab)
    statistic = _controls(configurations, tab, busy, open_paths)
    if state.get("shown_at") is None:
        state.shown_at = configurations
    if not state.runs or state.shown_at != configurations:
        _prediction(configurations, statistic)
    for error in filter(None, (tab.error, state.get("open_error"))):
        st.error(escape_markdown(error))
    if state.runs:
        follow = st.fragment(_live, run_every=_TICK if busy else None)
        follow(tab, statistic)
        ended = [run for run in state.runs if run.history is not None]
        if ended and not busy:
            view(ended, statistic)


def _controls(configurations: list[Configuration], tab: Tab, busy: bool, open_paths: bool) -> str:
    """Draw the buttons; returns the chosen statistic."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(
            "Train",
            type="primary",
            icon=":material/play_arrow:",
            disabled=busy,
            on_click=_train,
            args=(configurations, tab),
        )
        st.button("Stop", icon=":material/stop:", disabled=not busy, on_click=_stop, args=(tab,))
        with st.popover("Open a recording", icon=":material/folder_open:"):
            _opening(tab, open_paths)
        return str(
            st.segmented_control(
                "Statistic",
                list(LABELS),
                default="mean_abs",
                required=True,
                format_func=lambda name: LABELS[name],
                key="statistic",
                label_visibility="collapsed",
            )
        )


def _prediction(configurations: list[Configuration], statistic: str) -> None:
    """Draw the gradients that theory expects before training."""
    st.subheader("Predicted, before training", anchor=False)
    names = _names(configurations)
    found = {name: predicted(one) for name, one in zip(names, configurations, strict=True)}
    known = {name: one for name, (one, _) in found.items() if one is not None}
    drawn = profiles(dict.fromkeys(names), known, statistic) if known else {}
    for name, column in zip(names, st.columns(len(names)), strict=True):
        with column:
            st.caption(name)
            if name in drawn:
                drawn[name].update_layout(height=_HEIGHT)
                draw(drawn[name], f"predicted {name[:1] if len(names) > 1 else ''}")
            else:
                st.info(escape_markdown(f"No prediction: {found[name][1]}."))


def _live(tab: Tab, statistic: str) -> None:
    """Follow the runs: progress, gradient against depth and loss; called at every tick."""
    state = st.session_state
    busy = _busy(tab)
    runs: list[Run] = state.runs
    for run in runs:
        if run.configuration is not None or state.following:
            run.follow()
        if run.prediction is None and not run.no_prediction and run.history is not None:
            _predict(run)
    if not busy:
        if state.was_busy:  # the last tick: the page also has to draw buttons and tabs
            state.was_busy = False
            st.rerun()
    else:
        state.was_busy = True
    for run in runs:
        _progress(run, busy)
    recorded = {run.name: run.history for run in runs if run.history is not None}
    if not recorded:
        return
    _draw_live(runs, recorded, statistic)


def _draw_live(runs: list[Run], recorded: dict[str, Any], statistic: str) -> None:
    """Draw gradient against depth, and the loss beside one figure or below two."""
    predictions = drawable_predictions(runs, statistic)
    drawn = {}
    if all(statistic in history.statistics for history in recorded.values()):
        every = {run.name: run.history for run in runs}
        drawn = profiles(every, predictions, statistic, ends_only=True)
    columns = iter(st.columns([3, 2]) if len(drawn) < 2 else st.columns(2))
    for name, figure in drawn.items():
        with next(columns):
            if len(drawn) > 1:
                st.caption(escape_markdown(name))
            draw(figure.update_layout(height=_HEIGHT), f"live {name}")
    if any("loss" in history.logs for history in recorded.values()):
        epochs = [asked for run in runs if (asked := run.epochs[1]) is not None]
        with next(columns, st.container()):
            draw(losses(recorded, max(epochs, default=0)), "loss")


def _progress(run: Run, busy: bool) -> None:
    """Draw a bar with the run's progress."""
    done, asked = run.epochs
    if run.error:
        st.error(escape_markdown(run.error))
        return
    if run.history is None:
        text = "waiting to start" if busy else "nothing was recorded"
        st.progress(0.0, f"{escape_markdown(run.name)}: {text}")
        return
    left = run.time_left() if busy and not run.complete else ""
    stopped = "" if busy or run.complete or run.configuration is None else ", stopped"
    of = f" of {asked}" if asked else ""
    share = done / asked if asked else 1.0
    st.progress(share, f"{escape_markdown(run.name)}: epoch {done}{of}{stopped}{left}")


def _train(configurations: list[Configuration], tab: Tab) -> None:
    state = st.session_state
    state.runs = tab.train(configurations, _names(configurations))
    state.following, state.was_busy = False, True
    state.shown_at = configurations
    for run in state.runs:
        _predict(run)


def _stop(tab: Tab) -> None:
    tab.stop()
    st.session_state.following = False


def _busy(tab: Tab) -> bool:
    """Return whether a run may still grow."""
    state = st.session_state
    followed = state.get("following", False) and any(
        not run.complete and not run.error for run in state.runs
    )
    return tab.training or followed


def _predict(run: Run) -> None:
    """Set the run's prediction, or the reason why there is none."""
    if run.configuration is not None:
        run.prediction, run.no_prediction = predicted(run.configuration)
    else:
        run.prediction, run.no_prediction = predicted_for_recording(run.recorded())


def _opening(tab: Tab, open_paths: bool) -> None:
    """Draw what opens recordings: an upload, and a path to follow."""
    state = st.session_state
    st.file_uploader(
        "A recorded history (.jsonl), or two to compare",
        accept_multiple_files=True,
        key="upload",
        max_upload_size=64,
        on_change=lambda: _opened_once(lambda: _uploaded(tab)),
    )
    if open_paths:
        st.text_input(
            "Or the path of a file to follow while it grows",
            key="path",
            placeholder="/home/me/run.jsonl",
            on_change=lambda: _opened_once(lambda: _open(tab, Path(state.path.strip()))),
        )


def _opened_once(action: Callable[[], None]) -> None:
    """Open a recording; an error is shown on the page."""
    state = st.session_state
    state.open_error = ""
    try:
        action()
    except (OSError, ValueError) as error:
        state.open_error = str(error)


def _uploaded(tab: Tab) -> None:
    """Show the last two of the uploaded files that are histories."""
    runs: list[Run] = []
    refused = []
    for file in st.session_state.upload:
        path = tab.new_path()
        path.write_bytes(file.getvalue())
        journal = Journal(path)
        try:
            journal.finish()
        except ValueError as error:
            refused.append(str(error).replace(path.name, file.name))
        if journal.history is not None and len(journal.history):
            runs.append(Run(unique_name(file.name, [run.name for run in runs]), journal))
        elif not refused:
            refused.append(f"{file.name} has no record")
    if runs:
        _put(tab, runs[-2:], following=False)
    if refused:
        raise ValueError(" ".join(refused))


def _open(tab: Tab, path: Path) -> None:
    """Follow a file at its path."""
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    journal = Journal(path)
    journal.read()
    _put(tab, [Run(path.name, journal)], following=True)


def _put(tab: Tab, runs: list[Run], *, following: bool) -> None:
    """Show other runs; a running training is stopped."""
    state = st.session_state
    tab.stop()
    state.runs, state.following, state.was_busy = runs, following, following
    state.shown_at = None  # set to the configurations of the next rerun


def _names(configurations: list[Configuration]) -> list[str]:
    """Return the names that the page shows for the configurations."""
    if len(configurations) == 1:
        return [str(configurations[0])]
    return [f"{letter}: {one}" for letter, one in zip("AB", configurations, strict=True)]
