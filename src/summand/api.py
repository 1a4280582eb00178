"""What a user calls on functions and programs: jit, evaluate, interpret.

    f = sm.jit(capsules)        traced once for each structure of arguments, then native code
    sm.evaluate(a, b)           compute several lazy arrays as one program
    with sm.interpret(): ...    run everything on the NumPy oracle instead

Derivatives and vmap are in `transforms.py`; a program runs only through `run_program` here.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Generic, ParamSpec, TypeVar, cast

import numpy as np

from summand import compiler
from summand.errors import ArgumentError, Loc
from summand.ir import interp
from summand.ir.named import Named
from summand.ir.nodes import Program, Type
from summand.ir.strided import Flat, flat, read_in_place, views
from summand.lang import trace
from summand.lang.array import Array
from summand.lang.describe import message, source_row
from summand.lang.function import Call, Order, Traced, are_arrays, arguments, tag_of, trace_call
from summand.lang.graph import Buffer, result_leaf
from summand.lang.location import here
from summand.lang.pytree import leaves_of, unflatten
from summand.lang.signature import check_function
from summand.lang.trace import is_tracing
from summand.rewrite.repeats import without_repeats
from summand.runtime.executable import Executable

P = ParamSpec("P")
R = TypeVar("R")
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
    leaves = trees if are_arrays(trees) else leaves_of(trees)
    trace.evaluate([leaf.sized("evaluate") for leaf in leaves if isinstance(leaf, Array)])
    return trees


def run_program(
    program: Program, args: Sequence[Buffer], orders: Sequence[Order | None]
) -> Sequence[Buffer]:
    """Run a canonical program, compiled or interpreted."""
    if _interpreting.get():
        return _interpreted(program, args)
    lying = [flat(a.array) for a in args]
    program, taken = read_in_place(program, [a.order for a in args], lying)
    executable = compiler.compile(program, taken, orders)
    results = executable.run(views([a.array for a in args], lying))
    return [Buffer(x, o) for x, o in zip(results, result_orders(executable, len(results)))]


def _interpreted(program: Program, args: Sequence[Buffer]) -> list[Buffer]:
    named = interp.run(program, [Named(a.array, a.order) for a in args])
    return [Buffer(n.array, n.order) for n in named]


def result_orders(executable: Executable, count: int) -> list[Order]:
    """The dims of each result as it lies in memory."""
    return [port.dims for port in executable.artifact.results[:count]]


trace.set_evaluator(run_program)


# ---- jit


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: a trace makes many small objects that all live for a while, which
    the collector would look through again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Result:
    """How a program's result becomes an array: its type, whether that is weak, the order of its
    dims in memory, its tag; `shape` where it is spread over dims along which it repeats."""

    type: Type
    weak: bool
    order: Order
    tag: int
    shape: tuple[int, ...] | None

    def array(self, data: np.ndarray, loc: Loc | None) -> Array:
        """The array of what the program computed."""
        if self.shape is not None:
            data = np.broadcast_to(data, self.shape)
        return Array(result_leaf(data, self.order, self.type, self.weak, loc, self.tag))


@dataclass(frozen=True, slots=True)
class Ready:
    """A compiled call: what runs it, and how its results become arrays."""

    executable: Executable
    captured: tuple[np.ndarray, ...]
    lying: tuple[Flat | None, ...] | None  # where arrays have gaps: how; the captured ones included
    results: tuple[Result, ...]
    plain: bool  # every leaf of the result is the program's result of the same number


KEEP = 512  # structures of arguments that a function remembers; a lambda made anew is one each time


@dataclass(slots=True)
class Entry:
    """What one structure of arguments was traced to, and compiled to once that was needed."""

    traced: Traced
    ready: Ready | None = None


class Jit(Generic[P, R]):
    """A function that is traced and compiled once for each structure of its arguments."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._entries: dict[Hashable, Entry] = {}
        self._last: Traced | None = None
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on arrays; inside another trace, a part of that."""
        if is_tracing():
            return self.function(*args, **kwargs)
        call = arguments(args, kwargs)
        entry = self._entry(call)
        if _interpreting.get():
            made = _interpreted_results(entry.traced, call)
        elif not entry.traced.results:
            made = []
        else:
            ready = entry.ready or _compiled(entry, call)
            arrays = [b.array for b in call.buffers] + [*ready.captured]
            if ready.lying:
                arrays = views(arrays, ready.lying)
            arrays = ready.executable.run(arrays)
            loc = here()
            made = [r.array(data, loc) for data, r in zip(arrays, ready.results)]
            if ready.plain:
                tree = entry.traced.tree
                return cast("R", made[0] if tree.is_leaf() else unflatten(tree, made))
        return cast("R", _packed(entry.traced, call, made))

    def __get__(self, instance: object, owner: type) -> Callable[..., R]:
        """As a method: `self` is an argument like any other (a pytree, or hashable)."""
        return self if instance is None else functools.partial(self, instance)  # type: ignore[arg-type]

    def _entry(self, call: Call) -> Entry:
        """The trace for these arguments' structure, made now or before."""
        entry = self._entries.get(call.key)
        if entry is None:
            with _uncollected():
                traced = trace_call(self.function, call)
                entry = Entry(replace(traced, program=without_repeats(traced.program)))
            entry = self._entries.setdefault(call.key, entry)
            if len(self._entries) > KEEP:
                del self._entries[next(iter(self._entries))]
        self._last = entry.traced
        return entry

    def compile(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Trace and compile for arguments of this structure, without running."""
        self._executable(arguments(args, kwargs))

    def peak_bytes(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Bytes that a call takes over its arguments and results, known before it runs."""
        return self._executable(arguments(args, kwargs)).temporary_bytes

    def _executable(self, call: Call) -> Executable:
        entry = self._entry(call)
        return (entry.ready or _compiled(entry, call)).executable

    def request(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[compiler.Request, list[np.ndarray]]:
        """The compilation that these arguments ask for, and the arrays that it would run on."""
        call = arguments(args, kwargs)
        traced = self._entry(call).traced
        request = compiler.request(traced.program, traced.orders, _any_order(traced))
        return request, [b.array for b in (*call.buffers, *traced.captured)]

    def inspect(self, stage: str = "fused", *args: P.args, **kwargs: P.kwargs) -> str:
        """The text of one stage of compilation: "traced", "fused", "loops", "llvm", "log", …

        With arguments, for those; else for the most recent call.
        """
        traced = self._entry(arguments(args, kwargs)).traced if args or kwargs else self._last
        if traced is None:
            what = "nothing has been compiled yet"
            advice = 'Call the function first, or pass arguments: f.inspect("fused", x).'
            raise ArgumentError(message(what, source_row(here()), advice))
        return compiler.inspect(traced.program, traced.orders, _any_order(traced), stage)


def _any_order(traced: Traced) -> tuple[None, ...]:
    """Results lie in memory as the compiler likes."""
    return (None,) * len(traced.results)


def _compiled(entry: Entry, call: Call) -> Ready:
    traced = entry.traced
    lying = tuple(flat(b.array) for b in (*call.buffers, *traced.captured))
    with _uncollected():
        program, taken = read_in_place(traced.program, traced.orders, lying)
        executable = compiler.compile(program, taken, _any_order(traced))
    orders = result_orders(executable, len(traced.results))
    results = tuple(
        _result(type_, weak, tuple(traced.back[d] for d in order))
        for (type_, weak), order in zip(traced.results, orders, strict=True)
    )
    plain = [o.number for o in traced.outs if o.kind == "result"] == list(range(len(traced.outs)))
    captured = tuple(b.array for b in traced.captured)
    entry.ready = Ready(executable, captured, lying if any(lying) else None, results, plain)
    return entry.ready


def _result(type_: Type, weak: bool, order: Order) -> Result:
    """A result whose dims in memory are `order`; the other dims of its type repeat it."""
    lost = tuple(d for d, _ in type_.dims if d not in order)
    own = (*lost, *order)
    shape = tuple(type_.sizes[d] for d in own) if lost else None
    return Result(type_, weak, own, tag_of(type_, own), shape)


def _interpreted_results(traced: Traced, call: Call) -> list[Array]:
    """The results of a call, by the interpreter."""
    given = [
        Buffer(b.array, tuple(traced.names[d] for d in b.order))
        for b in (*call.buffers, *traced.captured)
    ]
    out = []
    for buffer, (type_, weak) in zip(_interpreted(traced.program, given), traced.results):
        result = _result(type_, weak, tuple(traced.back[d] for d in buffer.order))
        out.append(result.array(buffer.array, here()))
    return out


def _packed(traced: Traced, call: Call, made: Sequence[Array]) -> object:
    """The result's tree, some of whose leaves are arguments or constants."""
    leaves: list[object] = []
    for out in traced.outs:
        match out.kind:
            case "result":
                leaves.append(made[out.number])
            case "argument":
                leaves.append(call.leaves[call.dynamic[out.number]])
            case _:
                leaves.append(out.constant)
    return unflatten(traced.tree, leaves)


def jit(function: Callable[P, R]) -> Jit[P, R]:
    """Compile a function: traced once for each structure of its arguments, run as one program.

    Arrays (in any pytree) and Python floats are traced; integers, bools, strings, dims, functions
    and other hashable values are constants of the program: a new value makes a new one. What the
    function reads from outside is captured as it is at the first call.
    """
    check_function(function, "jit")
    return Jit(function)
