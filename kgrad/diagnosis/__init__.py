"""Diagnosis of a recorded training run: findings with evidence, thresholds and remedies."""

from kgrad.diagnosis.diagnosing import RULES, Thresholds, diagnose
from kgrad.diagnosis.evidence import ModelFacts
from kgrad.diagnosis.findings import Diagnosis, Finding, Measurement

__all__ = [
    "RULES",
    "Diagnosis",
    "Finding",
    "Measurement",
    "ModelFacts",
    "Thresholds",
    "diagnose",
]
