"""Turn range checks into results, so that no kernel needs an error path.

    %3 = reindex %0 {k: %idx} raise    ->   %3 = reindex %0 {k: %idx} clip
                                            %4: i64{} = reduce min {p} (convert %idx)
                                            %5: i64{} = reduce max {p} (convert %idx)
                                            return …, %4, %5

Whoever runs the program looks at the two further results and raises afterwards. Inside bodies they
become further states and results; a branch that is not taken gives 0, which is always in range.
A read whose index is known to be in range becomes "trusted" and needs no results.

Needs a verified Program. Runs before lowering; keeps every other result bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from summand.dtypes import i64
from summand.errors import Loc
from summand.ir.builder import Builder
from summand.ir.interp_index import out_of_range
from summand.ir.nodes import (
    MAX,
    MIN,
    Cond,
    Eqn,
    Group,
    Index,
    Keep,
    Mode,
    Op,
    Program,
    Recur,
    ReduceAt,
    Reindex,
    Type,
    Var,
    While,
)
from summand.rewrite.ranges import Facts, Range
from summand.rewrite.rebuild import Rebuild


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """Results `least` and `greatest` (i64 scalars) must lie in 0 <= v < `size`, or it is an error.

    `message` has `{value}` where the offending index belongs.
    """

    least: int
    greatest: int
    size: int
    dim: str
    loc: Loc | None
    message: str


@dataclass(frozen=True, slots=True)
class _Watch:
    """An index to look at: its least and greatest value, and what it must fit."""

    least: Var
    greatest: Var
    size: int
    dim: str
    loc: Loc | None


def insert_checks(program: Program) -> tuple[Program, tuple[IndexCheck, ...]]:
    """Replace mode "raise" and add two results for each index to be checked."""
    new, watches = _watched(program)
    first = len(program.results)
    checks = [
        IndexCheck(
            first + 2 * n,
            first + 2 * n + 1,
            w.size,
            w.dim,
            w.loc,
            out_of_range(w.dim, w.size, w.loc),
        )
        for n, w in enumerate(watches)
    ]
    return new, tuple(checks)


def _watched(program: Program, known: Sequence[Range | None] = ()) -> tuple[Program, list[_Watch]]:
    """The program with two further results for each watch; `known`: the parameters' ranges."""
    new = _Watcher(program)
    for param, found in zip(new.params, known):
        if found:
            new.facts.ranges[param] = found
    for eqn in program.eqns:
        new.equation(eqn)
    extra = [v for w in new.watches for v in (w.least, w.greatest)]
    return new.finish([*new.all_of(program.results), *extra]), new.watches


class _Watcher(Rebuild):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.watches: list[_Watch] = []
        self.facts = Facts()
        self.seen: set[tuple[Var, int]] = set()

    def emit(self, op: Op, types: Sequence[Type], loc: Loc | None = None) -> tuple[Var, ...]:
        outs = super().emit(op, types, loc)
        self.facts.learn(self.eqns[-1])
        return outs

    def equation(self, eqn: Eqn) -> None:
        op = eqn.op
        match op:
            case Reindex() if op.mode == "raise":
                sizes = op.arg.type.sizes
                self.copy(eqn, replace(op, mode=self.mode(op.index, sizes, eqn.loc)))
            case ReduceAt() if op.mode == "raise":
                sizes = eqn.outs[0].type.sizes
                self.copy(eqn, replace(op, mode=self.mode(op.index, sizes, eqn.loc)))
            case Group():
                self.watch(self.of(op.index), op.size, op.places, eqn.loc)
                self.copy(eqn)
            case Recur():
                self.recur(eqn, op)
            case Cond():
                self.cond(eqn, op)
            case While():
                self.loop(eqn, op)
            case _:
                self.copy(eqn)

    def mode(
        self, index: tuple[tuple[str, Index], ...], sizes: dict[str, int], loc: Loc | None
    ) -> Mode:
        """Watch the indices; the mode in which the access can no longer fail."""
        variables = [(d, self.of(i)) for d, i in index if isinstance(i, Var)]
        doubtful = [self.watch(i, sizes[d], d, loc) for d, i in variables]
        if not any(doubtful):
            return "trusted"
        # Nothing is near an index into no elements at all: such an access must not happen.
        return "fill" if any(sizes[d] == 0 for d, _ in index) else "clip"

    def watch(self, index: Var, size: int, dim: str, loc: Loc | None) -> bool:
        """Emit the least and greatest index. False where it is known to be in range."""
        if index.type.count == 0:
            return False
        lo, hi = self.facts.ranges.get(index, (-1, size))
        if lo >= 0 and hi < size:
            return False
        if (index, size) not in self.seen:
            self.seen.add((index, size))
            wide = self.convert(index, i64)
            dims = [d for d, _ in index.type.dims]
            least = self.reduce(MIN, dims, wide)[0] if dims else wide
            greatest = self.reduce(MAX, dims, wide)[0] if dims else wide
            self.watches.append(_Watch(least, greatest, size, dim, loc))
        return True

    def adopt(self, watches: Sequence[_Watch], values: Sequence[Var]) -> None:
        """Pass on the watches of a body, whose values arrive as further results."""
        for n, w in enumerate(watches):
            self.watches.append(replace(w, least=values[2 * n], greatest=values[2 * n + 1]))

    def known(self, variables: Sequence[Var]) -> list[Range | None]:
        """What is known of outer values that a body is given."""
        return [self.facts.ranges.get(self.of(v)) for v in variables]

    # ---- bodies

    def recur(self, eqn: Eqn, op: Recur) -> None:
        """Each position's values are a further state that nobody reads; they are folded outside."""
        states: list[Range | None] = [None] * len(op.reads)
        places = [(0, n - 1) for n in op.sizes]
        body, watches = _watched(op.body, [*states, *self.known(op.captured), *places])
        if 0 in op.sizes:
            body, watches = replace(body, results=body.results[: len(eqn.outs)]), []
        whole: Keep = "all"
        keep = (*op.keep, *(whole,) * (2 * len(watches))) if op.keep else ()
        over = Type.of(i64, dict(zip(op.over, op.sizes, strict=True)))
        outs = self.emit(
            replace(
                op,
                inits=self.all_of(op.inits),
                captured=self.all_of(op.captured),
                body=body,
                keep=keep,
            ),
            [*(o.type for o in eqn.outs), *[over] * (2 * len(watches))],
            eqn.loc,
        )
        self.bind(eqn.outs, outs[: len(eqn.outs)])
        every = outs[len(eqn.outs) :]
        folded = [self.reduce(MAX if n % 2 else MIN, op.over, v)[0] for n, v in enumerate(every)]
        self.adopt(watches, folded)

    def cond(self, eqn: Eqn, op: Cond) -> None:
        """A branch gives 0 for the other branch's indices."""
        then, first = _watched(op.then, self.known(op.args))
        other, second = _watched(op.other, self.known(op.args))
        zeros = len(first), len(second)
        outs = self.emit(
            Cond(
                self.of(op.pred),
                _with_zeros(then, 0, zeros[1], len(eqn.outs), zeros[0]),
                _with_zeros(other, zeros[0], 0, len(eqn.outs), zeros[1]),
                self.all_of(op.args),
            ),
            [*(o.type for o in eqn.outs), *[Type(i64)] * (2 * sum(zeros))],
            eqn.loc,
        )
        self.bind(eqn.outs, outs[: len(eqn.outs)])
        self.adopt([*first, *second], outs[len(eqn.outs) :])

    def loop(self, eqn: Eqn, op: While) -> None:
        """Running extremes are further states. The test's own indices are looked at in the body,
        for every state that it saw but the last, and once more after the loop. An index that
        left its range ends the loop, which might not end of itself on what the clipped read gives.
        """
        body, watches = _watched(op.body, self.known(op.captured))
        test, tested = _watched(op.test, self.known(op.captured))
        count = 2 * (len(watches) + len(tested))
        state = [*self.all_of(op.state), *(self.constant(0, i64) for _ in range(count))]
        captured = self.all_of(op.captured)
        outs = self.emit(
            While(
                _wider_test(test, [*watches, *tested], tested),
                _wider_body(op, body, test, count),
                captured,
                tuple(state),
            ),
            [v.type for v in state],
            eqn.loc,
        )
        plain = outs[: len(eqn.outs)]
        self.bind(eqn.outs, plain)
        self.adopt([*watches, *tested], outs[len(eqn.outs) :])
        if tested:
            self.adopt(tested, self.inline(test, [*captured, *plain])[1:])


def _with_zeros(program: Program, before: int, after: int, plain: int, own: int) -> Program:
    """A branch's results: its plain ones, zeros, its own watched values, zeros."""
    build = Builder()
    args = [build.param(p.type) for p in program.params]
    results = build.inline(program, args)
    values = [
        *(build.constant(0, i64) for _ in range(2 * before)),
        *results[plain : plain + 2 * own],
        *(build.constant(0, i64) for _ in range(2 * after)),
    ]
    return build.finish([*results[:plain], *values])


def _wider_test(test: Program, watches: Sequence[_Watch], tested: Sequence[_Watch]) -> Program:
    build = Builder()
    args = [build.param(p.type) for p in test.params]
    seen = [build.param(Type(i64)) for _ in range(2 * len(watches))]
    go_on, *now = build.inline(test, args)
    sizes = [w.size for w in (*watches, *tested) for _ in range(2)]
    for value, size in zip([*seen, *now], sizes, strict=True):
        above = build.map("ge", value, build.constant(0, i64))
        below = build.map("lt", value, build.constant(max(size, 1), i64))
        go_on = build.map("and", go_on, build.map("and", above, below))
    return build.finish([go_on])


def _wider_body(op: While, body: Program, test: Program, count: int) -> Program:
    build = Builder()
    args = [build.param(p.type) for p in body.params]
    before = [build.param(Type(i64)) for _ in range(count)]
    plain = len(op.state)
    results = build.inline(body, args)
    found = [*results[plain:], *build.inline(test, args)[1:]]
    after = [
        build.map("max" if n % 2 else "min", old, new)
        for n, (old, new) in enumerate(zip(before, found, strict=True))
    ]
    return build.finish([*results[:plain], *after])
