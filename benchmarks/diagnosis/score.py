"""Compute recall, false alarms and precision of tools that name families, and make tables."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import beta

import kgrad
from benchmarks.diagnosis import gallery
from benchmarks.diagnosis.recipes import FAMILIES
from benchmarks.diagnosis.reference_rules import PUBLISHED
from kgrad import GradientHistory
from kgrad.diagnosis.findings import Confidence

# (name of a run, history) → the families that a tool finds in the run, kgrad's most likely first.
Tool = Callable[[str, GradientHistory], Collection[str]]
Row = Mapping[str, Any]  # a row of cases.json
Found = Mapping[str, Collection[str]]  # name of a run → the families that a tool found
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
    right = sum(bool(set(found[row["name"]]) & set(row["accepted"])) for row in ill)
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
            counts.update(found[row["name"]] or ["nothing"])
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
        WITH_MODEL: lambda name, history: (
            diagnose(
                history,
                gallery.build_model(cases[name]),
                *gallery.build_task(cases[name].recipe)[:2],
            ).rules
        ),
        HISTORY_ALONE: lambda _, history: diagnose(history).rules,
    }
    return own | known


def find(rows: Iterable[Row], folder: Path, chosen: Mapping[str, Tool]) -> dict[str, Found]:
    """Run each tool on each run."""
    found: dict[str, dict[str, Collection[str]]] = {name: {} for name in chosen}
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
    """Return the shares as Markdown with 95 % confidence intervals, one row per tool."""
    lines = [
        "| tool | correct family named | any alarm on ill | false alarms on healthy | precision |",
        "|---|---|---|---|---|",
    ]
    for name, of_tool in found.items():
        result = score(rows, of_tool)
        counts = (result.ill, result.ill, result.healthy)
        cells = [with_interval(*pair) for pair in zip(result[:3], counts, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} | {100 * result.precision:.1f} % |")
    return "\n".join(lines)


def with_interval(share: float, count: int) -> str:
    """Return a share in percent with its 95 % confidence interval (Clopper & Pearson, 1934)."""
    if not count:
        return "–"
    part = round(share * count)
    low = beta.ppf(0.025, part, count - part + 1) if part else 0.0
    high = beta.ppf(0.975, part + 1, count - part) if part < count else 1.0
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def first_right(rows: Iterable[Row], found: Found) -> dict[str, tuple[int, int]]:
    """Count the runs by their first finding: rule → (those with the fault it names, all of them).

    Runs that are neither ill nor healthy do not count.
    """
    counts: dict[str, tuple[int, int]] = {}
    for row in rows:
        named = list(found[row["name"]])
        if row["label"] in ("ill", "healthy") and named:
            right, runs = counts.get(named[0], (0, 0))
            is_right = row["label"] == "ill" and named[0] in row["accepted"]
            counts[named[0]] = (right + is_right, runs + 1)
    return counts


def calibration(
    chosen: Mapping[str, tuple[int, int]], reported: Mapping[str, tuple[int, int]]
) -> str:
    """Return how often the first finding was right on each half, as Markdown."""
    lines = [
        "| first finding | right on half choose | probability | right on half report |",
        "|---|---|---|---|",
    ]
    expected = 0.0
    for rule in sorted({*chosen, *reported}):
        sure, seen = Confidence(*chosen.get(rule, (0, 0))), reported.get(rule, (0, 0))
        expected += sure.probability * seen[1]
        lines.append(
            f"| {rule} | {sure.right} of {sure.runs} | {100 * sure.probability:.0f} % | "
            f"{seen[0]} of {seen[1]} |"
        )
    right, runs = (sum(pair[i] for pair in reported.values()) for i in (0, 1))
    lines.append(f"\nExpected on the half report: {expected:.0f} of {runs} right. Seen: {right}.")
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
            right = sum(bool(set(of_tool[row["name"]]) & set(row["accepted"])) for row in members)
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
        elif (
            row["family"] == of and row["label"] == "ill" and not set(named) & set(row["accepted"])
        ):
            lines.append(
                f"{row['name']} ({row['half']}, {row['tracking']}, gain {row['gain']} of "
                f"{row['twin_gain']}): {sorted(named) or 'nothing'}, not {row['accepted']}"
            )
    return lines
