"""Torch's gradients by intermediate tensors, and passes that leave a model as it was."""

from collections.abc import Callable
from typing import Any

import keras
import torch

from kgrad.measure.backends.torch.runtime import torch_state_kept


def intermediate_gradients(
    function: Callable[[Callable[[Any], Any]], tuple[Any, Any]],
) -> tuple[Any, list[Any]]:
    """Differentiate scalars by tensors that come up on the way to them.

    Args:
        function: takes a function `point`, which copies a tensor of floats, and returns (scalars,
            other tensors). The scalars are differentiated by every copy.

    Returns:
        The other tensors, and for each scalar the gradient by each copy in the order in which they
        were made, zeros if no path leads from the copy to the scalar.
    """
    points: list[torch.Tensor] = []

    def point(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        points.append(copy if copy.requires_grad else copy.requires_grad_())
        return copy

    with torch.enable_grad():
        scalars, others = function(point)
    rows = []
    for scalar in scalars:
        found: tuple[torch.Tensor | None, ...] = (None,) * len(points)
        if scalar.requires_grad:
            found = torch.autograd.grad(scalar, points, retain_graph=True, allow_unused=True)
        pairs = zip(points, found, strict=True)
        rows.append([torch.zeros_like(p) if g is None else g.to_dense() for p, g in pairs])
    detached = keras.tree.map_structure(
        lambda other: other.detach() if isinstance(other, torch.Tensor) else other, others
    )
    return detached, rows


def floats_of_this_trace() -> Callable[[Any], bool]:
    """Return a function that says whether something is a dense tensor of floats."""

    def is_one(tensor: Any) -> bool:
        dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        return dense and tensor.is_floating_point()

    return is_one


def compile_dry_run(
    model: keras.Model, function: Callable[..., Any], *data: Any
) -> Callable[[], Any]:
    """Make a function that calls a model and leaves the model as it was; nothing is compiled.

    Args:
        model: a built Keras model.
        function: takes the data as tensors and returns a structure of tensors.
        data: structures of arrays.

    Returns:
        A function without arguments. It runs with the variables as they are, and returns the
        structure with NumPy arrays.
    """
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, data)

    def run() -> Any:
        values = [(v, v.value.detach()) for v in model.variables]
        scope = keras.StatelessScope(values, collect_losses=True)
        with torch_state_kept(model), torch.no_grad(), scope:
            result = function(*tensors)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, result)

    run()  # nothing was traced: errors come now, not in the first run
    return run
