"""Counts of first findings that named the fault; written by `python -m benchmarks.diagnosis`.

Counted on the half of the gallery on which the thresholds were chosen: rule → (runs with this first
finding that had the fault it names, all runs with this first finding).
"""

HISTORY_ALONE: dict[str, tuple[int, int]] = {
    "always_clipped": (7, 7),
    "badly_scaled_weights": (21, 21),
    "dead_units": (1, 7),
    "exploding": (6, 12),
    "inputs_out_of_scale": (11, 16),
    "layer_out_of_line": (6, 7),
    "moving_too_far": (13, 15),
    "no_path_to_loss": (8, 8),
    "nonfinite": (11, 11),
    "not_improving": (0, 9),
    "not_moving": (11, 12),
    "saturated": (6, 14),
    "vanishing": (12, 19),
}
WITH_DATA: dict[str, tuple[int, int]] = {
    "always_clipped": (7, 7),
    "badly_scaled_weights": (23, 23),
    "dead_units": (6, 6),
    "exploding": (5, 5),
    "inputs_out_of_scale": (15, 15),
    "layer_out_of_line": (6, 7),
    "moving_too_far": (17, 18),
    "no_nonlinearity": (7, 7),
    "no_path_to_loss": (8, 8),
    "nonfinite": (4, 4),
    "not_moving": (11, 11),
    "output_loss_mismatch": (12, 12),
    "saturated": (6, 6),
    "targets_out_of_scale": (8, 8),
    "too_much_dropout": (8, 8),
    "too_strong_penalty": (5, 5),
    "unrelated_targets": (8, 8),
    "vanishing": (9, 9),
    "wrong_embedding_inputs": (8, 8),
}
