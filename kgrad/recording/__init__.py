"""From the gradients of compiled training steps to the records of a history."""
