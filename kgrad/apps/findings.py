"""Findings in words, for a terminal and for Markdown; the report's template shares `heading`."""

import re
import string
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from kgrad.diagnosis import Finding

_MARKS = re.compile(f"([{re.escape(string.punctuation)}])")


def heading(finding: "Finding", seeds: int = 1, runs: int = 1, *, place: int = 0) -> str:
    """Return a finding's role, rule, layers and first epoch in one line.

    Args:
        finding: the finding.
        seeds: the number of runs with this finding.
        runs: the number of runs, which differ in the seed alone; of a single run it is not said.
        place: its place among the findings, which begin with the most likely cause.
    """
    share = f", with {seeds} of {runs} seeds" if runs > 1 else ""
    role = "also wrong" if finding.independent else "may follow from it"
    role = role if place else "the cause, most likely"
    return (
        f"{role}: {spoken(finding)} in {finding.where()}, since epoch {finding.first_epoch}{share}"
    )


def to_line(finding: "Finding", seeds: int = 1, runs: int = 1, *, place: int = 0) -> str:
    """Return a finding as a line that says the most even if its end is cut off.

    Args:
        finding: as in `heading`.
        seeds: as in `heading`; said only if it is not all of them.
        runs: as in `heading`.
        place: as in `heading`.
    """
    share = f", {seeds} of {runs} seeds" if seeds < runs else ""
    role = "also wrong" if finding.independent else "may follow"
    role = role if place else "cause"
    return f"{role}: {spoken(finding)} since epoch {finding.first_epoch}{share}: {finding.where()}"


def to_text(
    finding: "Finding", seeds: int = 1, runs: int = 1, *, place: int = 0, run: str = ""
) -> str:
    """Return a finding as lines for a terminal.

    They are the heading and the first evidence, and unless it may follow from the cause, the
    explanation and the first remedy.

    Args:
        finding: the finding.
        seeds: as in `heading`.
        runs: as in `heading`.
        place: as in `heading`.
        run: the run that the evidence is of, in words; empty if it is the only one.
    """
    indented = textwrap.TextWrapper(98, initial_indent=" " * 4, subsequent_indent=" " * 4)
    evidence = f"{run}: {finding.evidence[0]}" if run else str(finding.evidence[0])
    lines = [heading(finding, seeds, runs, place=place), indented.fill(evidence)]
    if not place or finding.independent:
        lines += [indented.fill(finding.explanation), f"    → {finding.remedies[0]}"]
    return "\n".join(lines)


def note_text(note: "Finding", run: str = "") -> str:
    """Return a note as a sentence.

    Args:
        note: the note.
        run: as in `to_text`.
    """
    evidence = f"{run}: {note.evidence[0]}" if run else str(note.evidence[0])
    return f"note: {evidence} {note.explanation}"


def spoken(finding: "Finding") -> str:
    """Return the name of a finding's rule in words."""
    return finding.rule.replace("_", " ")


def first_findings(frame: "pd.DataFrame") -> "pd.Series[int]":
    """Return each first finding of a sweep's finished runs in words, with their number.

    Args:
        frame: rows of `Sweep.to_frame()`.
    """
    done = frame[frame["error"] == ""]
    findings = done.get("findings", done["error"])  # no column of them if all failed
    named = findings.replace("", "nothing is wrong").fillna("not diagnosed")
    return named.str.split(",").str[0].str.replace("_", " ").value_counts()


def consequences_to_markdown(findings: Sequence["Finding"]) -> str:
    """Return findings that may follow from the cause as Markdown, a line for each."""
    lines = [
        f"- {escape_markdown(spoken(finding))} in "
        f"{escape_markdown(finding.where())}: {escape_markdown(finding.evidence[0])}"
        for finding in findings
    ]
    return "\n".join(["**What may follow from it**\n", *lines])


def to_markdown(finding: "Finding", place: int = 0) -> str:
    """Return a finding as Markdown: heading, explanation, first evidence and all remedies."""
    title = heading(finding, place=place)
    remedies = "\n".join(f"- {escape_markdown(remedy)}" for remedy in finding.remedies)
    return (
        f"**{escape_markdown(title[0].upper() + title[1:])}**\n\n"
        f"{escape_markdown(finding.explanation)}\n\n"
        f"*{escape_markdown(finding.evidence[0])}*\n\n"
        f"What to do:\n{remedies}"
    )


def escape_markdown(text: object) -> str:
    """Return text that Markdown shows unchanged, in one line: names in a file may be anything."""
    return _MARKS.sub(r"\\\1", " ".join(str(text).split()))
