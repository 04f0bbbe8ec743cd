"""Remedies that are tried: the same run again with one thing changed."""

from typing import TYPE_CHECKING, Any

from kgrad.remedies.trials import Trial, Trials

if TYPE_CHECKING:
    from kgrad.remedies.trying import try_remedies

__all__ = ["Trial", "Trials", "try_remedies"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # What came of remedies is drawn without TensorFlow, with which they are tried.
        if name == "try_remedies":
            from kgrad.remedies.trying import try_remedies

            return try_remedies
        raise AttributeError(f"module 'kgrad.remedies' has no attribute {name!r}")
