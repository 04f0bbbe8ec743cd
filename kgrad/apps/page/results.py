"""The main part of the page: the prediction, the running training, and its results."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import plotly.graph_objects as go
import streamlit as st

from kgrad.apps.findings import escape_markdown
from kgrad.apps.page.configuration import Configuration, from_experiment
from kgrad.apps.page.figures import boundary, draw, is_dark, losses, profiles
from kgrad.apps.page.network import CAPTION, draw_network, drawing
from kgrad.apps.page.predicting import predicted, predicted_for_recording
from kgrad.apps.page.runs import Run, Tab, drawable_predictions, is_regular
from kgrad.apps.page.sweeps import OpenSweep, show_sweep
from kgrad.apps.page.views import LABELS, view
from kgrad.apps.page.weights import initial_weights
from kgrad.experiments.data import DATASETS, Dataset, make_dataset
from kgrad.records.checks import unique_name
from kgrad.records.history import GradientHistory
from kgrad.records.journal import Journal
from kgrad.records.prediction import Prediction

_TICK = 0.8  # seconds; shorter would slow a short training by more than 10 %
_FIRST_TICK = 0.3  # before the first record
Drawn: TypeAlias = go.Figure | str  # or the reason why there is none
_NO_SNAPSHOTS = (
    "A recording holds no activations and no outputs, so there are no histograms and no decision "
    "boundary: these are drawn only for networks that are trained in this page."
)
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
    if state.get("shown_at") is None:
        state.shown_at = configurations
    if state.get("race"):
        state.race = False
        train(configurations, tab)
    busy = _busy(tab)
    statistic = _controls(configurations, tab, busy, open_paths)
    for error in filter(None, (tab.error, state.get("open_error"))):
        st.error(escape_markdown(error))
    if state.sweep is not None:
        show_sweep(
            state.sweep, lambda name, path: _opened_once(lambda: _open_finished(tab, name, path))
        )
    is_other = bool(state.runs) and state.shown_at != configurations
    if is_other:
        _prediction_of_others(configurations, statistic)
    tick = _TICK if any(run.history is not None for run in state.runs) else _FIRST_TICK
    stage = st.fragment(_stage, run_every=tick if busy else None)
    stage(configurations, tab, statistic, is_other)
    if not busy:  # a training in progress has its weights already
        _initial_weights(configurations)


def _initial_weights(configurations: list[Configuration]) -> None:
    """Draw the scale of the initial weights of each configuration, when it is opened."""
    words = "Initial weights: do gradients vanish or explode?"
    part = st.expander(words, key="phases", on_change="rerun", icon=":material/tune:")
    if part.open:
        with part:
            columns = st.columns(len(configurations))
            for letter, column, one in zip("ab", columns, configurations, strict=False):
                with column:
                    initial_weights(letter, one)


def train(configurations: list[Configuration], tab: Tab, order: str = "play") -> None:
    """Start to train the configurations, or go on with a training of them that is paused.

    Args:
        configurations: one or two configurations.
        tab: the browser tab's process.
        order: as in `Tab.train`.
    """
    state = st.session_state
    state.held = None
    if tab.training and state.shown_at == configurations:
        tab.order(order)
        state.was_busy = True
        return
    state.runs = tab.train(configurations, _names(configurations), order)
    state.following, state.was_busy = False, True
    state.shown_at = configurations
    for run in state.runs:
        _predict(run)


def _controls(configurations: list[Configuration], tab: Tab, busy: bool, open_paths: bool) -> str:
    """Draw the buttons; returns the chosen statistic."""
    goes_on = tab.training and tab.paused and st.session_state.shown_at == configurations
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(
            "Continue" if goes_on else "Train",
            type="primary",
            icon=":material/play_arrow:",
            disabled=busy,
            on_click=train,
            args=(configurations, tab),
            key="train",
        )
        st.button(
            "Pause",
            icon=":material/pause:",
            disabled=not busy or not tab.training,
            on_click=tab.order,
            args=("pause",),
            help="Pause after the next step.",
        )
        for name, order, text in (
            ("Step", "step", "Make one training step, then pause."),
            ("Epoch", "epoch", "Train to the end of the epoch, then pause."),
        ):
            st.button(
                name,
                icon=":material/skip_next:",
                disabled=busy,
                on_click=train,
                args=(configurations, tab, order),
                help=text,
            )
        st.button(
            "Stop",
            icon=":material/stop:",
            disabled=not busy and not tab.training,
            on_click=_stop,
            args=(tab,),
            help="End the training; what was recorded stays.",
        )
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


def _prediction_of_others(configurations: list[Configuration], statistic: str) -> None:
    """Draw what theory expects of the settings, if what is on show below has others."""
    st.subheader("The settings now: predicted, not trained", anchor=False)
    names = _names(configurations)
    for column, (name, figure) in zip(
        st.columns(len(names)),
        _predicted_profiles(tuple(configurations), statistic).items(),
        strict=True,
    ):
        with column:
            st.caption(escape_markdown(name))
            _draw_prediction(figure, f"now {name[:1] if len(names) > 1 else ''}")


@lru_cache(maxsize=4)  # the same at every tick until the first record
def _predicted_profiles(
    configurations: tuple[Configuration, ...], statistic: str
) -> dict[str, Drawn]:
    """Return a figure for each configuration, or the reason why there is no prediction."""
    names = _names(configurations)
    found = {name: predicted(one) for name, one in zip(names, configurations, strict=True)}
    known = {name: one for name, (one, _) in found.items() if one is not None}
    drawn = profiles(dict.fromkeys(names), known, statistic) if known else {}
    return {name: drawn.get(name, found[name][1]) for name in names}


def _draw_prediction(figure: Drawn, key: str) -> None:
    if isinstance(figure, str):
        st.info(escape_markdown(f"No prediction: {figure}."))
    else:
        draw(figure.update_layout(height=_HEIGHT), key)


def _stage(configurations: list[Configuration], tab: Tab, statistic: str, is_other: bool) -> None:
    """Draw what is predicted, trained or opened; called at every tick of a training.

    The parts are the same before, during and after a training, so that nothing moves when it
    starts.
    """
    state = st.session_state
    busy = _busy(tab)
    runs: list[Run] = state.runs
    waited = all(run.history is None for run in runs)
    for run in runs:
        if run.configuration is not None or state.following:
            run.follow()
        if run.prediction is None and not run.no_prediction and run.history is not None:
            _predict(run)
    recorded = {run.name: run.history for run in runs if run.history is not None}
    if busy:
        state.was_busy = True
    if (state.get("was_busy") and not busy) or (busy and waited and recorded):
        # The page also has to draw the buttons, the tabs, or to tick at another pace.
        state.was_busy = busy
        st.rerun()
    _headings(configurations, runs, tab, busy, is_other)
    record = _moment(runs, busy)
    shown = [run.configuration or _configuration_of(run) for run in runs] or list(configurations)
    _figures(shown, runs, recorded, statistic, record)
    if recorded and not busy:
        view([run for run in runs if run.history is not None], statistic, record, _apply)


def _headings(
    configurations: list[Configuration], runs: list[Run], tab: Tab, busy: bool, is_other: bool
) -> None:
    """Draw for each run, or configuration, its name and its progress."""
    if not runs:
        for name in _names(configurations):
            st.progress(0.0, f"{escape_markdown(name)}: predicted, not trained")
        return
    for run in runs:
        _progress(run, tab, busy, is_other)


def _progress(run: Run, tab: Tab, busy: bool, is_other: bool) -> None:
    """Draw a bar with a run's progress, and to which settings it belongs."""
    done, asked = run.epochs
    if run.error:
        st.error(escape_markdown(run.error))
        return
    name = escape_markdown(run.name)
    if run.configuration is None:
        recorded = _configuration_of(run)
        name = f"Recording {name}" + (f" ({escape_markdown(str(recorded))})" if recorded else "")
    elif is_other:
        name = f"Trained with other settings: {name}"
    if run.history is None:
        text = "starting; so far predicted" if busy else "nothing was recorded; predicted"
        st.progress(0.0, f"{name}: {text}")
        return
    left = run.time_left() if busy and not run.complete else ""
    ended = ""
    if not busy and not run.complete:
        is_paused = run.configuration is not None and tab.training
        ended = ", paused" if is_paused else ", stopped"
    mid = "" if is_regular(run.history) else f", step {run.history.steps[-1]}"
    of = f" of {asked}" if asked else ""
    share = done / asked if asked else 1.0
    st.progress(share, f"{name}: epoch {done}{of}{mid}{ended}{left}")


def _moment(runs: list[Run], busy: bool) -> int:
    """Draw the scrubber; returns the number of the record on show."""
    state = st.session_state
    histories = [run.history for run in runs if run.history is not None]
    last = max((len(history) for history in histories), default=1) - 1
    most = max(1, last)
    if busy:  # the slider's end stays where it is
        most = max(
            [most]
            + [
                len(history) - 1 + asked - done
                for run, history in zip(runs, histories, strict=False)
                for done, asked in [run.epochs]
                if asked
            ]
        )
    held = state.get("held")
    record = last if held is None else min(held, last)
    state.moment = record

    def hold() -> None:
        state.held = None if state.moment >= last else state.moment

    st.slider(
        f"On show: {_moment_name(histories, record)}",
        0,
        most,
        key="moment",
        on_change=hold,
        disabled=last == 0,
        format="epoch %d" if all(map(is_regular, histories)) else "record %d",
        help="Drag to see every figure at an earlier record; at the end it follows the training.",
    )
    return record


def _moment_name(histories: Sequence[GradientHistory], record: int) -> str:
    """Return the moment on show in words."""
    if not histories:
        return "before training"
    longest = max(histories, key=len)
    epoch, step = int(longest.epochs[record]), int(longest.steps[record])
    return f"epoch {epoch}" + ("" if all(map(is_regular, histories)) else f", step {step}")


def _figures(
    shown: Sequence[Configuration | None],
    runs: list[Run],
    recorded: Mapping[str, GradientHistory],
    statistic: str,
    record: int,
) -> None:
    """Draw gradient against depth, the loss, the network and its decision boundary."""
    names = [run.name for run in runs] or _names([one for one in shown if one is not None])
    is_one = len(names) == 1
    if recorded:
        figures: dict[str, Drawn] = dict(_measured(runs, recorded, statistic, record))
        for each in runs:
            figures.setdefault(each.name, each.no_prediction or "there is no record yet")
    else:
        known = _predicted_profiles(tuple(one for one in shown if one is not None), statistic)
        figures = dict(zip(names, known.values(), strict=False))
    epochs = [run.epochs[1] or 0 for run in runs] or [one.epochs for one in shown if one]
    has_loss = not recorded or any("loss" in history.logs for history in recorded.values())
    columns = st.columns([3, 2] if is_one else 2)
    for number, name in enumerate(names):
        with columns[number]:
            if not is_one:
                st.caption(escape_markdown(name))
            _draw_prediction(figures.get(name, "there is no record yet"), f"gradients {number}")
    with columns[1] if is_one else st.container():
        if has_loss:
            at = record if recorded else None
            draw(losses(recorded, max(epochs, default=0), at), "loss")
    planes = [_plane(one.dataset) if one is not None else None for one in shown]
    if any(one is not None for one in shown):
        st.caption(CAPTION)
    has_map = is_one and planes[0] is not None and not (runs and runs[0].configuration is None)
    columns = st.columns([3, 2] if has_map else len(names))
    for number, one in enumerate(shown):
        run: Run | None = runs[number] if runs else None
        history = None if run is None else run.history
        at = min(record, len(history) - 1) if history is not None else 0
        snapshot = None if run is None else run.snapshots.at(at)
        plane = planes[number]
        if one is not None:
            with columns[number]:
                draw_network(drawing(one, history, snapshot, at), f"network {number}")
        if run is not None and run.configuration is None:
            with columns[number]:
                st.caption(_NO_SNAPSHOTS)
        elif plane is not None:
            with columns[1] if is_one else columns[number]:
                draw(
                    boundary(plane, snapshot, is_dark()).update_layout(height=320),
                    f"boundary {number}",
                )


def _measured(
    runs: list[Run], recorded: Mapping[str, GradientHistory], statistic: str, record: int
) -> dict[str, Drawn]:
    predictions: dict[str, Prediction] = drawable_predictions(runs, statistic)
    if not all(statistic in history.statistics for history in recorded.values()):
        return {run.name: f"{statistic} was not recorded" for run in runs}
    every = {run.name: run.history for run in runs}
    return dict(profiles(every, predictions, statistic, record=record))


@lru_cache(maxsize=len(DATASETS))
def _plane(name: str) -> Dataset | None:
    """Return a data set of classes with two features; None for any other."""
    recipe = DATASETS[name]
    is_flat = recipe.features == 2 and recipe.output_activation in ("sigmoid", "softmax")
    return make_dataset(name) if is_flat else None


def _configuration_of(run: Run) -> Configuration | None:
    """Return the configuration that a recording was made with, if it is one of the app's."""
    if run.history is None or run.no_prediction:
        return None
    return from_experiment(run.history.metadata.get("experiment"))


def _apply(configuration: Configuration, cured: Configuration) -> None:
    """Open a configuration beside one with a remedy, and race the two."""
    state = st.session_state
    state.to_compare = [configuration, cured]
    state.race = True


def _stop(tab: Tab) -> None:
    tab.stop()
    st.session_state.following = False


def _busy(tab: Tab) -> bool:
    """Return whether a run may still grow without being told to."""
    state = st.session_state
    followed = state.get("following", False) and any(
        not run.complete and not run.error for run in state.runs
    )
    return (tab.training and not tab.paused) or followed


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
            "Or a path: of a file to follow while it grows, or of a sweep's folder",
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
        st.session_state.sweep = None
        _put(tab, runs[-2:], following=False)
    if refused:
        raise ValueError(" ".join(refused))


def _open(tab: Tab, path: Path) -> None:
    """Show the sweep in a folder, or follow a file, at its path."""
    if path.is_dir():
        st.session_state.sweep, st.session_state.sweep_cell = OpenSweep.read(path), []
        return
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    journal = Journal(path)
    journal.read()
    st.session_state.sweep = None
    _put(tab, [Run(path.name, journal)], following=True)


def _open_finished(tab: Tab, name: str, path: Path) -> None:
    """Show a run of a sweep."""

    def opened() -> None:
        journal = Journal(path)
        journal.finish()
        _put(tab, [Run(name, journal)], following=False)

    _opened_once(opened)


def _put(tab: Tab, runs: list[Run], *, following: bool) -> None:
    """Show other runs; a running training is stopped."""
    state = st.session_state
    tab.stop()
    state.runs, state.following, state.was_busy = runs, following, following
    state.held = None
    state.shown_at = None  # set to the configurations of the next rerun


def _names(configurations: Sequence[Configuration]) -> list[str]:
    """Return the names that the page shows for the configurations."""
    if len(configurations) == 1:
        return [str(configurations[0])]
    return [f"{letter}: {one}" for letter, one in zip("AB", configurations, strict=True)]
