"""Guards of reads: those that always hold vanish, those under a fold become bounds of its dim.

    fold add {k} (load x[y + k - 1] if 0 <= y + k - 1 < n else 0) * w[k]
    ->  fold add {k} x[y + k - 1] * w[k], bound 1 - y <= k < n + 1 - y

A bound costs nothing inside the loop, where a guard would be a mask on every load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from summand.ir.index import Form
from summand.loops.code import address_dims
from summand.loops.nodes import (
    Address,
    Apply,
    Bound,
    Carry,
    Const,
    Fold,
    Guard,
    Instr,
    Load,
    Loop,
    Nest,
    Stmt,
)
from summand.schedule.moves import substitute


def drop_true_guards(nest: Nest) -> Nest:
    """Guards that always hold vanish; a load whose guard never does becomes a constant.

    Only guards that no outer dim moves are looked at.
    """
    extents = nest.extents
    if any(n == 0 for n in extents.values()):
        return nest
    code = tuple(_decided(i, extents) if isinstance(i, Load) else i for i in nest.code)
    stores = tuple(replace(s, at=_open(s.at, extents)) for s in nest.stores)
    return replace(nest, code=code, stores=stores)


def _range(guard: Guard, extents: Mapping[str, int]) -> tuple[int, int] | None:
    if guard.dynamic or not guard.form.dims <= extents.keys():
        return None
    return guard.form.range(extents)


def _open(at: Address, extents: Mapping[str, int]) -> Address:
    kept = []
    for guard in at.guards:
        found = _range(guard, extents)
        if found is None or found[0] < 0 or found[1] >= guard.size:
            kept.append(guard)
    return replace(at, guards=tuple(kept))


def _decided(load: Load, extents: Mapping[str, int]) -> Instr:
    for guard in load.at.guards:
        found = _range(guard, extents)
        if found is not None and (found[1] < 0 or found[0] >= guard.size):
            return Const(load.fill, load.dtype)
    return replace(load, at=_open(load.at, extents))


# ---- bounds of the reduction

_ANNIHILATES = {("add", "mul"): 0, ("max", "add"): float("-inf"), ("min", "add"): float("inf")}


def guards_to_bounds(nest: Nest, only: Guard | None = None) -> Nest:
    """Where a guard's fill makes the summand the fold's identity, bound the folded dim instead.

    fold add {k} (load x[y + k - 1] if 0 <= y + k - 1 < n else 0) * w[k]
    ->  bound 1 - y <= k < n + 1 - y, and the load needs no guard

    `only`: the one guard that is looked at.
    """
    code = list(nest.code)
    bounds = {b.dim: b for b in nest.bounds}
    for ref, instr in enumerate(nest.code):
        if not isinstance(instr, Load) or not instr.at.guards:
            continue
        fold = _absorbing_fold(nest, ref)
        if fold is None:
            continue
        left = []
        for guard in instr.at.guards:
            asked = only is None or guard == only
            found = _bound_of(guard, fold, nest, bounds) if asked else None
            if found is None:
                left.append(guard)
                continue
            old = bounds.get(found.dim, Bound(found.dim))
            lo = tuple(dict.fromkeys((*old.lo, *found.lo)))
            hi = tuple(dict.fromkeys((*old.hi, *found.hi)))
            bounds[found.dim] = Bound(found.dim, lo, hi)
        code[ref] = replace(instr, at=replace(instr.at, guards=tuple(left)))
    return replace(nest, code=tuple(code), bounds=tuple(bounds.values()))


def _absorbing_fold(nest: Nest, ref: int) -> Fold | None:
    """The fold that alone sees value `ref`, through ops that keep its fill the fold's identity."""
    load = nest.code[ref]
    assert isinstance(load, Load)
    at = ref
    while True:
        found = [q for q, i in enumerate(nest.code) if at in _args(i)]
        if len(found) != 1 or any(s.value == at for s in nest.stores):
            return None
        reader = nest.code[found[0]]
        match reader:
            case Fold(combine, _, args) if len(args) == 1 and combine.fn is not None:
                through = {"add": "mul", "max": "add", "min": "add"}.get(combine.fn)
                fill = None if through is None else _ANNIHILATES[combine.fn, through]
                return reader if fill == load.fill else None
            case Apply(fn, args) if fn in ("mul", "add") and args.count(at) == 1:
                wanted = "mul" if load.fill == 0 else "add"
                if fn != wanted:
                    return None
                at = found[0]
            case _:
                return None


def _args(instr: Instr) -> tuple[int, ...]:
    match instr:
        case Apply() | Fold():
            return instr.args
        case Load():
            return tuple(r for r, _ in instr.at.dynamic)
        case Carry():
            return (instr.init, instr.next)
        case _:
            return ()


def _bound_of(guard: Guard, fold: Fold, nest: Nest, bounds: Mapping[str, Bound]) -> Bound | None:
    """The bound on one folded dim that says the same as a guard."""
    folds = [i for i in nest.code if isinstance(i, Fold)]
    if guard.dynamic:
        return None
    inside = [
        d
        for d in fold.dims
        if guard.form.coefficient(d)
        and sum(d in f.dims for f in folds) == 1
        and not any(d in address_dims(s.at) for s in nest.stores)
    ]
    busy = {d for b in bounds.values() for f in (*b.lo, *b.hi) for d in f.dims}
    for dim in reversed(inside):
        solved = guard.form.solve(dim)
        if solved is None or dim in busy:
            continue
        factor, rest = solved
        if not rest.is_affine or any(d in bounds for d in rest.dims):
            continue
        # 0 <= factor*dim + rest < size
        if factor > 0:
            return Bound(dim, (_up(-rest, factor),), (_up(-rest + guard.size, factor),))
        low = _up(rest - (guard.size - 1), -factor)
        return Bound(dim, (low,), ((rest // -factor) + 1,))
    return None


# ---- windows that few positions of the fold meet


def narrowed(nest: Nest, width: int) -> Stmt:
    """Where a guard leaves a few positions of a long fold, and which ones depends on a kept dim:
    a loop over pieces of that dim, each with the positions that any of its points may need.

        nest m=1000 u=500: fold add {u} load s[…] if 0 <= m + u - 511 < 32 else 0
        ->  loop m_w=16: nest m=64 u=500, bound 448 - 64*m_w <= u < 544 - 64*m_w: the same

    The guards stay, so lanes may run along the dim.
    """
    if nest.bounds or nest.ordered:
        return nest
    for ref, instr in enumerate(nest.code):
        if not isinstance(instr, Load) or not instr.at.guards:
            continue
        fold = _absorbing_fold(nest, ref)
        for guard in instr.at.guards if fold is not None else ():
            found = _bound_of(guard, fold, nest, {}) if fold is not None else None
            moving = [d for d, n in nest.dims if n > width and guard.form.coefficient(d)]
            if found is None or fold is None:
                continue
            for dim in moving:
                piece = min(4 * width, nest.extents[dim])
                reach = guard.size + abs(guard.form.coefficient(dim)) * piece
                if dim not in fold.dims and 2 * reach < nest.extents[found.dim]:
                    return _in_pieces(nest, found, dim, piece)
    return nest


def _in_pieces(nest: Nest, bound: Bound, dim: str, piece: int) -> Stmt:
    extent = nest.extents[dim]
    outer = f"{dim}_w"
    start = Form.of(outer) * piece

    def hull(form: Form, sign: int) -> Form:
        c = form.coefficient(dim)
        slack = sign * max(0, sign * c * (piece - 1))
        return form.substitute({dim: start}) + slack

    lo = tuple(hull(f, -1) for f in bound.lo)
    hi = tuple(hull(f, 1) for f in bound.hi)
    inner = substitute(nest, {dim: start + dim})
    dims = tuple((d, piece if d == dim else n) for d, n in nest.dims)
    last = (Bound(dim, (), (-start + extent,)),) if extent % piece else ()
    inner = replace(inner, dims=dims, bounds=(Bound(bound.dim, lo, hi), *last))
    return Loop(outer, -(-extent // piece), (inner,))


def _up(form: Form, by: int) -> Form:
    """Ceiling of form / by."""
    return -((-form) // by)


def free_forms(nest: Nest) -> frozenset[str]:
    """Dims that the bounds of the nest read: they stay single in tiles and lanes."""
    out: frozenset[str] = frozenset()
    for bound in nest.bounds:
        for form in (*bound.lo, *bound.hi):
            out |= form.dims
    return out
