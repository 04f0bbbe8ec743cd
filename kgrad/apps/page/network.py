"""The network as a drawing: layers with their activations, edges with the gradient through them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.snapshots import Snapshot
from kgrad.records.history import GradientHistory

_WIDEST, _NARROWEST = 13.0, 1.2  # pixels of an edge
_DECADES = 6  # below the largest gradient, at which an edge is at its narrowest
HEIGHT = 300  # pixels, as in network.js
CAPTION = (
    "Bars: the activations of each layer. Edges: the gradient that flows back through them, "
    "2 pixels narrower for each power of ten."
)
# In the theme's own colors.
_CSS = """
.network {width: 100%; overflow: hidden}
.network text {font: 11px var(--st-font, sans-serif); fill: var(--st-text-color);
  text-anchor: middle}
.network .node > rect:first-of-type {fill: var(--st-secondary-background-color);
  stroke: var(--st-text-color); stroke-opacity: 0.35}
.network .node > rect.bar {fill: var(--st-primary-color); stroke: none}
.network .edge {fill: none; stroke: var(--st-primary-color); stroke-opacity: 0.55}
.network .edge.unknown {stroke: var(--st-text-color); stroke-opacity: 0.3; stroke-dasharray: 2 4}
.network .edge.zero {stroke: #c1272d; stroke-opacity: 0.9; stroke-dasharray: 6 4}
.network .edge.broken {stroke: #c1272d; stroke-opacity: 0.9}
.network .pulse {fill: #e07a1f}
"""


def draw_network(content: dict[str, Any], key: str) -> None:
    """Show a drawing, in place of the previous one with this key.

    Args:
        content: what `drawing` returned. If its `pulse` differs from the previous one, a pulse runs
            from the loss to the input.
        key: unique in the page.
    """
    _component()(key=key, data=content)


@cache
def _component() -> Any:
    return st.components.v2.component(
        "kgrad.network",
        html="<div class='network'></div>",
        css=_CSS,
        js=(Path(__file__).parent / "network.js").read_text(),
        isolate_styles=False,
    )


def drawing(
    configuration: Configuration,
    history: GradientHistory | None,
    snapshot: Snapshot | None,
    record: int,
) -> dict[str, Any]:
    """Describe a network at a record of its history.

    Args:
        configuration: the network.
        history: its history, with a probe; None before there is a record.
        snapshot: its activations; None if there are none.
        record: number of the record.

    Returns:
        `nodes`, from the input over the layers to the loss; `edges`, each from a node to the next;
        `arcs`, the skip connections; `pulse`, a number that changes with the record.
    """
    names = [f"hidden_{k}" for k in range(1, configuration.layers + 1)] + ["output"]
    nodes = [{"name": "input", "short": "in", "kind": "end", "text": configuration.dataset}]
    for i, name in enumerate(names):
        short = "out" if name == "output" else name.removeprefix("hidden_")
        nodes.append(
            {"name": name, "short": short, "kind": "layer", **_activations(name, snapshot, i)}
        )
    loss = _loss_of(history, record)
    nodes.append({"name": "loss", "short": "loss", "kind": "end", "text": f"loss {loss}"})
    signals, largest = _signals(history, record)
    sources = [_after(configuration, name, signals) for name in names]
    edges = [_edge(None, largest, "gradient of the input: not measured")]
    edges += [_edge(signals.get(source), largest, f"|∂L/∂a| at {source}") for source in sources]
    arcs = []
    if configuration.skip:
        for k in range(2, configuration.layers + 1, 2):
            edge = _edge(
                signals.get(f"skip_{k // 2}"), largest, f"|∂L/∂a| past hidden_{k - 1}, hidden_{k}"
            )
            arcs.append(edge | {"from": k - 1, "to": k})
    title = f"The network {configuration}, at record {record}"
    pulse = 0 if history is None else record + 1
    return {"nodes": nodes, "edges": edges, "arcs": arcs, "pulse": pulse, "title": title}


def _after(configuration: Configuration, name: str, signals: dict[str, float]) -> str:
    """Return the name of the last output before the next hidden layer."""
    number = name.removeprefix("hidden_")
    if number.isdigit():
        if configuration.skip and int(number) % 2 == 0:
            return f"skip_{int(number) // 2}"
        if f"activation_{number}" in signals:
            return f"activation_{number}"
    return name


def _activations(name: str, snapshot: Snapshot | None, layer: int) -> dict[str, Any]:
    """Return a layer's histogram and its description."""
    if snapshot is None:
        return {"text": name}
    low, high = snapshot.ranges[layer]
    if not np.isfinite(low):
        return {"text": f"{name}: no finite activation"}
    return {
        "counts": snapshot.counts[layer].tolist(),
        "text": f"{name}: activations from {low:.3g} to {high:.3g}",
    }


def _loss_of(history: GradientHistory | None, record: int) -> str:
    if history is None or "loss" not in history.logs:
        return "not measured"
    return f"{history.logs['loss'][record]:.4g}"


def _signals(history: GradientHistory | None, record: int) -> tuple[dict[str, float], float]:
    """Return the signal at each output at a record, and the largest one of the whole history."""
    if history is None or "signal_l2" not in history.activations:
        return {}, 1.0
    table = history.activations["signal_l2"]
    ordinary = table[np.isfinite(table) & (table > 0)]
    largest = float(ordinary.max()) if len(ordinary) else 1.0
    return dict(zip(history.outputs, table[record].tolist(), strict=True)), largest


def _edge(signal: float | None, largest: float, text: str) -> dict[str, Any]:
    """Describe an edge by the gradient that flows back through it."""
    if signal is None:
        return {"width": _NARROWEST, "kind": "unknown", "text": text}
    text = f"{text}: {signal:.3g}"
    if not np.isfinite(signal):
        return {"width": _WIDEST, "kind": "broken", "text": text}
    if signal == 0:
        return {"width": _NARROWEST, "kind": "zero", "text": text}
    share = 1 + np.log10(signal / largest) / _DECADES
    width = _NARROWEST + (_WIDEST - _NARROWEST) * float(np.clip(share, 0, 1))
    return {"width": round(width, 2), "kind": "measured", "text": text}
