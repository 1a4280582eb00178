"""Adjoints of `reindex` and `reduce_at` with sum: each is the other's transpose.

    out{x, kx} = a[x: 2*x + kx]         ->   ca = reduce_at sum {x, kx} cout {x: 2*x + kx}
    out{t} = a[u: t]                    ->   ca = cout[t: u]                     (a rename)
    out{a} = reduce_at sum {p} x {a: i} ->   cx = cout[a: i]

Positions with an affine form become plain reductions in `rewrite/places/window_adjoint.py`.
"""

from __future__ import annotations

from summand.ad.cotangents import Cotangent, Selected, dense
from summand.ad.tape import Tape
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import SUM, Eqn, Index, Interleave, ReduceAt, Reindex, Scalar, Var


def renamed(op: Reindex, out: Var) -> dict[str, str] | None:
    """Old dim to new dim where the equation only renames whole dims, else None."""
    names: dict[str, str] = {}
    for d, index in op.index:
        new = index.as_dim() if isinstance(index, Form) else None
        if new is None or out.type.sizes[new] != op.arg.type.sizes[d]:
            return None
        names[d] = new
    kept = op.arg.type.names - names.keys()
    bijective = len(set(names.values())) == len(names) and not kept & set(names.values())
    return names if bijective else None


def pull_reindex(tape: Tape, eqn: Eqn, op: Reindex) -> None:
    """Send each element's cotangent back to where it was read."""
    ct = tape.cotangent(eqn.out)
    if ct is None:
        return
    names = renamed(op, eqn.out)
    if names is not None:
        tape.add(op.arg, _rename(tape.b, ct, {new: old for old, new in names.items()}))
        return
    tape.add(op.arg, _scatter(tape.b, dense(tape.b, ct, eqn.out.type), eqn, op))


def _rename(b: Builder, ct: Cotangent, back: dict[str, str]) -> Cotangent:
    def one(v: Var) -> Var:
        return b.rename(v, {new: old for new, old in back.items() if new in v.type.names})

    if isinstance(ct, Selected):
        return Selected(one(ct.values), tuple((back.get(d, d), one(p)) for d, p in ct.at))
    return one(ct)


def _scatter(b: Builder, ct: Var, eqn: Eqn, op: Reindex) -> Var:
    sizes = eqn.out.type.sizes
    kept = op.arg.type.names - {d for d, _ in op.index}
    fold = tuple(sorted(eqn.out.type.names - kept))
    read = {d for _, i in op.index for d in (i.dims if isinstance(i, Form) else i.type.names)}
    ct = b.expand(ct, {d: sizes[d] for d in sorted(read | set(fold))})
    places = {d: op.arg.type.sizes[d] for d, _ in op.index}
    return b.reduce_at(SUM, fold, [ct], dict(op.index), places, op.mode)[0]


def gather_places(b: Builder, value: Var, op: ReduceAt, like: Var, fill: Scalar = 0) -> Var:
    """Read a value over places at each element's place: out[p] = value[… d: index(p)].

    `value` has all dims of the places, `like` those of the elements. Where the place
    is outside its dim and dropped: `fill`.
    """
    return b.reindex(value, dict(op.index), like.type.sizes, op.mode, fill)


def pull_interleave(tape: Tape, eqn: Eqn, op: Interleave) -> None:
    """Each part's cotangent is a strided slice."""
    ct = tape.array(eqn.out)
    if ct is None:
        return
    for part, residues in zip(op.parts, op.residues(), strict=True):
        if not tape.wants(part):
            continue
        index: dict[str, Index] = {}
        for (d, stride), residue in zip(op.dims, residues, strict=True):
            if d in ct.type.names:
                index[d] = Form.of(d) * stride + residue
        tape.add(part, tape.b.reindex(ct, index, part.type.sizes))


def pull_reduce_at_sum(tape: Tape, eqn: Eqn, op: ReduceAt) -> None:
    """Each element's cotangent is that of its place."""
    (arg,) = op.args
    ct = tape.full(eqn.out)
    if ct is not None:
        tape.add(arg, gather_places(tape.b, ct, op, arg))
