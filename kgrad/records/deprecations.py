"""Old spellings of arguments, accepted for one release with a `DeprecationWarning`."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any


def old_arguments(*positional: str, **renamed: str) -> Callable[[Callable], Callable]:
    """Make a function accept its arguments as kgrad 0.1 spelled them.

    Args:
        *positional: names of arguments that are keyword-only now, in the order in which they
            followed the positional ones.
        **renamed: old name of a keyword → its name now.

    Returns:
        A decorator.

    Example:
        >>> @old_arguments("title", layers="num_layers")
        ... def draw(history, *, title="", num_layers=1):
        ...     return title, num_layers
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     draw("history", "A run", layers=3)
        ('A run', 3)
        >>> [str(warning.message) for warning in caught]
        ["pass title='A run' as a keyword", 'layers is now called num_layers']
    """

    def decorate(function: Callable) -> Callable:
        kinds = [one.kind for one in inspect.signature(function).parameters.values()]
        count = sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            extra = dict(zip(positional, args[count:], strict=False))
            for name, value in extra.items():
                _warn(f"pass {name}={value!r:.60} as a keyword")
            for old in renamed.keys() & kwargs.keys():
                _warn(f"{old} is now called {renamed[old]}")
                kwargs[renamed[old]] = kwargs.pop(old)
            # More arguments than there ever were: Python refuses them.
            rest = args[count + len(extra) :]
            return function(*args[:count], *rest, **extra, **kwargs)

        return wrapper

    return decorate


def _warn(message: str) -> None:
    # The caller of the decorated function: above this one and the wrapper.
    warnings.warn(message, DeprecationWarning, stacklevel=3)
