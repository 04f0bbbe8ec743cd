"""From the gradient of a training step to a record: the tracker, the loop and what they share."""
