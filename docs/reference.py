"""Write docs/reference.md: public functions, statistics, data sets and diagnosis rules.

    python docs/reference.py

Everything comes from the package: first lines of docstrings, and the entries of statistics, data
sets and rules. A test checks that the page is up to date.
"""

import ast
import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import kgrad
from kgrad.diagnosis.diagnosing import DECLARED
from kgrad.experiments.data import DATASETS
from kgrad.records.statistics import STATISTICS

HEAD = """# Reference

Written by `python docs/reference.py`. For each name, `help(kgrad.NAME)` shows arguments, shapes,
errors and an example.
"""
# Room of a name's module → heading, in the order of the page.
GROUPS = {
    "experiments": "Build, predict, repair",
    "measure": "Train and record",
    "records": "What was recorded",
    "diagnosis": "Diagnosis",
    "figures": "Figures",
    "apps": "Pages",
}


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), ["---"] * len(list(head)), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def names() -> dict[str, list[str]]:
    """Return the public names by the room in which they are defined."""
    stub = Path(kgrad.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    rooms: dict[str, list[str]] = {}
    for node in ast.parse(stub).body:
        if isinstance(node, ast.ImportFrom) and node.module and "." in node.module + ".":
            room = node.module.partition(".")[0]
            rooms.setdefault(room, []).extend(alias.name for alias in node.names)
    return rooms


def first_line(name: str) -> str:
    """Return the first line of the docstring of a public name."""
    return (getattr(kgrad, name).__doc__ or "").strip().partition("\n")[0]


def page() -> str:
    """Return the whole page."""
    rooms = names()
    parts = [HEAD]
    for room, heading in GROUPS.items():
        rows = [(f"`{name}`", first_line(name)) for name in sorted(rooms.get(room, ()))]
        rows = [row for row in rows if row[0] != "`interactive`"]
        parts += [f"## {heading}\n", table(("name", "what it does"), rows)]
    parts += [
        "`kgrad.interactive` has the figures of the same names with plotly. Further modules for "
        "users: `kgrad.theory`, `kgrad.experiments`, `kgrad.diagnosis`.\n",
        "## Statistics\n",
        "g is a weight's gradient with n entries, T the number of updates of the record in which "
        "the weight had one. `history.by_layer` combines the weights of a layer as one vector.\n",
        table(
            ("statistic", "definition", "recorded"),
            [(f"`{row.name}`", row.definition, row.recorded) for row in STATISTICS.values()],
        ),
        "## Data sets\n",
        "`make_dataset(name)` standardizes every column.\n",
        table(
            ("name", "task", "columns", "loss"),
            [
                (f"`{name}`", one.task, one.features, f"`{one.loss}`")
                for name, one in DATASETS.items()
            ],
        ),
        "## Diagnosis rules\n",
    ]
    for rule in DECLARED.values():
        parts.append(f"### `{rule.name}` ({rule.severity})\n")
        parts.append(f"{rule.explanation}\n")
        parts.append("\n".join(f"- {remedy.text}" for remedy in rule.remedies) + "\n")
        parts.append(f"*{rule.reference}*\n")
    parts += [
        "## Thresholds\n",
        "`kgrad.Thresholds(NAME=value)` changes one.\n",
        table(
            ("threshold", "default", "reason"),
            [(f"`{one.name}`", f"{one.value:g}", one.reason) for one in thresholds()],
        ),
    ]
    return "\n".join(parts)


def thresholds() -> list[object]:
    """Return the declared thresholds, shared ones first, in the order of `Thresholds`."""
    from kgrad.diagnosis.rules import SHARED

    declared = [*SHARED, *(one for rule in DECLARED.values() for one in rule.thresholds)]
    known = {field.name for field in fields(kgrad.Thresholds)}
    return [one for one in declared if one.name in known]


if __name__ == "__main__":
    (Path(__file__).parent / "reference.md").write_text(page(), encoding="utf-8")
