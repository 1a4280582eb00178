"""A function traced for one structure of arguments, as `jit` needs it.

    call = arguments((x, 0.1), {"stride": 2})     call.key: what the trace depends on
    traced = trace_call(f, call)                  a Program, and where each leaf of the result is

Arrays and Python floats are parameters of the program; all else is part of the key.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from summand.dtypes import complex128, f64
from summand.errors import ArgumentError
from summand.ir.nodes import Program, Type
from summand.ir.strided import Flat, flat
from summand.lang import trace
from summand.lang.array import Array, Index, is_array, not_an_array, wrap
from summand.lang.data import to_storage
from summand.lang.describe import message, source_row
from summand.lang.graph import Buffer, Sized, placeholder, placeholder_for, serial_now
from summand.lang.graph import leaf as data_leaf
from summand.lang.location import here
from summand.lang.pytree import Structure, flatten, unflatten_call
from summand.lang.rename import canonical
from summand.lang.signature import argument_names
from summand.lang.trace import extract, not_concrete, tracing

Order = tuple[str, ...]

# small numbers, which are cheap to compare
_tags: dict[tuple[Type, Order, Flat | None], int] = {}


def tag_of(type_: Type, order: Order, lies: Flat | None = None) -> int:
    """The number that stands for a type and how an array lies in memory."""
    return _tags.setdefault((type_, order, lies), len(_tags))


@dataclass(slots=True)  # one for each call of a compiled function: frozen ones take longer to make
class Call:
    """The arguments of one call, flat. `dynamic` numbers the leaves that are parameters."""

    leaves: list[object]
    tree: Structure
    key: Hashable
    buffers: list[Buffer]
    dynamic: list[int]


def arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> Call:
    """Flatten a call; lazy arrays among the arguments are computed, all together."""
    plain = not kwargs and are_arrays(args)
    if plain:
        leaves, tree = [*args], _plain(len(args))
    else:
        leaves, tree = flatten((args, kwargs), none_is_leaf=True)
    parts: list[Hashable] = []
    buffers: list[Buffer] = []
    dynamic: list[int] = []
    for number, leaf in enumerate(leaves):
        if type(leaf) is Array:
            value = leaf.value
            buffer = value.buffer if isinstance(value, Sized) else None
            if buffer is None or buffer.tag < 0:
                buffer = _prepared(leaf, leaves)
            parts.append(-2 - buffer.tag if value.weak else buffer.tag)
        elif isinstance(leaf, (float, complex)):
            narrow = isinstance(leaf, float)
            buffer = Buffer(np.array(leaf, np.float64 if narrow else np.complex128), ())
            parts.append("float" if narrow else "complex")
        elif isinstance(leaf, (np.inexact, np.ndarray)) and leaf.ndim == 0:
            leaves[number] = array = Array(_scalar(leaf))
            buffer = _prepared(array, leaves)
            parts.append(buffer.tag)
        else:
            parts.append(_static(leaf))
            continue
        buffers.append(buffer)
        dynamic.append(number)
    key = tuple(parts) if plain else (tree, tuple(parts))  # a tree takes long to hash
    return Call(leaves, tree, key, buffers, dynamic)


_ARRAYS = frozenset({Array})


def are_arrays(values: tuple[object, ...]) -> bool:
    """Whether all are arrays, so that no tree has to be looked through."""
    return _ARRAYS.issuperset(map(type, values))


@functools.cache
def _plain(count: int) -> Structure:
    """The structure of a call with so many arrays by position."""
    return flatten(((0,) * count, {}), none_is_leaf=True)[1]


def _scalar(x: np.inexact | np.ndarray) -> Sized:
    """A NumPy number, which is an array without dims and keeps its type."""
    stored, dtype = to_storage(np.asarray(x), None, copy=True)
    return data_leaf(stored, (), dtype)


def _prepared(leaf: Array, leaves: Sequence[object]) -> Buffer:
    """The numbers of an array that is lazy, or that no compiled function has seen yet."""
    sized = leaf.sized("jit argument")
    if sized.buffer is None:
        trace.evaluate([x.sized("jit argument") for x in leaves if is_array(x)])
    buffer = sized.buffer
    if buffer is None:
        raise not_concrete("the argument of a compiled function", sized, here())
    buffer.tag = tag_of(sized.type, buffer.order, flat(buffer.array))
    return buffer


def _static(leaf: object) -> Hashable:
    """An argument that takes part in the key by its value."""
    if isinstance(leaf, Index):
        return ("index", leaf.form)
    if isinstance(leaf, np.ndarray):
        raise not_an_array(leaf)
    try:
        hash(leaf)
    except TypeError:
        what = f"an argument of type {type(leaf).__name__} is neither an array nor hashable"
        advice = "Pass arrays (in tuples, lists, dicts) and hashable constants."
        raise ArgumentError(message(what, source_row(here()), advice)) from None
    return (type(leaf), leaf)


# ---- tracing


@dataclass(frozen=True, slots=True)
class Out:
    """Where a leaf of the result comes from: "result" or "argument" `number`, or `constant`."""

    kind: str
    number: int = 0
    constant: object = None


@dataclass(frozen=True, slots=True)
class Traced:
    """The program of a call. Its parameters are the call's buffers, then `captured`.

    names and back translate dim keys to the program's names and back. `results` has the type of
    each result of the program in keys, and whether it is weak.
    """

    program: Program
    names: dict[str, str]
    back: dict[str, str]
    orders: tuple[Order, ...]
    captured: tuple[Buffer, ...]
    tree: Structure
    outs: tuple[Out, ...]
    results: tuple[tuple[Type, bool], ...]


def trace_call(function: Callable[..., object], call: Call) -> Traced:
    """Run a function on placeholders."""
    start = serial_now()
    labels = argument_names(function, call.tree, len(call.leaves))
    given = list(call.leaves)
    inputs: list[Sized] = []
    for number in call.dynamic:
        value = _input(call.leaves[number], labels[number])
        inputs.append(value)
        given[number] = wrap(value)
    args, kwargs = unflatten_call(call.tree, given)
    with tracing():
        out = function(*args, **kwargs)
    return _collected(out, inputs, call.buffers, start)


def _input(leaf: object, label: str) -> Sized:
    if isinstance(leaf, Array):
        return placeholder_for(leaf.sized("jit argument"), label)
    dtype = complex128 if isinstance(leaf, complex) else f64
    return placeholder(Type(dtype), label, weak=True)


def _collected(
    out: object, inputs: Sequence[Sized], buffers: Sequence[Buffer], start: int
) -> Traced:
    """The program from inputs to what a function returned; `start` is the serial when it began."""
    leaves, tree = flatten(out, none_is_leaf=True)
    numbers = {(v.node.serial, v.out): i for i, v in enumerate(inputs)}
    wanted: dict[tuple[int, int], Sized] = {}
    outs: list[Out] = []
    for leaf in leaves:
        if not is_array(leaf):
            outs.append(Out("constant", constant=leaf))
            continue
        value = leaf.sized("jit result")
        key = (value.node.serial, value.out)
        if key in numbers:
            outs.append(Out("argument", numbers[key]))
        elif value.buffer is not None:
            outs.append(Out("constant", constant=leaf))
        else:
            wanted.setdefault(key, value)
            outs.append(Out("result", list(wanted).index(key)))
    roots = list(wanted.values())
    extracted = extract(roots, inputs, since=start)
    trace.evaluate(extracted.captured)  # what was captured lazily is computed once
    extracted = trace.with_constants(extracted, len(inputs))
    captured = tuple(c.buffer for c in extracted.captured if c.buffer is not None)
    program, names = canonical(extracted.program, (b.order for b in (*buffers, *captured)))
    return Traced(
        program=program,
        names=dict(names),
        back={name: key for key, name in names.items()},
        orders=tuple(tuple(names[d] for d in b.order) for b in (*buffers, *captured)),
        captured=captured,
        tree=tree,
        outs=tuple(outs),
        results=tuple((r.type, r.weak) for r in roots),
    )
