"""`sm.Monoid(combine, identity)`: a reduction by the user's own associative function.

affine = sm.Monoid(lambda f, g: (f[0] * g[0], f[1] * g[0] + g[1]), identity=(1.0, 0.0))
a, b = affine[t]((a, b))        the composition of all affine maps along t
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

from summand.dtypes import DType
from summand.errors import ArgumentError, DTypeError
from summand.ir.nodes import Constant, Map, Scalar, Type
from summand.ir.nodes import Monoid as MonoidNode
from summand.lang.array import Array, Dim, Number, operand, wrap
from summand.lang.describe import message, source_row
from summand.lang.elementwise import common, convert, weak_scalar
from summand.lang.fold import aligned, fold, fold_at
from summand.lang.graph import Sized, placeholder
from summand.lang.location import here
from summand.lang.reductions import At, places_of, reduced_dims
from summand.lang.signature import check_function
from summand.lang.trace import Extracted, extract, tracing
from summand.lang.unsized import Value, force

X = Array | Number
Combine = Callable[..., object]


class Monoid:
    """An associative `combine(a, b)` with its identity, over numbers or tuples of numbers.

    combine: elementwise operations on scalars only; given tuples where `identity` is a tuple.
    commutative: whether combine(a, b) equals combine(b, a); False keeps the elements' order.
    """

    def __init__(
        self,
        combine: Combine,
        identity: Number | tuple[Number, ...],
        *,
        commutative: bool = False,
        name: str = "monoid",
    ) -> None:
        check_function(combine, "Monoid")
        self.combine = combine
        self.is_tuple = isinstance(identity, tuple)
        self.identity: tuple[Scalar, ...] = identity if isinstance(identity, tuple) else (identity,)
        if not all(isinstance(x, (bool, int, float, complex)) for x in self.identity):
            what = f"an identity is a number or a tuple of numbers, not {identity!r}"
            raise ArgumentError(message(what, source_row(here()), "Write a Python number."))
        self.commutative = commutative
        self.name = name
        self._traced: dict[tuple[DType, ...], MonoidNode] = {}

    def __getitem__(self, dims: Dim | Sequence[Dim]) -> BoundMonoid:
        return BoundMonoid(self, reduced_dims(self.name, dims))

    def node(self, dtypes: tuple[DType, ...]) -> MonoidNode:
        """The monoid for these element types."""
        found = self._traced.get(dtypes)
        if found is None:
            found = self._traced[dtypes] = self._trace(dtypes)
        return found

    def _trace(self, dtypes: tuple[DType, ...]) -> MonoidNode:
        left = [placeholder(Type(t), f"a{i}") for i, t in enumerate(dtypes)]
        right = [placeholder(Type(t), f"b{i}") for i, t in enumerate(dtypes)]
        with tracing():
            out = self.combine(self._packed(left), self._packed(right))
        parts = out if self.is_tuple else (out,)
        if not isinstance(parts, tuple) or len(parts) != len(dtypes):
            what = f"combine gives {_shown(out)}, not {self._expected()}"
            raise ArgumentError(message(what, source_row(here()), "Return what identity is like."))
        results = [self._result(p, t) for p, t in zip(parts, dtypes, strict=True)]
        extracted = extract(results, [*left, *right], since=left[0].node.serial)
        self._check(extracted)
        return MonoidNode(self.name, self.identity, extracted.program, self.commutative)

    def _packed(self, values: Sequence[Sized]) -> Array | tuple[Array, ...]:
        arrays = tuple(wrap(v) for v in values)
        return arrays if self.is_tuple else arrays[0]

    def _expected(self) -> str:
        return f"a tuple of {len(self.identity)}" if self.is_tuple else "one array"

    def _result(self, out: object, dtype: DType) -> Sized:
        sized = force(operand(out), self.name, here())
        met, _ = common((sized, placeholder(Type(dtype))))
        if met is not dtype:
            what = f"combine gives {sized.dtype.name} where its component is {dtype.name}"
            advice = "Convert the operands first, or the result: .astype."
            raise DTypeError(message(what, source_row(here()), advice))
        return force(convert(sized, dtype, weak=False), self.name, here())

    def _check(self, extracted: Extracted) -> None:
        """A combine is a program of scalars that reads its operands only."""
        simple = all(
            isinstance(e.op, (Map, Constant)) and not e.outs[0].type.dims
            for e in extracted.program.eqns
        )
        if extracted.captured or not simple:
            what = f"the combine of {self.name} is not a function of its two operands alone"
            advice = "Use elementwise operations on them and on Python numbers."
            raise ArgumentError(message(what, source_row(here()), advice))


class BoundMonoid:
    """A user's monoid over given dims; call it on an array or a tuple of arrays."""

    def __init__(self, monoid: Monoid, dims: tuple[str, ...]) -> None:
        self.monoid = monoid
        self.dims = dims

    @overload
    def __call__(
        self, e: X, *, at: At | None = ..., mode: str = ..., sizes: Mapping[Dim, int] | None = ...
    ) -> Array: ...

    @overload
    def __call__(
        self,
        e: tuple[X, ...],
        *,
        at: At | None = ...,
        mode: str = ...,
        sizes: Mapping[Dim, int] | None = ...,
    ) -> tuple[Array, ...]: ...

    def __call__(
        self,
        e: X | tuple[X, ...],
        *,
        at: At | None = None,
        mode: str = "raise",
        sizes: Mapping[Dim, int] | None = None,
    ) -> Array | tuple[Array, ...]:
        """Fold, or with `at` fold into computed places (see `sm.sum`)."""
        monoid, loc = self.monoid, here()
        parts = e if isinstance(e, tuple) else (e,)
        if len(parts) != len(monoid.identity):
            what = f"{monoid.name} folds {len(monoid.identity)} components, given {len(parts)}"
            raise ArgumentError(message(what, source_row(loc), "Pass one array for each."))
        values = self._typed([operand(p) for p in parts])
        node = monoid.node(tuple(v.dtype for v in values))
        out: Sequence[Value]
        if at is not None:
            out = fold_at(monoid.name, node, self.dims, values, places_of(at, mode, sizes))
        elif len(values) == 1:
            out = fold(monoid.name, node, self.dims, values)
        else:
            sized = aligned([force(v, monoid.name, loc) for v in values], monoid.name, loc)
            out = fold(monoid.name, node, self.dims, sized)
        arrays = tuple(wrap(v) for v in out)
        return arrays if isinstance(e, tuple) else arrays[0]

    def _typed(self, values: Sequence[Value]) -> list[Value]:
        """Components that can hold their identity: the identity 0.5 makes floats of integers."""
        out = []
        for value, number in zip(values, self.monoid.identity, strict=True):
            dtype = value.dtype
            if isinstance(number, float) and number == number and abs(number) != float("inf"):
                dtype, _ = common((value, weak_scalar(number)))
            out.append(convert(value, dtype, weak=False))
        return out


def _shown(out: object) -> str:
    return f"a tuple of {len(out)}" if isinstance(out, tuple) else type(out).__name__
