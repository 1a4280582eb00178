"""Sums over a window run through it in the direction in which costly parts are known already.

    w{x,p} = exp(-(a{x} - a[x + p - 5])^2)            (p of size 11)
    s{x} = sum{p} w[x: x - p + 5] · c[x: x - p + 5]
      ->   s{x} = sum{p} where(0 <= x + p - 5 < n, w, 0) · c[x: x + p - 5]

The gradient of a program with a window reads the window's values from the other end. Summed
backwards, p -> 10 - p, the same pairs of elements meet, and what is symmetric in them is the same
value: squares of a - b and b - a, products of two that changed their sign. The operands of such a
sum are written anew at the mirrored places, each value that exists is taken as it is, and the
result stays where that saves exp and the like and costs none.

Needs a verified Program. Sums in another order. Leaves windows with gaps in their adjoint
(computed places), and all sums whose terms are cheap.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from summand.errors import Loc
from summand.ir.index import Form
from summand.ir.nodes import SUM, Eqn, Index, Iota, Map, Op, Program, Reduce, Reindex, Type, Var
from summand.ir.prims import PRIMS
from summand.rewrite.merge_equal import key_of
from summand.rewrite.ranges import Facts
from summand.rewrite.rebuild import Rebuild, inside

HEAVY = 8.0  # slots of an op that is worth the change
FEW = 16  # terms of a sum that is written anew
DEEPEST = 64  # equations between the sum and what is read


def mirror(program: Program) -> Program:
    """Mirror every sum that gains by it, in sub-programs too."""
    new = _Mirror(program)
    for eqn in program.eqns:
        op = inside(eqn.op, mirror)
        new.loc = eqn.loc
        value = new.mirrored(op) if isinstance(op, Reduce) else None
        if value is None:
            new.copy(eqn, op)
        else:
            new.bind(eqn.outs, [value])
    new.loc = None
    return new.done(program)


@dataclass(frozen=True, slots=True)
class _Signed:
    """A value or, where `minus`, what it is the negative of."""

    var: Var
    minus: bool = False


class _Stuck(Exception):
    """What is no sum, map or affine read varies along the window."""


class _Mirror(Rebuild):
    """The new program; its methods work on new values. Equal equations are made once."""

    def __init__(self, program: Program) -> None:
        self.made: dict[Var, Eqn] = {}
        self.facts = Facts()
        self.known: dict[Hashable, tuple[Var, ...]] = {}
        self.reads: dict[Hashable, Var] = {}  # by array and places, whatever is outside
        self.positions: dict[Form, Var] = {}
        self.heavy: set[Var] = set()  # an op that costs much is evaluated for each element
        self.memo: dict[Hashable, _Signed] = {}
        self.over: frozenset[str] = frozenset()
        self.saved = self.spent = self.depth = 0
        super().__init__(program)

    def emit(self, op: Op, types: Sequence[Type], loc: Loc | None = None) -> tuple[Var, ...]:
        """Append an equation and remember what it makes."""
        outs = super().emit(op, types, loc)
        eqn = self.eqns[-1]
        self.facts.learn(eqn)
        self.made.update((o, eqn) for o in outs)
        key = key_of(op, types)
        if key is not None:
            self.known.setdefault(key, outs)
        match op:
            case Reindex(mode="fill" | "trusted"):
                self.reads.setdefault((op.arg, op.index), outs[0])
                self.heavy |= set(outs) if op.arg in self.heavy else set()
            case Map():
                dear = PRIMS[op.fn].flops >= HEAVY or not self.heavy.isdisjoint(op.args)
                self.heavy |= set(outs) if dear else set()
        if isinstance(op, Map | Iota) and outs[0] in self.facts.forms:
            self.positions.setdefault(self.facts.forms[outs[0]], outs[0])
        return outs

    def mirrored(self, op: Reduce) -> Var | None:
        """The sum taken backwards, or None where that gains nothing."""
        arg = self.of(op.args[0])
        if op.monoid != SUM or arg not in self.heavy or arg.type.count == 0:
            return None
        turned = self._turned(arg, op.dims)
        if not turned:
            return None
        sizes = arg.type.sizes
        start, number = len(self.eqns), self._next
        self.over, self.saved, self.spent = frozenset(op.dims), 0, 0
        self.memo.clear()
        try:
            self.depth = 0
            found = self._moved(arg, {d: -Form.of(d) + (sizes[d] - 1) for d in turned}, sizes)
        except _Stuck:
            found = None
        if found is None or self.spent or not self.saved:
            self._forget(start, number)
            return None
        (total,) = self.reduce(SUM, op.dims, found.var)
        return self.map("neg", total) if found.minus else total

    def _forget(self, start: int, number: int) -> None:
        """Undo what was emitted from an equation on."""
        gone = {o for e in self.eqns[start:] for o in e.outs}
        del self.eqns[start:]
        self._next = number
        self.known = {k: v for k, v in self.known.items() if v[0] not in gone}
        self.reads = {k: v for k, v in self.reads.items() if v not in gone}
        self.positions = {k: v for k, v in self.positions.items() if v not in gone}

    def _turned(self, var: Var, dims: Sequence[str]) -> frozenset[str]:
        """The summed dims that the reads under some maps run through backwards."""
        found: set[str] = set()
        seen, stack = {var}, [var]
        while stack:
            made = self.made.get(stack.pop())
            match made.op if made is not None else None:
                case Map(args=args):
                    stack += [a for a in args if a not in seen]
                    seen.update(args)
                case Reindex(index=index):
                    forms = [i for _, i in index if isinstance(i, Form)]
                    found |= {d for d in dims for f in forms if f.coefficient(d) < 0}
        return frozenset(found)

    # ---- values at other places

    def _moved(self, var: Var, at: Mapping[str, Form], sizes: Mapping[str, int]) -> _Signed:
        """A value where each of its dims is a form; anything where that is outside."""
        own = {d: f.simplify(sizes) for d, f in at.items() if d in var.type.names}
        own = {d: f for d, f in own.items() if f.as_dim() != d or sizes[d] != var.type.sizes[d]}
        if not own:
            return _Signed(var)
        key = (var, tuple(sorted(own.items())))
        found = self.memo.get(key)
        if found is None:
            if self.depth == DEEPEST:
                raise _Stuck
            self.depth += 1
            found = self.memo[key] = self._written(var, own, sizes)
            self.depth -= 1
        return found

    def _written(self, var: Var, at: Mapping[str, Form], sizes: Mapping[str, int]) -> _Signed:
        place = self._position(var, at, sizes)
        if place is not None:
            return place
        made = self.made.get(var)
        match made.op if made is not None else None:
            case Map(fn=fn, args=args) if fn != "barrier" and var.type.names & self.over:
                moved = [self._moved(a, at, sizes) for a in args]
                same = [m.var for m in moved if not m.minus] == list(args)
                if same:
                    self.saved += PRIMS[fn].flops >= HEAVY
                return _Signed(var) if same else self._map(fn, moved, var.type)
            case Reindex() as op if var.type.names & self.over and self._is_affine(op):
                return self._of_read(op, at, sizes)
            case Reduce(monoid=monoid, args=(arg,), dims=dims) if var.type.names & self.over:
                terms = arg.type.count // var.type.count
                clash = any(set(dims) & f.dims for f in at.values())
                if monoid == SUM and terms <= FEW and not clash:
                    term = self._moved(arg, at, {**arg.type.sizes, **sizes})
                    return _Signed(self._sum(dims, term.var), term.minus)
        if var.type.names & self.over:
            raise _Stuck
        return _Signed(self._read(var, at, sizes))

    def _position(
        self, var: Var, at: Mapping[str, Form], sizes: Mapping[str, int]
    ) -> _Signed | None:
        """A position that is known, or the negative of one."""
        form = self.facts.forms.get(var)
        if form is None:
            return None
        form = form.substitute(at).simplify(sizes)
        for here, minus in ((form, False), (-form, True)):
            found = self.positions.get(here)
            wanted = Type.of(var.type.dtype, {d: sizes[d] for d in form.dims})
            if found is not None and found.type == wanted:
                return _Signed(found, minus)
        return None

    def _is_affine(self, op: Reindex) -> bool:
        return op.mode in ("fill", "trusted") and all(isinstance(i, Form) for _, i in op.index)

    def _of_read(self, op: Reindex, at: Mapping[str, Form], sizes: Mapping[str, int]) -> _Signed:
        """An affine read at other places: of what is there, or of the fill outside."""
        arg = op.arg
        index = {d: Form.of(d) for d in arg.type.names}
        index |= {d: i for d, i in op.index if isinstance(i, Form)}
        index = {d: f.substitute(at).simplify(sizes) for d, f in index.items()}
        if not arg.type.names & self.over:
            return _Signed(self._read(arg, index, sizes, op))
        value = self._moved(arg, index, sizes)
        tests = [(f, arg.type.sizes[d]) for d, f in sorted(index.items())]
        here = self._inside(tests, sizes) if op.mode == "fill" else None
        if here is None:
            return value
        real = arg.type.dtype.is_float
        nothing = self.constant(float(op.fill.real) if real else op.fill, arg.type.dtype)
        if value.minus and op.fill:
            value = _Signed(self._apply("neg", value.var))
        return _Signed(self._apply("where", here, value.var, nothing), value.minus)

    def _inside(self, tests: Sequence[tuple[Form, int]], sizes: Mapping[str, int]) -> Var | None:
        """Whether forms are within their sizes; None where they always are."""
        found: Var | None = None
        for form, size in tests:
            low, high = form.range(sizes)
            if low >= 0 and high < size:
                continue
            place = self.position(form, sizes)
            for fn, bound, needed in (("ge", 0, low < 0), ("lt", size, high >= size)):
                if needed:
                    test = self._apply(fn, place, self.constant(bound, place.type.dtype))
                    found = test if found is None else self._apply("and", found, test)
        return found

    def _read(
        self,
        arg: Var,
        at: Mapping[str, Form],
        sizes: Mapping[str, int],
        like: Reindex | None = None,
    ) -> Var:
        """An array at other places; outside of it as in the read `like`, or anything."""
        own = arg.type.sizes
        index: dict[str, Index] = {
            d: f for d, f in at.items() if f.as_dim() != d or sizes[d] != own[d]
        }
        if not index:
            return arg
        known = self.reads.get((arg, tuple(sorted(index.items()))))
        made = self.made[known].op if known is not None else None
        if isinstance(made, Reindex):
            same = made.mode == "trusted" or like is None or like.mode == "trusted"
            if known is not None and (same or (like and _text(made.fill) == _text(like.fill))):
                return known
        ranges = ((f.range(sizes), own[d]) for d, f in at.items())
        if all(low >= 0 and high < n for (low, high), n in ranges):
            return self.reindex(arg, index, sizes)
        return self.reindex(arg, index, sizes, "fill", like.fill if like else 0)

    # ---- scalar ops

    def _map(self, fn: str, args: Sequence[_Signed], type_: Type) -> _Signed:
        """A scalar op of values or their negatives."""
        minus = [a.minus for a in args]
        values = [a.var for a in args]
        match fn:
            case "mul" | "div":
                return self._signed(fn, values, minus[0] != minus[1])
            case "add" | "sub" if type_.dtype.is_float or type_.dtype.is_integer:
                if minus[0] == minus[1]:
                    return self._signed(fn, values, minus[0])
                return self._signed("sub" if fn == "add" else "add", values, minus[0])
            case "neg":
                return _Signed(values[0], not minus[0])
            case "convert" | "stop_gradient" if type_.dtype.is_float:
                return _Signed(self._apply(fn, *values, dtype=type_), minus[0])
            case "where" if not minus[0] and minus[1] == minus[2]:
                return _Signed(self._apply(fn, *values), minus[1])
        plain = [self._apply("neg", v) if m else v for v, m in zip(values, minus, strict=True)]
        return _Signed(self._apply(fn, *plain, dtype=type_))

    def _signed(self, fn: str, values: Sequence[Var], minus: bool) -> _Signed:
        """A scalar op; a difference that is known the other way round is its negative."""
        if fn == "sub":
            there = Map("sub", (values[1], values[0]))
            type_ = Type.of(values[0].type.dtype, {**values[0].type.sizes, **values[1].type.sizes})
            known = self.known.get(key_of(there, [type_]))
            if known is not None:
                return _Signed(known[0], not minus)
        return _Signed(self._apply(fn, *values), minus)

    def _apply(self, fn: str, *args: Var, dtype: Type | None = None) -> Var:
        """A scalar op, made once."""
        sizes = {d: n for a in args for d, n in a.type.dims}
        kind = dtype.dtype if dtype else PRIMS[fn].rule(*(a.type.dtype for a in args))
        assert kind is not None
        orders = [args, args[::-1]] if PRIMS[fn].commutative else [args]
        known = [self.known.get(key_of(Map(fn, o), [Type.of(kind, sizes)])) for o in orders]
        found = next((k for k in known if k is not None), None)
        if PRIMS[fn].flops >= HEAVY:
            self.saved += found is not None
            self.spent += found is None
        return found[0] if found else self.emit(Map(fn, args), [Type.of(kind, sizes)])[0]

    def _sum(self, dims: tuple[str, ...], term: Var) -> Var:
        """A sum, made once."""
        type_ = Type(term.type.dtype, tuple(x for x in term.type.dims if x[0] not in dims))
        found = self.known.get(key_of(Reduce(SUM, dims, (term,)), [type_]))
        return found[0] if found else self.reduce(SUM, dims, term)[0]


def _text(fill: bool | int | float | complex) -> str:
    """The text of a number, which tells -0.0 from 0."""
    return repr(complex(fill))
