"""Experiments as values: their fields, grids, and the experiment that a history describes."""

import subprocess
import sys
from pathlib import Path

import pytest

from kgrad.experiments import Experiment, experiment_of, grid
from kgrad.records.history import GradientHistory, Weight


def test_experiments_are_described_without_heavy_libraries():
    code = (
        "import sys\n"
        "from kgrad.experiments.experiment import PRESETS, grid\n"
        "assert grid(PRESETS['healthy'][0], num_layers=[1, 2])\n"
        "heavy = {'numpy', 'pandas', 'keras', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_grid_holds_every_combination_named_by_what_varies():
    points = grid(
        Experiment(name="mine"), num_layers=[2, 5], skip_connections=[True, False], epochs=[3]
    )
    assert [(p.num_layers, p.skip_connections, p.epochs) for p in points] == [
        (2, True, 3), (2, False, 3), (5, True, 3), (5, False, 3),
    ]  # fmt: skip
    assert points[0].name == "mine, layers 2, skip on"
    assert len({p.name for p in points}) == 4
    with pytest.raises(ValueError, match=r"^an axis of grid must be among name, activ.*'depth'"):
        grid(Experiment(), depth=[1, 2])


def test_the_field_names_of_the_first_release_are_accepted_with_a_warning():
    with pytest.warns(DeprecationWarning) as warned:
        old = Experiment(layers=3, initializer="xavier", skip=True, jit=False)
    said = sorted(str(one.message) for one in warned)
    assert said == [
        "initializer is now called weight_initializer",
        "jit is now called jit_compile",
        "layers is now called num_layers",
        "skip is now called skip_connections",
    ]
    assert old == Experiment(
        num_layers=3, weight_initializer="xavier", skip_connections=True, jit_compile=False
    )
    with pytest.warns(DeprecationWarning, match="^layers is now called num_layers$"):
        assert old.layers == 3
    with pytest.warns(DeprecationWarning, match="^layers is now called num_layers$"):
        assert [one.num_layers for one in grid(old, layers=[1, 2])] == [1, 2]
    with pytest.raises(AttributeError, match="'Experiment' object has no attribute 'depth'"):
        _ = old.depth


def test_the_experiment_of_a_history_of_the_first_release():
    history = GradientHistory([Weight("d", "kernel", "d/kernel", (1,))], ["mean_abs"])
    history.metadata["experiment"] = {
        "name": "mine", "activation": "tanh", "initializer": "he", "layers": 3, "units": [4, 4, 4],
        "skip": True, "jit": "auto", "seed": 2,
    }  # fmt: skip
    assert experiment_of(history) == Experiment(
        name="mine",
        activation="tanh",
        weight_initializer="he",
        num_layers=3,
        units=(4, 4, 4),
        skip_connections=True,
        seed=2,
    )
