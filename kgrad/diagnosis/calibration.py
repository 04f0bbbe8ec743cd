"""How often a first finding named the fault; written by `python -m benchmarks.diagnosis`.

Counted on the half of the gallery on which the thresholds were chosen: rule → (runs with this first
finding that had the fault it names, all runs with this first finding).
"""

HISTORY_ALONE: dict[str, tuple[int, int]] = {}
WITH_DATA: dict[str, tuple[int, int]] = {}
