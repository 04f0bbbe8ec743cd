"""What was measured, as values and as files. Imports nothing of kgrad, no Keras and no backend."""
