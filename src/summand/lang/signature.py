"""Names of arguments for messages: the leaf `params["w"]` of f(params, x) is `params['w']`."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from summand.lang.pytree import Structure, paths


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
