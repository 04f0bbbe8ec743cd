"""Diagnosis of a recorded training run: findings with evidence, thresholds and remedies."""

from kgrad.diagnosis.diagnosing import RULES, Thresholds, diagnose
from kgrad.diagnosis.evidence import Data, Head, ModelFacts
from kgrad.diagnosis.findings import Confidence, Diagnosis, Finding, Measurement

__all__ = [
    "RULES",
    "Confidence",
    "Data",
    "Diagnosis",
    "Finding",
    "Head",
    "Measurement",
    "ModelFacts",
    "Thresholds",
    "diagnose",
]
