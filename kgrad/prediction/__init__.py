"""Theory applied to a Keras model: its gradients before the first step, and its initializers."""

from kgrad.predicted import Prediction
from kgrad.prediction.initializers import Recommendation, recommend_initializer
from kgrad.prediction.predict import predict_gradients

__all__ = ["Prediction", "Recommendation", "predict_gradients", "recommend_initializer"]
