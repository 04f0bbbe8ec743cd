"""The result of a diagnosis: findings, with evidence, affected layers and remedies."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from kgrad.records.listing import Listing

Severity = Literal["warning", "critical"]


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
        severity: "critical" if the training cannot succeed this way, otherwise "warning".
        layers: the affected layers, in forward order; empty for the whole model.
        first_epoch: the epoch from which the problem persists; 0 is before training.
        evidence: the measurements that show the problem, the most important one first.
        explanation: the meaning of the problem, in a sentence or two.
        remedies: possible changes, the most likely one first.
        reference: the literature on the problem.
    """

    rule: str
    severity: Severity
    layers: tuple[str, ...]
    first_epoch: int
    evidence: tuple[Measurement, ...]
    explanation: str
    remedies: tuple[str, ...]
    reference: str

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
        return fields | {"layers": list(self.layers), "remedies": list(self.remedies)}


class Diagnosis(Listing[Finding]):
    """The findings on a training run, the most severe first; empty for a healthy run.

    Prints as a table, in a terminal and in a notebook.

    Args:
        findings: the findings, in any order.
        missing: what could not be checked because data are missing; empty if nothing.
    """

    def __init__(self, findings: Iterable[Finding], missing: str = "") -> None:
        self.missing = missing
        order = {"critical": 0, "warning": 1}
        # Of two equally severe findings, the later one may be a consequence of the earlier one.
        super().__init__(
            sorted(findings, key=lambda finding: (order[finding.severity], finding.first_epoch))
        )

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

        if not self and self.missing:
            return Text(f"No findings, but {self.missing}.", style="yellow")
        if not self:
            return Text("No findings: the gradients look healthy.", style="green")
        caption = f"Note: {self.missing}." if self.missing else None
        table = Table(show_lines=True, expand=False, caption=caption, caption_justify="left")
        for column in ("finding", "layers", "evidence", "meaning and remedies"):
            table.add_column(column, overflow="fold")
        for finding in self:
            style = "bold red" if finding.severity == "critical" else "bold yellow"
            remedies = "\n".join(f"→ {remedy}" for remedy in finding.remedies)
            # As Text: names of layers must not be read as markup.
            table.add_row(
                Text(f"{finding.rule}\n({finding.severity})", style=style),
                Text(f"{finding.where()}\nsince epoch {finding.first_epoch}"),
                Text("\n".join(map(str, finding.evidence))),
                Text(f"{finding.explanation}\n{remedies}"),
            )
        return table

    def __repr__(self) -> str:
        return f"Diagnosis([{', '.join(map(str, self))}])"
