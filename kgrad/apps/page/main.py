"""The page. Streamlit runs it from top to bottom whenever the user changes a widget."""

import gc
import sys
import threading

import streamlit as st

from kgrad.apps.findings import escape_markdown
from kgrad.apps.page.configuration import SECOND, Configuration, from_query, to_query, unknown
from kgrad.apps.page.knobs import draw_knobs, put_knobs, read_knobs
from kgrad.apps.page.predicting import predicted
from kgrad.apps.page.presets import OWN, PRESETS, preset_of
from kgrad.apps.page.processes import Spare
from kgrad.apps.page.runs import Tab

# Reduces the empty space that Streamlit leaves above a page.
_STYLE = "<style>.stMainBlockContainer {padding-top: 3rem} h1 {padding-top: 0}</style>"
_ABOUT = (
    "Change the network in the sidebar and see its gradients predicted at once. Then train it and "
    "see them measured."
)


@st.cache_resource(show_spinner=False)
def _spare() -> Spare:
    """Return the keeper of the spare training process, one for all tabs."""
    return Spare()


@st.cache_resource(scope="session", on_release=lambda tab: tab.close(), show_spinner=False)
def _tab() -> Tab:
    """Return the state of this browser tab, which is released when the tab is closed."""
    return Tab(_spare())


@st.cache_resource(show_spinner=False)
def _warmed() -> threading.Thread:
    """Start, once and in the background, the imports that take seconds; returns the thread."""
    spare = _spare()

    def warm_up() -> None:
        spare.give()
        import kgrad.apps.page.results
        import kgrad.experiments.engines  # noqa: F401 (imports TensorFlow)

        # Streamlit collects garbage after each run of the page. With TensorFlow's objects that
        # would take longer than a prediction.
        gc.freeze()

    thread = threading.Thread(target=warm_up, daemon=True)
    thread.start()
    return thread


def page() -> None:
    """Draw the page."""
    st.set_page_config("kgrad", "📉", layout="wide", initial_sidebar_state="auto")
    if "begun" not in st.session_state:
        _begin()
    _put_comparison()
    st.html(_STYLE)
    st.title("Gradients, layer by layer", anchor=False)
    st.markdown(_ABOUT)
    for refusal in st.session_state.refusals:
        st.warning(escape_markdown(refusal))
    configurations = _configurations()
    if _warmed().is_alive():
        _sidebar(configurations)
        _main(configurations)
        return
    try:
        # Computed (and cached) before anything is drawn: the browser may share the CPU cores.
        for one in configurations:
            predicted(one)
        _main(configurations)
    except Exception:  # without the sidebar the user could not undo the change
        _sidebar(configurations)
        raise
    # Draw the sidebar last: its widgets would delay the figures the user waits for.
    _sidebar(configurations)


def _main(configurations: list[Configuration]) -> None:
    """Draw everything except the sidebar."""
    _choose_preset()
    _write_link(configurations)
    waiting = st.empty()
    if _warmed().is_alive():
        waiting.info("Loading TensorFlow… the prediction will appear here.")
        _warmed().join()  # the rest of the page is already visible
    from kgrad.apps.page.results import show

    waiting.empty()
    show(configurations, _tab(), "--open-paths" in sys.argv)


def _begin() -> None:
    """Read the link and the command line, once per browser tab."""
    state = st.session_state
    query = st.query_params.to_dict()
    first, refusals = from_query(query)
    second, more = from_query(query, SECOND)
    refusals += more + unknown(query, ["compare"])
    compare = query.get("compare", "off")
    if compare not in ("on", "off"):
        refusals.append("compare must be on or off. The link's value is ignored.")
    state.refusals = refusals
    state.compare = compare == "on"
    state.configurations = [first, second]
    state.runs = []
    state.sweep = None
    state.to_compare, state.race, state.held, state.was_busy = None, False, None, False
    paths = [one.removeprefix("--open=") for one in sys.argv if one.startswith("--open=")]
    state.to_follow = paths[0] if paths else ""
    state.begun = True


def _choose_preset() -> None:
    """Draw the choice of a classic case, and what to look for in it."""
    state = st.session_state
    current = preset_of(*_pair(state.configurations))
    state.preset = OWN if current is None else current.name
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    left.selectbox(
        "Start from a classic case",
        [one.name for one in PRESETS] + ([OWN] if current is None else []),
        key="preset",
        on_change=_apply_preset,
    )
    if current is not None:
        right.markdown(f"**What to look for.** {current.look}")
    else:
        right.markdown("**Your own configuration.** Copy this page's URL to share it.")


def _apply_preset() -> None:
    state = st.session_state
    chosen = next((one for one in PRESETS if one.name == state.preset), None)
    if chosen is not None:
        state.compare = chosen.second is not None
        state.configurations = [chosen.first, chosen.second or state.configurations[1]]
        for letter, configuration in zip("ab", state.configurations, strict=True):
            put_knobs(letter, configuration)


def _put_comparison() -> None:
    """Set the knobs to the two configurations that a remedy's button asked for."""
    state = st.session_state
    if state.to_compare is not None:
        state.configurations, state.to_compare, state.compare = state.to_compare, None, True
        for letter, configuration in zip("ab", state.configurations, strict=True):
            put_knobs(letter, configuration)


def _pair(configurations: list[Configuration]) -> tuple[Configuration, Configuration | None]:
    return configurations[0], configurations[1] if st.session_state.compare else None


def _configurations() -> list[Configuration]:
    """Return the configurations that the widgets are set to, one or two."""
    state = st.session_state
    count = 2 if state.compare else 1
    for i, letter in enumerate("ab"[:count]):
        state.configurations[i] = read_knobs(letter, state.configurations[i])
    return list(state.configurations[:count])


def _sidebar(configurations: list[Configuration]) -> None:
    """Draw the widgets of one configuration, or of two in two tabs."""
    with st.sidebar:
        st.toggle("Compare two configurations", key="compare", on_change=_begin_comparison)
        if len(configurations) == 1:
            draw_knobs("a", configurations[0])
            return
        for letter, place, one in zip("ab", st.tabs(["A", "B"]), configurations, strict=True):
            with place:
                draw_knobs(letter, one)


def _begin_comparison() -> None:
    """Start a comparison with a copy of the first configuration."""
    state = st.session_state
    if state.compare and state.configurations[1] == Configuration():
        state.configurations[1] = state.configurations[0]
        put_knobs("b", state.configurations[1])


def _write_link(configurations: list[Configuration]) -> None:
    """Write only the configuration into the page's URL."""
    query = to_query(configurations[0])
    if len(configurations) > 1:
        query |= {"compare": "on"} | to_query(configurations[1], SECOND)
    if query != st.query_params.to_dict():
        st.query_params.from_dict(query)


if __name__ == "__main__":
    page()
