"""Functions from outside the language, registered by name, that a `call` equation runs.

    register(Foreign("solve", run=..., types=...))     Call("solve", (a, b))

The registry is the one piece of global state of the tensor IR; no entry is replaced in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from summand.errors import ArgumentError, InternalError
from summand.ir.named import Named
from summand.ir.nodes import Program, Type

Rule = Callable[[Sequence[Type]], tuple[Type, ...]]


@dataclass(frozen=True, slots=True)
class Foreign:
    """`run` computes on named arrays; `types` gives the results' types from the arguments'.

    `vjp` gives, for the arguments' types, a program from arguments and the results' cotangents to
    the arguments' cotangents (it may hold `call` equations itself); None: it has no derivative.
    """

    name: str
    run: Callable[[Sequence[Named]], Sequence[Named]]
    types: Rule
    vjp: Callable[[Sequence[Type]], Program] | None = None


_REGISTERED: dict[str, Foreign] = {}


def register(function: Foreign) -> None:
    """Make a function known under its name."""
    if function.name in _REGISTERED:
        raise ArgumentError(
            f"a foreign function named {function.name!r} is registered already\n"
            "Give this one another name."
        )
    _REGISTERED[function.name] = function


def find(name: str) -> Foreign:
    """The function registered under a name."""
    if name not in _REGISTERED:
        raise InternalError(f"no foreign function is named {name!r}")
    return _REGISTERED[name]
