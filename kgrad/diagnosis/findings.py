"""The result of a diagnosis: findings, with evidence, affected layers and remedies."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

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


class Diagnosis(Listing[Finding]):
    """The findings on a training run, causes before their consequences; empty for a healthy run.

    Prints as a table, in a terminal and in a notebook.

    Attributes:
        missing: what could not be checked because data are missing; empty if nothing.
        notes: what does not fit, but does no visible harm in this run.

    Args:
        findings: the findings, the most likely cause first.
        missing: what could not be checked because data are missing; empty if nothing.
        notes: what does not fit, but does no visible harm in this run.
    """

    def __init__(
        self, findings: Iterable[Finding], missing: str = "", notes: Iterable[Finding] = ()
    ) -> None:
        self.missing, self.notes = missing, tuple(notes)
        super().__init__(findings)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that found a problem."""
        return tuple(finding.rule for finding in self)

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
        """Return the table that rich prints."""
        from rich.table import Table
        from rich.text import Text

        notes = [f"Note: {note.evidence[0]} {note.explanation}" for note in self.notes]
        if not self and self.missing:
            return Text("\n".join([f"No findings, but {self.missing}.", *notes]), style="yellow")
        if not self:
            healthy = "No findings: the gradients look healthy."
            return Text("\n".join([healthy, *notes]), style="green")
        notes += [f"Note: {self.missing}."] if self.missing else []
        caption = Text("\n".join(notes)) if notes else None
        table = Table(show_lines=True, expand=False, caption=caption, caption_justify="left")
        for column in ("finding", "layers", "evidence", "meaning and remedies"):
            table.add_column(column, overflow="fold")
        for place, finding in enumerate(self):
            style = "bold red" if finding.severity == "critical" else "bold yellow"
            remedies = "\n".join(f"→ {remedy}" for remedy in finding.remedies)
            role = "the cause, most likely" if place == 0 else "may follow from it"
            role = f"\n{role}" if len(self) > 1 else ""
            # As Text: names of layers must not be read as markup.
            table.add_row(
                Text(f"{finding.rule}\n({finding.severity}){role}", style=style),
                Text(f"{finding.where()}\nsince epoch {finding.first_epoch}"),
                Text("\n".join(map(str, finding.evidence))),
                Text(f"{finding.explanation}\n{remedies}"),
            )
        return table

    def __repr__(self) -> str:
        return f"Diagnosis([{', '.join(map(str, self))}])"
