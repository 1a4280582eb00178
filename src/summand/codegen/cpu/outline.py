"""Nests as functions of their own, shared by nests that differ only in their buffers.

    nest i=4 j=8 load a[j] … store b[…]             call void @k.nest0(ptr a, ptr b, i64 I)
    nest i=4 j=8 load c[j] … store d[…]      ->     call void @k.nest0(ptr c, ptr d, i64 I)

A kernel of many nests (an iteration unrolled by hand, say) becomes several small functions: equal
ones are written once, LLVM's time grows faster than the length of a function, and several LLVM
modules of them are compiled at once. A call costs a few nanoseconds, far less than the smallest
nest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from summand.codegen.cpu.choice import array_bytes, chosen_schedule
from summand.codegen.cpu.nest import NestWriter
from summand.codegen.cpu.plan import NestPlan, Ranges
from summand.codegen.cpu.text import Function, Int, Unit, Value
from summand.codegen.cpu.untangle import untangle
from summand.ir.index import Form
from summand.loops.code import address_dims
from summand.loops.nodes import Buffer, Load, Nest, Position, Stmt

ALIGNMENT = 64  # bytes, of what streaming stores write to
MANY = 5  # nests of a kernel from which on they become functions


def nests_of(body: Sequence[Stmt]) -> Iterator[Nest]:
    """All nests of a tree of statements."""
    for stmt in body:
        if isinstance(stmt, Nest):
            yield stmt
        else:
            yield from nests_of(stmt.body)


@dataclass(frozen=True, slots=True)
class Scope:
    """What surrounds a nest: buffers and where they lie, outer dims, memory for states."""

    buffers: Mapping[str, Buffer]
    bases: Mapping[str, Value]
    position: Mapping[str, Int]
    ranges: Ranges
    arrays: Value


def write_nest(fn: Function, nest: Nest, scope: Scope) -> None:
    """Write a nest into a function."""
    nest = untangle(nest)
    schedule = chosen_schedule(nest)
    arrays = scope.arrays if array_bytes(nest) else None

    def write(streaming: bool) -> None:
        plan = NestPlan(nest, schedule, scope.ranges, scope.buffers)
        NestWriter(fn, plan, scope.position, scope.bases, streaming, arrays).write()

    def arm(streaming: bool) -> Callable[[list[Value]], list[Value]]:
        def run(_: list[Value]) -> list[Value]:
            write(streaming)
            return []

        return run

    aligned = _aligned(fn, nest, scope) if schedule.streaming else None
    if aligned is None:
        write(False)
    else:
        fn.when(aligned, [], arm(True), arm(False))


def streams(nest: Nest) -> bool:
    """Whether a nest's stores may bypass the cache."""
    return nest.schedule is not None and nest.schedule.streaming


def _aligned(fn: Function, nest: Nest, scope: Scope) -> Value | None:
    """Whether all global buffers that a nest stores to are aligned; None: it stores to none."""
    bits: Value | None = None
    for name in dict.fromkeys(s.buffer for s in nest.stores):
        if scope.buffers[name].memory == "global":
            address = fn.pure(f"ptrtoint ptr {scope.bases[name]} to i64", "i64")
            both = f"or i64 {bits}, {address}"
            bits = address if bits is None else fn.pure(both, "i64")
    if bits is None:
        return None
    low = fn.pure(f"and i64 {bits}, {ALIGNMENT - 1}", "i64")
    return fn.pure(f"icmp eq i64 {low}, 0", "i1")


class Outliner:
    """Writes nests as functions and calls them; remembers those that it has written.

    `unit` gives the module for the next function.
    """

    def __init__(self, unit: Callable[[], Unit], prefix: str) -> None:
        self.unit = unit
        self.prefix = prefix
        self._known: dict[object, str] = {}

    def call(self, fn: Function, nest: Nest, scope: Scope) -> None:
        """Call the function of a nest."""
        names = _buffer_names(nest)
        outer = _outer_dims(nest)
        shape = tuple(replace(scope.buffers[n], name=f"buffer{k}") for k, n in enumerate(names))
        where = tuple((d, scope.ranges[d], _static(scope.position[d])) for d in outer)
        general = _with_buffers(nest, {n: f"buffer{k}" for k, n in enumerate(names)})
        key = (general, shape, where)
        if key not in self._known:
            self._known[key] = f"{self.prefix}.nest{len(self._known)}"
            self._write(self._known[key], general, shape, where)
        args = [f"ptr {scope.bases[n]}" for n in names]
        args += [f"i64 {scope.position[d]}" for d, _, static in where if static is None]
        args.append(f"ptr {scope.arrays}")
        fn.unit.declare(self._known[key], "void", [a.split()[0] for a in args])
        fn.do(f"call void @{self._known[key]}({', '.join(args)})")

    def _write(
        self,
        name: str,
        nest: Nest,
        shape: Sequence[Buffer],
        where: Sequence[tuple[str, tuple[int, int], int | None]],
    ) -> None:
        params = [f"ptr %{b.name}" for b in shape]
        position: dict[str, Int] = {}
        for number, (dim, _, static) in enumerate(where):
            position[dim] = Value(f"%outer{number}", "i64") if static is None else static
            if static is None:
                params.append(f"i64 %outer{number}")
        params.append("ptr %arrays")
        fn = Function(self.unit(), name, ", ".join(params))
        scope = Scope(
            {b.name: b for b in shape},
            {b.name: Value(f"%{b.name}", "ptr") for b in shape},
            position,
            {d: r for d, r, _ in where},
            Value("%arrays", "ptr"),
        )
        write_nest(fn, nest, scope)
        fn.finish()


def _static(position: Int) -> int | None:
    return position if isinstance(position, int) else None


def _buffer_names(nest: Nest) -> tuple[str, ...]:
    """Buffers in the order in which the nest names them."""
    loads = [i.buffer for i in nest.code if isinstance(i, Load)]
    return tuple(dict.fromkeys([*loads, *(s.buffer for s in nest.stores)]))


def _outer_dims(nest: Nest) -> tuple[str, ...]:
    """Dims that a nest reads and does not bind."""
    found: set[str] = set()
    for instr in nest.code:
        if isinstance(instr, Load):
            found |= address_dims(instr.at)
        elif isinstance(instr, Position):
            found |= instr.form.dims
    for store in nest.stores:
        found |= address_dims(store.at)
    forms: list[Form] = [f for b in nest.bounds for f in (*b.lo, *b.hi)]
    found = found.union(*(f.dims for f in forms))
    return tuple(sorted(found - nest.extents.keys()))


def _with_buffers(nest: Nest, names: Mapping[str, str]) -> Nest:
    """A nest on other buffers."""
    code = tuple(
        replace(i, buffer=names[i.buffer]) if isinstance(i, Load) else i for i in nest.code
    )
    stores = tuple(replace(s, buffer=names[s.buffer]) for s in nest.stores)
    schedule = nest.schedule
    if schedule is not None and schedule.prefetch:
        ahead = tuple((names[b], n) for b, n in schedule.prefetch if b in names)
        schedule = replace(schedule, prefetch=ahead)
    return replace(nest, code=code, stores=stores, schedule=schedule)
