"""The scale of the initial weights as a slider over the phase diagram of the activation."""

import math
from functools import lru_cache

import plotly.graph_objects as go
import streamlit as st

from kgrad.apps.findings import escape_markdown
from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.figures import draw
from kgrad.apps.page.knobs import put_knob
from kgrad.apps.page.predicting import predicted
from kgrad.figures.interactive import plot_phase_diagram
from kgrad.figures.interactive.parts import HALO
from kgrad.figures.looks import INK
from kgrad.records.prediction import Prediction

_MOST, _STEP = 4.0, 0.05  # of σ_w², as the diagram's axis
_HEIGHT = 440


def initial_weights(letter: str, configuration: Configuration) -> None:
    """Draw the slider and, below it, the diagram with the network's point.

    Args:
        letter: prefix of the keys of the configuration's knobs.
        configuration: the configuration.
    """
    prediction, _ = predicted(configuration)
    now = variance_of(configuration, prediction)
    key = f"{letter}_variance"
    st.session_state[key] = _on_slider(now)

    def turned() -> None:
        chosen = st.session_state[key]
        put_knob(letter, "initializer", initializer_of(chosen, configuration.units))

    st.slider(
        "Scale of the initial weights: σ_w² = units × variance of a weight",
        _STEP,
        _MOST,
        step=_STEP,
        key=key,
        on_change=turned,
        help="Draws the initial weights from a normal distribution with this variance.",
    )
    if configuration.normalization != "none":
        st.info("With normalization the gradients hardly depend on the scale of the weights.")
        return
    try:
        figure = go.Figure(_diagram(configuration.activation))
    except ValueError as error:
        st.info(escape_markdown(error))
        return
    if now is not None:
        add_network(figure, now)
    draw(figure.update_layout(height=_HEIGHT), f"phases {letter}")


def variance_of(configuration: Configuration, prediction: Prediction | None) -> float | None:
    """Return σ_w² of the hidden layers behind the first; None if it is not known."""
    name = f"hidden_{min(2, configuration.layers)}"
    return None if prediction is None else prediction.sigma_w2.get(name)


def initializer_of(variance: float, units: int) -> str:
    """Return the initializer with which layers of as many units have this σ_w²."""
    return f"normal:{math.sqrt(variance / units):.4g}"


def add_network(figure: go.Figure, variance: float) -> None:
    """Add the network's point to a phase diagram; at the edge if it is beyond."""
    beyond = variance > _MOST
    figure.add_scatter(
        x=[min(variance, _MOST)],
        y=[0],  # the app's biases are zero
        mode="markers+text",
        text=[f"σ<sub>w</sub>² = {variance:.3g} →" if beyond else "this network"],
        textposition="top left" if variance > 0.75 * _MOST else "top right",
        textfont={"color": INK, "size": 14, "shadow": HALO},
        marker={"size": 15, "color": "#e07a1f", "line": {"color": "white", "width": 2}},
        cliponaxis=False,
        showlegend=False,
        hovertemplate=f"this network: σ<sub>w</sub>² = {variance:.3g}<extra></extra>",
    )


def _on_slider(variance: float | None) -> float:
    """Return the slider's nearest value."""
    steps = round((variance if variance is not None else 1.0) / _STEP)
    return round(min(max(steps, 1), round(_MOST / _STEP)) * _STEP, 2)


@lru_cache(maxsize=32)
def _diagram(activation: str) -> go.Figure:
    return plot_phase_diagram(activation)
