"""Reductions and scatters.

    reduce sum {k} (mul %a %b), %a without k      ->   mul %a (reduce sum {k} %b)
    reduce sum {i} (reduce sum {k} %a)            ->   reduce sum {i, k} %a
    reduce sum {k} (spread %a over k=4)           ->   mul %a 4
    reduce sum {u} (reindex %a {t: u})            ->   reduce sum {t} %a
    reduce_at sum {i} %a {j: i + 1}               ->   reindex %a {i: j - 1} fill 0

Factors leave a sum only where nobody else reads the product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.dtypes import bool_
from summand.ir.index import Form
from summand.ir.nodes import (
    NAMED,
    SCALAR_OP,
    SUM,
    Index,
    Map,
    Mode,
    Monoid,
    Reduce,
    ReduceAt,
    Reindex,
    Scalar,
    Type,
    Var,
    identity_of,
)
from summand.rewrite.simplify.smart import Smart


def simple_reduce(new: Smart, op: Reduce, types: Sequence[Type]) -> Sequence[Var] | None:
    """What stands for the reduction, or None where no rule fits."""
    if not op.dims:
        return op.args
    sizes = op.args[0].type.sizes
    if any(sizes[d] == 0 for d in op.dims):
        identity = identity_of(op.monoid, tuple(t.dtype for t in types))
        return [new.spread_number(v, t) for v, t in zip(identity, types, strict=True)]
    ones = [d for d in op.dims if sizes[d] == 1]
    if ones:
        first: dict[str, Index] = {d: Form.of(0) for d in ones}
        args = [new.reindex(a, first, {}) for a in op.args]
        return new.reduce(op.monoid, [d for d in op.dims if d not in first], *args)
    named = _recognised(op.monoid)
    if named is not None:
        return new.reduce(named, op.dims, *op.args)
    if op.monoid.combine is not None:
        return None
    value = _reduce_one(new, op, types[0])
    return None if value is None else [value]


def _recognised(monoid: Monoid) -> Monoid | None:
    """The named monoid whose scalar op a program of one equation is."""
    combine = monoid.combine
    if combine is None or monoid.arity != 1 or len(combine.eqns) != 1:
        return None
    (eqn,) = combine.eqns
    if not isinstance(eqn.op, Map) or set(eqn.op.args) != set(combine.params):
        return None
    if combine.results != eqn.outs:
        return None
    dtype = combine.params[0].type.dtype
    for name, fn in SCALAR_OP.items():
        fits = (name in ("any", "all")) == (dtype is bool_)
        if fn == eqn.op.fn and fits:
            same = identity_of(NAMED[name], (dtype,)) == monoid.identity
            return NAMED[name] if same else None
    return None


def _reduce_one(new: Smart, op: Reduce, type_: Type) -> Var | None:
    arg = op.args[0]
    made = new.made(arg)
    if made is None:
        return None
    if isinstance(made.op, Reduce) and made.op.monoid == op.monoid and new.is_read_once(arg):
        return new.reduce(op.monoid, [*op.dims, *made.op.dims], made.op.args[0])[0]
    if isinstance(made.op, Reindex):
        return _of_renamed(new, op, made.op, type_)
    if isinstance(made.op, Map):
        spread = _of_spread(new, op, arg, type_)
        if spread is not None:
            return spread
        return _factored(new, op, made.op, type_) if op.monoid == SUM else None
    return None


def _of_renamed(new: Smart, op: Reduce, made: Reindex, type_: Type) -> Var | None:
    """A reduced dim that only renames another: reduce the other."""
    if made.mode != "trusted":
        return None
    given, now = made.arg.type.sizes, op.args[0].type.sizes
    index = dict(made.index)
    dims = list(op.dims)
    for dim, form in made.index:
        name = form.as_dim() if isinstance(form, Form) else None
        if name not in dims or name is None or now[name] != given[dim]:
            continue
        rest = {d: i for d, i in index.items() if d != dim}
        others = {d for d in made.arg.type.names if d not in index}
        for i in rest.values():
            others |= i.dims if isinstance(i, Form) else i.type.names
        if name not in others and dim not in others:
            index = rest
            dims[dims.index(name)] = dim
    if len(index) == len(made.index):
        return None
    inner = new.reindex(made.arg, index, now, "trusted") if index else made.arg
    return new.reduce(op.monoid, dims, inner)[0]


def _of_spread(new: Smart, op: Reduce, arg: Var, type_: Type) -> Var | None:
    """Dims over which the operand was spread: n equal terms, or as many equal results."""
    under = new.peeled(arg)
    if under == arg:
        return None
    lacking = [d for d in op.dims if d not in under.type.names]
    narrow = arg.type.dtype.is_float and arg.type.dtype.bits == 16  # holds few whole numbers
    if lacking and (op.monoid.name == "prod" or (narrow and op.monoid.name == "sum")):
        return None
    rest = [d for d in op.dims if d not in lacking]
    value = new.reduce(op.monoid, rest, under)[0]
    if lacking and op.monoid.name == "sum":
        count = 1
        for dim in lacking:
            count *= arg.type.sizes[dim]
        value = new.map("mul", value, new.constant(count, value.type.dtype))
    return new.spread(value, type_.sizes)


def _factored(new: Smart, op: Reduce, made: Map, type_: Type) -> Var | None:
    """Σ a·b, Σ b/a, Σ where(a, b, 0) with `a` the same for all terms."""
    arg = op.args[0]
    reduced = set(op.dims)
    if made.fn == "neg":
        return new.map("neg", new.reduce(SUM, op.dims, made.args[0])[0])
    if not new.is_read_once(arg) or not (type_.dtype.bits > 16 or type_.dtype.is_integer):
        return None

    def lacks(var: Var) -> bool:
        return not (var.type.names & reduced)

    def total(var: Var) -> Var | None:
        return new.reduce(SUM, op.dims, var)[0] if reduced <= var.type.names else None

    match made.fn:
        case "mul":
            return _product(new, op, arg)
        case "div":
            a, b = made.args
            inner = total(a) if lacks(b) else None
            return None if inner is None else new.map("div", inner, b)
        case "where":
            pred, then, other = made.args
            zero = new.number(other)
            if zero is None or zero != 0 or not lacks(pred):
                return None
            inner = total(then)
            if inner is None:
                return None
            return new.map("where", pred, inner, new.peeled(other))
        case _:
            return None


def _product(new: Smart, op: Reduce, arg: Var) -> Var | None:
    """Σ of a product of several factors: those that are the same for all terms leave the sum."""
    reduced = set(op.dims)
    factors, negative = _factors(new, arg, reduced)
    outside = [f for f in factors if not (f.type.names & reduced)]
    inside = [f for f in factors if f.type.names & reduced]
    covered = reduced <= {d for f in inside for d in f.type.names}
    if not covered or not (outside or negative):
        return None
    product = inside[0]
    for factor in inside[1:]:
        product = new.map("mul", product, factor)
    (value,) = new.reduce(SUM, op.dims, product)
    for factor in outside:
        value = new.map("mul", factor, value)
    return new.map("neg", value) if negative else value


def _factors(new: Smart, var: Var, reduced: set[str]) -> tuple[list[Var], bool]:
    """The factors of a product without their signs, and whether their product is negated.

    A product that others read too is taken apart only if that shows a factor to leave the sum,
    since what is left may have to be multiplied again. A number comes out of a read as well.
    """
    if inner := new.map_of(var, "neg"):
        factors, negative = _factors(new, inner[0], reduced)
        return factors, not negative
    args = new.map_of(var, "mul") or _scaled_read(new, var)
    if args is None:
        return [var], False
    (left, first), (right, second) = (_factors(new, a, reduced) for a in args)
    factors, negative = [*left, *right], first != second
    shared = not new.is_read_once(var)
    if shared and not negative and all(f.type.names & reduced for f in factors):
        return [var], False
    return factors, negative


def _scaled_read(new: Smart, var: Var) -> tuple[Var, Var] | None:
    """A read of some value times a number as that number and a read of the value."""
    made = new.made(var)
    if made is None or not isinstance(made.op, Reindex):
        return None
    op = made.op
    args = new.map_of(op.arg, "mul")
    if args is None or op.mode == "raise" or (op.mode == "fill" and op.fill != 0):
        return None
    for factor, value in (args, args[::-1]):
        if new.number(factor) is not None and value.type == op.arg.type:
            read = new.emit(Reindex(value, op.index, op.mode, op.fill), [var.type])[0]
            return new.peeled(factor), read
    return None


# ---- scatters


def simple_reduce_at(new: Smart, op: ReduceAt, types: Sequence[Type]) -> Sequence[Var] | None:
    """What stands for the scatter, or None where no rule fits."""
    sizes = {d: n for a in op.args for d, n in a.type.dims}
    if 0 in sizes.values() or 0 in types[0].sizes.values():
        return None
    equal = _of_equal_terms(new, op, types)
    if equal is not None:
        return equal
    index, mode = _known_places(new, op, types[0], sizes)
    if index != op.index or mode != op.mode:
        return new.emit(ReduceAt(op.monoid, op.dims, op.args, index, mode), types)
    named = _recognised(op.monoid)
    if named is not None:
        return new.emit(ReduceAt(named, op.dims, op.args, index, mode), types)
    moves = _moves(op)
    if moves is None or mode == "raise":
        return None
    alone = [d for d in op.dims if d not in moves.values()]
    args = new.reduce(op.monoid, alone, *op.args) if alone else op.args
    identity = identity_of(op.monoid, tuple(t.dtype for t in types))
    return [_moved(new, op, moves, a, i, t) for a, i, t in zip(args, identity, types, strict=True)]


def _of_equal_terms(new: Smart, op: ReduceAt, types: Sequence[Type]) -> Sequence[Var] | None:
    """Dims along which neither the terms nor their places change are folded before the scatter."""
    index = tuple((d, new.peeled(i) if isinstance(i, Var) else i) for d, i in op.index)
    varying = {d for a in op.args for d in new.peeled(a).type.names}
    for _, i in index:
        varying |= i.type.names if isinstance(i, Var) else i.dims
    lacking = [d for d in op.dims if d not in varying]
    rest = tuple(d for d in op.dims if d in varying)
    in_order = op.monoid.commutative or (*rest, *lacking) == op.dims
    if not lacking or not in_order or any(d not in op.args[0].type.names for d in lacking):
        return None
    args = new.reduce(op.monoid, lacking, *op.args)
    return new.emit(ReduceAt(op.monoid, rest, tuple(args), index, op.mode), types)


def _known_places(
    new: Smart, op: ReduceAt, out: Type, sizes: Mapping[str, int]
) -> tuple[tuple[tuple[str, Index], ...], Mode]:
    """Computed places that are forms; places that are in range are trusted."""
    index: list[tuple[str, Index]] = []
    safe = True
    for dim, old in op.index:
        at: Index = old
        size = out.sizes[dim]
        if isinstance(old, Var):
            form = new.facts.forms.get(old)
            lo, hi = new.facts.ranges.get(old, (-1, 0))
            if form is not None and {*op.dims, *form.dims} <= sizes.keys():
                within = lo >= 0 and hi < size
                at = form if within or op.mode in ("fill", "clip") else old
        else:
            at = old.simplify(sizes)
            lo, hi = at.range(sizes)
        safe = safe and lo >= 0 and hi < size
        index.append((dim, at))
    return tuple(index), "trusted" if safe else op.mode


def _moves(op: ReduceAt) -> dict[str, str] | None:
    """For each new dim the reduced dim that it comes from, where every place is ±dim + c or c."""
    moves: dict[str, str] = {}
    for dim, index in op.index:
        if not isinstance(index, Form) or not index.is_affine or len(index.terms) > 1:
            return None
        if index.is_const:
            continue
        atom, coefficient = index.terms[0]
        if abs(coefficient) != 1 or not isinstance(atom, str) or atom not in op.dims:
            return None
        if atom in moves.values():
            return None
        moves[dim] = atom
    return moves if op.mode in ("trusted", "fill") else None


def _moved(
    new: Smart, op: ReduceAt, moves: Mapping[str, str], arg: Var, identity: Scalar, out: Type
) -> Var:
    """out[d] = arg[±(d - c)] or the identity; at a constant place arg, elsewhere the identity."""
    places = {d: i for d, i in op.index if isinstance(i, Form)}
    index: dict[str, Index] = {}
    for dim, source in moves.items():
        sign = places[dim].coefficient(source)
        index[source] = (Form.of(dim) - places[dim].const) * sign
    value = new.reindex(arg, index, out.sizes, "fill", identity) if index else arg
    for dim, form in places.items():
        if dim in moves:
            continue
        at = new.iota(dim, out.sizes[dim])
        here = new.map("eq", at, new.constant(form.const, at.type.dtype))
        value = new.map("where", here, value, new.constant(identity, out.dtype))
    return value
