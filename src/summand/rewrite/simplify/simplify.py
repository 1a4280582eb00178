"""Rewrite equations into cheaper ones, each in the light of how its operands were made.

    %3 = mul %1 %one                        ->   %1
    %4 = reindex %3 {i: x}; %3 = exp %0     ->   exp (reindex %0 {i: x})
    %5 = reindex %0 {k: %idx}; %idx = 2*t   ->   reindex %0 {k: 2*t}
    %6 = where (iota i >= 0) %1 %2          ->   %1
    %7 = reduce sum {k} (mul %0 %8)         ->   mul %0 (reduce sum {k} %8)      (%0 has no k)

One pass over the equations, in order: an equation is rewritten when it is emitted, with operands
that are already simple, and what a rule emits is rewritten in turn. So a pass is linear; it is
repeated while it changes something, a few times at most. The rules are in `map` (algebra),
with `types` and `where`, `index` (reindex) and `fold` (reduce,
reduce_at) with `scatter`.

Needs a verified Program. Keeps results up to rounding (factors leave sums), the sign of zeros, and
what is computed with NaN where a value is not used.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from summand.errors import Loc
from summand.ir.nodes import (
    Cond,
    Constant,
    Custom,
    Eqn,
    Iota,
    Map,
    Op,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Table,
    Type,
    Var,
    While,
    operands,
    with_operands,
)
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.merge_equal import key_of
from summand.rewrite.ranges import Range
from summand.rewrite.rebuild import Rebuild, inside
from summand.rewrite.simplify.fold import simple_reduce, simple_reduce_at
from summand.rewrite.simplify.index import simple_reindex
from summand.rewrite.simplify.map import needs_exact, simple_map
from summand.rewrite.simplify.smart import Smart

_ROUNDS = 4
_DEPTH = 64  # rules that rewrite what rules wrote; deeper ones wait for the next round


def simplify(program: Program) -> Program:
    """Simplify until nothing changes (at most a few rounds)."""
    return _simplified(program, ())


def _simplified(program: Program, known: Sequence[Range | None]) -> Program:
    program = drop_unused(program)
    for _ in range(_ROUNDS):
        program, changed = _once(program, known)
        if not changed:
            break
    return program


def _once(program: Program, known: Sequence[Range | None]) -> tuple[Program, bool]:
    new = _Simplifier(program)
    for param, found in zip(new.params, known):
        if found:
            new.facts.ranges[param] = found
    for eqn in program.eqns:
        new.equation(eqn)
    return drop_unused(new.done(program)), new.changed


def _read_exactly(program: Program) -> set[Var]:
    """Values that a later equation rounds to a grid, at once or after other scalar ops."""
    exact: set[Var] = set()
    for eqn in reversed(program.eqns):
        op = eqn.op
        passes_on = isinstance(op, Map | Reindex) and eqn.outs[0] in exact
        if passes_on or (isinstance(op, Map) and needs_exact(op, eqn.out.type)):
            exact.update(operands(op))
    return exact


class _Simplifier(Rebuild, Smart):
    """A rebuild whose `emit` tries the rules first."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.changed = False
        self.depth = 0  # rules that are at work now, each for the sake of the one before
        self.known_values: dict[Hashable, tuple[Var, ...]] = {}
        self.read_by: dict[Var, int] = {}
        for eqn in program.eqns:
            for var in operands(eqn.op):
                self.read_by[var] = self.read_by.get(var, 0) + 1
        for var in program.results:
            self.read_by[var] = self.read_by.get(var, 0) + 1
        self.exact = _read_exactly(program)

    def equation(self, eqn: Eqn) -> None:
        """Rewrite one equation of the old program."""
        self.loc = eqn.loc
        self.keep_quotient = eqn.outs[0] in self.exact
        op = with_operands(self._bodies(eqn.op), self.env)
        outs = self.emit(op, [o.type for o in eqn.outs], eqn.loc)
        for old, new in zip(eqn.outs, outs, strict=True):
            self.env[old] = new
            self.count_readers(new, self.read_by.get(old, 0))

    def emit(self, op: Op, types: Sequence[Type], loc: Loc | None = None) -> tuple[Var, ...]:
        """Emit the equation, or what a rule gives in its place."""
        values = None
        if self.depth < _DEPTH:
            self.depth += 1
            values = self._rewritten(op, types)
            self.depth -= 1
        if values is not None and [v.type for v in values] == list(types):
            self.changed = True
            return tuple(values)
        return self.emit_as_is(op, types, loc)

    def emit_as_is(self, op: Op, types: Sequence[Type], loc: Loc | None = None) -> tuple[Var, ...]:
        """Emit exactly this equation, or find its value where it was emitted before.

        Without that, rules that rewrite all operands of shared values would take exponential time.
        """
        key = key_of(op, types) if isinstance(op, Map | Reindex | Constant | Iota) else None
        if key is not None and key in self.known_values:
            return self.known_values[key]
        outs = super().emit(op, types, loc)
        self.learn(self.eqns[-1])
        if key is not None:
            self.known_values[key] = outs
        return outs

    def _rewritten(self, op: Op, types: Sequence[Type]) -> Sequence[Var] | None:
        match op:
            case Map():
                value = simple_map(self, op, types[0])
                return None if value is None else (value,)
            case Constant():
                return self._canonical(op, types)
            case Reindex():
                value = simple_reindex(self, op, types[0])
                return None if value is None else (value,)
            case Reduce():
                return simple_reduce(self, op, types)
            case ReduceAt():
                return simple_reduce_at(self, op, types)
            case _:
                return None

    def _canonical(self, op: Constant, types: Sequence[Type]) -> Sequence[Var] | None:
        """1 as a float is 1.0, so that equal constants are written alike."""
        value = op.value
        if type(value) is not int or not types[0].dtype.is_float:
            return None
        return self.emit_as_is(Constant(float(value)), types)

    # ---- bodies

    def _bodies(self, op: Op) -> Op:
        """Simplify the sub-programs, knowing what is known of their parameters."""
        match op:
            case Recur():
                first = len(op.reads)
                places = [(0, n - 1) for n in op.sizes]
                known = [*(None for _ in op.reads), *self._known(op.captured), *places]
                body = self._with_constants(op.body, first, op.captured)
                return replace(op, body=self._body(body, known))
            case Cond():
                known = self._known(op.args)
                then = self._with_constants(op.then, 0, op.args)
                other = self._with_constants(op.other, 0, op.args)
                return replace(op, then=self._body(then, known), other=self._body(other, known))
            case While():
                known = self._known(op.captured)
                test = self._with_constants(op.test, 0, op.captured)
                body = self._with_constants(op.body, 0, op.captured)
                return replace(op, test=self._body(test, known), body=self._body(body, known))
            case Custom():
                return inside(op, simplify)
            case _:
                return op

    def _body(self, body: Program, known: Sequence[Range | None]) -> Program:
        after, changed = _once(body, known)
        self.changed = self.changed or changed
        return after

    def _known(self, variables: Sequence[Var]) -> list[Range | None]:
        return [self.facts.ranges.get(self.of(v)) for v in variables]

    def _with_constants(self, body: Program, first: int, given: Sequence[Var]) -> Program:
        """Scalar constants that a body is given become constants of the body."""
        constants = {
            body.params[first + n]: made.op
            for n, var in enumerate(given)
            if (made := self.made(self.of(var))) is not None
            and isinstance(made.op, Constant)
            and not isinstance(made.op.value, Table)
        }
        if not constants:
            return body
        new = Rebuild(body)
        for param, op in constants.items():
            new.bind([param], new.emit(op, [param.type]))
        for eqn in body.eqns:
            new.copy(eqn)
        return new.done(body)
