"""Try remedies: train the same run again with one thing changed."""
