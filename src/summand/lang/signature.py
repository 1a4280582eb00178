"""Functions that users pass: that they are some, and names of their arguments for messages.

The leaf `params["w"]` of f(params, x) is `params['w']`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from summand.errors import ArgumentError
from summand.lang.describe import message, source_row
from summand.lang.location import here
from summand.lang.pytree import Structure, paths


def check_function(function: object, what: str) -> None:
    """Raise ArgumentError unless something can be called; `what` says who takes it."""
    if not callable(function):
        header = f"{what} takes a function, not {type(function).__name__}"
        raise ArgumentError(message(header, source_row(here()), "Pass a function or a lambda."))


def argument_names(function: Callable[..., object], tree: Structure, count: int) -> list[str]:
    """A name for each leaf of (args, kwargs)."""
    try:
        parameters = [p.name for p in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        parameters = []
    found = paths(tree)
    return [_name(path, parameters) for path in found] if len(found) == count else [""] * count


def _name(path: tuple[object, ...], parameters: list[str]) -> str:
    if len(path) < 2:
        return "argument"
    group, first, *rest = path
    if group == 0 and isinstance(first, int):
        name = parameters[first] if first < len(parameters) else f"argument {first}"
    else:
        name = str(first)
    return name + "".join(f"[{entry!r}]" for entry in rest)
