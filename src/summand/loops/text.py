"""The loop IR as readable pseudo-code.

    kernel k(x: f32[64], y: f32[8]) scratch(m: f32[1])
      grid I=8
      nest j=8 schedule(lanes j=8)
        %0: f32 = load x[8*I + j]
        %1: f32 = fold add{j} from 0 of %0
        store y[I] = %1

Complete and deterministic, except that a kernel's note is left out. `parse` reads it back:
parse(text(k)) == k (`loops/parse.py`). Names of kernels, buffers and dims have no spaces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from summand.ir.index import Form
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Bound,
    Branch,
    Buffer,
    Carry,
    Check,
    Const,
    Copy,
    Fold,
    Foreign,
    Guard,
    Instr,
    Kernel,
    Last,
    Launch,
    Layout,
    Let,
    Load,
    Loop,
    Module,
    Nest,
    Part,
    Piece,
    Place,
    Position,
    Ref,
    Repeat,
    Rounds,
    Schedule,
    Step,
    Stmt,
    Store,
    When,
)
from summand.loops.parse import parse

__all__ = ["instruction", "parse", "store_text", "text"]


def text(item: Kernel | Module) -> str:
    """A kernel or a module as text, ending in a newline."""
    lines = _kernel(item) if isinstance(item, Kernel) else _module(item)
    return "\n".join(lines) + "\n"


def _indent(lines: Iterable[str]) -> Iterator[str]:
    return ("  " + line for line in lines)


# ---- kernels


def _kernel(kernel: Kernel) -> Iterator[str]:
    scratch = f" scratch({_buffers(kernel.scratch)})" if kernel.scratch else ""
    yield f"kernel {kernel.name}({_buffers(kernel.params)}){scratch}"
    if kernel.grid:
        yield f"  grid {_sizes(kernel.grid)}"
    yield from _indent(_body(kernel.body))


def _buffers(buffers: Sequence[Buffer]) -> str:
    return ", ".join(
        f"{b.name}: {b.dtype}[{b.size}]" + (f" space {b.space}" if b.space else "") for b in buffers
    )


def _sizes(dims: Sequence[tuple[str, int]]) -> str:
    return " ".join(f"{d}={n}" for d, n in dims)


def _body(body: Sequence[Stmt]) -> Iterator[str]:
    for stmt in body:
        yield from _stmt(stmt)


def _stmt(stmt: Stmt) -> Iterator[str]:
    match stmt:
        case Nest():
            yield from _nest(stmt)
            return
        case Loop():
            yield f"for {stmt.dim}={stmt.extent}"
        case Let():
            yield f"let {stmt.dim} = clip({stmt.form}, {stmt.lo}, {stmt.hi})"
        case When():
            yield "when " + " and ".join(_guard(g) for g in stmt.guards)
        case _:
            assert_never(stmt)
    yield from _indent(_body(stmt.body))


def _nest(nest: Nest) -> Iterator[str]:
    parts = ["nest"]
    if nest.dims:
        parts.append(_sizes(nest.dims))
    if nest.ordered:
        parts.append(f"ordered({' '.join(nest.ordered)})")
    if nest.schedule is not None:
        parts.append(f"schedule({_schedule(nest.schedule)})")
    yield " ".join(parts)
    yield from _indent(_bound(b) for b in nest.bounds)
    for r, instr in enumerate(nest.code):
        yield from _indent(instruction(r, instr))
    yield from _indent(store_text(s) for s in nest.stores)


def _bound(bound: Bound) -> str:
    low = " from " + ", ".join(map(str, bound.lo)) if bound.lo else ""
    high = " to " + ", ".join(map(str, bound.hi)) if bound.hi else ""
    return f"bound {bound.dim}{low}{high}"


def _schedule(s: Schedule) -> str:
    named = (
        ("lanes", s.lanes),
        ("tile", s.tile),
        ("unroll", s.unroll),
        ("end_lanes", s.end_lanes),
    )
    parts = [f"{name} {_pieces(pieces)}" for name, pieces in named if pieces]
    if s.loops:
        parts.append("loops " + " ".join(s.loops))
    if s.copies != 1:
        parts.append(f"copies {s.copies}")
    if s.streaming:
        parts.append("streaming")
    if s.prefetch:
        parts.append("prefetch " + _sizes(s.prefetch))
    return "; ".join(parts)


def _pieces(pieces: Sequence[Piece]) -> str:
    return " ".join(f"{p.dim}={p.count}" for p in pieces)


# ---- code of a nest


def instruction(r: Ref, instr: Instr) -> Iterator[str]:
    """The lines of one instruction: one, except for a fold with code of its own."""
    head = f"%{r}: {instr.dtype} = "
    match instr:
        case Const():
            yield f"{head}const {instr.value!r}"
        case Position():
            yield f"{head}position {instr.form}"
        case Load():
            fill = f" else {instr.fill!r}" if instr.at.guards or instr.fill != 0 else ""
            yield f"{head}load {instr.buffer}{_address(instr.at)}{fill}"
        case Apply():
            yield f"{head}{instr.fn} {_refs(instr.args)}"
        case Fold():
            yield from _fold(head, instr)
        case Part():
            yield f"{head}part {instr.index} of %{instr.of}"
        case Carry():
            yield f"{head}carry {instr.dim} from %{instr.init} next %{instr.next}"
        case Last():
            yield f"{head}last %{instr.carry}"
        case Arg():
            yield f"{head}arg {instr.index}"
        case _:
            assert_never(instr)


def _refs(refs: Sequence[Ref]) -> str:
    return " ".join(f"%{r}" for r in refs)


def _fold(head: str, fold: Fold) -> Iterator[str]:
    combine = fold.combine
    start = ", ".join(repr(i) for i in combine.identity)
    fn = "code" if combine.fn is None else combine.fn
    order = "" if combine.commutative else " in order"
    yield f"{head}fold {fn}{{{' '.join(fold.dims)}}} from {start} of {_refs(fold.args)}{order}"
    for r, instr in enumerate(combine.code):
        yield from _indent(instruction(r, instr))
    if combine.results:
        yield f"  give {_refs(combine.results)}"


def store_text(store: Store) -> str:
    """A store's line."""
    how = f" {store.combine}" if store.combine else ""
    return f"store{how} {store.buffer}{_address(store.at)} = %{store.value}"


def _address(at: Address) -> str:
    guards = " if " + " and ".join(_guard(g) for g in at.guards) if at.guards else ""
    return f"[{_offset(at.form, at.dynamic)}]{guards}"


def _offset(form: Form, dynamic: Sequence[tuple[Ref, int]]) -> str:
    affine = [] if dynamic and form == Form() else [str(form)]
    return " + ".join([*affine, *(f"{factor}*%{ref}" for ref, factor in dynamic)])


def _guard(guard: Guard) -> str:
    return f"0 <= {_offset(guard.form, guard.dynamic)} < {guard.size}"


# ---- modules


def _module(module: Module) -> Iterator[str]:
    yield f"module arena {module.arena}"
    for place in module.places:
        yield "  " + _place(place)
    for name, layouts in (("param", module.params), ("result", module.results)):
        for number, layout in enumerate(layouts):
            yield f"  layout {name} {number}: {_layout(layout)}".rstrip()
    for check in module.checks:
        yield "  " + _check(check)
    yield "  steps"
    yield from _indent(_indent(_steps(module.steps)))
    for kernel in module.kernels:
        yield from _kernel(kernel)


def _place(place: Place) -> str:
    data = f" data {place.data.hex() or 'empty'}" if place.kind == "constant" else ""
    return f"{place.kind} {place.number} {place.name}: {place.dtype}[{place.size}]{data}"


def _layout(layout: Layout) -> str:
    return _sizes(layout.dims)


def _check(check: Check) -> str:
    return f"check {check.number} < {check.size} {json.dumps(check.message)}"


def _steps(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        match step:
            case Launch():
                yield f"launch {step.kernel}({', '.join(step.buffers)})"
            case Copy():
                yield f"copy {step.source} to {step.target}"
            case Branch():
                yield f"if {step.flag}"
                yield from _indent(_steps(step.then))
                yield "else"
                yield from _indent(_steps(step.other))
            case Repeat():
                yield "repeat"
                yield from _indent(_steps(step.test))
                yield f"while {step.flag}"
                yield from _indent(_steps(step.body))
            case Rounds():
                yield f"rounds {step.count}"
                yield from _indent(_steps(step.body))
            case Foreign():
                ends = (
                    ", ".join(f"{n} {_layout(y)}".rstrip() for n, y in e)
                    for e in (step.args, step.outs)
                )
                yield f"foreign {step.name} " + " -> ".join(f"({e})" for e in ends)
            case _:
                assert_never(step)
