"""Train the runs of the gallery that are not on disk yet; score kgrad's and published rules.

python -m benchmarks.diagnosis
python -m benchmarks.diagnosis --half report --output docs/diagnosis_score.md
python -m benchmarks.diagnosis --half choose --show healthy
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).parents[2])

from benchmarks.diagnosis import gallery, score
from benchmarks.diagnosis.recipes import FAMILIES, HALVES
from kgrad.diagnosis import calibration as diagnosis_calibration

HEADER = """\
# Scores of the diagnosis

Written by `python -m benchmarks.diagnosis`. The gallery has {ill} ill and {healthy} healthy runs,
trained on a CPU. kgrad's thresholds were chosen on the half "choose".

A run is *ill* if a fault was built into it and it then gains less than half of what its healthy
twin gains over the best constant prediction. Left out are {harmless} runs that train well in spite
of their fault, and {unclear} runs that are neither clearly ill nor clearly healthy.

The published rules use their authors' thresholds on kgrad's measurements. If a history lacks what
a rule needs, the rule reports nothing.
"""


CALIBRATION = """\
Counted on the half "choose", a first finding of a rule was right in so many runs; the probability
is (right + 1) / (runs + 2). On the half "report" it is checked.
"""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).parent / "histories"
    parser.add_argument(
        "--histories", type=Path, default=folder, help="folder of the recorded runs"
    )
    parser.add_argument("--half", choices=(*HALVES, "both"), default="both", help="runs to score")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    parser.add_argument(
        "--show",
        choices=(*FAMILIES, "healthy"),
        help="list the runs of this family that were diagnosed wrongly, and stop",
    )
    parser.add_argument(
        "--tool", help="tool for the misses and the confusion table (default: the first)"
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="also write kgrad/diagnosis/calibration.py from the half choose",
    )
    parser.add_argument("--workers", type=int, default=2, help="number of training processes")
    return parser.parse_args()


def tables(rows: Sequence[dict[str, Any]], found: Any, halves: Sequence[str], tool: str) -> str:
    """Return all tables as Markdown."""
    labels = Counter(row["label"] for row in rows)
    counts = {label: labels[label] for label in ("ill", "healthy", "harmless", "unclear")}
    parts = [HEADER.format(**counts)]
    for half in halves:
        members = [row for row in rows if row["half"] == half]
        sizes = Counter(row["label"] for row in members)
        parts.append(f"## Half: {half} ({sizes['ill']} ill, {sizes['healthy']} healthy)\n")
        parts.append(score.overview(members, found) + "\n")
        parts.append("Number of runs in which an accepted family is named:\n")
        parts.append(score.by_family(members, found) + "\n")
        parts.append(f"Families named by *{tool}*, in number of runs (row: the run's family):\n")
        parts.append(score.confusion_table(members, found[tool]) + "\n")
    if len(halves) > 1 and score.WITH_MODEL in found:
        parts.append("## How often the first finding is right\n")
        parts.append(CALIBRATION)
        of_halves = [
            score.first_right((row for row in rows if row["half"] == half), found[score.WITH_MODEL])
            for half in HALVES
        ]
        parts.append(score.calibration(*of_halves) + "\n")
    return "\n".join(parts)


def write_calibration(rows: Sequence[dict[str, Any]], found: Any) -> None:
    """Write kgrad's table of how often each first finding is right on the half "choose"."""
    rows = [row for row in rows if row["half"] == "choose"]
    path = Path(diagnosis_calibration.__file__)
    text = path.read_text(encoding="utf-8")
    text = text[: text.index("HISTORY_ALONE")]
    tools = {"HISTORY_ALONE": score.HISTORY_ALONE, "WITH_DATA": score.WITH_MODEL}
    for name, tool in tools.items():
        counts = score.first_right(rows, found[tool])
        lines = "".join(f'    "{rule}": {counts[rule]},\n' for rule in sorted(counts))
        text += f"{name}: dict[str, tuple[int, int]] = {{\n{lines}}}\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    arguments = parsed()
    cases = gallery.gallery()
    gallery.run_all(cases, arguments.histories, arguments.workers)
    rows = score.load_rows(arguments.histories, arguments.half)
    chosen = score.tools()
    tool = arguments.tool or next(iter(chosen))
    if tool not in chosen:
        raise SystemExit(f"--tool must be one of {', '.join(chosen)}, received {tool!r}")
    if arguments.show:
        found = score.find(rows, arguments.histories, {tool: chosen[tool]})
        print("\n".join(score.misses(rows, found[tool], arguments.show)) or "no misses")
        return
    found = score.find(rows, arguments.histories, chosen)
    halves = HALVES if arguments.half == "both" else (arguments.half,)
    text = tables(rows, found, halves, tool)
    print(text)
    if arguments.calibrate:
        write_calibration(rows, found)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
