"""What the gradients of a run mean: findings with evidence, thresholds and remedies."""

from kgrad.diagnosis.diagnose import RULES, diagnose
from kgrad.diagnosis.findings import Diagnosis, Finding, Measurement
from kgrad.diagnosis.thresholds import Thresholds

__all__ = ["RULES", "Diagnosis", "Finding", "Measurement", "Thresholds", "diagnose"]
