"""The knobs as the sidebar has them."""

from typing import Any

import streamlit as st

from kgrad.apps.page.configuration import KNOBS, Configuration, checked


def read_knobs(letter: str, before: Configuration) -> Configuration:
    """What the knobs of a configuration are set to, drawn yet or not.

    Args:
        letter: tells the two configurations' knobs apart.
        before: what they were set to; stands where somebody typed what no knob accepts.
    """
    values = {name: _value(letter, name, before) for name in KNOBS}
    return Configuration(**values)


def draw_knobs(letter: str, configuration: Configuration) -> None:
    """Draw the knobs of a configuration.

    Args:
        letter: as in `read_knobs`.
        configuration: what they are set to when they are first drawn.
    """
    for group in dict.fromkeys(knob.group for knob in KNOBS.values()):
        with st.expander(group, expanded=True):
            for name, knob in KNOBS.items():
                if knob.group == group:
                    _draw_knob(letter, name, getattr(configuration, name))


def put_knobs(letter: str, configuration: Configuration) -> None:
    """Set the knobs of a configuration, before they are drawn."""
    for name in KNOBS:
        st.session_state[_key(letter, name)] = getattr(configuration, name)


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
            st.error(f"{error} Beside these, normal:0.3 and the like.")
    elif name == "batch_size":
        st.select_slider(options=knob.choices, **named)
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
            step=0.01 if name == "learning_rate" else 0.5,
            format="%g",
            placeholder="never",
            **named,
        )


def _key(letter: str, name: str) -> str:
    return f"{letter}_{name}"
