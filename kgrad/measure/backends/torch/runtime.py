"""Torch's devices, Keras's step on torch, and the values of variables."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
import torch

from kgrad.measure.workers import Workers

# Exceptions by which a step of `fit` reports the end of the data: it gets a batch and raises none.
END_OF_DATA: tuple[type[BaseException], ...] = ()
# As Keras has it: `torch.compile` takes half a minute, and breaks the graph of Keras's calls.
STEPS_THAT_REPAY_COMPILING: float = math.inf


def version() -> str:
    """Return torch's version."""
    return str(torch.__version__)


def describe_device() -> dict[str, Any]:
    """Describe what the rounding of a run depends on: the device and the number of threads."""
    device = keras.ops.zeros(()).device
    return {
        "device": "CPU" if device.type == "cpu" else str(device),
        "threads": torch.get_num_threads(),
    }


def require_fit_strategy(model: keras.Model) -> None:
    """Refuse what `fit` supports and a tracker does not: nothing."""


def require_loop_strategy(model: keras.Model, optimizer: Any, loss: Any, **arguments: Any) -> None:
    """Refuse several processes, each of which would train on all data.

    Raises:
        ValueError: if this process belongs to a group of several.
    """
    processes = workers(model).count
    if processes > 1:
        raise ValueError(
            "train_and_track_gradients trains in one process on torch, received a group of "
            f"{processes}: use GradientTracker in a loop of your own"
        )


def workers(model: keras.Model) -> Workers:
    """Return the processes that train a model: several after `init_process_group`."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return Workers()
    return _Processes()


class _Processes(Workers):
    def __init__(self) -> None:
        super().__init__()
        self.count = torch.distributed.get_world_size()
        self.is_chief = torch.distributed.get_rank() == 0


def make_fit_step(
    model: keras.Model, make: Callable[..., None], carried: Callable[[], list[Any]]
) -> None:
    """Have `fit`'s step made anew.

    Args:
        model: a compiled model.
        make: its method `make_train_function`.
        carried: returns what the step folds into; not needed here.
    """
    make(force=True)


def step_logs(result: Any) -> Mapping[str, Any]:
    """Return the logs in the result of a model's `train_function`."""
    return result


def uncompiled(function: Callable) -> Callable:
    """Return a function that `torch.compile` leaves as it is, with all that it calls."""
    return torch.compiler.disable(function)


def xla_on_cpu(jit_compile: bool) -> bool:
    """Return whether XLA compiles a step for a CPU: never."""
    return False


def variable_scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Return the context in which to make arrays that a model's steps update."""
    return torch_state_kept(model)


@contextmanager
def torch_state_kept(model: keras.Model) -> Iterator[None]:
    """Put back, after this block, what a call of a model changes although Keras does not know it.

    It is the state of torch's own modules, such as one in a `TorchModuleWrapper`: their buffers,
    and torch's generator of random numbers. Even a symbolic call may change it: Keras then calls
    the model with numbers.
    """
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    # Not the model's own `buffers()`: torch knows no layers that a Keras model keeps in a list.
    layers: list[torch.nn.Module] = model._flatten_layers()  # on this backend
    found = {id(buffer): buffer for layer in layers for buffer in layer.buffers()}
    before = [(buffer, buffer.clone()) for buffer in found.values()]
    try:
        with torch.random.fork_rng(cuda):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def under_strategy() -> bool:
    """Return whether the code runs under a distribution strategy of TensorFlow: never."""
    return False


def outside_trace() -> AbstractContextManager[Any]:
    """Return a context in which values outlive the step in which they are made."""
    return nullcontext()


def have_values(variables: Sequence[keras.Variable]) -> bool:
    """Return whether all variables have values: a step of torch makes none without one."""
    return True


def weight_values(model: keras.Model, variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Return the values of a model's variables: for each a flat float32 array."""
    # Copied: on a CPU `numpy()` shares the tensor's memory, which the next step overwrites.
    return [
        variable._value.detach().to("cpu", torch.float32, copy=True).numpy().ravel()
        for variable in variables
    ]


def notice_assignment(
    model: keras.Model, variables: Sequence[keras.Variable]
) -> Callable[[], bool]:
    """Return a function that says whether variables were assigned: every update does."""
    return lambda: True


def as_array(tensor: Any) -> np.ndarray:
    """Return the values of a tensor, a variable or an array."""
    return np.array(keras.ops.convert_to_numpy(tensor))


def trained_variables(step: Any, variables: Sequence[keras.Variable]) -> None:
    """Return what a compiled step of `fit` trains; None, as a step trains what is trainable."""
    return None


def forget_traces(optimizer: keras.optimizers.Optimizer, totals: Any) -> None:
    """Have functions traced anew that make an optimizer's updates: none are traced."""
