"""Interleaved values that nobody reads whole stay in parts.

    y = interleave (p 2) (a, b)
    z = mul y y                      ->   za = mul a a;  zb = mul b b
    s = reduce sum {p} z             ->   s = (reduce sum {p} za) + (reduce sum {p} zb)
    r = reindex y {p: 2*x + 2*k}     ->   r = reindex a {p: x + k}

The adjoint of a strided window is such a value: most of its places may hold zero, and those that do
not are apart in memory. A value stays in parts where every reader is a map of it (with values of
the same parts, or of none), a sum over the interleaved dims, or reads one residue only; and so does
each of those maps. Elsewhere the interleave is left, since its parts would be stored twice.

Needs a verified Program. Sums in another order. Leaves sums of 16-bit floats, other monoids, and
reads that clip.
"""

from __future__ import annotations

from collections.abc import Sequence

from summand.ir.index import Form
from summand.ir.nodes import (
    SUM,
    Eqn,
    Index,
    Interleave,
    Map,
    Program,
    Reduce,
    Reindex,
    Type,
    Var,
    operands,
)
from summand.rewrite.rebuild import Rebuild, inside

Strides = tuple[tuple[str, int], ...]  # interleaved dims, each with its stride


def deinterleave(program: Program) -> Program:
    """Take apart what nobody reads whole, in sub-programs too."""
    if not any(isinstance(e.op, Interleave) for e in program.eqns):
        return _inside_only(program)
    split = _in_parts(program)
    new = _Deinterleave(program, split)
    for eqn in program.eqns:
        new.loc = eqn.loc
        new.equation(eqn)
    new.loc = None
    return new.done(program)


def _inside_only(program: Program) -> Program:
    new = Rebuild(program)
    for eqn in program.eqns:
        new.copy(eqn, inside(eqn.op, deinterleave))
    return new.done(program)


# ---- which values


def _in_parts(program: Program) -> dict[Var, Strides]:
    """The values that stay in parts, with their interleaved dims."""
    found: dict[Var, Strides] = {}
    readers: dict[Var, list[Eqn]] = {}
    for eqn in program.eqns:
        strides = _strides(eqn, found)
        if strides is not None:
            found[eqn.out] = strides
        for var in operands(eqn.op):
            readers.setdefault(var, []).append(eqn)
    made = {e.out: e for e in program.eqns if e.outs[0] in found}
    whole = set(program.results)
    changed = True
    while changed:
        kept = {
            v: s
            for v, s in found.items()
            if v not in whole
            and all(_keeps_apart(e, v, s, found) for e in readers.get(v, ()))
            and _strides(made[v], found) == s
        }
        changed = len(kept) < len(found)
        found = kept
    return found


def _strides(eqn: Eqn, found: dict[Var, Strides]) -> Strides | None:
    """The interleaved dims of a result that has parts, given which values have."""
    match eqn.op:
        case Interleave(dims=dims):
            return dims
        case Map(args=args) if eqn.op.fn != "barrier":
            kinds = {found[a] for a in args if a in found}
            if len(kinds) != 1:
                return None
            (strides,) = kinds
            moving = {d for d, _ in strides}
            plain = all(a in found or not a.type.names & moving for a in args)
            return strides if plain else None
        case _:
            return None


def _keeps_apart(eqn: Eqn, var: Var, strides: Strides, found: dict[Var, Strides]) -> bool:
    """Whether a reader of a value needs nothing but its parts."""
    match eqn.op:
        case Map():
            return eqn.out in found
        case Reduce(monoid=monoid, dims=dims):
            narrow = var.type.dtype.is_inexact and var.type.dtype.bits == 16
            return monoid == SUM and not narrow and {d for d, _ in strides} <= set(dims)
        case Reindex():
            return _residues(eqn.op, strides) is not None
        case _:
            return False


def _residues(op: Reindex, strides: Strides) -> tuple[int, ...] | None:
    """The one part that a reindex reads, by its residues; None where it reads several."""
    index = dict(op.index)
    residues = []
    for dim, stride in strides:
        form = index.get(dim)
        if not isinstance(form, Form) or any(c % stride for _, c in form.terms):
            return None
        residues.append(form.const % stride)
    return tuple(residues) if op.mode in ("trusted", "fill") else None


# ---- emitting


class _Deinterleave(Rebuild):
    """The new program; `parts` are the new values of each old value in `split`."""

    def __init__(self, program: Program, split: dict[Var, Strides]) -> None:
        super().__init__(program)
        self.split = split
        self.parts: dict[Var, Sequence[Var]] = {}
        self.residues: dict[Var, tuple[tuple[int, ...], ...]] = {}

    def equation(self, eqn: Eqn) -> None:
        """Write an equation anew, on parts where its operands have them."""
        match eqn.op:
            case Interleave() as op if eqn.out in self.split:
                self.parts[eqn.out] = self.all_of(op.parts)
                self.residues[eqn.out] = op.residues()
            case Map() as op if eqn.out in self.split:
                self._map(eqn, op)
            case Reduce() as op if op.args[0] in self.split:
                self.bind(eqn.outs, [self._sum(op)])
            case Reindex() as op if op.arg in self.split:
                self.bind(eqn.outs, [self._read(op, eqn.out.type)])
            case _:
                self.copy(eqn, inside(eqn.op, deinterleave))

    def _map(self, eqn: Eqn, op: Map) -> None:
        first = next(a for a in op.args if a in self.split)
        parts: list[Var] = []
        for k, part in enumerate(self.parts[first]):
            args = tuple(self.parts[a][k] if a in self.split else self.of(a) for a in op.args)
            sizes = part.type.sizes
            own = {d: sizes.get(d, n) for d, n in eqn.out.type.dims}
            parts += self.emit(Map(op.fn, args), [Type.of(eqn.out.type.dtype, own)])
        self.parts[eqn.out] = parts
        self.residues[eqn.out] = self.residues[first]

    def _sum(self, op: Reduce) -> Var:
        (arg,) = op.args
        sums = [self.reduce(SUM, op.dims, part)[0] for part in self.parts[arg] if part.type.count]
        if not sums:
            return self.reduce(SUM, op.dims, self.parts[arg][0])[0]
        total = sums[0]
        for more in sums[1:]:
            total = self.map("add", total, more)
        return total

    def _read(self, op: Reindex, type_: Type) -> Var:
        strides = dict(self.split[op.arg])
        residues = _residues(op, self.split[op.arg])
        assert residues is not None
        part = self.parts[op.arg][self.residues[op.arg].index(residues)]
        index: list[tuple[str, Index]] = []
        for dim, form in op.index:
            s = strides.get(dim)
            if s is not None:
                assert isinstance(form, Form)
                form = Form(tuple((a, c // s) for a, c in form.terms), form.const // s)
            else:
                form = self.of(form) if isinstance(form, Var) else form
            index.append((dim, form))
        return self.emit(Reindex(part, tuple(index), op.mode, op.fill), [type_])[0]
