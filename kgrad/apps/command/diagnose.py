"""`kgrad diagnose RUN…`: what is wrong with recorded runs, without Keras."""

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgrad.apps.command.main import Parser, require_existing

if TYPE_CHECKING:
    from kgrad.apps.run_groups import RunGroup
    from kgrad.diagnosis import Diagnosis

FORMAT, VERSION = "kgrad-diagnosis", 1


def main(arguments: Sequence[str], program: str) -> int:
    """Print the findings of recorded runs.

    Returns:
        0 if no run has a finding, 1 if one has, as a linter does; 2 if one cannot be diagnosed.
    """
    options = parse(arguments, program)
    require_existing(options.runs)
    from kgrad.apps.run_groups import RunGroup, diagnose_runs, group_histories, named_by_file
    from kgrad.records.history import load_runs

    files = load_runs(options.runs)
    groups = []
    for name, histories in group_histories(named_by_file(files)).items():
        diagnoses, reason = diagnose_runs(histories)
        groups.append(RunGroup(name, histories, diagnoses=diagnoses, no_diagnosis=reason))
    paths = {id(history): path for path, history in files.items()}
    if options.json:
        print(json.dumps(_to_json(groups, paths), indent=1, allow_nan=False))
    else:
        _print(groups, paths, options.verbose)
    if any(group.no_diagnosis for group in groups):
        return 2
    return 1 if any(group.findings() for group in groups) else 0


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog=program,
        description="Report what is wrong with recorded runs and what to change. Runs that differ "
        "in the seed alone are reported together, with one line per finding.",
        epilog="Exit status: 0 if nothing is wrong, 1 if something is, 2 for bad input.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="a .jsonl history or journal, or a folder of them",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--verbose", action="store_true",
        help="also print each run's evidence, explanations, remedies and notes",
    )  # fmt: skip
    how.add_argument(
        "--json", action="store_true",
        help="print everything as JSON, in the form that docs/diagnosis.md describes",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _print(groups: "Sequence[RunGroup]", paths: Mapping[int, Path], verbose: bool) -> None:
    """Print one line per finding, and the first remedy of the cause."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for group in groups:
        style = "bold" if group.findings() or group.no_diagnosis else "bold green"
        # As Text: brackets in a name are not markup.
        console.print(Text(f"{group.name} ({group.size}){_verdict(group)}", style=style))
        for line, style in _lines(group, console.width):
            cut = Text(line, style=style)
            cut.truncate(console.width, overflow="ellipsis")
            console.print(cut, soft_wrap=True)
        if verbose:
            for history, diagnosis in zip(group.histories, group.diagnoses, strict=False):
                if not (diagnosis or diagnosis.notes):
                    continue
                head = f"{paths[id(history)]}: {len(history)} records"
                console.print(Text(head, style="bold"), diagnosis.details, sep="\n")
    ill = sum(bool(group.findings()) for group in groups)
    if ill and not verbose:
        has = "has" if ill == 1 else "have"
        of = f"{ill} of {len(groups)} networks {has} findings; " if len(groups) > 1 else ""
        console.print(f"{of}--verbose shows evidence and all remedies.")


def _verdict(group: "RunGroup") -> str:
    """Return the end of the heading of a group without findings; of others it is empty."""
    if group.no_diagnosis:
        return f" cannot be diagnosed: {group.no_diagnosis}"
    if group.findings():
        return ""
    return f": no findings, but {group.missing}" if group.missing else ": nothing is wrong"


def _lines(group: "RunGroup", width: int) -> list[tuple[str, str]]:
    """Return lines with their styles: findings, the first remedy below the cause, and notes."""
    from kgrad.apps.findings import note_text, to_line

    lines = []
    for place, (finding, seeds, _) in enumerate(group.findings()):
        style = "red" if finding.severity == "critical" else "yellow"
        text = to_line(finding, seeds, len(group.histories), place=place)
        lines.append((f"  {text}", style))
        if not place:
            first, rest = "  → ", "    "
            remedy = textwrap.wrap(
                finding.remedies[0], width, initial_indent=first, subsequent_indent=rest
            )
            lines += [(line, "") for line in remedy]
    notes = [note_text(finding, run) for finding, _, run in group.notes()]
    if group.findings() and group.missing:
        notes.append(f"note: {group.missing}")
    for note in notes:
        wrapped = textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="    ")
        lines += [(line, "") for line in wrapped]
    return lines


def _to_json(groups: "Sequence[RunGroup]", paths: Mapping[int, Path]) -> Any:
    from kgrad.records.files import to_json

    runs = []
    for group in groups:
        for number, history in enumerate(group.histories):
            described = {
                "file": str(paths[id(history)]),
                "name": group.name,
                "seed": group.seeds[number],
                "records": len(history),
            }
            if group.no_diagnosis:
                runs.append(described | {"error": group.no_diagnosis})
            else:
                runs.append(described | _diagnosis_to_json(group.diagnoses[number]))
    return to_json({"format": FORMAT, "version": VERSION, "runs": runs})


def _diagnosis_to_json(diagnosis: "Diagnosis") -> dict[str, Any]:
    sure = diagnosis.confidence
    roles = {id(one): "also_wrong" for one in diagnosis.also_wrong}
    roles |= {id(one): "consequence" for one in diagnosis.consequences}
    return {
        "findings": [
            {"role": roles.get(id(finding), "cause"), **finding.to_dict()} for finding in diagnosis
        ],
        "notes": [note.to_dict() for note in diagnosis.notes],
        "missing": diagnosis.missing,
        "confidence": None if sure is None else sure._asdict(),
    }
