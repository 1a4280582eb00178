"""Pytrees, by optree, with types that say no more than is known.

flatten({"w": w, "b": (b, 2)})  ->  [b, 2, w], structure        unflatten puts leaves back
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

import optree

Structure: TypeAlias = optree.PyTreeSpec


def flatten(
    tree: object, none_is_leaf: bool = False, is_leaf: Callable[[object], bool] | None = None
) -> tuple[list[object], Structure]:
    """The leaves, and the structure that holds them. `is_leaf` stops at what it holds for."""
    leaves, structure = optree.tree_flatten(cast("Any", tree), is_leaf, none_is_leaf=none_is_leaf)
    return list(leaves), structure


def flatten_up_to(structure: Structure, tree: object) -> list[object]:
    """What `tree` has at the leaves of a structure. Raises ValueError where it differs above."""
    return list(structure.flatten_up_to(cast("Any", tree)))


def leaves_of(tree: object, none_is_leaf: bool = False) -> list[object]:
    """The leaves alone."""
    return flatten(tree, none_is_leaf)[0]


def unflatten(structure: Structure, leaves: Iterable[object]) -> object:
    """The tree of this structure with these leaves."""
    return optree.tree_unflatten(structure, cast("Any", leaves))


def unflatten_tuple(structure: Structure, leaves: Iterable[object]) -> tuple[object, ...]:
    """The tree, where it is known to be a tuple."""
    return cast("tuple[object, ...]", unflatten(structure, leaves))


def unflatten_call(
    structure: Structure, leaves: Iterable[object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The (args, kwargs) of a call."""
    args, kwargs = cast("Any", unflatten(structure, leaves))
    return args, kwargs


def paths(structure: Structure) -> list[tuple[object, ...]]:
    """Where each leaf lies: (0, 'w') for the w of the first element."""
    return [tuple(p) for p in optree.treespec_paths(structure)]


def suffixes(structure: Structure) -> list[str]:
    """What follows a name to say each leaf: `['w'][0]`."""
    return ["".join(f"[{entry!r}]" for entry in path) for path in paths(structure)]


def shown(structure: Structure) -> str:
    """The structure for messages: `(*, {'w': *})`."""
    return str(structure).removeprefix("PyTreeSpec(").removesuffix(")").split(", NoneIsLeaf")[0]
