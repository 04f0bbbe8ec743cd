"""See, explain and predict the gradients of a Keras model while it trains."""
