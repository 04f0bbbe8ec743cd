"""The tables of `kgrad run`: runs and findings, as CSV files and printed."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kgrad.apps import findings
from kgrad.apps.run_groups import RunGroup, kind_of_layers
from kgrad.records.files import written_whole

COLUMNS = (
    "loss_first", "loss_last", "gradient_first", "gradient_last", "ratio", "decades_per_layer"
)  # fmt: skip
PREDICTED = ("predicted_first", "predicted_last", "predicted_ratio")


def write_runs(groups: Sequence[RunGroup], path: Path) -> None:
    """Write one row per run; a number that is not known is left empty."""
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["name", "seed", *COLUMNS, *PREDICTED])
        writer.writeheader()
        for group in groups:
            writer.writerows(group.rows())


def write_findings(groups: Sequence[RunGroup], path: Path) -> None:
    """Write one row per measurement of a finding; healthy runs have no row."""
    tables = [pd.DataFrame(columns=["name", "seed"])]
    for group in groups:
        for diagnosis, seed in zip(group.diagnoses, group.seeds, strict=False):
            tables.append(diagnosis.to_frame().assign(name=group.name, seed=seed))
    with written_whole(path) as draft:
        pd.concat([table.astype(object) for table in tables]).to_csv(draft, index=False)


def print_runs(groups: Sequence[RunGroup]) -> None:
    """Print one line per group: its network, medians over its seeds, and the predicted ratio."""
    kind = kind_of_layers(groups).split()[0]
    above = ["median over seeds", "activation,", "loss", "", "", "", "", "decades"]
    below = ["", "initializer", "first → last epoch", f"first {kind}", f"last {kind}"]
    below += ["ratio", "predicted", "per layer"]
    lines = [above, below, *map(_cells, groups)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    # One title for four columns.
    title = "mean |gradient| at epoch 0".center(sum(widths[3:7]) + 6)
    lines[0], spans = [*above[:3], title, above[7]], [*widths[:3], len(title), widths[7]]
    print()
    for line, of_columns in zip(lines, [spans] + [widths] * len(lines), strict=False):
        cells = [
            f"{cell:<{width}}" if place < 3 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(line, of_columns, strict=True))
        ]
        print("  ".join(cells))


def _cells(group: RunGroup) -> list[str]:
    """Return a group's line of the table."""
    rows = group.rows()
    values = {
        name: np.array([row.get(name, np.nan) for row in rows])
        for name in (*COLUMNS, "predicted_ratio")
    }
    made = group.experiment
    network = "–" if made is None else f"{made.activation}, {made.weight_initializer}"
    loss = " → ".join(median_text(values[name], ".4g") for name in ("loss_first", "loss_last"))
    gradients = [median_text(values[name]) for name in ("gradient_first", "gradient_last", "ratio")]
    predicted = "–" if group.prediction is None else median_text(values["predicted_ratio"])
    decades = median_text(values["decades_per_layer"], "+.2f")
    return [group.name, network, loss, *gradients, predicted, decades]


def median_text(values: np.ndarray, form: str = ".3g") -> str:
    """Return the median of the values that are finite, and say how many are not.

    Example:
        >>> median_text(np.array([1.0, np.nan, 2.0]))
        '1.5 (1 of 3 NaN)'
    """
    finite = values[np.isfinite(values)]
    if not finite.size:  # all are NaN or infinite, which says enough
        return format(float(np.median(values)), form)
    lost = len(values) - len(finite)
    kinds = {"NaN": np.isnan(values).any(), "infinite": np.isinf(values).any()}
    words = " or ".join(kind for kind, occurs in kinds.items() if occurs)
    text = format(float(np.median(finite)), form)
    return f"{text} ({lost} of {len(values)} {words})" if lost else text


def print_findings(groups: Sequence[RunGroup]) -> None:
    """Print what is wrong with each group, the evidence and what to try first."""
    print("\nfindings")
    for group in groups:
        if group.no_diagnosis:
            continue
        found = group.findings()
        if not found:
            print(f"  {group.name}: nothing is wrong")
        for place, (finding, seeds, run) in enumerate(found):
            text = findings.to_text(finding, seeds, len(group.histories), place=place, run=run)
            print(f"  {group.name}: {text}")
        for note, _, run in group.notes():
            print(f"  {group.name}: {findings.note_text(note, run)}")


def print_reasons(groups: Sequence[RunGroup]) -> None:
    """Print why groups have no prediction or no diagnosis; groups with one reason share a line."""
    names: dict[str, list[str]] = {}
    for group in groups:
        if group.no_prediction:
            names.setdefault(group.no_prediction, []).append(group.name)
    for reason, unpredicted in names.items():
        print(f"no prediction for {'; '.join(unpredicted)}: {reason}")
    for group in groups:
        if group.no_diagnosis:
            print(f"no findings for {group.name}: {group.no_diagnosis}")
