"""Give folds dims of their own where a store needs two folds, each along the other's kept dims.

    1: fold add {a} 0                      1: load x[a', b]    2: fold add {a'} 1
    2: fold add {b} 0            ->        3: load x[a, b']    4: fold add {b'} 3
    store y[a, b] = 1 * 2                  store y[a, b] = 2 * 4

No order of the loops a and b has both results at hand when the store runs. With dims of their own
the folds run inside the loops of the store, once for each of its points: slow, but right. Schedules
never ask for this; it keeps plain loops able to write every nest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from summand.codegen.cpu.choice import chosen_schedule, looped_dims, steps_of
from summand.ir.index import Form
from summand.loops.code import Code, refs
from summand.loops.nodes import (
    Address,
    Apply,
    Bound,
    Carry,
    Fold,
    Guard,
    Instr,
    Load,
    Nest,
    Part,
    Position,
    Ref,
)


def untangle(nest: Nest) -> Nest:
    """The nest itself, or one without a schedule in which every fold has dims of its own."""
    if not is_tangled(nest):
        return nest
    return _Renamer(nest).run()


def is_tangled(nest: Nest) -> bool:
    """Whether a store reads two folds whose loops contradict each other."""
    folds = {r: i for r, i in enumerate(nest.code) if isinstance(i, Fold)}
    if len(folds) < 2 or any(isinstance(i, Carry) for i in nest.code):
        return False
    facts = Code(nest)
    looped = looped_dims(nest, steps_of(chosen_schedule(nest)))
    starts = [(s.value, *(r for r, _ in s.at.dynamic)) for s in nest.stores]
    needs = [facts.store_dims(s) for s in nest.stores]
    for r, fold in folds.items():
        starts.append((r,))
        needs.append(facts.deps_under(fold))
    for start, dims in zip(starts, needs, strict=True):
        below = sorted(_closure(nest, start).intersection(folds))
        for f, g in itertools.combinations(below, 2):
            if _clash(nest, facts, f, g, dims & looped):
                return True
    return False


def _clash(nest: Nest, facts: Code, f: Ref, g: Ref, needs: frozenset[str]) -> bool:
    one, two = nest.code[f], nest.code[g]
    assert isinstance(one, Fold) and isinstance(two, Fold)
    of_one, of_two = needs.intersection(one.dims), needs.intersection(two.dims)
    return bool(of_one & facts.deps[g]) and bool(of_two & facts.deps[f])


def _closure(nest: Nest, start: tuple[Ref, ...]) -> set[Ref]:
    seen: set[Ref] = set()
    todo = list(start)
    while todo:
        r = todo.pop()
        if r not in seen:
            seen.add(r)
            todo += refs(nest.code[r])
    return seen


class _Renamer:
    """Rebuilds a nest's code with copies of what folds read, along dims of their own."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.code: list[Instr] = []
        self.at: dict[Ref, Ref] = {}
        self.dims = dict(nest.dims)
        self.bounds = list(nest.bounds)

    def run(self) -> Nest:
        """The rebuilt nest."""
        for r, instr in enumerate(self.nest.code):
            if isinstance(instr, Fold):
                self.at[r] = self._fold(r, instr)
            else:
                self.at[r] = self._add(_renamed(instr, {}, self.at))
        stores = tuple(
            replace(s, value=self.at[s.value], at=_address(s.at, {}, self.at))
            for s in self.nest.stores
        )
        return Nest(tuple(self.dims.items()), tuple(self.code), stores, tuple(self.bounds))

    def _add(self, instr: Instr) -> Ref:
        self.code.append(instr)
        return len(self.code) - 1

    def _fold(self, r: Ref, fold: Fold) -> Ref:
        names = {d: f"{d}'{r}" for d in fold.dims}
        for d, fresh in names.items():
            self.dims[fresh] = self.dims[d]
        self.bounds += [
            Bound(
                names[b.dim],
                tuple(f.rename(names) for f in b.lo),
                tuple(f.rename(names) for f in b.hi),
            )
            for b in self.nest.bounds
            if b.dim in names
        ]
        so_far = Nest(tuple(self.dims.items()), tuple(self.code), (), tuple(self.bounds))
        deps = Code(so_far).deps
        copies = {a: a for a in range(len(self.code))}
        for a in sorted(_closure(so_far, tuple(self.at[a] for a in fold.args))):
            if deps[a] & names.keys():
                copies[a] = self._add(_renamed(self.code[a], names, copies))
        args = tuple(copies[self.at[a]] for a in fold.args)
        return self._add(replace(fold, dims=tuple(names.values()), args=args))


def _renamed(instr: Instr, names: Mapping[str, str], at: Mapping[Ref, Ref]) -> Instr:
    """An instruction along other dims, reading other values."""
    match instr:
        case Position():
            return replace(instr, form=instr.form.rename(names))
        case Load():
            return replace(instr, at=_address(instr.at, names, at))
        case Apply() | Fold():
            return replace(instr, args=tuple(at[a] for a in instr.args))
        case Part():
            return replace(instr, of=at[instr.of])
        case _:
            return instr


def _address(address: Address, names: Mapping[str, str], at: Mapping[Ref, Ref]) -> Address:
    def form(f: Form) -> Form:
        return f.rename(names)

    def dynamic(terms: tuple[tuple[Ref, int], ...]) -> tuple[tuple[Ref, int], ...]:
        return tuple((at[r], k) for r, k in terms)

    guards = tuple(Guard(form(g.form), g.size, dynamic(g.dynamic)) for g in address.guards)
    return Address(form(address.form), dynamic(address.dynamic), guards)
