"""Tests of remedies as changes of a configuration."""

from dataclasses import replace

import pytest

from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.remedies import cures
from kgrad.diagnosis import Finding, diagnose
from kgrad.experiments import Experiment, run_experiment
from kgrad.experiments.remedies.plans import CHANGES

ILL = Configuration(learning_rate=0.5, clip_norm=1.0)


def finding(*tries):
    return Finding("rule", "critical", (), 0, (), "", (), "", tries)


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        ("learning rate ×0.1", {"learning_rate": 0.05}),
        ("initializer", {"initializer": "xavier"}),
        ("activation relu, initializer he", {"activation": "relu", "initializer": "he"}),
        ("normalization batch", {"normalization": "batch"}),
        ("skip_connections", {"skip": True}),
        ("no clipping", {"clip_norm": None}),
        ("optimizer", {"optimizer": "adam", "learning_rate": 0.001}),
    ],
)
def test_a_remedy_changes_the_knobs_that_it_names(wanted, changes):
    assert [one.configuration for one in cures(finding(wanted), ILL)] == [replace(ILL, **changes)]


def test_what_the_run_has_already_and_what_no_knob_can_do_is_not_offered():
    assert cures(finding("clipping, norm 1", "inputs", "dropout"), ILL) == []
    every = cures(finding(*(change.name for change in CHANGES)), ILL)
    assert (
        len({one.configuration for one in every}) == len(every) == len({one.name for one in every})
    )


def test_remedies_of_a_vanishing_gradient_help():
    c = Configuration(layers=6, units=16, epochs=10)
    history = run_experiment(Experiment(**c.experiment()))
    found = {one.name: one.configuration for one in cures(diagnose(history)[0], c)}
    cured = run_experiment(Experiment(**found["activation relu, initial weights he"].experiment()))
    assert cured.logs["loss"][-1] < 0.8 * history.logs["loss"][-1]
