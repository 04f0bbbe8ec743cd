"""The widgets of a configuration, in the sidebar."""

from typing import Any

import streamlit as st

from kgrad.apps.page.configuration import KNOBS, LEARNING_RATES, Configuration, checked


def read_knobs(letter: str, before: Configuration) -> Configuration:
    """Return the configuration that the widgets are set to, whether or not they are drawn yet.

    Args:
        letter: prefix of the widgets' keys, different for each configuration.
        before: the previous configuration; its values replace typed values that are not accepted.
    """
    values = {name: _value(letter, name, before) for name in KNOBS}
    return Configuration(**values)


def draw_knobs(letter: str, configuration: Configuration) -> None:
    """Draw the widgets of a configuration.

    Args:
        letter: as in `read_knobs`.
        configuration: the values when the widgets are first drawn.
    """
    for group in dict.fromkeys(knob.group for knob in KNOBS.values()):
        with st.expander(group, expanded=True):
            for name, knob in KNOBS.items():
                if knob.group == group:
                    _draw_knob(letter, name, getattr(configuration, name))


def put_knobs(letter: str, configuration: Configuration) -> None:
    """Set the widgets of a configuration before they are drawn."""
    for name in KNOBS:
        put_knob(letter, name, getattr(configuration, name))


def put_knob(letter: str, name: str, value: Any) -> None:
    """Set one widget of a configuration before it is drawn."""
    st.session_state[_key(letter, name)] = value


def _value(letter: str, name: str, before: Configuration) -> Any:
    was = getattr(before, name)
    try:
        return checked(name, st.session_state.get(_key(letter, name), was))
    except ValueError:
        return was


def _draw_knob(letter: str, name: str, value: Any) -> None:
    knob, key = KNOBS[name], _key(letter, name)
    st.session_state.setdefault(key, value)
    named: dict[str, Any] = {"label": knob.label, "help": knob.help, "key": key}
    if name == "initializer":
        chosen = st.selectbox(options=knob.choices, accept_new_options=True, **named)
        try:
            checked(name, chosen)
        except ValueError as error:
            st.error(f"{error} You can also type normal:STDDEV, such as normal:0.3.")
    elif name == "batch_size":
        st.select_slider(options=knob.choices, **named)
    elif name == "learning_rate":
        # A link or a remedy may have set a rate between two marks.
        rates = sorted({*LEARNING_RATES, st.session_state[key]})
        st.select_slider(options=rates, format_func=lambda rate: f"{rate:g}", **named)
    elif knob.choices:
        st.selectbox(options=knob.choices, **named)
    elif isinstance(value, bool):
        st.toggle(**named)
    elif knob.group == "Network":
        st.slider(min_value=int(knob.low), max_value=int(knob.high), **named)
    elif isinstance(value, int):
        st.number_input(min_value=int(knob.low), max_value=int(knob.high), **named)
    else:
        st.number_input(
            min_value=knob.low,
            max_value=knob.high,
            value=None if knob.optional else "min",
            step=0.5,
            format="%g",
            placeholder="no clipping",
            **named,
        )


def _key(letter: str, name: str) -> str:
    return f"{letter}_{name}"
