"""The knobs as the sidebar has them."""

from typing import Any

import streamlit as st

from kgrad.app.configuration import KNOBS, Configuration, checked


def knobs(letter: str, configuration: Configuration) -> Configuration:
    """Draw the knobs of a configuration and read them.

    Args:
        letter: tells the two configurations' knobs apart.
        configuration: what they are set to when they are first drawn.

    Returns:
        What they are set to.
    """
    values: dict[str, Any] = {}
    for group in dict.fromkeys(knob.group for knob in KNOBS.values()):
        with st.expander(group, expanded=True):
            for name, knob in KNOBS.items():
                if knob.group == group:
                    values[name] = _knob(letter, name, getattr(configuration, name))
    return Configuration(**values)


def put(letter: str, configuration: Configuration) -> None:
    """Set the knobs of a configuration, before they are drawn."""
    for name in KNOBS:
        st.session_state[_key(letter, name)] = getattr(configuration, name)


def _knob(letter: str, name: str, value: Any) -> Any:
    """Draw one knob; what it is set to."""
    knob, key = KNOBS[name], _key(letter, name)
    st.session_state.setdefault(key, value)
    named: dict[str, Any] = {"label": knob.label, "help": knob.help, "key": key}
    if name == "initializer":
        chosen = st.selectbox(options=knob.choices, accept_new_options=True, **named)
        return _accepted(name, chosen, value)
    if name == "batch_size":
        return st.select_slider(options=knob.choices, **named)
    if knob.choices:
        return st.selectbox(options=knob.choices, **named)
    if isinstance(value, bool):
        return st.toggle(**named)
    if knob.group == "Network":
        return st.slider(min_value=int(knob.low), max_value=int(knob.high), **named)
    if isinstance(value, int):
        return int(st.number_input(min_value=int(knob.low), max_value=int(knob.high), **named))
    number = st.number_input(
        min_value=knob.low,
        max_value=knob.high,
        step=0.01 if name == "learning_rate" else 0.5,
        format="%g",
        placeholder="never",
        **named,
    )
    return number


def _accepted(name: str, chosen: Any, before: Any) -> Any:
    """What somebody typed, or what stood there before, with a sentence."""
    try:
        return checked(name, chosen)
    except ValueError as error:
        st.error(f"{error} Beside these, normal:0.3 and the like.")
        return before


def _key(letter: str, name: str) -> str:
    return f"{letter}_{name}"
