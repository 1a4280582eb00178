"""LLVM text: values, types and a builder for one function.

    f = Function(Unit(), "k", "ptr %args, i64 %task")
    x = f.op("load float, ptr %args, align 4", "float")
    y = f.pure(f"fmul contract float {x.name}, {x.name}", "float")
    f.do(f"store float {y.name}, ptr %args, align 4")
    f.finish()

Text, not objects: making and parsing text is three times faster than llvmlite's builders. `pure`
merges equal instructions within the blocks that the first one dominates, so callers need not
remember addresses, splats and shuffles. Offsets are `Int`: a Python int where they are known.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

from summand.dtypes import DType, i64
from summand.errors import InternalError


class Value(NamedTuple):
    """An SSA name or a literal, its LLVM type, and the element type that its bits stand for.

    `dtype` is needed where the LLVM type does not tell: signed or unsigned integers.
    """

    name: str
    type: str
    dtype: DType | None = None

    def __str__(self) -> str:
        return self.name


Int = int | Value  # an i64: known now, or computed when the kernel runs
Scalar = bool | int | float
Body = Callable[[Int, list[Value]], Sequence[Value]]

ZERO = "zeroinitializer"
MOST_ZEROS = 4096  # bytes of the block that stands in for what a guard rules out
_REGISTER = {"bool": "i1", "f16": "float", "bf16": "float", "f32": "float", "f64": "double"}
_MEMORY = {"bool": "i8", "f16": "half", "bf16": "i16", "f32": "float", "f64": "double"}
_SUFFIX = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16", "ptr": "p0"}


# ---- types


@cache
def vector(element: str, lanes: int) -> str:
    """`<lanes x element>`, or the element's type itself for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


@cache
def register_type(dtype: DType, lanes: int) -> str:
    """The LLVM type in which a value is computed: i1 for bool, float for 16-bit floats."""
    return vector(_REGISTER.get(dtype.name, f"i{dtype.bits}"), lanes)


@cache
def memory_type(dtype: DType) -> str:
    """The LLVM type of an element in memory: i8 for bool, i16 for the bits of bf16."""
    return _MEMORY.get(dtype.name, f"i{dtype.bits}")


@cache
def split_type(type_: str) -> tuple[str, int]:
    """`<16 x float>` -> ("float", 16); `float` -> ("float", 1)."""
    match = re.fullmatch(r"<(\d+) x (\w+)>", type_)
    return (match.group(2), int(match.group(1))) if match else (type_, 1)


@cache
def suffix(type_: str) -> str:
    """The name of a type inside an intrinsic's name: v16f32, i64."""
    element, lanes = split_type(type_)
    name = _SUFFIX.get(element, element)
    return name if lanes == 1 else f"v{lanes}{name}"


# ---- literals


def float_bits(value: float, element: str) -> str:
    """A float literal that LLVM takes exactly: the bits of a double, rounded to the type."""
    if element == "float":
        value = round_to_float(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def round_to_float(value: float) -> float:
    """The nearest f32, as a double; beyond the range an infinity."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def literal(value: Scalar, element: str) -> str:
    """A literal of an LLVM element type; integers wrap to its width."""
    if element in ("float", "double"):
        return float_bits(float(value), element)
    if element == "i1":
        return "true" if value else "false"
    bits = int(element[1:])
    return str((int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1))


def constant(value: Scalar, type_: str, dtype: DType | None = None) -> Value:
    """The same number in every lane of a type."""
    element, lanes = split_type(type_)
    text = literal(value, element)
    return Value(text if lanes == 1 else f"splat ({element} {text})", type_, dtype)


def scalar(value: Scalar, dtype: DType, lanes: int = 1) -> Value:
    """A constant of a DType in its register type."""
    return constant(value, register_type(dtype, lanes), dtype)


def listed(values: Iterable[Scalar], element: str, dtype: DType | None = None) -> Value:
    """A constant vector with a number for each lane (a scalar where there is one)."""
    items = [f"{element} {literal(v, element)}" for v in values]
    if len(items) == 1:
        return Value(items[0].partition(" ")[2], element, dtype)
    return Value(f"<{', '.join(items)}>", vector(element, len(items)), dtype)


def poison(type_: str) -> Value:
    """A value that is never used."""
    return Value("poison", type_)


# ---- the module and its functions


class Unit:
    """What the functions of one LLVM module share: declarations and functions."""

    def __init__(self, features: str = "", attributes: str = "nounwind", triple: str = "") -> None:
        self.is_x86 = triple.startswith(("x86_64", "amd64", "i386", "i686"))
        self.features = frozenset(f[1:] for f in features.split(",") if f.startswith("+"))
        self.has_masks = "avx512vl" in self.features  # one bit a lane in a register, not all ones
        self.attributes = attributes
        self._declared: dict[str, str] = {}
        self._functions: dict[str, str] = {}
        self._zeros = 0

    def zeros(self, size: int) -> Value | None:
        """An address of at least `size` zero bytes; None where that many are not provided."""
        if size > MOST_ZEROS:
            return None
        self._zeros = max(self._zeros, size)
        return Value("@zeros", "ptr")

    def declare(self, name: str, type_: str, params: Sequence[str]) -> None:
        """Declare an intrinsic or an external function, once."""
        if name not in self._declared and name not in self._functions:
            self._declared[name] = f"declare {type_} @{name}({', '.join(params)})"

    def define(self, name: str, text: str) -> None:
        """Add a finished function."""
        if self._functions.setdefault(name, text) != text:
            raise InternalError(f"codegen: two functions are called {name}")

    def has(self, name: str) -> bool:
        """True where a function of this name is defined."""
        return name in self._functions

    @property
    def size(self) -> int:
        """Characters of the functions so far."""
        return sum(map(len, self._functions.values()))

    def text(self) -> str:
        """The whole module."""
        tail = f"attributes #0 = {{ {self.attributes} }}\n!0 = !{{i32 1}}\n"
        if self._zeros:
            block = f"[{self._zeros + 63 & -64} x i8] zeroinitializer, align 64"
            tail = f"@zeros = internal constant {block}\n{tail}"
        return "\n".join((*self._declared.values(), *self._functions.values(), tail))


class Function:
    """A function under construction. `block` is the label of the block that is being written."""

    def __init__(self, unit: Unit, name: str, params: str) -> None:
        self.unit = unit
        self.name = name
        self.block = "entry"
        self._head = f"define void @{name}({params}) #0 {{\nentry:"
        self._lines: list[str] = []
        self._count = 0
        self._known: dict[str, Value] = {}
        self._order: list[str] = []  # keys of _known as they came, to forget those of a scope

    def finish(self) -> str:
        """Return, close the function and add it to the unit."""
        self.do("ret void")
        text = "\n".join((self._head, *self._lines, "}"))
        self.unit.define(self.name, text)
        return text

    # ---- instructions

    def op(self, text: str, type_: str, dtype: DType | None = None) -> Value:
        """An instruction that must stay where it is (a load, say), and its result."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f" {name} = {text}")
        return Value(name, type_, dtype)

    def pure(self, text: str, type_: str, dtype: DType | None = None) -> Value:
        """An instruction without effects: an equal one that dominates this place is reused."""
        known = self._known.get(text)
        if known is not None:
            return known if known.dtype is dtype else Value(known.name, known.type, dtype)
        value = self.op(text, type_, dtype)
        self._known[text] = value
        self._order.append(text)
        return value

    def do(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append(" " + text)

    def call(self, name: str, type_: str, args: Sequence[Value], flags: str = "") -> Value:
        """Call a pure intrinsic (declared here); `flags` are fast-math flags."""
        self.unit.declare(name, type_, [a.type for a in args])
        text = ", ".join(f"{a.type} {a.name}" for a in args)
        return self.pure(f"call {flags}{' ' if flags else ''}{type_} @{name}({text})", type_)

    def intrinsic(self, name: str, *args: Value, flags: str = "") -> Value:
        """Call `llvm.NAME` overloaded on the type of its first argument, which is its result's."""
        type_ = args[0].type
        return self.call(f"llvm.{name}.{suffix(type_)}", type_, args, flags)

    # ---- arithmetic of offsets (i64)

    def add(self, a: Int, b: Int) -> Int:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int):
            a, b = b, a
        return a if b == 0 else self.pure(f"add nsw i64 {a}, {b}", "i64", i64)

    def sub(self, a: Int, b: Int) -> Int:
        """a - b."""
        if isinstance(b, int):
            return self.add(a, -b)
        return self.pure(f"sub nsw i64 {a}, {b}", "i64", i64)

    def mul(self, a: Int, b: Int) -> Int:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if isinstance(a, int):
            a, b = b, a
        if b in (0, 1):
            return 0 if b == 0 else a
        return self.pure(f"mul nsw i64 {a}, {b}", "i64", i64)

    def floordiv(self, a: Int, by: int) -> Int:
        """Floor division by a positive constant."""
        if isinstance(a, int) or by == 1:
            return a // by if isinstance(a, int) else a
        if by & (by - 1) == 0:
            return self.pure(f"ashr i64 {a}, {by.bit_length() - 1}", "i64", i64)
        quotient = self.pure(f"sdiv i64 {a}, {by}", "i64", i64)
        return self.sub(quotient, self._below(a, by))

    def mod(self, a: Int, by: int) -> Int:
        """Remainder in 0 … by-1, by a positive constant."""
        if isinstance(a, int) or by == 1:
            return a % by if isinstance(a, int) else 0
        if by & (by - 1) == 0:
            return self.pure(f"and i64 {a}, {by - 1}", "i64", i64)
        rest = self.pure(f"srem i64 {a}, {by}", "i64", i64)
        return self.add(rest, self.mul(self._below(a, by), by))

    def _below(self, a: Value, by: int) -> Value:
        """1 where truncating division lies above floor division, else 0."""
        rest = self.pure(f"srem i64 {a}, {by}", "i64", i64)
        return self.pure(f"lshr i64 {rest}, 63", "i64", i64)

    def least(self, a: Int, b: Int) -> Int:
        """min(a, b)."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.call("llvm.smin.i64", "i64", (self.i64(a), self.i64(b)))

    def greatest(self, a: Int, b: Int) -> Int:
        """max(a, b)."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.call("llvm.smax.i64", "i64", (self.i64(a), self.i64(b)))

    def i64(self, a: Int) -> Value:
        """An `Int` as a value."""
        return Value(str(a), "i64", i64) if isinstance(a, int) else a

    def at(self, pointer: Value, offset: Int, element: str) -> Value:
        """The address of element `offset` after a pointer."""
        if isinstance(offset, int) and offset == 0:
            return pointer
        return self.pure(f"getelementptr {element}, ptr {pointer}, i64 {offset}", "ptr")

    # ---- vectors

    def splat(self, value: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if lanes == 1:
            return value
        type_ = vector(value.type, lanes)
        if not value.name.startswith("%"):
            return Value(f"splat ({value.type} {value.name})", type_, value.dtype)
        one = self.pure(f"insertelement {type_} poison, {value.type} {value.name}, i64 0", type_)
        return self.pure(
            f"shufflevector {type_} {one}, {type_} poison, <{lanes} x i32> {ZERO}",
            type_,
            value.dtype,
        )

    def kept_mask(self, mask: Value) -> Value:
        """One i1 for each lane, in the form in which loads and blends of the processor take it.

        Frozen, else LLVM compares again in every loop that uses the mask. Without registers for
        masks it must be as wide as the vectors: LLVM would make each i1 sixteen bits.
        """
        _, lanes = split_type(mask.type)
        if self.unit.has_masks or lanes < 4:
            return self.pure(f"freeze {mask.type} {mask}", mask.type)
        wide = vector(f"i{min(max(256 // lanes, 8), 64)}", lanes)
        held = self.pure(f"freeze {wide} {self.cast('sext', mask, wide)}", wide)
        return self.pure(f"icmp slt {wide} {held}, zeroinitializer", mask.type)

    def splat_mask(self, condition: Value, lanes: int) -> Value:
        """One condition as a mask of all lanes."""
        if self.unit.has_masks or lanes < 4 or not condition.name.startswith("%"):
            return self.splat(condition, lanes)
        element = f"i{min(max(256 // lanes, 8), 64)}"
        wide = self.splat(self.cast("sext", condition, element), lanes)
        return self.pure(f"icmp slt {wide.type} {wide}, zeroinitializer", vector("i1", lanes))

    def shuffle(self, a: Value, b: Value | None, picks: Sequence[int]) -> Value:
        """Lanes `picks` of a followed by b; negative ones are never used."""
        element, lanes = split_type(a.type)
        if b is None and list(picks) == list(range(lanes)):
            return a
        type_ = vector(element, len(picks))
        mask = ", ".join("i32 poison" if p < 0 else f"i32 {p}" for p in picks)
        other = "poison" if b is None else b.name
        return self.pure(
            f"shufflevector {a.type} {a}, {a.type} {other}, <{len(picks)} x i32> <{mask}>",
            type_,
            a.dtype,
        )

    def extract(self, value: Value, lane: int) -> Value:
        """One lane as a scalar."""
        element, lanes = split_type(value.type)
        if lanes == 1:
            return value
        return self.pure(f"extractelement {value.type} {value}, i64 {lane}", element, value.dtype)

    def insert(self, vector_: Value, value: Value, lane: int) -> Value:
        """The vector with one lane replaced."""
        if split_type(vector_.type)[1] == 1:
            return value
        return self.pure(
            f"insertelement {vector_.type} {vector_}, {value.type} {value}, i64 {lane}",
            vector_.type,
            vector_.dtype,
        )

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """a where the mask (i1, or one for each lane) holds, else b."""
        text = f"select {mask.type} {mask}, {a.type} {a}, {b.type} {b}"
        return self.pure(text, a.type, a.dtype)

    def cast(self, how: str, value: Value, type_: str, dtype: DType | None = None) -> Value:
        """`bitcast`, `sext`, `fptrunc`, … to a type; nothing where it has it already."""
        if value.type == type_:
            return Value(value.name, type_, dtype or value.dtype)
        return self.pure(f"{how} {value.type} {value} to {type_}", type_, dtype)

    # ---- control flow

    def label(self) -> str:
        """A new block's name."""
        self._count += 1
        return f"b{self._count}"

    def start(self, label: str) -> None:
        """Begin a block."""
        self._lines.append(label + ":")
        self.block = label

    def _enter(self) -> int:
        return len(self._order)

    def _leave(self, mark: int) -> None:
        """Forget what was computed in blocks that do not dominate what follows."""
        for text in self._order[mark:]:
            del self._known[text]
        del self._order[mark:]

    def loop(
        self, lo: Int, hi: Int, step: int, carried: Sequence[Value], body: Body
    ) -> list[Value]:
        """for i in range(lo, hi, step): carried = body(i, carried). The carried values after it.

        A loop known to run once is written without one.
        """
        if isinstance(lo, int) and isinstance(hi, int):
            if lo >= hi:
                return list(carried)
            if lo + step >= hi:
                return list(body(lo, list(carried)))
            return self._loop(lo, hi, step, carried, body)
        runs = self.pure(f"icmp slt i64 {lo}, {hi}", "i1")
        return self.when(runs, carried, lambda c: self._loop(lo, hi, step, c, body))

    def _loop(
        self, lo: Int, hi: Int, step: int, carried: Sequence[Value], body: Body
    ) -> list[Value]:
        """A loop that runs at least once: the test is at its end."""
        before, head, after = self.block, self.label(), self.label()
        self.do(f"br label %{head}")
        self.start(head)
        mark = self._enter()
        at = len(self._lines)
        index = self.op("phi", "i64", i64)
        phis = [self.op("phi", v.type, v.dtype) for v in carried]
        new = list(body(index, phis))
        following = self.op(f"add nuw nsw i64 {index}, {step}", "i64")
        more = self.op(f"icmp slt i64 {following}, {hi}", "i1")
        latch = self.block
        self.do(f"br i1 {more}, label %{head}, label %{after}")
        self._lines[at] = f" {index} = phi i64 [{lo}, %{before}], [{following}, %{latch}]"
        for k, (phi, first, later) in enumerate(zip(phis, carried, new, strict=True)):
            merged = f"[{first}, %{before}], [{later}, %{latch}]"
            self._lines[at + 1 + k] = f" {phi} = phi {phi.type} {merged}"
        self.start(after)
        self._leave(mark)
        return new

    def when(
        self,
        condition: Value,
        carried: Sequence[Value],
        then: Callable[[list[Value]], Sequence[Value]],
        other: Callable[[list[Value]], Sequence[Value]] | None = None,
    ) -> list[Value]:
        """carried = then(carried) if the i1 holds, else other(carried) (or as it was)."""
        if condition.name in ("true", "1"):
            return list(then(list(carried)))
        if condition.name in ("false", "0"):
            return list(other(list(carried)) if other else carried)
        yes, no, after = self.label(), self.label(), self.label()
        before = self.block
        self.do(f"br i1 {condition}, label %{yes}, label %{no if other else after}")
        first, yes_end = self._arm(yes, after, carried, then)
        second, no_end = list(carried), before
        if other:
            second, no_end = self._arm(no, after, carried, other)
        self.start(after)
        return [
            a
            if a.name == b.name
            else self.op(f"phi {a.type} [{a}, %{yes_end}], [{b}, %{no_end}]", a.type, a.dtype)
            for a, b in zip(first, second, strict=True)
        ]

    def _arm(
        self,
        label: str,
        after: str,
        carried: Sequence[Value],
        body: Callable[[list[Value]], Sequence[Value]],
    ) -> tuple[list[Value], str]:
        self.start(label)
        mark = self._enter()
        values = list(body(list(carried)))
        end = self.block
        self.do(f"br label %{after}")
        self._leave(mark)
        return values, end
