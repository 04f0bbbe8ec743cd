import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["MPLBACKEND"] = "Agg"

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def fresh_keras():
    """Every test starts as a new process would: layer names from 1, the same random state."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def random():
    return np.random.default_rng(12345)
