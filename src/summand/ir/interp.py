"""The meaning of the tensor IR, written in NumPy: the oracle of every test, and `sm.interpret()`.

    run(program, [Named(x, ("i", "k")), Named(w, ("k",))])   ->   [Named(y, ("i",))]

Equations run one after another on named arrays; nothing is optimised. A value may have more dims
than its variable's type says, along which it is computed pointwise: so a monoid's scalar program
combines whole arrays at once.

Needs a verified Program. Raises IndexRangeError where an access in mode "raise" leaves its dim.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import numpy as np

from summand.dtypes import narrow, widen
from summand.errors import InternalError
from summand.ir import foreign
from summand.ir.interp_index import reindex
from summand.ir.interp_reduce import group, reduce, reduce_at
from summand.ir.named import Named
from summand.ir.nodes import (
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Interleave,
    Iota,
    Map,
    Op,
    Program,
    RandomBits,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Scalar,
    Sort,
    Table,
    TopK,
    Type,
    Var,
    While,
    operands,
)
from summand.ir.scalars import apply, scalar

Env = dict[int, Named]


def run(program: Program, args: Sequence[Named]) -> list[Named]:
    """Evaluate a program. Arguments may have their dims in any order; results have them sorted."""
    for var, arg in zip(program.params, args, strict=True):
        if arg.sizes != var.type.sizes or arg.array.dtype != var.type.dtype.numpy:
            raise InternalError(
                f"interp: parameter {var}: {var.type} was given {arg.array.dtype}{arg.sizes}"
            )
    out = evaluate(program, args)
    return [_finished(value, var.type) for value, var in zip(out, program.results, strict=True)]


def _finished(value: Named, type_: Type) -> Named:
    order = tuple(d for d, _ in type_.dims)
    named = value.transposed(order)
    if named.sizes != type_.sizes or named.array.dtype != type_.dtype.numpy:
        raise InternalError(f"interp: a result of type {type_} came out as {named.sizes}")
    return Named(np.ascontiguousarray(named.array).reshape(named.array.shape), order)


def evaluate(program: Program, args: Sequence[Named]) -> list[Named]:
    """Evaluate without checks; arguments may have dims beyond their types'."""
    env: Env = {v.id: a for v, a in zip(program.params, args, strict=True)}
    last = _last_reads(program)
    for number, eqn in enumerate(program.eqns):
        values = _step(eqn, env)
        env.update((o.id, v) for o, v in zip(eqn.outs, values, strict=True))
        for var in operands(eqn.op):
            if last.get(var.id) == number:
                env.pop(var.id, None)
    return [env[r.id] for r in program.results]


def _last_reads(program: Program) -> dict[int, int]:
    last = {v.id: n for n, eqn in enumerate(program.eqns) for v in operands(eqn.op)}
    for result in program.results:
        last.pop(result.id, None)
    return last


def _step(eqn: Eqn, env: Mapping[int, Named]) -> Sequence[Named]:
    def of(variables: Iterable[Var]) -> list[Named]:
        return [env[v.id] for v in variables]

    op: Op = eqn.op
    match op:
        case Map():
            return [_map(op, of(op.args), eqn.out)]
        case Reduce():
            return reduce(op, of(op.args), evaluate)
        case Reindex():
            indices = {d: env[i.id] if isinstance(i, Var) else i for d, i in op.index}
            return [reindex(op, env[op.arg.id], indices, eqn.out.type, eqn.loc)]
        case ReduceAt():
            indices = {d: env[i.id] if isinstance(i, Var) else i for d, i in op.index}
            return reduce_at(op, of(op.args), indices, eqn, evaluate)
        case Interleave():
            return [_interleave(op, of(op.parts), eqn.out.type)]
        case Group():
            return group(op, env[op.index.id], eqn.outs)
        case Iota():
            size = eqn.out.type.sizes[op.dim]
            return [Named(np.arange(size).astype(eqn.out.type.dtype.numpy), (op.dim,))]
        case Constant():
            return [_constant(op.value, eqn.out.type)]
        case RandomBits():
            return [_random_bits(op, env[op.key.id], eqn.out.type)]
        case Recur():
            return _recur(op, of(op.inits), of(op.captured), eqn.outs)
        case Cond():
            branch = op.then if bool(env[op.pred.id].array) else op.other
            return evaluate(branch, of(op.args))
        case While():
            return _while(op, of(op.captured), of(op.state))
        case Sort():
            return _sort(op, env[op.arg.id], eqn.outs)
        case TopK():
            return _top_k(op, env[op.arg.id], eqn.outs)
        case Call():
            order = [tuple(d for d, _ in a.type.dims) for a in op.args]
            args = [v.transposed(o) for v, o in zip(of(op.args), order, strict=True)]
            return foreign.find(op.name).run(args)
        case Custom():
            return evaluate(op.primal, of(op.args))
        case _:
            assert_never(op)


def _map(op: Map, args: Sequence[Named], out: Var) -> Named:
    order = tuple(dict.fromkeys(d for a in args for d in a.order))
    types = [v.type.dtype for v in op.args]
    result = apply(op.fn, [a.aligned(order) for a in args], types, out.type.dtype)
    return Named(np.asarray(result), order)


def _interleave(op: Interleave, parts: Sequence[Named], type_: Type) -> Named:
    sizes = {**parts[0].sizes, **type_.sizes}
    order = tuple(sizes)
    out = np.empty([sizes[d] for d in order], type_.dtype.numpy)
    for part, residues in zip(parts, op.residues(), strict=True):
        begin = dict(zip((d for d, _ in op.dims), residues, strict=True))
        step = dict(op.dims)
        out[tuple(slice(begin.get(d, 0), None, step.get(d, 1)) for d in order)] = part.aligned(
            order
        )
    return Named(out, order)


def _constant(value: Scalar | Table, type_: Type) -> Named:
    if not isinstance(value, Table):
        return Named(scalar(value, type_.dtype))
    sizes = type_.sizes
    flat = np.frombuffer(value.data, type_.dtype.numpy)
    return Named(flat.reshape([sizes[d] for d in value.order]), value.order)


# ---- random numbers

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def threefry(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """The first word of Threefry-2x32 with 20 rounds (Salmon et al. 2011), as in Random123.

    Key words: k0 the low 32 bits of the u64 `key`, k1 the high ones. Counter words: x0 the low 32
    bits of the u64 `counter`, x1 the high ones. An element's 32 random bits are its block's word 0;
    word 1 is dropped, so that every element can be computed alone.
    """
    # One axis at least: NumPy warns of wrapping scalars, never of wrapping arrays.
    key, counter = np.atleast_1d(key), np.atleast_1d(counter)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = (key & mask).astype(np.uint32), (key >> half).astype(np.uint32)
    keys = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0 = (counter & mask).astype(np.uint32) + keys[0]
    x1 = (counter >> half).astype(np.uint32) + keys[1]
    for block in range(5):
        for bits in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = ((x1 << np.uint32(bits)) | (x1 >> np.uint32(32 - bits))) ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x0


def _random_bits(op: RandomBits, key: Named, type_: Type) -> Named:
    sizes = type_.sizes
    shape = [sizes[d] for d in op.dims]
    count = int(np.prod(shape, dtype=np.int64))
    counter = Named(np.arange(count, dtype=np.uint64).reshape(shape), op.dims)
    order = (*(d for d in key.order if d not in op.dims), *op.dims)
    bits = threefry(key.aligned(order), counter.aligned(order))
    return Named(bits.reshape([{**key.sizes, **sizes}[d] for d in order]), order)


# ---- control flow


def _recur(
    op: Recur, inits: Sequence[Named], captured: Sequence[Named], outs: Sequence[Var]
) -> list[Named]:
    """Every position in order; states are stored whole, with the `over` dims first."""
    states: list[np.ndarray] = []
    orders = [tuple(d for d, _ in r.type.dims) for r in op.body.results]
    for result, order in zip(op.body.results, orders, strict=True):
        sizes = result.type.sizes
        states.append(np.zeros((*op.sizes, *(sizes[d] for d in order)), result.type.dtype.numpy))
    steps = (
        range(n) if forward else range(n - 1, -1, -1)
        for n, forward in zip(op.sizes, op.forward, strict=True)
    )
    position: tuple[int, ...] = ()
    for position in itertools.product(*steps):
        at = dict(zip(op.over, position, strict=True))
        args: list[Named] = []
        for read, init in zip(op.reads, inits, strict=True):
            where = tuple(p - s for p, s in zip(position, read.shift, strict=True))
            if all(0 <= w < n for w, n in zip(where, op.sizes, strict=True)):
                args.append(Named(np.asarray(states[read.state][where]), orders[read.state]))
            else:
                args.append(init.at(at))
        args += [value.at(at) for value in captured]
        args += [Named(np.array(p, np.int32)) for p in position]
        for state, order, new in zip(states, orders, evaluate(op.body, args), strict=True):
            state[position] = new.transposed(order).array
    keep = op.keep or ("all",) * len(states)
    return [
        Named(state, (*op.over, *order))
        if kept == "all"
        else Named(np.array(state[position]), order)
        for state, order, kept in zip(states, orders, keep, strict=True)
    ]


def _while(op: While, captured: Sequence[Named], state: Sequence[Named]) -> list[Named]:
    now = list(state)
    while bool(evaluate(op.test, [*captured, *now])[0].array):
        now = evaluate(op.body, [*captured, *now])
    return now


# ---- order


def sorted_positions(array: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """Stable positions in order along an axis. NaN comes last in either direction."""
    if descending and array.dtype.kind == "f":
        array = -array
    elif descending:
        array = ~array  # reverses the order of signed, unsigned and bool without overflow
    return np.argsort(array, axis=axis, kind="stable")


def _sort(op: Sort, arg: Named, outs: Sequence[Var]) -> list[Named]:
    axis = arg.order.index(op.dim)
    positions = sorted_positions(widen(arg.array, op.arg.type.dtype), axis, op.descending)
    values = np.take_along_axis(arg.array, positions, axis)
    return [
        Named(values, arg.order),
        Named(narrow(positions, outs[1].type.dtype), arg.order),
    ]


def _top_k(op: TopK, arg: Named, outs: Sequence[Var]) -> list[Named]:
    axis = arg.order.index(op.dim)
    positions = sorted_positions(widen(arg.array, op.arg.type.dtype), axis, descending=True)
    positions = np.take(positions, range(outs[0].type.sizes[op.out]), axis=axis)
    values = np.take_along_axis(arg.array, positions, axis)
    order = tuple(op.out if d == op.dim else d for d in arg.order)
    return [Named(values, order), Named(narrow(positions, outs[1].type.dtype), order)]
