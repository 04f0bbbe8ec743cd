"""Old spellings, accepted for one release with a `DeprecationWarning`."""

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from operator import attrgetter
from types import ModuleType
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
        ...     warnings.simplefilter("always")
        ...     draw("history", "A run", layers=3)
        ('A run', 3)
        >>> [str(warning.message) for warning in caught]
        ["pass title='A run' as a keyword", 'layers is now called num_layers']
    """

    def decorate(function: Callable) -> Callable:
        count = function.__code__.co_argcount  # without keyword-only arguments

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            extra = dict(zip(positional, args[count:], strict=False))
            for name, value in extra.items():
                _warn(f"pass {name}={value!r:.60} as a keyword")
            for old in renamed.keys() & kwargs.keys():
                _warn(f"{old} is now called {renamed[old]}")
                kwargs[renamed[old]] = kwargs.pop(old)
            # Python raises for arguments that never existed.
            rest = args[count + len(extra) :]
            return function(*args[:count], *rest, **extra, **kwargs)

        return wrapper

    return decorate


def old_third_argument(name: str) -> Callable[[Callable], Callable]:
    """Make a function accept an argument that was the third one, if it is the last one given.

    Args:
        name: the argument, which has another position now.

    Returns:
        A decorator. It leaves data sets alone, which were not accepted as this argument.

    Example:
        >>> @old_third_argument("y")
        ... def diagnose(history, model=None, X=None, y=None):
        ...     return X, y
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     diagnose("history", "model", [0, 1])
        (None, [0, 1])
        >>> [str(warning.message) for warning in caught]
        ['pass y as a keyword: the third argument is X now']
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if len(args) == 3 and name not in kwargs and not _has_batches(args[2]):
                _warn(f"pass {name} as a keyword: the third argument is X now")
                return function(*args[:2], **{name: args[2]}, **kwargs)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def _has_batches(value: Any) -> bool:
    pairs = isinstance(value, list) and value and isinstance(value[0], tuple)
    return value is None or pairs or not (hasattr(value, "shape") or isinstance(value, list | dict))


def _warn(message: str) -> None:
    # The caller of the function that calls this one; the import system does not count.
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def old_name(name: str, function: Callable) -> Callable:
    """Return a function under the name that it had in kgrad 0.1, with a `DeprecationWarning`."""
    _warn(f"{name} is now called {function.__name__}")
    return function


def deprecated_attribute(owner: Any, name: str, new_name: str) -> Any:
    """Return the attribute that an old name means; call it from `__getattr__`."""
    _warn(f"{name} is now called {new_name}")
    return getattr(owner, new_name)


class OldModules:
    """An importer of modules by the names that they had in kgrad 0.1, with a `DeprecationWarning`.

    Args:
        moved: old name of a module → (the module that has its names now, {old name of an
            attribute: its name now}), which may be a dotted path.
    """

    def __init__(self, moved: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
        self._moved = moved

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find an old module; Python calls this after its own finders found none."""
        if fullname not in self._moved:
            return None
        # Not a Loader by class: importlib.abc takes longer to import than all of kgrad.
        return ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Make a module that looks up each attribute in its new place."""
        home, renamed = self._moved[module.__name__]

        def attribute(name: str) -> Any:
            return attrgetter(renamed.get(name, name))(import_module(home))

        module.__dict__["__getattr__"] = attribute
        _warn(f"{module.__name__} is now {home}")
