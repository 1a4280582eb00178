"""What a user calls on functions and programs: jit, evaluate, interpret.

    f = sm.jit(capsules)        traced once for each structure of arguments, then native code
    sm.evaluate(a, b)           compute several lazy arrays as one program
    with sm.interpret(): ...    run everything on the NumPy oracle instead

Derivatives and vmap are in `transforms.py`; a program runs only through `run_program` here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar, cast

import numpy as np

from summand import compiler
from summand.dtypes import complex128, f64
from summand.errors import ArgumentError
from summand.ir import interp
from summand.ir.named import Named
from summand.ir.nodes import Program, Type
from summand.lang import trace
from summand.lang.array import Array, Index, is_array, not_an_array, wrap
from summand.lang.describe import message, source_row
from summand.lang.graph import Buffer, Node, Sized, placeholder, placeholder_for, serial_now
from summand.lang.location import here
from summand.lang.pytree import Structure, flatten, leaves_of, unflatten, unflatten_call
from summand.lang.rename import canonical
from summand.lang.signature import argument_names
from summand.lang.trace import extract, is_tracing, not_concrete, tracing
from summand.runtime.executable import Executable

P = ParamSpec("P")
R = TypeVar("R")
Order = tuple[str, ...]
T = TypeVar("T")

_interpreting: ContextVar[bool] = ContextVar("summand_interpreting", default=False)


@contextmanager
def interpret() -> Iterator[None]:
    """Run programs on the NumPy interpreter, equation by equation, instead of compiling them."""
    token = _interpreting.set(True)
    try:
        yield
    finally:
        _interpreting.reset(token)


def evaluate(*trees: T) -> tuple[T, ...]:
    """Compute the lazy arrays in pytrees, all in one program; returns the pytrees."""
    arrays = [leaf for leaf in leaves_of(trees) if isinstance(leaf, Array)]
    trace.evaluate([a.sized("evaluate") for a in arrays])
    return trees


def run_program(
    program: Program, args: Sequence[Buffer], orders: Sequence[Order | None]
) -> Sequence[Buffer]:
    """Run a canonical program, compiled or interpreted."""
    if _interpreting.get():
        return _interpreted(program, args)
    executable = compiler.compile(program, tuple(a.order for a in args), tuple(orders))
    results = executable.run([a.array for a in args])
    return [Buffer(x, o) for x, o in zip(results, result_orders(executable, len(results)))]


def _interpreted(program: Program, args: Sequence[Buffer]) -> list[Buffer]:
    named = interp.run(program, [Named(a.array, a.order) for a in args])
    return [Buffer(n.array, n.order) for n in named]


def result_orders(executable: Executable, count: int) -> list[Order]:
    """The dims of each result as it lies in memory."""
    return [port.dims for port in executable.artifact.results[:count]]


trace.set_evaluator(run_program)


# ---- jit


@dataclass(frozen=True, slots=True)
class Traced:
    """A function traced for one structure of arguments.

    outs: for each leaf of the result: the number of a program result, an argument, or what it is.
    """

    program: Program
    names: dict[str, str]
    back: dict[str, str]
    orders: tuple[Order, ...]
    captured: tuple[Buffer, ...]
    tree: Structure
    outs: tuple[Out, ...]
    types: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Out:
    """Where a leaf of the result comes from."""

    kind: str  # "result", "argument" or "constant"
    number: int = 0
    constant: object = None


_tags: dict[tuple[Type, Order], int] = {}  # small numbers, which are cheap to compare


def _tag(type_: Type, order: Order) -> int:
    """The number that stands for a type and a memory order."""
    return _tags.setdefault((type_, order), len(_tags))


class Jit(Generic[P, R]):
    """A function that is traced and compiled once for each structure of its arguments."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._entries: dict[Hashable, tuple[Traced, Executable | None]] = {}
        self._last: Traced | None = None
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on arrays; inside another trace, a part of that."""
        if is_tracing():
            return self.function(*args, **kwargs)
        leaves, tree = flatten((args, kwargs), none_is_leaf=True)
        key, buffers, dynamic = self._arguments(leaves)
        traced, executable = self._entry(leaves, tree, key, buffers, dynamic)
        return self._run(traced, executable, buffers, leaves, dynamic)

    def _entry(
        self,
        leaves: Sequence[object],
        tree: Structure,
        key: Hashable,
        buffers: Sequence[Buffer],
        dynamic: Sequence[int],
    ) -> tuple[Traced, Executable | None]:
        """What these arguments' structure was traced and compiled to, now or before."""
        traced, executable = self._traced(leaves, tree, key, buffers, dynamic)
        if _interpreting.get():
            return traced, None
        if executable is None:
            executable = _compiled(traced)
            self._entries[tree, key] = (traced, executable)
        return traced, executable

    def _traced(
        self,
        leaves: Sequence[object],
        tree: Structure,
        key: Hashable,
        buffers: Sequence[Buffer],
        dynamic: Sequence[int],
    ) -> tuple[Traced, Executable | None]:
        """The same, but nothing is compiled that was not before."""
        entry = self._entries.get((tree, key))
        if entry is None:
            entry = self._trace(leaves, tree, dynamic, buffers), None
            self._entries[tree, key] = entry
        self._last = entry[0]
        return entry

    def compile(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Trace and compile for arguments of this structure, without running."""
        leaves, tree = flatten((args, kwargs), none_is_leaf=True)
        key, buffers, dynamic = self._arguments(leaves)
        self._entry(leaves, tree, key, buffers, dynamic)

    def request(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[compiler.Request, list[np.ndarray]]:
        """The compilation that these arguments ask for, and the arrays that it would run on."""
        leaves, tree = flatten((args, kwargs), none_is_leaf=True)
        key, buffers, dynamic = self._arguments(leaves)
        traced, _ = self._traced(leaves, tree, key, buffers, dynamic)
        results = (None,) * len(traced.types)
        request = compiler.request(traced.program, traced.orders, results)
        return request, [b.array for b in (*buffers, *traced.captured)]

    def _arguments(self, leaves: Sequence[object]) -> tuple[Hashable, list[Buffer], list[int]]:
        """The signature, the numbers of array arguments, and which leaves they are."""
        parts: list[Hashable] = []
        buffers: list[Buffer] = []
        dynamic: list[int] = []
        pending: list[Sized] = []
        for leaf in leaves:
            if is_array(leaf):
                sized = leaf.sized("jit argument")
                if sized.buffer is None:
                    pending.append(sized)
        if pending:
            trace.evaluate(pending)
        for number, leaf in enumerate(leaves):
            if is_array(leaf):
                sized = leaf.sized("jit argument")
                buffer = sized.buffer
                if buffer is None:
                    raise not_concrete("the argument of a compiled function", sized, here())
                if buffer.tag < 0:
                    buffer.tag = _tag(sized.type, buffer.order)
                parts.append((buffer.tag, sized.weak))
            elif isinstance(leaf, (float, complex)):
                complex_ = isinstance(leaf, complex)
                buffer = Buffer(np.array(leaf, np.complex128 if complex_ else np.float64), ())
                parts.append("complex" if complex_ else "float")
            else:
                parts.append(_static(leaf))
                continue
            buffers.append(buffer)
            dynamic.append(number)
        return tuple(parts), buffers, dynamic

    def _trace(
        self,
        leaves: Sequence[object],
        tree: Structure,
        dynamic: Sequence[int],
        buffers: Sequence[Buffer],
    ) -> Traced:
        start = serial_now()
        labels = argument_names(self.function, tree, len(leaves))
        inputs: list[Sized] = []
        given = list(leaves)
        for number in dynamic:
            value = _input(leaves[number], labels[number])
            inputs.append(value)
            given[number] = wrap(value)
        args, kwargs = unflatten_call(tree, given)
        with tracing():
            out = cast("Callable[..., object]", self.function)(*args, **kwargs)
        return trace_outputs(out, inputs, buffers, start)

    def _run(
        self,
        traced: Traced,
        executable: Executable | None,
        buffers: list[Buffer],
        leaves: Sequence[object],
        dynamic: Sequence[int],
    ) -> R:
        made: list[Array] = []
        if traced.types:
            everything = [*buffers, *traced.captured]
            if executable is None:
                named = [
                    Buffer(b.array, tuple(traced.names[d] for d in b.order)) for b in everything
                ]
                results = _interpreted(traced.program, named)
                orders = [r.order for r in results]
                arrays = [r.array for r in results]
            else:
                arrays = executable.run([b.array for b in everything])
                orders = result_orders(executable, len(arrays))
            for array, order, type_ in zip(arrays, orders, traced.types):
                node = Node(None, (), (type_,), None)
                node.buffers[0] = Buffer(array, tuple(traced.back[d] for d in order))
                made.append(wrap(Sized(node)))
        outs: list[object] = []
        for out in traced.outs:
            match out.kind:
                case "result":
                    outs.append(made[out.number])
                case "argument":
                    outs.append(leaves[dynamic[out.number]])
                case _:
                    outs.append(out.constant)
        return cast("R", unflatten(traced.tree, outs))

    def inspect(self, stage: str = "fused", *args: P.args, **kwargs: P.kwargs) -> str:
        """The text of one stage of compilation: "traced", "fused", "loops", "llvm", "log", …

        With arguments, for those; else for the most recent call.
        """
        if args or kwargs:
            self(*args, **kwargs)
        traced = self._last
        if traced is None:
            what = "nothing has been compiled yet"
            advice = 'Call the function first, or pass arguments: f.inspect("fused", x).'
            raise ArgumentError(message(what, source_row(here()), advice))
        results = (None,) * len(traced.types)
        return compiler.inspect(traced.program, traced.orders, results, stage)


def _compiled(traced: Traced) -> Executable | None:
    if not traced.types:
        return None
    return compiler.compile(traced.program, traced.orders, (None,) * len(traced.types))


def _static(leaf: object) -> Hashable:
    """An argument that takes part in the signature by its value."""
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


def _input(leaf: object, label: str) -> Sized:
    if isinstance(leaf, Array):
        sized = leaf.sized("jit argument")
        return placeholder_for(sized, label)
    dtype = complex128 if isinstance(leaf, complex) else f64
    return placeholder(Type(dtype), label, weak=True)


def trace_outputs(
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
        types=tuple(r.type for r in roots),
    )


def jit(function: Callable[P, R]) -> Jit[P, R]:
    """Compile a function: traced once for each structure of its arguments, run as one program.

    Arrays (in any pytree) and Python floats are traced; integers, bools, strings, dims, functions
    and other hashable values are constants of the program: a new value makes a new one. What the
    function reads from outside is captured as it is at the first call.
    """
    return Jit(function)
