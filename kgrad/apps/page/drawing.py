"""Figures that change in place: Streamlit's own are taken down and put up anew at every change."""

from functools import cache
from pathlib import Path
from typing import Any

import plotly
import plotly.graph_objects as go
import streamlit as st
from streamlit.components.v1 import declare_component

from kgrad.apps.page.figures import themed

_SCRIPT = """
const loaded = () => window.kgradPlotly ??= new Promise((done, failed) => {
  const script = document.createElement("script");
  script.src = new URL("component/SERVED/plotly.min.js", document.baseURI);
  script.onload = () => done(window.Plotly);
  script.onerror = failed;
  document.head.append(script);
});

export default async function ({ data, parentElement }) {
  const place = parentElement.querySelector(".figure");
  const figure = JSON.parse(data);
  place.style.height = `${figure.layout.height ?? 450}px`;
  const Plotly = await loaded();
  await Plotly.react(place, { ...figure, config: { displayModeBar: false } });
  if (!place.watched) {
    place.watched = new ResizeObserver(() => place.clientWidth && Plotly.Plots.resize(place));
    place.watched.observe(place);
  }
}
"""


@cache
def _component() -> Any:
    """Where the page's first figure is drawn, for Streamlit knows of no page before."""
    # Serves the folder of Plotly's package, so that the page asks nobody else for it.
    served = declare_component("plotly", path=str(Path(plotly.__file__).parent / "package_data"))
    return st.components.v2.component(
        "kgrad.figure",
        html="<div class='figure'></div>",
        js=_SCRIPT.replace("SERVED", served.name),
        isolate_styles=False,
    )


def draw(figure: go.Figure, key: str) -> None:
    """Show a figure in the page's theme, where the one of this key was.

    Args:
        figure: what to show; as high as its layout says.
        key: unique in the page.
    """
    dark = st.context.theme.type == "dark"
    _component()(key=key, data=themed(figure, dark).to_json())
