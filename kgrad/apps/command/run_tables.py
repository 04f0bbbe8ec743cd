"""The tables of `kgrad run`: runs and findings, as CSV files and printed."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kgrad.apps import findings
from kgrad.apps.run_groups import RunGroup, kind_of_layers

COLUMNS = (
    "loss_first", "loss_last", "gradient_first", "gradient_last", "ratio", "decades_per_layer"
)  # fmt: skip
PREDICTED = ("predicted_first", "predicted_last", "predicted_ratio")


def write_runs(groups: Sequence[RunGroup], path: Path) -> None:
    """Write one row per run; a number that is not known is left empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
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
    pd.concat([table.astype(object) for table in tables]).to_csv(path, index=False)


def print_runs(groups: Sequence[RunGroup]) -> None:
    """Print one line per group: medians over its seeds, and the predicted ratio."""
    width = max(len(group.name) for group in groups) + 2
    print(
        f"\n{'median over seeds':{width}}{'loss':^22}{'mean |gradient| at epoch 0':^46}"
        f"{'decades':>11}"
    )
    kind = kind_of_layers(groups).split()[0]
    heads = (f"first {kind}", f"last {kind}", "ratio", "predicted", "per layer")
    print(f"{'':{width}}{'first → last epoch':^22}{_aligned(heads)}")
    for group in groups:
        rows = group.rows()
        median = {
            name: float(np.median([row.get(name, np.nan) for row in rows]))
            for name in (*COLUMNS, "predicted_ratio")
        }
        loss = f"{median['loss_first']:.4g} → {median['loss_last']:.4g}"
        cells = [f"{median[name]:.3g}" for name in ("gradient_first", "gradient_last", "ratio")]
        cells.append("–" if group.prediction is None else f"{median['predicted_ratio']:.3g}")
        cells.append(f"{median['decades_per_layer']:+.2f}")
        print(f"{group.name:{width}}{loss:^22}{_aligned(cells)}")


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


def _aligned(cells: Sequence[str]) -> str:
    widths = (13, 13, 10, 10, 11)
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
