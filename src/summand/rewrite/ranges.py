"""What is known of integer values before anything runs: their range, and the form they equal.

    %1: i32{i=4} = iota i          0 … 3, and is the form  i
    %2 = mul %1 %two               0 … 6, and is the form  2*i
    %3 = mod %x %five              0 … 4
    %4 = lt %1 %four               1 … 1: always true

Facts are added equation by equation; a fact that might overflow its type is not made.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping, Sequence

import numpy as np

from summand.dtypes import DType, bool_
from summand.ir.index import Form
from summand.ir.nodes import (
    Constant,
    Eqn,
    Group,
    Iota,
    Map,
    Reduce,
    Reindex,
    Sort,
    Table,
    TopK,
    Type,
    Var,
)

Range = tuple[int, int]
_COMPARES = ("lt", "le", "gt", "ge", "eq", "ne")


class Facts:
    """Ranges and forms of the values of one program."""

    def __init__(self) -> None:
        self.ranges: MutableMapping[Var, Range] = {}
        self.forms: MutableMapping[Var, Form] = {}

    def learn(self, eqn: Eqn) -> None:
        """Add what an equation says of its results; its operands must have been learnt before."""
        op = eqn.op
        match op:
            case Iota():
                out = eqn.out
                self._form(out, Form.of(op.dim))
            case Constant():
                self._constant(op, eqn.out)
            case Map():
                if eqn.out.type.dtype.is_integer or eqn.out.type.dtype is bool_:
                    self._map(op, eqn.out)
            case Reindex():
                self._reindex(op, eqn.out)
            case Sort() | TopK():
                self._range(eqn.outs[1], (0, op.arg.type.sizes[op.dim] - 1))
            case Group():
                self._range(eqn.outs[0], (0, op.index.type.count - 1))
            case Reduce() if op.monoid.name in ("max", "min") and op.args[0].type.count:
                self._range(eqn.outs[0], self.ranges.get(op.args[0]))

    def _form(self, out: Var, form: Form) -> None:
        """Record a form, and its range, where the type holds it."""
        sizes = out.type.sizes
        if not form.dims <= sizes.keys() or any(sizes[d] == 0 for d in form.dims):
            return
        form = form.simplify(sizes)
        if _fits(form.range(sizes), out.type.dtype):
            self.forms[out] = form
            self._range(out, form.range(sizes))

    def _range(self, out: Var, found: Range | None) -> None:
        if found is None or found[0] > found[1] or not _fits(found, out.type.dtype):
            return
        old = self.ranges.get(out, found)
        self.ranges[out] = (max(old[0], found[0]), min(old[1], found[1]))

    def _constant(self, op: Constant, out: Var) -> None:
        dtype = out.type.dtype
        if not (dtype.is_integer or dtype is bool_):
            return
        if isinstance(op.value, Table):
            values = np.frombuffer(op.value.data, dtype.numpy)
            if values.size:
                self._range(out, (int(values.min()), int(values.max())))
        elif isinstance(op.value, int):
            self._form(out, Form.of(int(op.value)))

    def _reindex(self, op: Reindex, out: Var) -> None:
        found = self.ranges.get(op.arg)
        if found and op.mode == "fill":
            fill = int(op.fill.real)
            found = (min(found[0], fill), max(found[1], fill))
        self._range(out, found)
        form = self.forms.get(op.arg)
        index = {d: i for d, i in op.index if isinstance(i, Form)}
        if form and op.mode == "trusted" and len(index) == len(op.index):
            self._form(out, form.substitute(index))

    def range_of(self, op: Map, type_: Type) -> Range | None:
        """The range of a map that has not been emitted."""
        found = Facts()
        found.ranges, found.forms = ChainMap({}, self.ranges), ChainMap({}, self.forms)
        out = Var(-1, type_)
        found._map(op, out)
        return found.ranges.get(out)

    def _map(self, op: Map, out: Var) -> None:
        args = op.args
        forms = [self.forms.get(a) for a in args]
        known = [f for f in forms if f is not None]
        if len(known) == len(args):
            form = _form_of(op.fn, known)
            if form is not None:
                self._form(out, form)
                return
            if op.fn in _COMPARES:
                self._range(out, _compare(op.fn, _difference(known, out.type)))
                return
        found = [self.ranges.get(a) for a in args]
        ranges = [r for r in found if r is not None]
        if op.fn == "where" and found[1] and found[2]:
            self._range(out, _where(found[0], found[1], found[2]))
        elif len(ranges) == len(args):
            self._range(out, _range_of(op.fn, ranges))
        elif op.fn in ("mod", "and") and found[1] and found[1][0] == found[1][1]:
            self._range(out, _bounded(op.fn, found[1][0]))


def _fits(found: Range, dtype: DType) -> bool:
    if dtype is bool_:
        return found[0] >= 0 and found[1] <= 1
    if not dtype.is_integer:
        return False
    info = np.iinfo(dtype.numpy)
    return found[0] >= int(info.min) and found[1] <= int(info.max)


def _form_of(fn: str, args: Sequence[Form]) -> Form | None:
    match fn:
        case "add":
            return args[0] + args[1]
        case "sub":
            return args[0] - args[1]
        case "neg":
            return -args[0]
        case "convert" | "stop_gradient":
            return args[0]
        case "mul" if args[1].is_const:
            return args[0] * args[1].const
        case "mul" if args[0].is_const:
            return args[1] * args[0].const
        case "floordiv" if args[1].is_const and args[1].const > 0:
            return args[0] // args[1].const
        case "mod" if args[1].is_const and args[1].const > 0:
            return args[0] % args[1].const
        case _:
            return None


def _difference(forms: Sequence[Form], type_: Type) -> Range | None:
    """The range of left - right, which is sharper than their ranges apart."""
    sizes = type_.sizes
    form = forms[0] - forms[1]
    if not form.dims <= sizes.keys() or any(sizes[d] == 0 for d in form.dims):
        return None
    return form.simplify(sizes).range(sizes)


def _compare(fn: str, difference: Range | None) -> Range | None:
    """The truth of `left fn right` where left - right lies in a range: (0,0), (1,1), or unknown."""
    if difference is None:
        return None
    lo, hi = difference
    always = {
        "lt": hi < 0,
        "le": hi <= 0,
        "gt": lo > 0,
        "ge": lo >= 0,
        "eq": lo == hi == 0,
        "ne": lo > 0 or hi < 0,
    }
    never = {
        "lt": lo >= 0,
        "le": lo > 0,
        "gt": hi <= 0,
        "ge": hi < 0,
        "eq": lo > 0 or hi < 0,
        "ne": lo == hi == 0,
    }
    return (1, 1) if always[fn] else (0, 0) if never[fn] else None


def _where(pred: Range | None, then: Range, other: Range) -> Range:
    if pred and pred[0] == pred[1]:
        return then if pred[0] else other
    return (min(then[0], other[0]), max(then[1], other[1]))


def _range_of(fn: str, args: Sequence[Range]) -> Range | None:
    a = args[0]
    b = args[1] if len(args) > 1 else a
    if fn in _COMPARES:
        return _compare(fn, (a[0] - b[1], a[1] - b[0]))
    match fn:
        case "add":
            return (a[0] + b[0], a[1] + b[1])
        case "sub":
            return (a[0] - b[1], a[1] - b[0])
        case "mul":
            products = [x * y for x in a for y in b]
            return (min(products), max(products))
        case "neg":
            return (-a[1], -a[0])
        case "abs":
            least = 0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1]))
            return (least, max(abs(a[0]), abs(a[1])))
        case "max":
            return (max(a[0], b[0]), max(a[1], b[1]))
        case "min":
            return (min(a[0], b[0]), min(a[1], b[1]))
        case "convert" | "stop_gradient" | "barrier":
            return a
        case "floordiv" if b[0] == b[1] and b[0] > 0:
            return (a[0] // b[0], a[1] // b[0])
        case "mod" if b[0] == b[1] and b[0] > 0:
            within = a[0] // b[0] == a[1] // b[0]
            return (a[0] % b[0], a[1] % b[0]) if within else (0, b[0] - 1)
        case "and" if a[1] <= 1 and b[1] <= 1 and a[0] >= 0 and b[0] >= 0:
            return (min(a[0], b[0]), min(a[1], b[1]))
        case "or" if a[1] <= 1 and b[1] <= 1 and a[0] >= 0 and b[0] >= 0:
            return (max(a[0], b[0]), max(a[1], b[1]))
        case _:
            return None


def _bounded(fn: str, by: int) -> Range | None:
    """The range of `anything mod by` and `anything and by`."""
    if fn == "mod" and by > 0:
        return (0, by - 1)
    return (0, by) if fn == "and" and by >= 0 else None
