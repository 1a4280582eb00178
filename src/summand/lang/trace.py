"""From the lazy graph to a Program and back; evaluation.

    extract([y], [x])        the equations from x to y; what else they read becomes a parameter too
    evaluate([y])            the numbers of y: extract down to data, compile, run, keep the result
    replay(program, values)  a program's equations put back into the graph, so that transforms nest

Programs here still have dim keys for names; `rename.canonical` names them for the compiler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from summand.dtypes import DType
from summand.errors import InternalError, Loc, TraceError
from summand.ir.nodes import Constant, Eqn, Program, Table, Var, with_operands
from summand.lang import keys
from summand.lang.describe import message, name_of, source_row
from summand.lang.graph import Buffer, Node, Sized, repeat
from summand.lang.location import here
from summand.lang.rename import Renamer, canonical, dims_of_program

# Runs a canonical program on arrays whose axes are named; with an order for each result, or None.
Evaluator = Callable[
    [Program, Sequence[Buffer], Sequence[tuple[str, ...] | None]], Sequence[Buffer]
]


class _Hook:
    """Who runs programs; `api` says so, since this stage knows no compiler."""

    evaluator: Evaluator | None = None


def set_evaluator(evaluator: Evaluator) -> None:
    """Say who runs programs."""
    _Hook.evaluator = evaluator


def run(
    program: Program, args: Sequence[Buffer], orders: Sequence[tuple[str, ...] | None]
) -> Sequence[Buffer]:
    """Run a canonical program."""
    if _Hook.evaluator is None:
        raise InternalError("lang: no evaluator is set; import summand, not summand.lang")
    return _Hook.evaluator(program, args, orders)


# ---- tracing


class _State(threading.local):
    depth: int = 0
    stepping: tuple[str, ...] = ()


_state = _State()


@contextmanager
def tracing() -> Iterator[None]:
    """While a function of the user's runs on placeholders."""
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1


def is_tracing() -> bool:
    """True inside a trace (in this thread)."""
    return _state.depth > 0


@contextmanager
def stepping(over: tuple[str, ...]) -> Iterator[None]:
    """While the step of a recurrence runs: there, an array has one position along `over`."""
    before = _state.stepping
    _state.stepping = (*before, *over)
    try:
        with tracing():
            yield
    finally:
        _state.stepping = before


def stepped_over() -> tuple[str, ...]:
    """The dims of all recurrences whose steps are running."""
    return _state.stepping


# ---- extraction


@dataclass(frozen=True, slots=True)
class Extracted:
    """A program whose parameters are the given inputs, then `captured`."""

    program: Program
    captured: tuple[Sized, ...]


Value = tuple[int, int]  # a node's serial and the number of its result


def extract(
    results: Sequence[Sized],
    inputs: Sequence[Sized],
    since: int | None = None,
    data: bool = False,
    own: Callable[[Node], bool] | None = None,
) -> Extracted:
    """The equations that lead to `results`.

    Without more, only those that depend on `inputs`; other values are captured. With `since`, those
    made after that serial too (the body of a branch), or of these those that `own` picks, and what
    depends on them. With `data`, everything down to data.
    """
    given = {(i.node.serial, i.out) for i in inputs}
    order = _postorder(
        results, given, min((i.node.serial for i in inputs), default=1 << 62), since, data
    )
    inside = _inside(order, inputs, since, data, own)
    return _emitted(results, inputs, order, inside)


def _concrete(value: Sized) -> bool:
    return value.node.op is None or value.buffer is not None


def _postorder(
    results: Sequence[Sized], given: set[Value], oldest: int, since: int | None, data: bool
) -> list[Node]:
    """Nodes that may be inside, arguments first. One older than every input depends on none."""
    horizon = 0 if data else oldest if since is None else min(oldest, since)
    order: list[Node] = []
    done: set[int] = set()
    stack: list[tuple[Node, bool]] = []
    for r in reversed(results):
        if not _concrete(r) and (r.node.serial, r.out) not in given:
            stack.append((r.node, False))
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
            continue
        if node.serial in done or node.serial < horizon:
            continue
        done.add(node.serial)
        stack.append((node, True))
        for arg in reversed(node.args):
            seen = arg.node.serial in done or (arg.node.serial, arg.out) in given
            if not seen and not _concrete(arg):
                stack.append((arg.node, False))
    return order


def _inside(
    order: Sequence[Node],
    inputs: Sequence[Sized],
    since: int | None,
    data: bool,
    own: Callable[[Node], bool] | None,
) -> set[int]:
    """Serials of the nodes whose equations belong to the program."""
    if data:
        return {n.serial for n in order}
    dependent = {i.node.serial for i in inputs}
    inside: set[int] = set()
    for node in order:
        young = since is not None and node.serial >= since
        if any(a.node.serial in dependent for a in node.args) or (young and own and own(node)):
            dependent.add(node.serial)
            inside.add(node.serial)
        elif young and own is None:
            inside.add(node.serial)
    return inside


def _emitted(
    results: Sequence[Sized], inputs: Sequence[Sized], order: Sequence[Node], inside: set[int]
) -> Extracted:
    captured: list[Sized] = []
    numbers: dict[Value, Constant] = {}  # repeated inside: a derivative is simpler if it sees them
    params = [Var(n, value.type) for n, value in enumerate(inputs)]
    env = {(v.node.serial, v.out): p for v, p in zip(inputs, params, strict=True)}
    wanted = [a for n in order if n.serial in inside for a in n.args] + list(results)
    for value in wanted:
        key = (value.node.serial, value.out)
        outside = value.node.serial not in inside or _concrete(value)
        if key in env or not outside:
            continue
        op = value.node.op
        if isinstance(op, Constant) and not isinstance(op.value, Table):
            numbers[key] = op
        else:
            env[key] = Var(len(params) + len(captured), value.type)
            captured.append(value)
    program_params = (*params, *(env[(c.node.serial, c.out)] for c in captured))
    number = len(program_params)
    eqns: list[Eqn] = []
    for value in wanted:
        key = (value.node.serial, value.out)
        if key in numbers and key not in env:
            env[key] = Var(number, value.type)
            eqns.append(Eqn((env[key],), numbers[key], value.node.loc))
            number += 1
    for node in order:
        if node.serial not in inside or node.op is None:
            continue
        outs = tuple(Var(number + i, t) for i, t in enumerate(node.types))
        number += len(outs)
        for i, out in enumerate(outs):
            env.setdefault((node.serial, i), out)
        given = (env[a.node.serial, a.out] for a in node.args)
        args = dict(zip(node.reads, given, strict=True))
        eqns.append(Eqn(outs, with_operands(node.op, args), node.loc))
    program = Program(
        program_params, tuple(eqns), tuple(env[(r.node.serial, r.out)] for r in results)
    )
    return Extracted(program, tuple(captured))


SPARSE = 8  # elements for each that is not zero, at least
LARGE = 1 << 16  # elements of a constant, at most


def with_constants(extracted: Extracted, inputs: int) -> Extracted:
    """What is captured and nearly all zero becomes a part of the program: a table."""
    program = extracted.program
    first = program.params[inputs:]
    tables: list[Eqn] = []
    kept: list[Sized] = []
    for param, value in zip(first, extracted.captured, strict=True):
        if value.buffer is None or not _is_sparse(value.buffer.array, value.dtype):
            kept.append(value)
            continue
        data = np.ascontiguousarray(value.buffer.array).tobytes()
        tables.append(Eqn((param,), Constant(Table(data, value.buffer.order))))
    if not tables:
        return extracted
    gone = {e.outs[0] for e in tables}
    params = tuple(p for p in program.params if p not in gone)
    return Extracted(Program(params, (*tables, *program.eqns), program.results), tuple(kept))


def _is_sparse(array: np.ndarray, dtype: DType) -> bool:
    if not SPARSE <= array.size <= LARGE or not dtype.is_float or dtype.bits < 32:
        return False
    return bool(np.count_nonzero(array) * SPARSE <= array.size)


def with_captured(extracted: Extracted, captured: Sequence[Sized], inputs: int) -> Program:
    """The program with a parameter for each of `captured`, whether it reads it or not.

    Several programs that are parts of one equation so take the same captured values. The first
    `inputs` parameters stay; those for `captured` follow.
    """
    program = extracted.program
    own = dict(zip(extracted.captured, program.params[inputs:], strict=True))
    known = [*program.params, *(o for e in program.eqns for o in e.outs)]
    unused = 1 + max((v.id for v in known), default=0)
    more = tuple(own.get(c) or Var(unused + i, c.type) for i, c in enumerate(captured))
    return Program((*program.params[:inputs], *more), program.eqns, program.results)


# ---- evaluation


def evaluate(
    values: Sequence[Sized], orders: Sequence[tuple[str, ...] | None] | None = None
) -> None:
    """Compute values and keep their numbers. `orders` asks for memory orders of the results."""
    if all(v.buffer is not None for v in values):
        return
    asked = orders or [None] * len(values)
    wanted: dict[Value, tuple[Sized, tuple[str, ...] | None]] = {}
    for value, order in zip(values, asked, strict=True):
        if value.buffer is None:
            wanted.setdefault((value.node.serial, value.out), (value, order))
    roots = [v for v, _ in wanted.values()]
    extracted = extract(roots, (), data=True)
    args = [_buffer_of(c) for c in extracted.captured]
    program, names = canonical(extracted.program, (a.order for a in args))
    back = {name: key for key, name in names.items()}
    named = [Buffer(a.array, tuple(names[d] for d in a.order)) for a in args]
    result_orders = [None if o is None else tuple(names[d] for d in o) for _, o in wanted.values()]
    for root, buffer in zip(roots, run(program, named, result_orders), strict=True):
        order = tuple(back[d] for d in buffer.order)
        _keep(root, Buffer(buffer.array, order))


def _keep(value: Sized, buffer: Buffer) -> None:
    """Store a result; a node all of whose results are known forgets how they were made."""
    value.node.buffers[value.out] = buffer
    if all(b is not None for b in value.node.buffers):
        value.node.op = None
        value.node.args = ()


def _buffer_of(value: Sized) -> Buffer:
    buffer = value.buffer
    if buffer is None:
        raise not_concrete("a value", value, here())
    return buffer


def not_concrete(what: str, value: Sized, loc: Loc | None) -> TraceError:
    """The error for looking at a traced array."""
    rows = [(f"{name_of(value, loc)}: traced here", value.loc), *source_row(loc)]
    escaped = "It has escaped from the function that was traced: return it from there."
    inside = (
        "Inside jit, grad and the like, arrays have no numbers yet. To choose by element use\n"
        "sm.where, to branch sm.cond, to loop sm.while_loop or sm.recur."
    )
    header = f"{what} of a traced array was asked for"
    return TraceError(message(header, rows, inside if is_tracing() else escaped))


def first_placeholder(values: Sequence[Sized]) -> Sized | None:
    """A placeholder that the values depend on, or None."""
    for captured in extract(values, (), data=True).captured:
        if captured.buffer is None:
            return captured
    return None


# ---- replay


def replay(program: Program, args: Sequence[Sized]) -> tuple[Sized, ...]:
    """Put a program's equations into the graph, its parameters bound to `args`.

    Dims that another stage invented get fresh keys; those of the user keep theirs.
    """
    invented = sorted(d for d in dims_of_program(program) if not keys.is_key(d))
    if invented:
        program = Renamer({d: keys.fresh_like(d) for d in invented}).program(program)
    env: dict[int, Sized] = {p.id: a for p, a in zip(program.params, args, strict=True)}
    for eqn in program.eqns:
        env.update((o.id, v) for o, v in zip(eqn.outs, repeat(eqn, env), strict=True))
    return tuple(env[r.id] for r in program.results)
