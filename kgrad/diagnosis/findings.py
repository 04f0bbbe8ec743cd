"""The result of a diagnosis: findings, with evidence, affected layers and remedies."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from kgrad.records.history import GradientHistory
from kgrad.records.listing import Listing

Severity = Literal["note", "warning", "critical"]


class Measurement(NamedTuple):
    """A measured number that a finding is based on, with its threshold.

    Attributes:
        quantity: what was measured, in words.
        value: the measured number.
        threshold: the number it was compared with; infinite if there is none.
        layer: the layer in which it was measured; empty for the whole model.
        epoch: the epoch of the record.
        sentence: all of the above as one sentence.
    """

    quantity: str
    value: float
    threshold: float
    layer: str
    epoch: int
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Finding:
    """A problem of a training run.

    Attributes:
        rule: name of the rule that found it; see `kgrad.diagnosis.RULES`.
        severity: "critical" if the training cannot succeed this way, otherwise "warning"; "note" if
            the run trains well in spite of it.
        layers: the affected layers, in forward order; empty for the whole model.
        first_epoch: the epoch from which the problem persists; 0 is before training.
        evidence: the measurements that show the problem, the most important one first.
        explanation: the meaning of the problem, in a sentence or two.
        remedies: possible changes, the most likely one first.
        reference: the literature on the problem.
        tries: the changes with which `try_remedies` tries the remedies, in their order.
        independent: whether it lies in the model or the data themselves, so that it follows from no
            other finding.
        leads: whether its evidence is so strong that it is the cause, whatever else was found.
    """

    rule: str
    severity: Severity
    layers: tuple[str, ...]
    first_epoch: int
    evidence: tuple[Measurement, ...]
    explanation: str
    remedies: tuple[str, ...]
    reference: str
    tries: tuple[str, ...] = ()
    independent: bool = False
    leads: bool = False

    def __str__(self) -> str:
        return f"{self.rule} ({self.where()}, since epoch {self.first_epoch}): {self.evidence[0]}"

    def where(self) -> str:
        """Return the affected layers in a few words."""
        if not self.layers:
            return "whole model"
        if len(self.layers) <= 2:
            return ", ".join(self.layers)
        return f"{self.layers[0]} … {self.layers[-1]}, {len(self.layers)} layers"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding in JSON's types, except for numbers that are not finite."""
        fields = asdict(self)
        fields["evidence"] = [measurement._asdict() for measurement in self.evidence]
        return fields | {key: list(fields[key]) for key in ("layers", "remedies", "tries")}


class Confidence(NamedTuple):
    """Counts of first findings that were right, on the runs that the thresholds were chosen on.

    Attributes:
        right: runs of the gallery with this first finding that had the fault it names.
        runs: runs of the gallery with this first finding.
    """

    right: int
    runs: int

    @property
    def probability(self) -> float:
        """The probability that the finding is right, (right + 1) / (runs + 2), Laplace's rule."""
        return (self.right + 1) / (self.runs + 2)

    def __str__(self) -> str:
        return (
            f"{self.right} of {self.runs} runs with this first finding had this fault in kgrad's "
            "gallery of runs with known faults"
        )


class Diagnosis(Listing[Finding]):
    """The findings on a training run, causes before their consequences; empty for a healthy run.

    Prints in at most five lines, in a terminal and in a notebook; `details` prints everything.

    Attributes:
        missing: what could not be checked because data are missing; empty if nothing.
        notes: what does not fit, but does no visible harm in this run.
        confidence: how often such a cause was right on the gallery; None if too few of its runs
            are like this one, or there is no finding.
        history: the history that was diagnosed; None if there is none, before training.

    Args:
        findings: the findings, the most likely cause first.
        missing: what could not be checked because data are missing; empty if nothing.
        notes: what does not fit, but does no visible harm in this run.
        confidence: how often such a cause was right; None if it is unknown.
        history: the history that was diagnosed, for the picture in a notebook.
    """

    def __init__(
        self,
        findings: Iterable[Finding],
        missing: str = "",
        notes: Iterable[Finding] = (),
        confidence: Confidence | None = None,
        history: GradientHistory | None = None,
    ) -> None:
        self.missing, self.notes, self.confidence = missing, tuple(notes), confidence
        self.history = history
        super().__init__(findings)

    @property
    def cause(self) -> Finding | None:
        """The first finding: the cause, most likely; None for a healthy run."""
        return self[0] if self else None

    @property
    def also_wrong(self) -> tuple[Finding, ...]:
        """Other findings about the model or the data themselves, which follow from no other."""
        return tuple(finding for finding in self[1:] if finding.independent)

    @property
    def consequences(self) -> tuple[Finding, ...]:
        """The findings that may follow from the cause."""
        return tuple(finding for finding in self[1:] if not finding.independent)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that found a problem."""
        return tuple(finding.rule for finding in self)

    @property
    def details(self) -> "Details":
        """All findings with all evidence, explanations and remedies; prints as a table."""
        return Details(self)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the findings in JSON's types, except for numbers that are not finite."""
        return [finding.to_dict() for finding in self]

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per measurement.

        Returns:
            DataFrame with columns rule, severity, first_epoch, quantity, value, threshold, layer,
            epoch.
        """
        columns = ["quantity", "value", "threshold", "layer", "epoch"]
        rows = [
            {"rule": f.rule, "severity": f.severity, "first_epoch": f.first_epoch, **m._asdict()}
            for f in self
            for m in f.evidence
        ]
        return pd.DataFrame(rows, columns=["rule", "severity", "first_epoch", *columns])

    def __rich__(self) -> Any:
        """Return the lines that rich prints."""
        from rich.text import Text

        cause = self.cause
        if cause is None:
            return self._without_findings()
        sure = f" ({self.confidence})" if self.confidence else ""
        severe = cause.severity == "critical"
        # As Text: names of layers must not be read as markup.
        lines = [
            Text(
                f"The cause, most likely: {cause.rule} in {cause.where()}, since epoch "
                f"{cause.first_epoch}{sure}.",
                style="bold red" if severe else "bold yellow",
            ),
            Text(f"{cause.evidence[0]}"),
            Text(f"→ {cause.remedies[0]}", style="bold"),
        ]
        others = [
            f"{role}: {'; '.join(f'{one.rule} in {one.where()}' for one in found)}."
            for role, found in (
                ("Also wrong", self.also_wrong),
                ("May follow from it", self.consequences),
            )
            if found
        ]
        lines += [Text(" ".join(others))] if others else []
        more = [f"{len(self.notes)} note{'s' * (len(self.notes) > 1)}"] if self.notes else []
        more += [self.missing] if self.missing else []
        lines.append(Text("; ".join([*more, "print(diagnosis.details) shows everything."])))
        return Text("\n").join(lines)

    def _without_findings(self) -> Any:
        from rich.text import Text

        healthy = "No findings: the gradients look healthy."
        first = f"No findings, but {self.missing}." if self.missing else healthy
        notes = [f"Note: {note.evidence[0]} {note.explanation}" for note in self.notes]
        return Text("\n".join([first, *notes]), style="yellow" if self.missing else "green")

    def __repr__(self) -> str:
        return f"Diagnosis([{', '.join(map(str, self))}])"


class Details(Listing[Finding]):
    """All findings of a diagnosis, with everything that is known about them; prints as a table.

    Args:
        diagnosis: the diagnosis.
    """

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis)
        self._diagnosis = diagnosis

    def __rich__(self) -> Any:
        """Return the table that rich prints."""
        from rich.table import Table
        from rich.text import Text

        diagnosis = self._diagnosis
        if not diagnosis:
            return diagnosis
        notes = [f"Note: {note.evidence[0]} {note.explanation}" for note in diagnosis.notes]
        notes += [f"Note: {diagnosis.missing}."] if diagnosis.missing else []
        caption = Text("\n".join(notes)) if notes else None
        table = Table(show_lines=True, expand=False, caption=caption, caption_justify="left")
        for column in ("finding", "layers", "evidence", "meaning and remedies"):
            table.add_column(column, overflow="fold")
        for place, finding in enumerate(self):
            style = "bold red" if finding.severity == "critical" else "bold yellow"
            remedies = "\n".join(f"→ {remedy}" for remedy in finding.remedies)
            role = "also wrong" if finding.independent else "may follow from it"
            if place == 0:
                role = "the cause, most likely"
                role += f": {diagnosis.confidence}" if diagnosis.confidence else ""
            elif not finding.independent:
                remedies = "If it follows from the cause, it ends with it."
            table.add_row(
                Text(f"{finding.rule}\n({finding.severity})\n{role}", style=style),
                Text(f"{finding.where()}\nsince epoch {finding.first_epoch}"),
                Text("\n".join(map(str, finding.evidence))),
                Text(f"{finding.explanation}\n{remedies}"),
            )
        return table
