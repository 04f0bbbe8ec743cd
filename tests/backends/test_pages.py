"""The loops in docs/backends.md run on their backend."""

import re
from pathlib import Path

import keras
import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
NAMES = {"jax": "JAX", "torch": "PyTorch"}


def test_the_loop_of_this_backend_runs():
    name = NAMES[keras.backend.backend()]
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"## A loop of your own on {name}\n")[1].split("\n## ")[0]
    names = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names)
    history = names["tracker"].history
    assert history.epochs.tolist() == [1, 2, 3]
    assert history.steps.tolist() == [8, 16, 24]
    assert np.isfinite(history["mean_abs"]).all() and (history["update_l2"] > 0).all()
