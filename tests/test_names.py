"""The names of the package: what `dir` and `help` show, and old spellings with a warning."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import kgrad

ROOT = Path(__file__).parents[1]
STUB = Path(kgrad.__file__).with_suffix(".pyi").read_text(encoding="utf-8")


def homes():
    """Each name of the stub and the module that it is imported from."""
    imports = [node for node in ast.parse(STUB).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in imports for alias in node.names}


def test_every_name_of_the_stub_is_there_and_dir_lists_nothing_else():
    assert set(dir(kgrad)) == set(kgrad.__all__) == set(homes())
    for name, home in homes().items():
        module = importlib.import_module(f"kgrad.{home}" if home else f"kgrad.{name}")
        assert getattr(kgrad, name) is (getattr(module, name) if home else module)


def test_help_opens_with_a_quick_start():
    first, *rest = kgrad.__doc__.splitlines()
    assert first == "See, explain and predict the gradients of a Keras model while it trains."
    assert "Quick start" in rest[1]


def test_the_package_says_that_it_is_typed():
    assert (Path(kgrad.__file__).parent / "py.typed").exists()


def require_to_run(code):
    """Run code in a process of its own, which has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_cheap_and_finds_its_rooms():
    code = (
        "import sys, kgrad\n"
        "assert not {'numpy', 'tensorflow'} & set(sys.modules)\n"
        "assert kgrad.theory.__name__ == 'kgrad.theory'\n"
        "assert kgrad.records.__name__ == 'kgrad.records'\n"
        "assert callable(kgrad.flow_graph)\n"
        "import kgrad.records.flow_graph\n"
        "assert callable(kgrad.flow_graph)\n"
        "assert not hasattr(kgrad, 'grdaients')\n"
    )
    require_to_run(code)


def test_the_interactive_figures_are_imported_as_a_module_too():
    code = (
        "import sys, kgrad\n"
        "import kgrad.interactive as it\n"
        "from kgrad.interactive import plot_gradients\n"
        "assert it is kgrad.interactive is sys.modules['kgrad.figures.interactive']\n"
        "assert plot_gradients is it.plot_gradients is kgrad.interactive.plot_gradients\n"
        "assert 'keras' not in sys.modules\n"
    )
    require_to_run(code)


@pytest.mark.parametrize(
    ("old", "name", "now"),
    [
        ("kgrad.callback", "GradientTracker", kgrad.GradientTracker),
        ("kgrad.data", "make_dataset", kgrad.make_dataset),
        ("kgrad.distributions", "LOG10_EDGES", None),
        ("kgrad.flow", "flow_graph", kgrad.flow_graph),
        ("kgrad.history", "GradientHistory", kgrad.GradientHistory),
        ("kgrad.models", "create_model", kgrad.create_model),
        ("kgrad.plots", "plot_prediction", kgrad.plot_prediction),
        ("kgrad.prediction", "predict_gradients", kgrad.predict_gradients),
        ("kgrad.probe", "Probe", kgrad.Probe),
        ("kgrad.remedies", "try_remedies", kgrad.try_remedies),
        ("kgrad.statistics", "select", None),
        ("kgrad.summary", "summarize", None),
        ("kgrad.training", "measure_gradients", kgrad.measure_gradients),
        ("kgrad.web", "write_report", kgrad.write_report),
        ("kgrad.web", "write_flow_graph", kgrad.write_flow_graph),
        ("kgrad.web", "heatmap", kgrad.interactive.plot_heatmap),
        ("kgrad.web", "lines", kgrad.interactive.plot_lines),
        ("kgrad.web", "comparison", kgrad.interactive.plot_heatmap),
        ("kgrad.web", "depth_profile", kgrad.interactive.plot_gradient_by_depth),
        ("kgrad.web", "distributions", kgrad.interactive.plot_distributions),
        ("kgrad.web", "flow", kgrad.interactive.plot_flow_graph),
    ],
)
def test_modules_of_the_first_release_are_imported_with_a_warning(old, name, now):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=rf"^{old} is now kgrad") as warned:
        module = importlib.import_module(old)
    assert len(warned) == 1
    found = getattr(module, name)
    assert found is not None
    assert now is None or found is now
    with pytest.raises(AttributeError):
        _ = module.no_such_name
    sys.modules.pop(old)


def test_a_function_of_the_first_release_warns_and_takes_its_arguments_by_position():
    weight = kgrad.Weight("dense", "kernel", "dense/kernel", (2, 3))
    history = kgrad.GradientHistory([weight], ["mean_abs"])
    for epoch in range(3):
        history.append(epoch, epoch, {"mean_abs": [0.5]})
    with pytest.warns(DeprecationWarning, match="^kgrad.compare_gradients is now called plot_gr"):
        compare = kgrad.compare_gradients
    with pytest.warns(DeprecationWarning, match="^pass title='Both' as a keyword$"):
        figure = compare({"a": history, "b": history}, "Both")
    assert figure.get_suptitle() == "Both"
    assert "compare_gradients" not in dir(kgrad)
