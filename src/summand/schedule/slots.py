"""Slots of arithmetic: how long a pipe is busy with each operation on one vector."""

from __future__ import annotations

from collections.abc import Sequence

from summand.ir.prims import PRIMS
from summand.loops.code import refs
from summand.loops.nodes import Apply, Const, Fold, Position
from summand.schedule.accesses import Facts

FREE = ("stop_gradient", "barrier", "real", "convert")
BITWISE = ("and", "or", "xor", "not")
QUOTIENT = 2.0  # of a division by a number: a product and an FMA
SHORT = ("div", "sqrt", "rsqrt", "floor", "ceil", "round", "trunc")  # an instruction or two


def op_lines(fn: str) -> float:
    """Lines of code of one vector."""
    flops = PRIMS[fn].flops
    return 1.0 if flops <= 2 or fn in SHORT else 2.2 * flops


def _has_fused_reader(facts: Facts, ref: int, readers: Sequence[Sequence[int]]) -> bool:
    """A product whose only reader adds it (a sum, an add, a sub) costs nothing: it is an FMA."""
    code = facts.nest.code
    if len(readers[ref]) != 1:
        return False
    reader = code[readers[ref][0]]
    match reader:
        case Fold():
            return reader.combine.fn == "add" and reader.dtype.is_float
        case Apply():
            return reader.fn in ("add", "sub") and reader.dtype.is_float
        case _:
            return False


def readers_of(facts: Facts) -> list[list[int]]:
    """For each value, the instructions that read it."""
    out: list[list[int]] = [[] for _ in facts.nest.code]
    for ref, instr in enumerate(facts.nest.code):
        for arg in refs(instr):
            out[arg].append(ref)
    return out


def operation_slots(facts: Facts, ref: int, readers: Sequence[Sequence[int]]) -> float:
    """Arithmetic slots of one vector of value `ref` (loads are counted elsewhere)."""
    match facts.nest.code[ref]:
        case Apply(fn, args, dtype):
            if fn in FREE and (fn != "convert" or dtype == facts.nest.code[args[0]].dtype):
                return 0.0
            if fn == "mul" and dtype.is_float and _has_fused_reader(facts, ref, readers):
                return 0.0
            if fn in BITWISE and dtype.kind == "bool":
                return 0.25
            if fn == "div" and isinstance(facts.nest.code[args[1]], Const):
                return QUOTIENT
            return PRIMS[fn].flops
        case Fold(combine):
            if combine.fn is not None:
                return PRIMS[combine.fn].flops
            return sum(PRIMS[i.fn].flops for i in combine.code if isinstance(i, Apply))
        case Position():
            return 1.0
        case _:
            return 0.0


def widest_bits(facts: Facts) -> int:
    """Bits of the widest floating type that the nest computes with."""
    return max((i.dtype.bits for i in facts.nest.code if i.dtype.is_float), default=32)
