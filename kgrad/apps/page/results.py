"""The main part of the page: the prediction, the training while it runs, and what came of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from kgrad.apps.page.configuration import Configuration, from_experiment
from kgrad.apps.page.drawing import draw
from kgrad.apps.page.figures import losses, profiles
from kgrad.apps.page.predicting import predicted
from kgrad.apps.page.runs import Run, Tab
from kgrad.apps.page.texts import escaped, time_left
from kgrad.apps.page.views import STATISTICS, view
from kgrad.records.journal import Journal

_TICK = 0.8  # seconds; more often would take more than a tenth of a short training
_HEIGHT = 380  # pixels, of the figures that move


def show(configurations: list[Configuration], tab: Tab, open_paths: bool) -> None:
    """Draw it.

    Args:
        configurations: what the knobs are set to, one or two.
        tab: the browser tab's process and folder.
        open_paths: whether files may be opened by their path: whoever looks is at this machine.
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
        st.error(escaped(error))
    if state.runs:
        follow = st.fragment(_live, run_every=_TICK if busy else None)
        follow(tab, statistic)
        ended = [run for run in state.runs if run.history is not None]
        if ended and not busy:
            view(ended, statistic)


def _controls(configurations: list[Configuration], tab: Tab, busy: bool, open_paths: bool) -> str:
    """Train, stop, open; the statistic that is chosen."""
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
                "What is drawn",
                list(STATISTICS),
                default="mean_abs",
                required=True,
                format_func=lambda name: STATISTICS[name],
                key="statistic",
                label_visibility="collapsed",
            )
        )


def _prediction(configurations: list[Configuration], statistic: str) -> None:
    """What theory expects, before training."""
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
                st.info(escaped(found[name][1]))


def _live(tab: Tab, statistic: str) -> None:
    """Follow the runs: progress, loss and gradient against depth. Drawn again at every tick."""
    state = st.session_state
    busy = _busy(tab)
    runs: list[Run] = state.runs
    for run in runs:
        if run.configuration is not None or state.following:
            run.follow()
        if run.prediction is None and not run.unpredicted and run.history is not None:
            _predict(run)
    if not busy:
        if state.was_busy:  # the last tick: the page has buttons and tabs to draw
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
    """Gradient against depth, and the loss: beside it, or below two of them."""
    predictions = {
        run.name: run.prediction
        for run in runs
        if run.prediction is not None and statistic in run.prediction.statistics
    }
    drawn = {}
    if all(statistic in history.statistics for history in recorded.values()):
        every = {run.name: run.history for run in runs}
        drawn = profiles(every, predictions, statistic, ends_only=True)
    columns = iter(st.columns([3, 2]) if len(drawn) < 2 else st.columns(2))
    for name, figure in drawn.items():
        with next(columns):
            if len(drawn) > 1:
                st.caption(escaped(name))
            draw(figure.update_layout(height=_HEIGHT), f"live {name}")
    if any("loss" in history.logs for history in recorded.values()):
        epochs = [asked for run in runs if (asked := run.epochs[1]) is not None]
        with next(columns, st.container()):
            draw(losses(recorded, max(epochs, default=0)), "loss")


def _progress(run: Run, busy: bool) -> None:
    """How far a run is, in a line and a bar."""
    done, asked = run.epochs
    if run.error:
        st.error(escaped(run.error))
        return
    if run.history is None:
        text = "waiting to begin" if busy else "nothing was recorded"
        st.progress(0.0, f"{escaped(run.name)}: {text}")
        return
    left = time_left(run.seconds_left()) if busy and not run.complete else ""
    stopped = "" if busy or run.complete or run.configuration is None else ", stopped"
    of = f" of {asked}" if asked else ""
    share = done / asked if asked else 1.0
    st.progress(share, f"{escaped(run.name)}: epoch {done}{of}{stopped}{left}")


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
    """Whether a figure may still move."""
    state = st.session_state
    followed = state.get("following", False) and any(
        not run.complete and not run.error for run in state.runs
    )
    return tab.training or followed


def _predict(run: Run) -> None:
    """What theory expects of a run, if it says what it is."""
    configuration = run.configuration
    if configuration is None and run.history is not None:
        configuration = from_experiment(run.history.metadata.get("experiment"))
    if configuration is None:
        run.unpredicted = "The file does not say which of the app's configurations it is of."
    else:
        run.prediction, run.unpredicted = predicted(configuration)


def _opening(tab: Tab, open_paths: bool) -> None:
    """Files: uploaded, or followed where they are."""
    state = st.session_state
    given = st.file_uploader(
        "A recorded history (.jsonl), or two to compare",
        accept_multiple_files=True,
        key="upload",
        max_upload_size=64,
        on_change=lambda: _opened_once(lambda: _uploaded(tab)),
    )
    del given
    if open_paths:
        st.text_input(
            "Or a file to follow while it grows: its path",
            key="path",
            placeholder="/home/me/run.jsonl",
            on_change=lambda: _opened_once(lambda: _open(tab, Path(state.path.strip()))),
        )


def _opened_once(action: Callable[[], None]) -> None:
    """Open something; what is wrong with it is said where it was asked for."""
    state = st.session_state
    state.open_error = ""
    try:
        action()
    except (OSError, ValueError) as error:
        state.open_error = str(error)


def _uploaded(tab: Tab) -> None:
    """The files that were uploaded, the last two that are histories, in place of what is shown."""
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
            runs.append(Run(_unused(file.name, runs), journal))
        elif not refused:
            refused.append(f"{file.name} is no history, or has no record")
    if runs:
        _put(tab, runs[-2:], following=False)
    if refused:
        raise ValueError(" ".join(refused))


def _open(tab: Tab, path: Path) -> None:
    """Follow a file where it is."""
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    journal = Journal(path)
    journal.read()
    _put(tab, [Run(path.name, journal)], following=True)


def _put(tab: Tab, runs: list[Run], *, following: bool) -> None:
    """Show other runs; a training that goes on is ended."""
    state = st.session_state
    tab.stop()
    state.runs, state.following, state.was_busy = runs, following, following
    state.shown_at = None  # the knobs as they are found to be next


def _unused(name: str, runs: list[Run]) -> str:
    taken = sum(run.name == name or run.name.startswith(f"{name} (") for run in runs)
    return f"{name} ({taken + 1})" if taken else name


def _names(configurations: list[Configuration]) -> list[str]:
    """What the page calls the configurations."""
    if len(configurations) == 1:
        return [str(configurations[0])]
    return [f"{letter}: {one}" for letter, one in zip("AB", configurations, strict=True)]
