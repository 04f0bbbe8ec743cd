"""Findings in words, for a terminal and for Markdown; the report's template shares `heading`."""

import re
import string
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kgrad.diagnosis import Finding

_MARKS = re.compile(f"([{re.escape(string.punctuation)}])")


def heading(finding: "Finding", seeds: int = 1, runs: int = 1) -> str:
    """Return a finding's rule, layers and first epoch in one line.

    Args:
        finding: the finding.
        seeds: the number of runs with this finding.
        runs: the number of runs, which differ in the seed alone; of a single run it is not said.
    """
    share = f", with {seeds} of {runs} seeds" if runs > 1 else ""
    rule = finding.rule.replace("_", " ")
    return f"{rule} in {finding.where()}, since epoch {finding.first_epoch}{share}"


def to_text(finding: "Finding", seeds: int = 1, runs: int = 1) -> str:
    """Return a finding as lines for a terminal: heading, first evidence, explanation, first remedy.

    Args:
        finding: the finding.
        seeds: as in `heading`.
        runs: as in `heading`.
    """
    indented = textwrap.TextWrapper(98, initial_indent=" " * 4, subsequent_indent=" " * 4)
    return "\n".join(
        [
            heading(finding, seeds, runs),
            indented.fill(str(finding.evidence[0])),
            indented.fill(finding.explanation),
            f"    → {finding.remedies[0]}",
        ]
    )


def to_markdown(finding: "Finding") -> str:
    """Return a finding as Markdown: heading, explanation, first evidence and all remedies."""
    title = heading(finding)
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
