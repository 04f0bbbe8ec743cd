"""Backpropagation written out in float64 NumPy: what the tests expect.

It knows neither Keras, TensorFlow nor kgrad, and is meant to be checked by eye against a textbook:
h_l = f_l(h_{l-1} W_l + b_l), δ_l = ∂L/∂z_l, ∂L/∂W_l = h_{l-1}ᵀ δ_l, ∂L/∂b_l = Σ δ_l.
"""

from typing import NamedTuple

import numpy as np


def sigmoid(z):
    return np.exp(-np.logaddexp(0, -z))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# name → (f(z), the gradient by z from the gradient by h = f(z))
ACTIVATIONS = {
    "linear": (lambda z: z, lambda d, z, h: d),
    "relu": (lambda z: np.maximum(z, 0), lambda d, z, h: d * (z > 0)),
    "sigmoid": (sigmoid, lambda d, z, h: d * h * (1 - h)),
    "tanh": (np.tanh, lambda d, z, h: d * (1 - h**2)),
    # ∂h_i/∂z_j = h_i ([i = j] − h_j)
    "softmax": (softmax, lambda d, z, h: h * (d - (d * h).sum(axis=-1, keepdims=True))),
}


def mse(y, p):
    return np.mean((p - y) ** 2), 2 * (p - y) / p.size


def binary_crossentropy(y, p):
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    return loss, (p - y) / (p * (1 - p)) / p.size


def categorical_crossentropy(y, p):
    return -np.mean(np.sum(y * np.log(p), axis=-1)), -y / p / len(p)


def sparse_categorical_crossentropy(y, p):
    return categorical_crossentropy(np.eye(p.shape[-1])[np.ravel(y).astype(int)], p)


def product(y, p):
    """mean(y p): its gradient by p does not depend on p, so that no scale is out of reach."""
    return np.mean(y * p), y / p.size


# name → function of (targets, output) that returns the loss and its gradient by the output
LOSSES = {
    "mean_squared_error": mse,
    "binary_crossentropy": binary_crossentropy,
    "categorical_crossentropy": categorical_crossentropy,
    "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
    "product": product,
}


def backprop(weights, activations, X, y, loss, *, biased=True, l2=0.0):
    """Loss and gradients of dense layers, in the order of `weights`: [W1, b1, W2, b2, ...].

    Without biases `weights` is [W1, W2, ...]. `l2` adds l2 Σ W² for every kernel.
    """
    weights = [np.asarray(w, np.float64) for w in weights]
    kernels = weights[::2] if biased else weights
    biases = weights[1::2] if biased else [0.0] * len(kernels)
    h = [np.asarray(X, np.float64)]
    z = []
    for W, b, f in zip(kernels, biases, activations, strict=True):
        z.append(h[-1] @ W + b)
        h.append(ACTIVATIONS[f][0](z[-1]))
    value, d = LOSSES[loss](np.asarray(y, np.float64), h[-1])
    value += l2 * sum(np.sum(W**2) for W in kernels)
    gradients = []
    for i in reversed(range(len(kernels))):
        d = ACTIVATIONS[activations[i]][1](d, z[i], h[i + 1])
        of_layer = [h[i].T @ d + 2 * l2 * kernels[i]] + ([d.sum(axis=0)] if biased else [])
        gradients = of_layer + gradients
        d = d @ kernels[i].T
    return value, gradients


class Step(NamedTuple):
    epoch: int
    samples: int
    loss: float
    gradients: list  # by the weights before the step
    weights: list  # after the step


def sgd(weights, activations, X, y, loss, *, epochs, batch_size, rate, order=None, **options):
    """Plain gradient descent; `order` has one row of sample indices an epoch."""
    weights = [np.asarray(w, np.float64) for w in weights]
    steps = []
    for epoch in range(epochs):
        places = np.arange(len(X)) if order is None else order[epoch]
        for start in range(0, len(X), batch_size):
            batch = places[start : start + batch_size]
            value, gradients = backprop(weights, activations, X[batch], y[batch], loss, **options)
            weights = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
            steps.append(Step(epoch + 1, len(batch), value, gradients, weights))
    return steps


def statistics(steps):
    """Statistics of a sequence of steps, each of which is a list of gradients: (weights,) each."""
    of_weights = list(zip(*steps, strict=True))
    return {
        "mean_abs": np.array([np.mean([np.mean(abs(g)) for g in w]) for w in of_weights]),
        "l2_norm": np.array(
            [np.sqrt(np.mean([np.linalg.norm(g.ravel()) ** 2 for g in w])) for w in of_weights]
        ),
        "max_abs": np.array([max(abs(g).max() for g in w) for w in of_weights]),
        "zero_fraction": np.array([np.mean([np.mean(g == 0) for g in w]) for w in of_weights]),
        "nonfinite_steps": np.array(
            [sum(not np.isfinite(g).all() for g in w) for w in of_weights], float
        ),
    }


def as_layers(gradients):
    """[W1, b1, W2, b2, ...] → one vector a layer."""
    return [
        np.concatenate([W.ravel(), b.ravel()])
        for W, b in zip(gradients[::2], gradients[1::2], strict=True)
    ]


def norms(arrays):
    return np.array([np.linalg.norm(np.asarray(a, np.float64).ravel()) for a in arrays])
