"""See, explain and predict the gradients of a Keras model while it trains."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kgrad._version import __version__

if TYPE_CHECKING:
    from kgrad.callback import GradientTracker
    from kgrad.data import Dataset, make_dataset
    from kgrad.diagnosis import Diagnosis, Finding, Thresholds, diagnose
    from kgrad.flow import (
        flow_graph,
        flow_graph_from_history,
        graph_from_json,
        graph_to_json,
    )
    from kgrad.history import GradientHistory, Weight
    from kgrad.models import create_model
    from kgrad.plots import (
        compare_gradients,
        plot_activations,
        plot_distributions,
        plot_flow_graph,
        plot_gradient_by_depth,
        plot_phase_diagram,
        plot_prediction,
        plot_remedies,
        plot_seed_spread,
        visualize_gradients,
    )
    from kgrad.prediction import (
        Prediction,
        Recommendation,
        predict_gradients,
        recommend_initializer,
    )
    from kgrad.remedies import Trial, Trials, try_remedies
    from kgrad.training import measure_gradients, train_and_track_gradients

__all__ = [
    "Dataset",
    "Diagnosis",
    "Finding",
    "GradientHistory",
    "GradientTracker",
    "Prediction",
    "Recommendation",
    "Thresholds",
    "Trial",
    "Trials",
    "Weight",
    "__version__",
    "compare_gradients",
    "create_model",
    "diagnose",
    "flow_graph",
    "flow_graph_from_history",
    "graph_from_json",
    "graph_to_json",
    "make_dataset",
    "measure_gradients",
    "plot_activations",
    "plot_distributions",
    "plot_flow_graph",
    "plot_gradient_by_depth",
    "plot_phase_diagram",
    "plot_prediction",
    "plot_remedies",
    "plot_seed_spread",
    "predict_gradients",
    "recommend_initializer",
    "train_and_track_gradients",
    "try_remedies",
    "visualize_gradients",
]

# Where each name is: TensorFlow takes seconds to import, and is not before a name needs it.
_HOMES = {
    "callback": ("GradientTracker",),
    "data": ("Dataset", "make_dataset"),
    "diagnosis": (
        "Diagnosis",
        "Finding",
        "Thresholds",
        "diagnose",
    ),
    "flow": (
        "flow_graph",
        "flow_graph_from_history",
        "graph_from_json",
        "graph_to_json",
    ),
    "history": ("GradientHistory", "Weight"),
    "models": ("create_model",),
    "plots": (
        "compare_gradients",
        "plot_activations",
        "plot_distributions",
        "plot_flow_graph",
        "plot_gradient_by_depth",
        "plot_phase_diagram",
        "plot_prediction",
        "plot_remedies",
        "plot_seed_spread",
        "visualize_gradients",
    ),
    "prediction": (
        "Prediction",
        "Recommendation",
        "predict_gradients",
        "recommend_initializer",
    ),
    "remedies": (
        "Trial",
        "Trials",
        "try_remedies",
    ),
    "training": ("measure_gradients", "train_and_track_gradients"),
}

if not TYPE_CHECKING:  # else every name that is not there would pass for one that is

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                value = getattr(import_module(f"kgrad.{home}"), name)
                globals()[name] = value
                return value
        if find_spec(f"kgrad.{name}") is not None:  # import kgrad; kgrad.theory
            return import_module(f"kgrad.{name}")
        raise AttributeError(f"module 'kgrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
