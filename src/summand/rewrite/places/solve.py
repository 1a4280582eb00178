"""Solve affine places for the dims that are summed into them.

    u = 2*x + k, x and k summed   ->   u = 2u':     x = u' - k',      k = 2k'
                                       u = 2u' + 1: x = u' - k',      k = 2k' + 1

What `places/window_adjoint` does with the answer: out[u] = Σ over the terms of a class, each a
sum over the dims that are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import Eqn, Iota, Map, Var

MANY = 64  # residue classes of one place: with more, divisibility is tested at each element


class Stuck(Exception):
    """A summed dim stays under // or % together with others, or the classes do not fit."""


@dataclass(frozen=True, slots=True)
class Term:
    """One sum of a class of places.

    sizes: of the places' dims (in this class), of kept and of summed dims. summed: with their first
    sizes, which rank them alike in every class. open: places that are still to be solved. reads:
    where each summed dim of the operand is read. tests: forms that must be zero. residues: of each
    place that is split, its stride and residue.
    """

    sizes: Mapping[str, int]
    summed: Mapping[str, int]
    open: tuple[tuple[str, Form], ...]
    reads: Mapping[str, Form]
    tests: tuple[Form, ...] = ()
    residues: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def substituted(self, values: Mapping[str, Form]) -> Term:
        """Put forms in place of dims everywhere."""
        return replace(
            self,
            open=tuple((u, f.substitute(values).simplify(self.sizes)) for u, f in self.open),
            reads={d: f.substitute(values) for d, f in self.reads.items()},
            tests=tuple(f.substitute(values) for f in self.tests),
        )

    def closed(self, place: str) -> Term:
        """Without an open place."""
        return replace(self, open=tuple(x for x in self.open if x[0] != place))


def solve(term: Term, names: Names) -> list[Term]:
    """All terms whose sum is the scatter; none has an open place. Raises Stuck."""
    terms = list(_solve(term, names))
    if len({tuple((u, s) for u, (s, _) in sorted(t.residues.items())) for t in terms}) > 1:
        raise Stuck
    return terms


def _solve(term: Term, names: Names) -> Iterator[Term]:
    term = _unblocked(term, names)
    if not term.open:
        yield term
        return
    choice = _choice(term)
    if choice is None:
        place, form = term.open[0]
        if form.dims & term.summed.keys():
            raise Stuck
        closed = term.closed(place)
        yield from _solve(replace(closed, tests=(*term.tests, form - place)), names)
        return
    place, dim = choice
    form = dict(term.open)[place]
    coefficient = form.coefficient(dim)
    rest = Form.make((t for t in form.terms if t[0] != dim), form.const)
    for solved in _solved(term.closed(place), place, dim, coefficient, rest):
        yield from _solve(solved, names)


def _choice(term: Term) -> tuple[str, str] | None:
    """The place and the dim to solve for: one whose stride need not be tested, then the one that
    leaves the least to sum, which is the dim with the greatest extent times stride."""
    found: list[tuple[bool, int, bool, str, str]] = []
    for place, form in term.open:
        for dim in form.dims & term.summed.keys():
            solved = form.solve(dim)
            if solved is not None:
                stride = abs(solved[0])
                tested = _splits(term, stride, solved[1]) is None
                saved = term.summed[dim] * stride
                found.append((tested, -saved, stride != 1, place, dim))
    return min(found)[3:] if found else None


def _splits(term: Term, stride: int, rest: Form) -> dict[str, int] | None:
    """The dims to be split, and by what, so that place - rest is known modulo the stride; None
    where no split makes it so, or there would be too many classes."""
    splits: dict[str, int] = {}
    for atom, c in rest.terms:
        if c % stride == 0:
            continue
        if not isinstance(atom, str) or atom not in term.summed:
            return None
        splits[atom] = stride // math.gcd(c, stride)
    return splits if stride * math.prod(splits.values()) <= MANY else None


def _solved(term: Term, place: str, dim: str, coefficient: int, rest: Form) -> Iterator[Term]:
    """Put the solution of  place = coefficient·dim + rest  in place of `dim`."""
    stride, sign = abs(coefficient), 1 if coefficient > 0 else -1
    there = Form.of(place) - rest
    if stride == 1:
        yield term.substituted({dim: there * sign})
        return
    splits = _splits(term, stride, rest)
    if splits is None:
        tested = replace(term, tests=(*term.tests, there % stride))
        yield tested.substituted({dim: (there // stride) * sign})
        return
    for residue in range(stride):
        for parts in digits(list(splits.values())):
            offsets = dict(zip(splits, parts, strict=True))
            values = {k: Form.of(k) * n + offsets[k] for k, n in splits.items()}
            values[place] = Form.of(place) * stride + residue
            quotient = there.substitute(values)
            split = _split(term, place, stride, residue, splits, offsets)
            if split is not None and quotient.const % stride == 0:
                split = split.substituted(values)
                yield split.substituted({dim: (quotient // stride) * sign})


def _split(
    term: Term,
    place: str,
    stride: int,
    residue: int,
    splits: Mapping[str, int],
    offsets: Mapping[str, int],
) -> Term | None:
    """The sizes of one residue class; None where it is empty."""
    sizes = dict(term.sizes)
    sizes[place] = count(sizes[place], stride, residue)
    for dim, n in splits.items():
        sizes[dim] = count(sizes[dim], n, offsets[dim])
    if any(sizes[d] == 0 for d in (place, *splits)):
        return None
    return replace(term, sizes=sizes, residues={**term.residues, place: (stride, residue)})


def count(size: int, stride: int, residue: int) -> int:
    """How many of residue, residue + stride, … are below `size`."""
    return max(-((residue - size) // stride), 0)


def digits(radices: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All digits of the given radices, the last running fastest."""
    if not radices:
        yield ()
        return
    for first in range(radices[0]):
        for rest in digits(radices[1:]):
            yield (first, *rest)


# ---- blocks


def _unblocked(term: Term, names: Names) -> Term:
    """Split summed dims that stand alone under // or %:  x -> n·x + x'."""
    while True:
        block = _block(term)
        if block is None:
            return term
        dim, by = block
        inner = names.fresh(dim)
        sizes = {**term.sizes, dim: -(-term.sizes[dim] // by), inner: by}
        term = replace(term, sizes=sizes, summed={**term.summed, inner: by})
        term = term.substituted({dim: Form.of(dim) * by + inner})


def _block(term: Term) -> tuple[str, int] | None:
    for _, form in term.open:
        found = _block_in(term, form)
        if found is not None:
            return found
    return None


def _block_in(term: Term, form: Form) -> tuple[str, int] | None:
    for atom, _ in form.terms:
        if isinstance(atom, str):
            continue
        dim = atom.form.as_dim()
        if dim is not None and dim in term.summed:
            return dim, atom.by
        found = _block_in(term, atom.form)
        if found is not None:
            return found
    return None


def moved_position(place: Var, made: Callable[[Var], Eqn | None]) -> tuple[str, str, Var] | None:
    """How a computed place is a position x and a distance r that does not vary along x: "x + r",
    "x - r" or "r - x"; and x and r. `made` tells the equation of a value."""
    eqn = made(place)
    if eqn is None or not isinstance(eqn.op, Map) or eqn.op.fn not in ("add", "sub"):
        return None
    first, second = eqn.op.args
    for position, distance in ((first, second), (second, first)):
        found = made(position)
        if found is None or not isinstance(found.op, Iota) or place.type.dtype.is_float:
            continue
        if found.op.dim not in distance.type.names:
            ways = ("x + r", "x + r") if eqn.op.fn == "add" else ("x - r", "r - x")
            return ways[position != first], found.op.dim, distance
    return None
