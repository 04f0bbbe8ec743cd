"""Compute recall, false alarms and precision of tools that name families, and make tables."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kgrad
from benchmarks.diagnosis import gallery
from benchmarks.diagnosis.recipes import FAMILIES
from benchmarks.diagnosis.reference_rules import PUBLISHED
from kgrad import GradientHistory

# (name of a run, history) → the families that a tool finds in the run.
Tool = Callable[[str, GradientHistory], set[str]]
Row = Mapping[str, Any]  # a row of cases.json
Found = Mapping[str, set[str]]  # name of a run → the families that a tool found
HISTORY_ALONE = "kgrad, history alone"
WITH_MODEL = "kgrad, with model and data"


class Score(NamedTuple):
    """The score of a tool on some runs; a share of zero runs is NaN.

    Attributes:
        named: share of the ill runs in which an accepted family is named.
        any_alarm: share of the ill runs in which anything is named.
        false_alarms: share of the healthy runs in which anything is named.
        precision: share of the runs with an alarm that are ill.
        ill, healthy: number of runs.
    """

    named: float
    any_alarm: float
    false_alarms: float
    precision: float
    ill: int
    healthy: int


def score(rows: Iterable[Row], found: Found) -> Score:
    """Compare the findings with the labels; runs that are not ill or healthy do not count."""
    rows = list(rows)
    ill = [row for row in rows if row["label"] == "ill"]
    healthy = [row for row in rows if row["label"] == "healthy"]
    right = sum(bool(found[row["name"]] & set(row["accepted"])) for row in ill)
    alarms = sum(bool(found[row["name"]]) for row in ill)
    false = sum(bool(found[row["name"]]) for row in healthy)
    return Score(
        _share(right, len(ill)),
        _share(alarms, len(ill)),
        _share(false, len(healthy)),
        _share(alarms, alarms + false),
        len(ill),
        len(healthy),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def confusion(rows: Iterable[Row], found: Found) -> dict[str, Counter[str]]:
    """Count the named families, per family of the run ("healthy" for healthy runs)."""
    table: dict[str, Counter[str]] = {}
    for row in rows:
        if row["label"] in ("ill", "healthy"):
            counts = table.setdefault(row["family"] or "healthy", Counter())
            counts["runs"] += 1
            counts.update(found[row["name"]] or {"nothing"})
    return table


def tools() -> dict[str, Tool]:
    """Return kgrad's rules, if it has any, and the published rules."""
    known: dict[str, Tool] = {
        name: lambda _, history, rule=rule: rule(history) for name, rule in PUBLISHED.items()
    }
    diagnose = getattr(kgrad, "diagnose", None)
    if diagnose is None:
        return known
    cases = {case.name: case for case in gallery.gallery()}
    own: dict[str, Tool] = {
        WITH_MODEL: lambda name, history: {
            finding.rule
            for finding in diagnose(
                history,
                gallery.build_model(cases[name]),
                *gallery.build_task(cases[name].recipe)[:2],
            )
        },
        HISTORY_ALONE: lambda _, history: {finding.rule for finding in diagnose(history)},
    }
    return own | known


def find(rows: Iterable[Row], folder: Path, chosen: Mapping[str, Tool]) -> dict[str, Found]:
    """Run each tool on each run."""
    found: dict[str, dict[str, set[str]]] = {name: {} for name in chosen}
    for row in rows:
        history = GradientHistory.load(folder / f"{row['name']}.jsonl")
        for name, tool in chosen.items():
            found[name][row["name"]] = tool(row["name"], history)
    return found


def load_rows(folder: Path, half: str = "both") -> list[dict[str, Any]]:
    """Return the rows of `cases.json` that belong to a half."""
    rows = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    return [row for row in rows if half in ("both", row["half"])]


def overview(rows: Sequence[Row], found: Mapping[str, Found]) -> str:
    """Return the shares as Markdown, one row per tool."""
    lines = [
        "| tool | correct family named | any alarm on ill | false alarms on healthy | precision |",
        "|---|---|---|---|---|",
    ]
    for name, of_tool in found.items():
        result = score(rows, of_tool)
        shares = " | ".join(f"{100 * share:.1f} %" for share in result[:4])
        lines.append(f"| {name} | {shares} |")
    return "\n".join(lines)


def by_family(rows: Sequence[Row], found: Mapping[str, Found]) -> str:
    """Return, as Markdown, how many runs of each family each tool named correctly."""
    lines = [
        "| family | runs | " + " | ".join(found) + " |",
        "|---|---|" + "---|" * len(found),
    ]
    for family in FAMILIES:
        members = [row for row in rows if row["family"] == family and row["label"] == "ill"]
        cells = []
        for of_tool in found.values():
            right = sum(bool(of_tool[row["name"]] & set(row["accepted"])) for row in members)
            cells.append(str(right))
        lines.append(f"| {family} | {len(members)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def confusion_table(rows: Sequence[Row], found: Found) -> str:
    """Return the confusion table as Markdown: one row per family of runs, one column per name."""
    table = confusion(rows, found)
    others = sorted({name for counts in table.values() for name in counts})
    columns = ["runs", *(name for name in FAMILIES if name in others)]
    columns += [name for name in others if name not in columns and name != "nothing"] + ["nothing"]
    lines = [
        "| family | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for family in ("healthy", *FAMILIES):
        if family in table:
            cells = " | ".join(str(table[family][name] or "") for name in columns)
            lines.append(f"| {family} | {cells} |")
    return "\n".join(lines)


def misses(rows: Iterable[Row], found: Found, of: str) -> list[str]:
    """List the healthy runs with an alarm, or the runs of a family without a correct name."""
    lines = []
    for row in rows:
        named = found[row["name"]]
        if of == "healthy" and row["label"] == "healthy" and named:
            lines.append(f"{row['name']} ({row['half']}, {row['tracking']}): {sorted(named)}")
        elif row["family"] == of and row["label"] == "ill" and not named & set(row["accepted"]):
            lines.append(
                f"{row['name']} ({row['half']}, {row['tracking']}, gain {row['gain']} of "
                f"{row['twin_gain']}): {sorted(named) or 'nothing'}, not {row['accepted']}"
            )
    return lines
