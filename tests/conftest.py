import os
import shutil
from importlib.util import find_spec

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["MPLBACKEND"] = "Agg"
if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a worker of its own
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

# Each backend has tests of its own, in an environment that may have no other.
BACKENDS = ("jax", "tensorflow", "torch")
collect_ignore = [f"backends/test_{name}.py" for name in BACKENDS]

if find_spec("keras"):  # figures, histories and diagnoses are tested without Keras, too
    import keras

    collect_ignore.remove(f"backends/test_{keras.backend.backend()}.py")
    if keras.backend.backend() == "tensorflow":
        collect_ignore.append("backends/test_pages.py")  # its page is in test_documentation

    @pytest.fixture(autouse=True)
    def fresh_keras():
        """Every test starts as a new process would: layer names from 1, the same random state."""
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)


@pytest.fixture
def random():
    return np.random.default_rng(12345)


@pytest.fixture
def nothing_leaks():
    """Drawing a figure changes nothing else: settings stay, and pyplot knows no figure."""
    before = dict(matplotlib.rcParams)
    assert plt.get_fignums() == []
    yield
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("these tests need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
