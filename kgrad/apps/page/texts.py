"""What the page says of a run in words, with what files say shown as it is."""

import re
import string
from collections.abc import Iterator

from kgrad.diagnosis import Finding, diagnose
from kgrad.records.history import GradientHistory
from kgrad.records.summary import summarize

_MARKS = re.compile(f"([{re.escape(string.punctuation)}])")


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in one line: a name in a file may be anything."""
    return _MARKS.sub(r"\\\1", " ".join(str(text).split()))


def observations(history: GradientHistory) -> Iterator[tuple[str, str]]:
    """What there is to see in a run, in plain words.

    Yields:
        (kind, Markdown), the kind being "error", "warning", "success" or "info".
    """
    try:
        findings = list(diagnose(history))
    except (KeyError, ValueError) as error:  # what the rules look at was not recorded
        yield "info", escaped(f"This run cannot be diagnosed: {error.args[0]}")
        return
    for finding in findings:
        yield "error" if finding.severity == "critical" else "warning", _said(finding)
    if not findings:
        yield "success", "Nothing is wrong with the gradients of this run."
    summary = _summary(history)
    if summary:
        yield "info", summary


def time_left(seconds: float | None) -> str:
    """Such as `about 12 s left`; nothing if it is not known."""
    if seconds is None or seconds < 0.5:
        return ""
    if seconds < 90:
        return f", about {seconds:.0f} s left"
    return f", about {seconds / 60:.0f} min left"


def _said(finding: Finding) -> str:
    """A finding: what, where, what it means, how it is known, what to do."""
    remedies = "\n".join(f"- {escaped(remedy)}" for remedy in finding.remedies)
    title = finding.rule.replace("_", " ").capitalize()
    return (
        f"**{escaped(title)}** · {escaped(finding.where())} · since epoch {finding.first_epoch}\n\n"
        f"{escaped(finding.explanation)}\n\n*{escaped(finding.evidence[0])}*\n\n"
        f"What to do:\n{remedies}"
    )


def _summary(history: GradientHistory) -> str:
    """The run's six numbers in a sentence or two."""
    if "loss" not in history.logs or "mean_abs" not in history.statistics:
        return ""
    n = summarize(history)
    decades = abs(n["decades_per_layer"])
    way = "smaller" if n["ratio"] < 1 else "larger"
    text = (
        f"The loss went from {n['loss_first']:.4g} to {n['loss_last']:.4g}. Before training the "
        f"mean gradient of the first hidden layer was {n['gradient_first']:.2g}, that of the last "
        f"{n['gradient_last']:.2g}"
    )
    if decades > 0.005:
        text += f": {way} by a factor of {10**decades:.3g} with every layer towards the input"
    return escaped(text + ".")
