"""Remedies that are tried: the same run again with one thing changed."""

from kgrad.remedies.trials import Trial, Trials
from kgrad.remedies.trying import try_remedies

__all__ = ["Trial", "Trials", "try_remedies"]
