"""Check that a program is well formed; every type is inferred again and compared.

    verify(program)     returns nothing, or raises InternalError with the fault and the text

Single assignment, definition before use, the types of every equation, the signatures of all
sub-programs, recurrences that read strictly earlier positions, and trusted forms that are in range.
The rules of equations with sub-programs are in `ir/verify_control.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from summand.dtypes import bool_, i32, u32, u64
from summand.errors import InternalError
from summand.ir import foreign
from summand.ir.index import Form
from summand.ir.nodes import (
    SCALAR_OP,
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Index,
    Interleave,
    Iota,
    Map,
    Mode,
    Monoid,
    Op,
    Program,
    RandomBits,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Sort,
    Table,
    TopK,
    Type,
    Var,
    While,
    operands,
)
from summand.ir.prims import PRIMS
from summand.ir.text import equation, text
from summand.ir.verify_control import (
    Fault,
    need,
    programs_of,
    verify_cond,
    verify_custom,
    verify_recur,
    verify_while,
)

_ENUMERATED = (
    1 << 14
)  # so many points of a quasi-affine form are tried where intervals cannot prove


def verify(program: Program) -> None:
    """Raise InternalError where a rule of the tensor IR is broken."""
    try:
        _program(program)
    except Fault as fault:
        raise InternalError(f"verify: {fault}\n{text(program)}") from fault


def _program(program: Program) -> None:
    known: dict[int, Var] = {}
    for param in program.params:
        _define(param, known)
    for eqn in program.eqns:
        try:
            for var in operands(eqn.op):
                need(known.get(var.id) == var, f"{var}: {var.type} is not defined before its use")
            _equation(eqn)
        except Fault as fault:
            place = f"\n  wrote it: {eqn.loc}" if eqn.loc else ""
            raise Fault(f"{fault}\n  in: {equation(eqn)}{place}") from fault
        for out in eqn.outs:
            _define(out, known)
        for inner in programs_of(eqn.op):
            _program(inner)
    for result in program.results:
        need(known.get(result.id) == result, f"result {result}: {result.type} is not defined")


def _define(var: Var, known: dict[int, Var]) -> None:
    need(var.id not in known, f"{var} is defined twice")
    names = [d for d, _ in var.type.dims]
    need(names == sorted(set(names)), f"dims of {var} are not sorted, or one occurs twice")
    need(all(n >= 0 for _, n in var.type.dims), f"{var} has a negative size")
    known[var.id] = var


def _equation(eqn: Eqn) -> None:
    op: Op = eqn.op
    match op:
        case Recur():
            verify_recur(op, eqn.outs)
            return
        case Cond():
            verify_cond(op, eqn.outs)
            return
        case While():
            verify_while(op, eqn.outs)
            return
        case Custom():
            verify_custom(op, eqn.outs)
            return
    inferred = _types(op, eqn.outs)
    found = tuple(o.type for o in eqn.outs)
    need(
        found == inferred,
        f"results have types {', '.join(map(str, found))}, not {', '.join(map(str, inferred))}",
    )


def _types(
    op: Map
    | Reduce
    | Reindex
    | ReduceAt
    | Interleave
    | Group
    | Iota
    | Constant
    | RandomBits
    | Sort
    | TopK
    | Call,
    outs: Sequence[Var],
) -> tuple[Type, ...]:
    match op:
        case Map():
            return (_map(op, outs),)
        case Reduce():
            return _reduce(op)
        case Reindex():
            return (_reindex(op, _only(outs)),)
        case ReduceAt():
            return _reduce_at(op, outs)
        case Interleave():
            return (_interleave(op, _only(outs)),)
        case Group():
            return _group(op, outs)
        case Iota():
            out = _only(outs)
            need(out.dtype.is_integer, "an iota is of an integer type")
            return (Type(out.dtype, ((op.dim, out.sizes.get(op.dim, 0)),)),)
        case Constant():
            return (_constant(op, _only(outs)),)
        case RandomBits():
            return (_random_bits(op, _only(outs)),)
        case Sort():
            need(op.dim in op.arg.type.names, f"sort over {op.dim}, which the operand lacks")
            need(not op.arg.type.dtype.is_complex, "complex numbers have no order")
            return (op.arg.type, op.arg.type.with_dtype(i32))
        case TopK():
            return _top_k(op, outs)
        case Call():
            return foreign.find(op.name).types([a.type for a in op.args])
        case _:
            assert_never(op)


def _only(outs: Sequence[Var]) -> Type:
    need(len(outs) == 1, f"one result is expected, not {len(outs)}")
    return outs[0].type


def union(types: Sequence[Type]) -> dict[str, int]:
    """All dims of some types, with their sizes, which must agree."""
    sizes: dict[str, int] = {}
    for type_ in types:
        for dim, size in type_.dims:
            agreed = sizes.setdefault(dim, size)
            need(agreed == size, f"two sizes for {dim}: {agreed} and {size}")
    return sizes


# ---- equations


def _map(op: Map, outs: Sequence[Var]) -> Type:
    prim = PRIMS.get(op.fn)
    need(prim is not None, f"no scalar op is named {op.fn}")
    types = [a.type.dtype for a in op.args]
    if prim is None or len(types) != prim.arity:
        raise Fault(f"{op.fn} has {len(types)} operands")
    equal = types[1:] if op.fn == "where" else types
    need(len(set(equal)) == 1, f"{op.fn} has operands of different types {types}")
    dtype = _only(outs).dtype if op.fn == "convert" else prim.rule(*types)
    if dtype is None:
        raise Fault(f"{op.fn} has no rule for {types}")
    return Type.of(dtype, union([a.type for a in op.args]))


def _monoid(monoid: Monoid, args: Sequence[Var]) -> None:
    types = [a.type.dtype for a in args]
    need(len(args) == monoid.arity, f"{monoid.name} has {monoid.arity} components")
    need(len({a.type.dims for a in args}) == 1, "the components have different dims")
    combine = monoid.combine
    if combine is None:
        need(monoid.name in SCALAR_OP, f"no monoid is named {monoid.name}")
        out = PRIMS[SCALAR_OP[monoid.name]].rule(types[0], types[0])
        need(out == types[0], f"{monoid.name} has no rule for {types[0]}")
        only_bool = monoid.name in ("any", "all")
        need(not only_bool or types[0] is bool_, f"{monoid.name} is of bool only")
        return
    given = [p.type for p in combine.params]
    need(
        given == [Type(t) for t in types * 2], f"{monoid.name} combines {given}, not {types} twice"
    )
    found = [r.type for r in combine.results]
    need(found == [Type(t) for t in types], f"{monoid.name} gives {found}, not {types}")
    for eqn in combine.eqns:
        scalar = isinstance(eqn.op, Map | Constant) and all(not o.type.dims for o in eqn.outs)
        need(scalar, f"the combine of {monoid.name} is not a scalar program")


def _reduce(op: Reduce) -> tuple[Type, ...]:
    _monoid(op.monoid, op.args)
    need(len(set(op.dims)) == len(op.dims), "a dim is reduced twice")
    for dim in op.dims:
        need(dim in op.args[0].type.names, f"reduce over {dim}, which the operand lacks")
    kept = tuple(x for x in op.args[0].type.dims if x[0] not in op.dims)
    return tuple(Type(a.type.dtype, kept) for a in op.args)


def _place(dim: str, size: int, index: Index, mode: Mode, sizes: Mapping[str, int]) -> None:
    """One index: its type, and its range where nothing checks it later."""
    if isinstance(index, Var):
        need(index.type.dtype.is_integer, f"the index of {dim} is not an integer")
        return
    need(index.dims <= sizes.keys(), f"the index of {dim} reads dims that do not exist: {index}")
    if mode in ("trusted", "raise"):
        need(in_range(index, size, sizes), f"{index} may leave {dim}, which has size {size}")


def in_range(form: Form, size: int, sizes: Mapping[str, int]) -> bool:
    """True where 0 <= form < size at every point; a quasi-affine form with a great many points that
    intervals cannot decide is believed (the interpreter checks it again when it runs)."""
    dims = sorted(form.dims)
    if any(sizes[d] == 0 for d in dims):
        return True
    lo, hi = form.simplify(sizes).range(sizes)
    if lo >= 0 and hi < size:
        return True
    count = Type.of(i32, {d: sizes[d] for d in dims}).count
    if form.is_affine or count > _ENUMERATED:
        return not form.is_affine
    points: list[dict[str, int]] = [{}]
    for dim in dims:
        points = [{**p, dim: at} for p in points for at in range(sizes[dim])]
    return all(0 <= form.evaluate(p) < size for p in points)


def _reindex(op: Reindex, out: Type) -> Type:
    indexed = [d for d, _ in op.index]
    need(indexed == sorted(set(indexed)), "the indexed dims are not sorted, or one occurs twice")
    given = op.arg.type.sizes
    kept = tuple(x for x in op.arg.type.dims if x[0] not in indexed)
    new = {d for _, i in op.index for d in (i.type.names if isinstance(i, Var) else i.dims)}
    need(new <= out.names, f"the result lacks dims that the index reads: {sorted(new - out.names)}")
    read = Type.of(out.dtype, {d: n for d, n in out.dims if d in new})
    variables = [i.type for _, i in op.index if isinstance(i, Var)]
    sizes = union([Type(out.dtype, kept), read, *variables])
    if 0 in sizes.values():
        return Type.of(op.arg.type.dtype, sizes)
    for dim, index in op.index:
        need(dim in given, f"reindex of {dim}, which the operand lacks")
        _place(dim, given[dim], index, op.mode, sizes)
    return Type.of(op.arg.type.dtype, sizes)


def _reduce_at(op: ReduceAt, outs: Sequence[Var]) -> tuple[Type, ...]:
    _monoid(op.monoid, op.args)
    need(len(outs) == len(op.args), "one result per component is expected")
    need(len(set(op.dims)) == len(op.dims), "a dim is reduced twice")
    indexed = [d for d, _ in op.index]
    need(indexed == sorted(set(indexed)), "the new dims are not sorted, or one occurs twice")
    variables = [i.type for _, i in op.index if isinstance(i, Var)]
    sizes = union([op.args[0].type, *variables])
    kept = {d: n for d, n in op.args[0].type.dims if d not in op.dims}
    for dim in op.dims:
        need(dim in sizes, f"reduce over {dim}, which no operand has")
    for type_ in variables:
        stray = type_.names - op.args[0].type.names - set(op.dims)
        need(not stray, f"the index has dims that are neither reduced nor kept: {sorted(stray)}")
    new = {}
    for dim, index in op.index:
        need(dim not in kept, f"{dim} is kept and computed at once")
        need(dim in outs[0].type.names, f"the result lacks {dim}")
        new[dim] = outs[0].type.sizes[dim]
        if 0 not in sizes.values():
            _place(dim, new[dim], index, op.mode, sizes)
    return tuple(Type.of(a.type.dtype, {**kept, **new}) for a in op.args)


def _interleave(op: Interleave, out: Type) -> Type:
    names = [d for d, _ in op.dims]
    need(len(set(names)) == len(names) > 0, "no dim is interleaved, or one twice")
    need(all(s >= 1 for _, s in op.dims), "a stride is not positive")
    need(set(names) <= out.names, "the result lacks an interleaved dim")
    need(len(op.parts) == len(op.residues()), "one part for each combination of residues")
    for part, residues in zip(op.parts, op.residues(), strict=True):
        sizes = out.sizes
        for (dim, stride), residue in zip(op.dims, residues, strict=True):
            sizes[dim] = max(-((residue - sizes[dim]) // stride), 0)
        wanted = Type.of(out.dtype, sizes)
        need(part.type == wanted, f"part {residues} has type {part.type}, not {wanted}")
    return out


def _group(op: Group, outs: Sequence[Var]) -> tuple[Type, ...]:
    need(op.index.type.dtype.is_integer, "the index is not an integer")
    need(len(op.index.type.dims) == 1, "the index of a group has one dim")
    need(len(outs) == 2, "a group has two results")
    order, offsets = outs[0].type.dtype, outs[1].type.dtype
    need(order.is_integer and offsets.is_integer, "order and offsets are integers")
    return (op.index.type.with_dtype(order), Type(offsets, ((op.places, op.size + 1),)))


def _constant(op: Constant, out: Type) -> Type:
    if not isinstance(op.value, Table):
        return Type(out.dtype)
    order = op.value.order
    need(sorted(order) == [d for d, _ in out.dims], f"a table of {order} has the type {out}")
    need(len(op.value.data) == out.nbytes, f"a table of {out} has {len(op.value.data)} bytes")
    return out


def _random_bits(op: RandomBits, out: Type) -> Type:
    need(op.key.type.dtype is u64, "a key is u64")
    need(set(op.dims) <= out.names, "the result lacks a dim of the counter")
    own = Type.of(u32, {d: n for d, n in out.dims if d in op.dims})
    return Type.of(u32, union([op.key.type, own]))


def _top_k(op: TopK, outs: Sequence[Var]) -> tuple[Type, ...]:
    need(op.dim in op.arg.type.names, f"top_k over {op.dim}, which the operand lacks")
    need(not op.arg.type.dtype.is_complex, "complex numbers have no order")
    need(len(outs) == 2 and op.out in outs[0].type.names, f"the results lack {op.out}")
    sizes = {d: n for d, n in op.arg.type.dims if d != op.dim}
    need(op.out not in sizes, f"{op.out} is a dim of the operand")
    sizes[op.out] = outs[0].type.sizes[op.out]
    need(sizes[op.out] <= op.arg.type.sizes[op.dim], f"{op.dim} has fewer elements than {op.out}")
    values = Type.of(op.arg.type.dtype, sizes)
    return (values, values.with_dtype(i32))
