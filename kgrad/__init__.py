"""See, explain and predict the gradients of a Keras model while it trains.

Quick start, with any compiled Keras model::

    import kgrad

    tracker = kgrad.GradientTracker()
    model.fit(X, y, epochs=20, callbacks=[tracker])
    kgrad.visualize_gradients(tracker.history, "My model").savefig("gradients.png")
    print(kgrad.diagnose(tracker.history, model, X, y))

Train: `create_model`, `make_dataset`, `train_and_track_gradients`, `experiments`.
Record: `GradientTracker`, `measure_gradients`, `Probe`; both return or hold a `GradientHistory`.
Draw: `visualize_gradients`, `plot_…`, the same interactive in `interactive`, `write_report`.
Understand: `diagnose`, `try_remedies`, `predict_gradients`, `recommend_initializer`, `theory`.

Histories are read, drawn and diagnosed without Keras. Training, recording and predicting need Keras
with a backend, the extra `tensorflow`, `jax` or `torch`: `docs/install.md` has the commands.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lazy_loader

from kgrad.records.deprecations import OldModules, old_name
from kgrad.records.notebook import shown_by
from kgrad.records.requirements import saying_what_to_install

# Keras takes seconds to import: a name's module is imported when the name is first used.
# __init__.pyi lists the names and their modules; type checkers read it, too.
_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Old spellings, accepted until 0.3: old module → (the module that has its names now,
# {old name: its name now}).
_OLD_MODULES: dict[str, tuple[str, dict[str, str]]] = {
    "kgrad.callback": ("kgrad.measure.tracker", {}),
    "kgrad.data": ("kgrad.experiments.data", {}),
    "kgrad.distributions": ("kgrad.records.distributions", {}),
    "kgrad.flow": ("kgrad", {}),
    "kgrad.history": ("kgrad.records.history", {}),
    "kgrad.models": ("kgrad.experiments.models", {}),
    "kgrad.plots": ("kgrad", {}),
    "kgrad.prediction": ("kgrad", {}),
    "kgrad.probe": ("kgrad.measure.probe", {}),
    "kgrad.remedies": ("kgrad", {}),
    "kgrad.statistics": ("kgrad.records.statistics", {}),
    "kgrad.summary": ("kgrad.records.summary", {}),
    "kgrad.training": ("kgrad.measure.loop", {}),
    "kgrad.web": (
        "kgrad",
        {
            "comparison": "interactive.plot_heatmap",
            "depth_profile": "interactive.plot_gradient_by_depth",
            "distributions": "interactive.plot_distributions",
            "flow": "interactive.plot_flow_graph",
            "heatmap": "interactive.plot_heatmap",
            "lines": "interactive.plot_lines",
        },
    ),
}
_OLD_NAMES = {"compare_gradients": "plot_gradients"}
sys.meta_path.append(OldModules(_OLD_MODULES))


def _html(result: Any) -> str:
    from kgrad.apps.notebook import html  # draws, so it imports matplotlib

    return html(result)


shown_by(_html)


def __getattr__(name: str) -> Any:
    if name in __all__:
        with saying_what_to_install(f"kgrad.{name}"):
            return _attribute(name)
    if name in _OLD_NAMES:
        return old_name(f"kgrad.{name}", _attribute(_OLD_NAMES[name]))
    if find_spec(f"kgrad.{name}") is not None:  # import kgrad; kgrad.records
        return import_module(f"kgrad.{name}")
    raise AttributeError(f"module 'kgrad' has no attribute {name!r}")
