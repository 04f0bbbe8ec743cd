"""Score the remedies: does the cause's advice bring an ill run to the skill of its healthy twin?

python -m benchmarks.diagnosis.remedies --histories FOLDER --output docs/remedies_score.md

Each ill run of the half "report" is diagnosed with its model and data. The first changes that the
findings name are tried for as many epochs as the run had, and their skills compared with that of
the healthy twin. Left out are runs whose weights were changed by hand, because a clone draws its
weights from the initializers, and families that `try_remedies` has no change for.
"""

import argparse
import json
import multiprocessing
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import kgrad
from benchmarks.diagnosis import gallery, score
from kgrad import GradientHistory
from kgrad.experiments.remedies.trying import _chosen

# As good as the twin: this share of its skill.
AS_GOOD = 0.9
MOST = 3
# Only other data or other code mends these.
WITHOUT_CHANGE = ("wrong_embedding_inputs", "no_path_to_loss")

HEADER = """\
# Scores of the remedies

Written by `python -m benchmarks.diagnosis.remedies`. Each ill run of the half "report" is
diagnosed, and the first three changes that its findings name are tried for as many epochs as the
run had. A remedy counts if the run then has at least 90 % of the skill of its healthy twin. Left
out are {by_hand} runs whose weights were changed by hand: `try_remedies` draws new ones. Left out
are also `wrong_embedding_inputs` and `no_path_to_loss`, which only other data or other code mend.
Nothing can mend shuffled labels (`unrelated_targets`).
"""


def tried(job: tuple[str, str]) -> dict[str, Any]:
    """Return the skills of an ill run, of its first remedies and of its healthy twin."""
    folder, name = job
    cases = {case.name: case for case in gallery.gallery()}
    case = cases[name]
    history = GradientHistory.load(Path(folder) / f"{name}.jsonl")
    task, model = gallery.build_task(case.recipe), gallery.build_model(case)
    row: dict[str, Any] = {"name": name, "family": case.family, "skills": [], "tried": []}
    row["rules"] = kgrad.diagnose(history, model, task.X, task.y).rules
    changes = _chosen(kgrad.diagnose(history, model, task.X, task.y))
    options = {"batch_size": case.recipe.batch_size, "seed": case.recipe.seed, "verbose": 0}
    options |= {"epochs": case.recipe.epochs, "seconds": 600}
    if case.twin is None:
        raise ValueError(f"case {name!r} must have a twin, received one without")
    twin = gallery.build_task(case.twin)
    healthy = kgrad.try_remedies(
        gallery._build(case.twin, twin), twin.X, twin.y, remedies=[], **options
    )
    row["twin"] = healthy[0].skill
    for change in changes:
        if len(row["tried"]) == MOST:
            break
        try:
            trials = kgrad.try_remedies(model, task.X, task.y, remedies=[change.name], **options)
        except Exception as error:  # the data cannot be trained on
            return row | {"error": f"{type(error).__name__}: {error}"[:200]}
        row["ill"] = trials[0].skill
        if len(trials) > 1:
            row["tried"].append(change.name)
            row["skills"].append(trials[1].skill)
    return row


def table(rows: list[dict[str, Any]], by_hand: int) -> str:
    """Return the scores as Markdown, by family."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in rows:
        enough = AS_GOOD * row["twin"]
        good = [skill >= enough for skill in row["skills"]]
        mendable = ["all but shuffled labels"] * (row["family"] != "unrelated_targets")
        for key in (row["family"], *mendable, "all"):
            found = counts[key]
            found[0] += 1
            found[1] += bool(good)
            found[2] += bool(good and good[0])
            found[3] += any(good)
    lines = [
        HEADER.format(by_hand=by_hand),
        "| family | ill runs | with a change to try | the first is as good as the twin | one of "
        "three is |",
        "|---|---|---|---|---|",
    ]
    last = ("all but shuffled labels", "all")
    for family in [*(key for key in counts if key not in last), *last]:
        runs, possible, first, one = counts[family]
        cells = [score.with_interval(part / runs, runs) for part in (first, one)]
        if family not in last:
            cells = [str(first), str(one)]
        lines.append(f"| {family} | {runs} | {possible} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).parent / "histories"
    parser.add_argument("--histories", type=Path, default=folder, help="folder of recorded runs")
    parser.add_argument("--half", default="report", help="half of the gallery")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--workers", type=int, default=2, help="number of training processes")
    arguments = parser.parse_args()
    recipes = {case.name: case.recipe for case in gallery.gallery()}
    ill = [
        row["name"]
        for row in score.load_rows(arguments.histories, arguments.half)
        if row["label"] == "ill" and row["family"] not in WITHOUT_CHANGE
    ]
    names = [name for name in ill if not recipes[name].changes]
    jobs = [(str(arguments.histories), name) for name in names]
    context = multiprocessing.get_context("spawn")
    rows = []
    with context.Pool(arguments.workers, gallery._one_thread, maxtasksperchild=20) as pool:
        for done, row in enumerate(pool.imap_unordered(tried, jobs), start=1):
            rows.append(row)
            print(f"\r{done}/{len(jobs)} {row['name']:70}", end="", file=sys.stderr, flush=True)
    (arguments.histories / "remedies.json").write_text(json.dumps(rows, indent=1), "utf-8")
    text = table(sorted(rows, key=lambda row: row["family"]), len(ill) - len(names))
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
