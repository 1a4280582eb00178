"""Proofs that affine forms stay in a range: intervals first, then the conditions that hold.

    i in 0 … 7, 0 <= i + k - 1 < 8 holds   ->   i + k - 1 in 0 … 7

A condition h >= 0 helps to bound f from above where f + λh (λ > 0) cancels an atom; conditions are
tried in every order, each once, to a small depth. What cannot be proven so may still be true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from summand.dtypes import DType
from summand.ir.index import Form
from summand.loops.nodes import Apply, Const, Guard, Instr, Let, Position, Ref

Interval = tuple[int, int]
DEPTH = 3
WIDE: Interval = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is known where a statement stands: the range of each dim, forms that are >= 0, and the
    forms that dims of `Let`s are equal to where their clip never acts."""

    dims: Mapping[str, Interval] = field(default_factory=dict)
    conditions: tuple[Form, ...] = ()
    equal: Mapping[str, Form] = field(default_factory=dict)

    def bind(self, dim: str, low: int, high: int) -> Scope:
        """With a dim in low … high."""
        return replace(self, dims={**self.dims, dim: (low, high)})

    def let(self, let: Let) -> Scope:
        """With the dim of a `Let`."""
        form = let.form.substitute(self.equal)
        low, high = form.interval(self.dims)
        inside = self.bind(let.dim, *(min(max(v, let.lo), let.hi) for v in (low, high)))
        if let.lo <= low and high <= let.hi:
            return replace(inside, equal={**self.equal, let.dim: form})
        return inside

    def given(self, conditions: Sequence[Form]) -> Scope:
        """Where more forms are >= 0."""
        more = tuple(c.substitute(self.equal) for c in conditions)
        return replace(self, conditions=(*self.conditions, *more))

    def within(self, form: Form, size: int) -> bool:
        """Whether 0 <= form < size is proven."""
        form = form.substitute(self.equal)
        return self._at_most(-form, 0, self.conditions, DEPTH) and self._at_most(
            form, size - 1, self.conditions, DEPTH
        )

    def _at_most(self, form: Form, limit: int, conditions: tuple[Form, ...], depth: int) -> bool:
        if form.interval(self.dims)[1] <= limit:
            return True
        if not depth:
            return False
        known = dict(form.terms)
        for k, condition in enumerate(conditions):
            rest = (*conditions[:k], *conditions[k + 1 :])
            factors = {
                -known[atom] // c
                for atom, c in condition.terms
                if known.get(atom, 0) % c == 0
                if atom in known
            }
            for factor in sorted(f for f in factors if f > 0):
                if self._at_most(form + condition * factor, limit, rest, depth - 1):
                    return True
        return False


def atom_of(ref: Ref) -> str:
    """The name under which a value stands in forms."""
    return f"%{ref}"


def with_values(form: Form, dynamic: Sequence[tuple[Ref, int]]) -> Form:
    """A form together with its computed terms."""
    return Form.make([*form.terms, *((atom_of(r), c) for r, c in dynamic)], form.const)


def conditions_of(guards: Sequence[Guard]) -> list[Form]:
    """Forms that are >= 0 where guards hold."""
    found = []
    for guard in guards:
        form = with_values(guard.form, guard.dynamic)
        found += [form, -form + (guard.size - 1)]
    return found


def value_ranges(code: Sequence[Instr], dims: Mapping[str, Interval]) -> dict[str, Interval]:
    """The range of each integer value of a nest's code, under the name that it has in forms."""
    found: dict[str, Interval] = {}
    for r, instr in enumerate(code):
        found[atom_of(r)] = _range_of(instr, found, dims)
    return found


def _range_of(
    instr: Instr, found: Mapping[str, Interval], dims: Mapping[str, Interval]
) -> Interval:
    every = _type_range(instr.dtype)
    match instr:
        case Const() if isinstance(instr.value, int):
            return int(instr.value), int(instr.value)
        case Position():
            low, high = instr.form.interval(dims)
        case Apply() if instr.dtype.is_integer:
            args = [found.get(atom_of(a), WIDE) for a in instr.args]
            low, high = _applied(instr.fn, args, every)
        case _:
            return every
    return (low, high) if every[0] <= low and high <= every[1] else every


def _applied(fn: str, args: Sequence[Interval], every: Interval) -> Interval:
    """The range of an op on ranges; `every` where nothing is known."""
    match fn, args:
        case "max", [(a, b), (c, d)]:
            return max(a, c), max(b, d)
        case "min", [(a, b), (c, d)]:
            return min(a, c), min(b, d)
        case "add", [(a, b), (c, d)]:
            return a + c, b + d
        case "sub", [(a, b), (c, d)]:
            return a - d, b - c
        case "mul", [(a, b), (c, d)]:
            products = (a * c, a * d, b * c, b * d)
            return min(products), max(products)
        case "floordiv", [(a, b), (c, d)] if c == d and c > 0:
            return a // c, b // c
        case "mod", [_, (c, d)] if c > 0:
            return 0, d - 1
        case "where", [_, (a, b), (c, d)]:
            return min(a, c), max(b, d)
        case (("convert" | "barrier" | "stop_gradient"), [(a, b)]):
            return a, b
        case _:
            return every


def _type_range(dtype: DType) -> Interval:
    if dtype.kind == "bool":
        return 0, 1
    if not dtype.is_integer:
        return WIDE
    info = np.iinfo(dtype.numpy)
    return int(info.min), int(info.max)
