"""Recorded runs are read, drawn and diagnosed without Keras; whatever needs it says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ROOT / "tests" / "records" / "data" / "run_of_0_1.jsonl"
ABSENT = ["keras", "tensorflow", "jax", "torch", "sklearn", "threadpoolctl", "streamlit"]
NEED_KERAS = {
    "GradientTracker",
    "Probe",
    "Recommendation",
    "create_model",
    "flow_graph",
    "measure_gradients",
    "predict_gradients",
    "recommend_initializer",
    "train_and_track_gradients",
    "try_remedies",
}
INSTALL = 'pip install -e ".[tensorflow]" (or ".[jax]", ".[torch]") in your checkout of kgrad'


# Not `sys.modules[name] = None`: SciPy takes what is there for the package.
BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def apart(code, *arguments, absent=ABSENT, **environment):
    """Run code in a process in which an import of the absent packages is an error."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(absent=absent) + code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"} | environment,
        capture_output=True,
        text=True,
    )


def kgrad(*arguments, **options):
    code = "from kgrad.apps.command.main import main; sys.exit(main())"
    return apart(code, *arguments, **options)


FLOORS = """
import importlib, pkgutil
import kgrad
from kgrad import diagnosis, figures, records, theory
for room in (diagnosis, figures, records, theory):
    for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
history = kgrad.GradientHistory.load(sys.argv[1])
assert kgrad.diagnose(history).rules == ("exploding", "dead_units", "nonfinite")
graph = kgrad.flow_graph_from_history(history)
for library in (kgrad, kgrad.interactive):
    library.plot_gradients(history)
    library.plot_flow_graph(graph)
    library.plot_distributions(history)
    library.plot_activations(history)
history.save(sys.argv[2])
kgrad.write_report([history], sys.argv[3])
assert len(kgrad.experiments.load_histories([sys.argv[2]])) == 1
"""


def test_a_history_is_read_drawn_diagnosed_and_reported_without_keras(tmp_path):
    copy, report = tmp_path / "copy.jsonl", tmp_path / "report.html"
    done = apart(FLOORS, RUN, copy, report)
    assert (done.returncode, done.stderr) == (0, "")
    assert copy.exists()
    assert "a prediction needs Keras with a backend: pip install" in report.read_text()


def test_the_program_draws_recorded_runs_without_keras(tmp_path):
    done = kgrad("run", "--load", RUN, "--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f": a prediction needs Keras with a backend: {INSTALL}\n" in done.stdout
    assert {"table.csv", "depth.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}


def test_the_program_that_trains_says_what_to_install(tmp_path):
    done = kgrad("run", "--output", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"kgrad run: training needs Keras with a backend: {INSTALL}\n"


def test_the_app_says_what_to_install():
    others = [name for name in ABSENT if name != "streamlit"]
    done = kgrad("app", absent=others)
    assert done.returncode == 2
    assert done.stderr == f"kgrad app: the app needs Keras with a backend: {INSTALL}\n"
    done = kgrad("app", absent=["jax"], KERAS_BACKEND="jax")
    assert done.returncode == 2
    assert "the app needs Keras's backend jax, which is not installed" in done.stderr


NAMES = """
import kgrad
for name in kgrad.__all__:
    try:
        getattr(kgrad, name)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_each_name_that_needs_keras_says_what_to_install():
    done = apart(NAMES)
    expected = [f"kgrad.{name} needs Keras with a backend: {INSTALL}" for name in NEED_KERAS]
    assert sorted(done.stdout.splitlines()) == sorted(expected)


def test_a_data_set_says_what_to_install():
    done = apart("import kgrad\nkgrad.make_dataset('moons')")
    last = done.stderr.splitlines()[-1]
    assert last == f"ModuleNotFoundError: make_dataset needs scikit-learn: {INSTALL}"


@pytest.mark.parametrize(
    ("backend", "others"),
    [
        ("tensorflow", '"jax" or "torch"'),
        ("jax", '"tensorflow" or "torch"'),
        ("torch", '"tensorflow" or "jax"'),
    ],
)
def test_a_backend_that_keras_is_set_to_but_is_missing_is_named(backend, others):
    code = "import kgrad\nkgrad.GradientTracker()"
    done = apart(code, absent=[backend], KERAS_BACKEND=backend)
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: kgrad.GradientTracker needs Keras's backend {backend}, which is not "
        f'installed: pip install -e ".[{backend}]" in your checkout of kgrad, or set the '
        f"environment variable KERAS_BACKEND to {others}"
    )


def test_another_missing_package_is_reported_as_it_is():
    done = apart("import kgrad\nkgrad.GradientTracker()", absent=["rich"])
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: No module named 'rich")
