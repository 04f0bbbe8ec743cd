"""The report as HTML. Whatever comes from a history is escaped here and nowhere else.

A policy in the page forbids all network access, and every script but the two whose hashes it
names: what slipped through the escaping would not run.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from kgrad._version import __version__
from kgrad.apps.report.runs import Network, code_of, command_of, described, rows_of
from kgrad.diagnosis import Finding

_COLUMNS = {
    "loss_first": "loss, first",
    "loss_last": "loss, last",
    "gradient_first": "mean |gradient|, first hidden layer",
    "gradient_last": "last hidden layer",
    "ratio": "ratio",
    "predicted_ratio": "ratio predicted",
    "decades_per_layer": "decades a layer",
}
_HERE = Path(__file__).parent
_LONGEST = 2000  # characters of one piece of metadata


def page(title: str, sections: Iterable[str], data: str, plotly: str) -> str:
    """The whole file.

    Args:
        title: stands above the report.
        sections: what is between its head and its scripts, as HTML.
        data: what the script draws, as JSON.
        plotly: the source of plotly.js.
    """
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    hashes = " ".join(f"'sha256-{_sha256(source)}'" for source in (plotly, script))
    # plotly.js writes styles, and draws heatmaps as images that are data.
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="quiet">kgrad {escape(__version__)}</p>',
            "<noscript><p>The figures need JavaScript; the rest does not.</p></noscript>",
            *sections,
            f'<script type="application/json" id="data">{_in_script(data)}</script>',
            f"<script>{plotly}</script>",
            f"<script>{script}</script>",
            "</body>",
            "</html>\n",
        ]
    )


def packed(data: Mapping[str, Any]) -> str:
    """What the script draws, as JSON without spaces."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def slider(labels: Sequence[str], at: int = 0) -> str:
    """What marks a moment in all figures, one of them at first."""
    last = len(labels) - 1
    return (
        '<div id="time"><label for="moment">Moment</label>'
        f'<input id="moment" type="range" min="0" max="{last}" value="{at}" step="1">'
        f'<output id="said" for="moment">{escape(labels[at])}</output></div>'
    )


def plot(identifier: str, caption: str) -> str:
    """The place of a figure."""
    return (
        f'<figure><div class="plot" id="{identifier}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def overview(networks: Sequence[Network]) -> str:
    """The table: one row a run."""
    rows = [row for network in networks for row in rows_of(network)]
    shown = {k: v for k, v in _COLUMNS.items() if any(row.get(k) is not None for row in rows)}
    head = "".join(f"<th>{escape(name)}</th>" for name in ("run", "seed", *shown.values()))
    lines = []
    for row in rows:
        cells = [escape(row["name"]), "–" if row["seed"] is None else escape(str(row["seed"]))]
        cells += [_number(row.get(key)) for key in shown]
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    note = (
        '<p class="quiet">Gradients are those before training. <em>Decades a layer</em>: by how '
        "many powers of ten they change from one hidden layer to the next, towards the input.</p>"
        if "ratio" in shown
        else ""
    )
    return (
        f'<h2>The runs</h2><div class="scroll"><table id="table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>{note}"
    )


def findings(network: Network) -> str:
    """What is wrong with a network, in words, with the numbers."""
    if network.undiagnosed:
        return f'<p class="quiet">Not diagnosed: {escape(network.undiagnosed)}.</p>'
    found = network.findings()
    if not found:
        return '<p class="healthy">Nothing is wrong: the gradients look healthy.</p>'
    return "".join(_finding(one, seeds, len(network.histories)) for one, seeds in found)


def what_was_run(network: Network) -> str:
    """The network and its training, and what theory can say of it."""
    history = network.histories[0]
    words = [
        described(network.experiment)
        if network.experiment
        else f"A model with {len(history.layers)} layers that have weights."
    ]
    count = len(network.histories)
    seeds = ", ".join(str(seed) for seed in network.seeds if seed is not None)
    plural = "s" if count > 1 else ""
    words.append(f"{count} run{plural}" + (f", seed{plural} {seeds}." if seeds else "."))
    if count > 1:
        words.append("The figures show the first.")
    reason = (
        f'<p class="quiet">No prediction: {escape(network.unpredicted)}.</p>'
        if network.unpredicted
        else ""
    )
    return f"<p>{escape(' '.join(words))}</p>{reason}"


def how_to_reproduce(network: Network) -> str:
    """Command, code and everything that was recorded about the first run."""
    history = network.histories[0]
    if network.experiment:
        code = (
            f"{command_of(network.experiment, len(network.histories))}\n\n# or, in Python:\n"
            f"{code_of(network.experiment, network.seeds)}"
        )
    else:
        code = (
            "import kgrad\n\n"
            "tracker = kgrad.GradientTracker()\n"
            f"model.fit(X, y, epochs={int(history.epochs[-1])}, callbacks=[tracker])\n"
            'tracker.history.save("run.jsonl")\n'
            'kgrad.write_report([tracker.history], "report.html")'
        )
    rows = "".join(
        f"<tr><td>{escape(str(key))}</td><td><code>{escape(_json(value))}</code></td></tr>"
        for key, value in history.metadata.items()
    )
    recorded = (
        "<details><summary>What was recorded about the run</summary>"
        f'<div class="scroll"><table class="metadata">{rows}</table></div></details>'
    )
    return f"<h3>How to reproduce</h3><pre>{escape(code)}</pre>{recorded if rows else ''}"


def flow_notes(network: Network) -> str:
    """Why a network has no flow graph, where its history says how its layers are joined."""
    if not network.undrawn:
        return ""
    return f'<p class="quiet">No flow graph: {escape(network.undrawn)}.</p>'


def heading(name: str) -> str:
    """Of a network's section."""
    return f"<h2>{escape(name)}</h2>"


def _finding(finding: Finding, seeds: int, runs: int) -> str:
    share = f", with {seeds} of {runs} seeds" if runs > 1 else ""
    telling, *others = finding.evidence
    evidence = "".join(f"<li>{escape(str(one))}</li>" for one in others)
    remedies = "".join(f"<li>{escape(one)}</li>" for one in finding.remedies)
    return (
        f'<section class="finding {finding.severity}"><h4><span class="badge">'
        f"{finding.severity}:</span> {escape(finding.rule.replace('_', ' '))} in "
        f"{escape(finding.where())}, since epoch {finding.first_epoch}{share}</h4>"
        f"<p>{escape(finding.explanation)}</p>"
        f"<p>Measured: {escape(str(telling))}.</p>"
        f"<p>What to change:</p><ul>{remedies}</ul>"
        f"<details><summary>More evidence, and where the rule comes from</summary>"
        f'<ul>{evidence}</ul><p class="quiet">{escape(finding.reference)}</p></details></section>'
    )


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return escape(f"{value:.3g}") if math.isfinite(value) else str(value)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _in_script(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
