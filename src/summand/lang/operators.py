"""Python's operators in terms of scalar ops: `a + b` is `add`, `a // b` is `floordiv`, …"""

from __future__ import annotations

from typing import Generic, TypeVar

A = TypeVar("A")


class Operators(Generic[A]):
    """The operators of a class whose `_apply` runs an elementwise op. NumPy arrays defer to it."""

    __slots__ = ()
    __array_ufunc__ = None  # so that ndarray + a asks a

    def _apply(self, fn: str, *args: object) -> A:
        """The scalar op `fn` on operands, of which one is of this class."""
        raise TypeError(f"{type(self).__name__} has no operators")

    def __add__(self, other: object) -> A:
        return self._apply("add", self, other)

    def __radd__(self, other: object) -> A:
        return self._apply("add", other, self)

    def __sub__(self, other: object) -> A:
        return self._apply("sub", self, other)

    def __rsub__(self, other: object) -> A:
        return self._apply("sub", other, self)

    def __mul__(self, other: object) -> A:
        return self._apply("mul", self, other)

    def __rmul__(self, other: object) -> A:
        return self._apply("mul", other, self)

    def __truediv__(self, other: object) -> A:
        return self._apply("div", self, other)

    def __rtruediv__(self, other: object) -> A:
        return self._apply("div", other, self)

    def __floordiv__(self, other: object) -> A:
        return self._apply("floordiv", self, other)

    def __rfloordiv__(self, other: object) -> A:
        return self._apply("floordiv", other, self)

    def __mod__(self, other: object) -> A:
        return self._apply("mod", self, other)

    def __rmod__(self, other: object) -> A:
        return self._apply("mod", other, self)

    def __and__(self, other: object) -> A:
        return self._apply("and", self, other)

    def __rand__(self, other: object) -> A:
        return self._apply("and", other, self)

    def __or__(self, other: object) -> A:
        return self._apply("or", self, other)

    def __ror__(self, other: object) -> A:
        return self._apply("or", other, self)

    def __xor__(self, other: object) -> A:
        return self._apply("xor", self, other)

    def __rxor__(self, other: object) -> A:
        return self._apply("xor", other, self)

    def __lshift__(self, other: object) -> A:
        return self._apply("shl", self, other)

    def __rlshift__(self, other: object) -> A:
        return self._apply("shl", other, self)

    def __rshift__(self, other: object) -> A:
        return self._apply("shr", self, other)

    def __rrshift__(self, other: object) -> A:
        return self._apply("shr", other, self)

    def __lt__(self, other: object) -> A:
        return self._apply("lt", self, other)

    def __le__(self, other: object) -> A:
        return self._apply("le", self, other)

    def __gt__(self, other: object) -> A:
        return self._apply("gt", self, other)

    def __ge__(self, other: object) -> A:
        return self._apply("ge", self, other)

    def __neg__(self) -> A:
        return self._apply("neg", self)

    def __abs__(self) -> A:
        return self._apply("abs", self)

    def __invert__(self) -> A:
        return self._apply("not", self)
