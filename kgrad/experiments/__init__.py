"""Experiments: data sets, models, training runs described as values, predictions, remedies."""

from typing import Any

import lazy_loader

from kgrad.records.requirements import saying_what_to_install

# __init__.pyi lists the names. Each is imported at its first use, as Keras takes seconds to import.
_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    with saying_what_to_install(f"kgrad.experiments.{name}"):
        return _attribute(name)
