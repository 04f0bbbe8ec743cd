"""Tests of findings in words: one heading in every medium, and names that are not markup."""

from dataclasses import replace

import pytest

from kgrad.apps.findings import (
    consequences_to_markdown,
    escape_markdown,
    heading,
    to_line,
    to_markdown,
    to_text,
)
from kgrad.apps.report.html import render
from kgrad.diagnosis import diagnose
from kgrad.experiments import Experiment, run_experiment

EVIL = "<b>**x**![y](http://example.invalid)</b>"


@pytest.fixture(scope="module")
def finding():
    deep = Experiment(
        activation="sigmoid", weight_initializer="normal", samples=256, epochs=3, num_layers=6
    )
    return diagnose(run_experiment(deep))[0]


def test_all_media_name_the_rule_the_layers_and_the_epoch(finding):
    layers = "hidden_1 … hidden_3, 3 layers"
    finding = replace(finding, layers=("hidden_1", "hidden_2", "hidden_3"), first_epoch=2)
    assert heading(finding) == f"the cause, most likely: vanishing in {layers}, since epoch 2"
    assert heading(finding, place=1) == f"may follow from it: vanishing in {layers}, since epoch 2"
    text = to_text(finding, 2, 3)
    assert text.startswith(heading(finding) + ", with 2 of 3 seeds\n")
    assert to_text(finding, run="seed 7").splitlines()[1].startswith("    seed 7: hidden_1, epoch ")
    assert to_line(finding, 3, 3) == f"cause: vanishing since epoch 2: {layers}"
    line = to_line(finding, 2, 3, place=1)
    assert line == f"may follow: vanishing since epoch 2, 2 of 3 seeds: {layers}"
    own = replace(finding, independent=True)
    assert to_line(own, place=1).startswith("also wrong: vanishing since epoch 2: ")
    assert to_markdown(finding).startswith(f"**{escape_markdown('T' + heading(finding)[1:])}**\n")


def test_a_finding_comes_with_evidence_explanation_and_remedies(finding):
    words = " ".join(to_text(finding).split())
    for part in (str(finding.evidence[0]), finding.explanation, f"→ {finding.remedies[0]}"):
        assert " ".join(part.split()) in words
    markdown = to_markdown(finding)
    for part in (finding.evidence[0], finding.explanation, *finding.remedies):
        assert escape_markdown(part) in markdown
    assert max(map(len, to_text(finding).splitlines())) <= 98


def test_what_may_follow_is_a_line_with_its_evidence(finding):
    lines = to_text(finding, place=1).splitlines()
    assert lines == [heading(finding, place=1), f"    {finding.evidence[0]}"]
    markdown = consequences_to_markdown([finding, finding])
    assert markdown.count(escape_markdown(finding.evidence[0])) == 2
    assert finding.remedies[0] not in markdown


def test_names_of_layers_are_no_markup(finding):
    evil = replace(finding, layers=(EVIL,))
    assert EVIL not in to_markdown(evil)
    assert escape_markdown(EVIL) in to_markdown(evil)
    html = render("page.html", EVIL, [])
    assert EVIL not in html
