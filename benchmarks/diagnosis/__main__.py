"""Train the gallery where it is not on disk yet, and score kgrad's and the published rules on it.

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

HEADER = """\
# Scores on the gallery of training runs

Written by `python -m benchmarks.diagnosis`. {ill} ill and {healthy} healthy runs, trained on a CPU;
kgrad's thresholds were chosen on the half "choose". A run counts as ill by what was done to it, if
it then gains less than half of what its healthy twin gains over the best constant prediction;
{harmless} that were meant to be ill but train well are left out, and {unclear} of unclear health.
The published rules have their authors' thresholds, on kgrad's measurements; where a history lacks
what a rule needs, the rule is silent.
"""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).parent / "histories"
    parser.add_argument("--histories", type=Path, default=folder, help="folder of the runs")
    parser.add_argument("--half", choices=(*HALVES, "both"), default="both")
    parser.add_argument("--output", type=Path, help="file for the tables, beside the terminal")
    parser.add_argument("--show", choices=(*FAMILIES, "healthy"), help="list the misses of these")
    parser.add_argument("--tool", help="whose misses and confusion (default: the first)")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    return parser.parse_args()


def tables(rows: Sequence[dict[str, Any]], found: Any, halves: Sequence[str], tool: str) -> str:
    """Everything, as Markdown."""
    labels = Counter(row["label"] for row in rows)
    counts = {label: labels[label] for label in ("ill", "healthy", "harmless", "unclear")}
    parts = [HEADER.format(**counts)]
    for half in halves:
        members = [row for row in rows if row["half"] == half]
        sizes = Counter(row["label"] for row in members)
        parts.append(f"## Half: {half} ({sizes['ill']} ill, {sizes['healthy']} healthy)\n")
        parts.append(score.overview(members, found) + "\n")
        parts.append("Runs in which an accepted family is named:\n")
        parts.append(score.by_family(members, found) + "\n")
        parts.append(f"What {tool} names, in how many runs of each family:\n")
        parts.append(score.confusion_table(members, found[tool]) + "\n")
    return "\n".join(parts)


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
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
