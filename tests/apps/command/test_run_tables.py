"""The printed table of `kgrad run`, on histories written by hand."""

import numpy as np
import pytest

from kgrad import GradientHistory, Weight
from kgrad.apps.command.run_tables import median_text, print_runs
from kgrad.apps.run_groups import RunGroup
from kgrad.experiments import Experiment


def made_run(loss):
    weights = [Weight(f"hidden_{k}", "kernel", f"hidden_{k}/kernel", (2, 2)) for k in (1, 2)]
    history = GradientHistory(weights, ["mean_abs"])
    history.append(0, 0, {"mean_abs": [0.25, 0.5]}, {"loss": 2.0})
    history.append(1, 9, {"mean_abs": [0.25, 0.5]}, {"loss": loss})
    return history


@pytest.mark.parametrize(
    ("losses", "cell"),
    [
        ([0.7, np.nan, 0.6], "2 → 0.65 (1 of 3 NaN)"),
        ([0.7, np.nan, np.nan], "2 → 0.7 (2 of 3 NaN)"),
        ([0.7, np.nan, np.inf], "2 → 0.7 (2 of 3 NaN or infinite)"),
        ([np.nan] * 3, "2 → nan"),
        ([0.7, 0.5, 0.6], "2 → 0.6"),
        ([0.7], "2 → 0.7"),
    ],
)
def test_the_median_is_of_the_seeds_that_stayed_finite(losses, cell, capsys):
    network = Experiment(activation="tanh", weight_initializer="normal:1")
    print_runs([RunGroup("mine", [made_run(loss) for loss in losses], experiment=network)])
    head, below, line = capsys.readouterr().out.splitlines()[1:]
    start = below.index("first →")
    assert line[start:].startswith(f"{cell}  ")
    assert line.split("  ")[0] == "mine"
    # Each number stands below its head.
    for name, value in (("first hidden", "0.25"), ("last hidden", "0.5"), ("ratio", "0.5")):
        end = below.index(name) + len(name)
        assert line[:end].split()[-1] == value
    assert len(head) == len(below) == len(line)


def test_the_table_names_activation_and_initializer_where_they_are_known(capsys):
    network = Experiment(activation="tanh", weight_initializer="normal:1")
    print_runs(
        [
            RunGroup("described", [made_run(1.0)], experiment=network),
            RunGroup("of others", [made_run(1.0)]),
        ]
    )
    head, below, *lines = capsys.readouterr().out.splitlines()[1:]
    start = head.index("activation,")
    assert below[start:].startswith("initializer")
    assert [line[start:].split("  ")[0] for line in lines] == ["tanh, normal:1", "–"]


def test_values_that_are_all_alike_are_their_own_median():
    assert median_text(np.array([np.inf, np.inf])) == "inf"
    assert median_text(np.array([-0.5, -0.5, np.inf]), "+.2f") == "-0.50 (1 of 3 infinite)"
