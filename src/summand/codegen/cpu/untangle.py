"""Give folds and carries dims of their own where a sink needs two that cross.

    1: fold add {a} 0                      1: fold add {a'} 3    3: load x[a', b]
    2: fold add {b} 0            ->        2: fold add {b'} 4    4: load x[a, b']
    store y[a, b] = 1 * 2                  store y[a, b] = 1 * 2

No order of the loops a and b has both results at hand when the store runs. With dims of their own
the folds run inside the loops of the store, once for each of its points: slow, but right. Schedules
never ask for this; it keeps plain loops able to write every nest. The last value of a carry is
treated as a fold along the carry's dim.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from summand.codegen.cpu.choice import chosen_schedule, looped_dims, steps_of, values_below
from summand.loops.code import Code, refs
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Bound,
    Carry,
    Const,
    Fold,
    Guard,
    Instr,
    Last,
    Load,
    Nest,
    Part,
    Position,
    Ref,
)


def untangle(nest: Nest) -> Nest:
    """The nest itself, or one without a schedule in which every fold has dims of its own."""
    return _Renamer(nest).run() if is_tangled(nest) else nest


def is_tangled(nest: Nest) -> bool:
    """Whether a sink reads two results whose loops contradict each other."""
    reduced = {r: dims for r in range(len(nest.code)) if (dims := _reduced(nest.code, r))}
    if len(reduced) < 2:
        return False
    facts = Code(nest)
    looped = looped_dims(nest, steps_of(chosen_schedule(nest)))
    starts = [(s.value, *(r for r, _ in s.at.dynamic)) for s in nest.stores]
    needs = [facts.store_dims(s) for s in nest.stores]
    for r, dims in reduced.items():
        starts.append((r,))
        needs.append(facts.deps[r] | dims)
    for start, dims in zip(starts, needs, strict=True):
        below = sorted(values_below(nest.code, start).intersection(reduced))
        for f, g in itertools.combinations(below, 2):
            one = dims & looped & reduced[f] & facts.deps[g]
            two = dims & looped & reduced[g] & facts.deps[f]
            if one and two:
                return True
    return False


def _reduced(code: Sequence[Instr], r: Ref) -> frozenset[str]:
    """The dims along which a value is a result: of a fold, or the end of a carry."""
    instr = code[r]
    if isinstance(instr, Last):
        carry = code[instr.carry]
        return frozenset({carry.dim}) if isinstance(carry, Carry) else frozenset()
    return frozenset(instr.dims) if isinstance(instr, Fold) else frozenset()


class _Renamer:
    """Rebuilds a nest: what a fold reads along its dims is copied, along dims of the fold's own."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.code = list(nest.code)
        self.dims = dict(nest.dims)
        self.bounds = list(nest.bounds)

    def run(self) -> Nest:
        """The rebuilt nest. Copies come after the code that was there, which keeps its places."""
        for r in range(len(self.nest.code)):
            dims = _reduced(self.code, r)
            if dims:
                self._separate(r, dims)
        return replace(
            self.nest,
            dims=tuple(self.dims.items()),
            code=tuple(self.code),
            bounds=tuple(self.bounds),
            schedule=None,
        )

    def _separate(self, r: Ref, dims: frozenset[str]) -> None:
        names = {d: f"{d}'{r}" for d in sorted(dims)}
        for d, fresh in names.items():
            self.dims[fresh] = self.dims[d]
        self.bounds += [_renamed_bound(b, names) for b in self.bounds if b.dim in names]
        whole = Nest(tuple(self.dims.items()), tuple(self.code), (), tuple(self.bounds))
        deps = Code(whole).deps
        below = sorted(values_below(self.code, refs(self.code[r])))
        moving = [a for a in below if deps[a] & dims]
        copies = {a: len(self.code) + k for k, a in enumerate(moving)}
        self.code += [_renamed(self.code[a], names, copies) for a in moving]
        self.code[r] = _renamed(self.code[r], names, copies)


def _renamed_bound(bound: Bound, names: Mapping[str, str]) -> Bound:
    lo = tuple(f.rename(names) for f in bound.lo)
    hi = tuple(f.rename(names) for f in bound.hi)
    return Bound(names[bound.dim], lo, hi)


def _renamed(instr: Instr, names: Mapping[str, str], at: Mapping[Ref, Ref]) -> Instr:
    """An instruction along other dims, reading the copies of values where there are any."""
    match instr:
        case Position():
            return replace(instr, form=instr.form.rename(names))
        case Load():
            return replace(instr, at=_address(instr.at, names, at))
        case Apply():
            return replace(instr, args=tuple(at.get(a, a) for a in instr.args))
        case Fold():
            dims = tuple(names.get(d, d) for d in instr.dims)
            return replace(instr, dims=dims, args=tuple(at.get(a, a) for a in instr.args))
        case Part():
            return replace(instr, of=at.get(instr.of, instr.of))
        case Carry():
            init, following = at.get(instr.init, instr.init), at.get(instr.next, instr.next)
            return Carry(names.get(instr.dim, instr.dim), init, following, instr.dtype)
        case Last():
            return replace(instr, carry=at.get(instr.carry, instr.carry))
        case Const() | Arg():
            return instr
        case _:
            assert_never(instr)


def _address(address: Address, names: Mapping[str, str], at: Mapping[Ref, Ref]) -> Address:
    def dynamic(terms: tuple[tuple[Ref, int], ...]) -> tuple[tuple[Ref, int], ...]:
        return tuple((at.get(r, r), k) for r, k in terms)

    guards = tuple(Guard(g.form.rename(names), g.size, dynamic(g.dynamic)) for g in address.guards)
    return Address(address.form.rename(names), dynamic(address.dynamic), guards)
