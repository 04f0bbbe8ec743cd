"""What a diagnosis says: findings, each with its numbers, thresholds, layers and epoch."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, overload

import pandas as pd

Severity = Literal["warning", "critical"]


class Measurement(NamedTuple):
    """A number that a finding rests on, and what it was compared with.

    Attributes:
        quantity: what was measured, in words.
        value: the number.
        threshold: the number that it was compared with.
        layer: where; empty where it is about the whole model.
        epoch: when.
    """

    quantity: str
    value: float
    threshold: float
    layer: str
    epoch: int

    def __str__(self) -> str:
        where = f" in {self.layer}" if self.layer else ""
        said = f"{self.quantity}{where} at epoch {self.epoch}: {self.value:.3g}"
        if math.isnan(self.value) or not math.isfinite(self.threshold):
            return said
        return f"{said}, {'above' if self.value > self.threshold else 'below'} {self.threshold:.3g}"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a training run.

    Attributes:
        rule: name of the rule that found it; see `kgrad.diagnosis.RULES`.
        severity: "critical" where training cannot succeed like this, else "warning".
        layers: the layers concerned, in forward order.
        first_epoch: the epoch from which on it held; 0 is before training.
        evidence: the measurements that it rests on, the telling one first.
        explanation: what that means, in a sentence or two.
        remedies: what to change, the likeliest first.
        reference: where the rule comes from.
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
        """The layers in a few words."""
        if not self.layers:
            return "whole model"
        if len(self.layers) <= 2:
            return ", ".join(self.layers)
        return f"{self.layers[0]} … {self.layers[-1]}, {len(self.layers)} layers"

    def to_dict(self) -> dict[str, Any]:
        """The finding in JSON's types, but for numbers that are not finite."""
        fields = asdict(self)
        fields["evidence"] = [measurement._asdict() for measurement in self.evidence]
        return fields | {"layers": list(self.layers), "remedies": list(self.remedies)}


class Diagnosis(Sequence[Finding]):
    """The findings on a run, the gravest first; empty for a healthy one.

    Printed it is a table, in a terminal and in a notebook.

    Args:
        findings: what was found.
        missing: what could not be looked at for want of data, in a sentence; empty if nothing.
    """

    def __init__(self, findings: Iterable[Finding], missing: str = "") -> None:
        self.missing = missing
        order = {"critical": 0, "warning": 1}
        # Of two that are as grave the earlier one: the other may be its consequence.
        self._findings = tuple(
            sorted(findings, key=lambda finding: (order[finding.severity], finding.first_epoch))
        )

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that found something."""
        return tuple(finding.rule for finding in self)

    def to_dict(self) -> list[dict[str, Any]]:
        """The findings in JSON's types, but for numbers that are not finite."""
        return [finding.to_dict() for finding in self]

    def to_frame(self) -> pd.DataFrame:
        """One row a measurement.

        Returns:
            DataFrame with columns rule, severity, first_epoch, quantity, value, threshold, layer,
            epoch.
        """
        rows = [
            {"rule": f.rule, "severity": f.severity, "first_epoch": f.first_epoch, **m._asdict()}
            for f in self
            for m in f.evidence
        ]
        return pd.DataFrame(rows, columns=["rule", "severity", "first_epoch", *Measurement._fields])

    def __rich__(self) -> Any:
        """What rich prints."""
        from rich.table import Table
        from rich.text import Text

        if not self and self.missing:
            return Text(f"No findings, but {self.missing}.", style="yellow")
        if not self:
            return Text("No findings: the gradients look healthy.", style="green")
        caption = f"Note: {self.missing}." if self.missing else None
        table = Table(show_lines=True, expand=False, caption=caption, caption_justify="left")
        for column in ("finding", "where, since", "how we know", "what it means, what to do"):
            table.add_column(column, overflow="fold")
        for finding in self:
            style = "bold red" if finding.severity == "critical" else "bold yellow"
            todo = "\n".join(f"→ {remedy}" for remedy in finding.remedies)
            table.add_row(
                Text(f"{finding.rule}\n({finding.severity})", style=style),
                Text(f"{finding.where()}\nsince epoch {finding.first_epoch}"),
                Text("\n".join(map(str, finding.evidence))),
                Text(f"{finding.explanation}\n{todo}"),
            )
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=110, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()

    def __repr__(self) -> str:
        return f"Diagnosis([{', '.join(map(str, self))}])"
