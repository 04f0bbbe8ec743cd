"""HTML pages that open offline, from the templates of this folder.

Two things keep what a history contains from being executed: Jinja escapes every value, and a policy
in the page forbids all network access and every script but the two whose hashes it lists.
"""

import base64
import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from kgrad._version import __version__
from kgrad.apps.findings import heading, spoken

_HERE = Path(__file__).parent


class Block(NamedTuple):
    """A part of a flow graph that the reader can open.

    Attributes:
        identifier: the id of the element that the script draws the block's own graph in.
        name: its name.
        layers: the number of its layers, as text.
        norm: its norm, as the text after the layers; empty if it has none.
    """

    identifier: str
    name: str
    layers: str
    norm: str


class Place(NamedTuple):
    """A figure's place in a page.

    Attributes:
        identifier: the id of the element that the script draws the figure in.
        caption: the text below the figure.
        blocks: what can be opened below the figure.
    """

    identifier: str
    caption: str
    blocks: tuple[Block, ...] = ()


def render(template: str, title: str, data: Any, **content: Any) -> str:
    """Return a page.

    Args:
        template: the name of a template that extends page.html.
        title: the page's title and heading.
        data: what the page's script draws, in JSON's types.
        **content: the template's other variables.
    """
    plotly, script = _plotly(), (_HERE / "report.js").read_text(encoding="utf-8")
    hashes = " ".join(f"'sha256-{_sha256(source)}'" for source in (plotly, script))
    return (
        _templates()
        .get_template(template)
        .render(
            content,
            title=title,
            data=data,
            version=__version__,
            # plotly.js writes styles, and draws heatmaps as images that are data.
            policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'",
            style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
            plotly=Markup(plotly),
            script=Markup(script),
        )
    )


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"heading": heading, "spoken": spoken}
    templates.filters["number"] = _number
    # tojson also escapes the characters that could end a script element.
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return templates


@cache
def _plotly() -> str:
    return str(get_plotlyjs())


@cache
def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if math.isfinite(value) else str(value)
