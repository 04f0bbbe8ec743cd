"""What a finding means, what to change, and where the rule comes from."""

from typing import NamedTuple


class Text(NamedTuple):
    """The words of a rule."""

    explanation: str
    remedies: tuple[str, ...]
    reference: str


TEXTS = {
    "nonfinite": Text(
        "A NaN or an infinity entered the gradients; every update since then spreads it through "
        "the weights.",
        (
            "lower the learning rate, ten times at first",
            "clip the gradients: optimizer with global_clipnorm=1",
            "look for NaN or very large numbers in the data, and for log or division in the loss",
        ),
        "Goodfellow, Bengio & Courville, Deep Learning (2016), section 10.11.1",
    ),
    "vanishing": Text(
        "The gradient shrinks on its way to these layers, or the signal on its way from them, to "
        "a small part of what a network of this shape needs; they hardly learn.",
        (
            "match initializer and activation: he with relu, lecun with selu, xavier with tanh",
            "replace sigmoid or tanh in hidden layers by relu, gelu or elu",
            "add skip connections or normalization",
        ),
        "Glorot & Bengio, Understanding the difficulty of training deep feedforward neural "
        "networks (2010); He et al., Delving deep into rectifiers (2015)",
    ),
    "exploding": Text(
        "The gradient, or the signal, grows from layer to layer far beyond what a network of this "
        "shape needs; a step of the optimizer overshoots.",
        (
            "use an initializer that keeps the variance: he with relu, xavier with tanh",
            "clip the gradients: optimizer with global_clipnorm=1",
            "add normalization, and lower the learning rate",
        ),
        "Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks (2013)",
    ),
    "dead_units": Text(
        "Units of these layers are 0 for every sample: no gradient passes them, and they do not "
        "come back.",
        (
            "lower the learning rate, or warm it up",
            "use leaky_relu, elu or gelu in place of relu",
            "start biases at 0 and weights with he",
        ),
        "Lu et al., Dying ReLU and initialization (2019)",
    ),
    "saturated": Text(
        "Most inputs of these activations lie where the function is flat: its slope, and with it "
        "the gradient, is nearly 0.",
        (
            "scale the inputs to mean 0 and variance 1",
            "use a smaller initialization: xavier for tanh and sigmoid",
            "add normalization before the activation, or use relu",
        ),
        "Glorot & Bengio, Understanding the difficulty of training deep feedforward neural "
        "networks (2010), section 3",
    ),
    "not_moving": Text(
        "The gradients are as they should be, but the updates are so small against the weights "
        "that training would take thousands of epochs.",
        (
            "raise the learning rate, ten times at first",
            "look at the schedule: it may have decayed the learning rate too early",
        ),
        "Karpathy, CS231n notes: ratio of updates to weights about 1e-3 a step",
    ),
    "moving_too_far": Text(
        "Each update changes the weights by so much that the next gradient knows nothing of the "
        "last: the loss jumps instead of falling.",
        (
            "lower the learning rate, ten times at first",
            "warm the learning rate up over the first epochs",
            "clip the gradients: optimizer with global_clipnorm=1",
        ),
        "Karpathy, CS231n notes: ratio of updates to weights about 1e-3 a step",
    ),
    "always_clipped": Text(
        "Clipping acts at nearly every step and leaves a small part of the gradient: the bound, "
        "not the gradient, sets the step.",
        (
            "raise the bound to a few times the usual gradient norm",
            "or take clipping away and lower the learning rate",
        ),
        "Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks "
        "(2013): the bound is half to ten times the average norm",
    ),
    "not_improving": Text(
        "The loss has not fallen since training began.",
        (
            "train on ten samples until they are learnt by heart; if that fails, look at data, "
            "labels and loss",
            "try learning rates ten times larger and ten times smaller",
        ),
        "Karpathy, A recipe for training neural networks (2019)",
    ),
    "layer_out_of_line": Text(
        "This layer's weights or gradients differ from those of its neighbours by orders of "
        "magnitude: one learning rate cannot fit both.",
        (
            "give the layer the initializer of its neighbours",
            "or scale its input, or put normalization before it",
        ),
        "Glorot & Bengio (2010): equal variances in all layers",
    ),
    "badly_scaled_weights": Text(
        "The weights start where signals can neither flow nor differ from unit to unit.",
        (
            "use he with relu, xavier with tanh and sigmoid, lecun with selu",
            "never start kernels at one constant: all units of a layer would stay equal",
        ),
        "He et al., Delving deep into rectifiers (2015), section 2.2",
    ),
    "output_loss_mismatch": Text(
        "The loss cannot be met by what the last layer can put out.",
        (
            "one unit: sigmoid with binary_crossentropy; several: softmax with "
            "categorical_crossentropy; numbers: linear with mean_squared_error",
            "or leave the output linear and pass from_logits=True to the loss",
        ),
        "Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2",
    ),
}
