"""Read a program of the tensor IR back from its text: parse(text(p)) == p.

The text is one that `ir/text.py` wrote (or a test did by hand); anything else is a ValueError that
quotes the place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np

from summand import dtypes
from summand.ir import index as forms
from summand.ir.nodes import (
    NAMED,
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Index,
    Interleave,
    Iota,
    Keep,
    Map,
    Mode,
    Monoid,
    Op,
    Program,
    RandomBits,
    Read,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Scalar,
    Sort,
    Table,
    TopK,
    Type,
    Var,
    While,
)
from summand.ir.prims import PRIMS

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\W\d][\w.#$']*")
_NUMBER = re.compile(r"-?\d+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR = re.compile(r"True|False|\([^)]*\)|-?(?:inf|nan|\d[\d.]*(?:e[+-]?\d+)?j?)")
_FORM = re.compile(r"[^,}]+")
_HEX = re.compile(r"(?:[0-9a-f]{2})+|empty")

Item = TypeVar("Item")
Vars = dict[int, Var]


def parse(source: str) -> Program:
    """Read a program from its text."""
    reader = _Reader(source)
    reader.expect("program")
    program = _program(reader)
    reader.end()
    return program


class _Reader:
    """A position in the text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0

    def fail(self, wanted: str) -> ValueError:
        line = self.source.count("\n", 0, self.at) + 1
        here = self.source[self.at : self.at + 40].split("\n")[0]
        return ValueError(f"line {line}: expected {wanted}, found {here!r}")

    def skip(self) -> None:
        found = _SPACE.match(self.source, self.at)
        self.at = found.end() if found else self.at

    def end(self) -> None:
        self.skip()
        if self.at != len(self.source):
            raise self.fail("the end")

    def accept(self, word: str) -> bool:
        self.skip()
        if not self.source.startswith(word, self.at):
            return False
        self.at += len(word)
        return True

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise self.fail(repr(word))

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        self.skip()
        found = pattern.match(self.source, self.at)
        if not found:
            raise self.fail(what)
        self.at = found.end()
        return found.group()

    def peek(self, pattern: re.Pattern[str]) -> bool:
        self.skip()
        return pattern.match(self.source, self.at) is not None

    def name(self) -> str:
        return self.match(_NAME, "a name")

    def number(self) -> int:
        return int(self.match(_NUMBER, "a number"))

    def listed(self, opening: str, closing: str, item: Callable[[], Item]) -> tuple[Item, ...]:
        """opening item, item … closing"""
        self.expect(opening)
        items: list[Item] = []
        while not self.accept(closing):
            if items:
                self.expect(",")
            items.append(item())
        return tuple(items)


def _scalar(reader: _Reader) -> Scalar:
    word = reader.match(_SCALAR, "a scalar")
    if word in ("True", "False"):
        return word == "True"
    if "j" in word:
        return complex(word)
    if _NUMBER.fullmatch(word):
        return int(word)
    return math.nan if word == "nan" else float(word)


def _type(reader: _Reader) -> Type:
    dtype = dtypes.BY_NAME[reader.name()]

    def dim() -> tuple[str, int]:
        name = reader.name()
        reader.expect("=")
        return name, reader.number()

    return Type(dtype, reader.listed("{", "}", dim))


def _declared(reader: _Reader) -> Var:
    reader.expect("%")
    number = reader.number()
    reader.expect(":")
    return Var(number, _type(reader))


def _program(reader: _Reader) -> Program:
    params = reader.listed("(", ")", lambda: _declared(reader))
    known = {p.id: p for p in params}
    reader.expect("{")
    eqns: list[Eqn] = []
    while not reader.accept("return"):
        outs = [_declared(reader)]
        while reader.accept(","):
            outs.append(_declared(reader))
        reader.expect("=")
        eqns.append(Eqn(tuple(outs), _op(reader, known, outs)))
        known.update((o.id, o) for o in outs)
    results: list[Var] = []
    while not reader.accept("}"):
        if results:
            reader.expect(",")
        results.append(_var(reader, known))
    return Program(params, tuple(eqns), tuple(results))


def _var(reader: _Reader, known: Vars) -> Var:
    reader.expect("%")
    number = reader.number()
    if number not in known:
        raise reader.fail(f"a defined value in place of %{number}")
    return known[number]


def _vars(reader: _Reader, known: Vars) -> tuple[Var, ...]:
    return reader.listed("(", ")", lambda: _var(reader, known))


def _spaced(reader: _Reader, known: Vars) -> tuple[Var, ...]:
    """Values, one space between them, up to the end of the line or to what is not a value."""
    found = []
    while reader.source.startswith(" %", reader.at):
        found.append(_var(reader, known))
    return tuple(found)


def _index(reader: _Reader, known: Vars) -> tuple[tuple[str, Index], ...]:
    def entry() -> tuple[str, Index]:
        dim = reader.name()
        reader.expect(":")
        reader.skip()
        if reader.source.startswith("%", reader.at):
            return dim, _var(reader, known)
        return dim, forms.parse(reader.match(_FORM, "an index form"))

    return reader.listed("{", "}", entry)


def _dims(reader: _Reader, opening: str, closing: str) -> tuple[str, ...]:
    return reader.listed(opening, closing, reader.name)


def _mode(reader: _Reader) -> Mode:
    word = reader.name()
    if word not in ("raise", "clip", "fill", "trusted"):
        raise reader.fail("a mode")
    return cast(Mode, word)


def _monoid(reader: _Reader) -> Monoid:
    name = reader.name()
    if name in NAMED:
        return NAMED[name]
    title = json.loads(reader.match(_STRING, "a monoid's name"))
    identity = reader.listed("[", "]", lambda: _scalar(reader))
    commutative = reader.accept("commutative")
    idempotent = reader.accept("idempotent")
    invertible = reader.accept("invertible")
    combine = None if reader.accept("named") else _program(reader)
    return Monoid(title, identity, combine, commutative, idempotent, invertible)


def _op(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    head = reader.name()
    if head in PRIMS:
        return Map(head, _spaced(reader, known))
    if head not in _READERS:
        raise reader.fail(f"an equation in place of {head!r}")
    return _READERS[head](reader, known, outs)


def _reduce(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    return Reduce(_monoid(reader), _dims(reader, "{", "}"), _spaced(reader, known))


def _reindex(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    arg = _var(reader, known)
    index, mode = _index(reader, known), _mode(reader)
    filled = reader.source.startswith(" ", reader.at) and reader.peek(_SCALAR)
    return Reindex(arg, index, mode, _scalar(reader) if filled else 0)


def _reduce_at(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    monoid, dims = _monoid(reader), _dims(reader, "{", "}")
    args = _spaced(reader, known)
    return ReduceAt(monoid, dims, args, _index(reader, known), _mode(reader))


def _constant(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    if not reader.accept("table"):
        return Constant(_scalar(reader))
    order = _dims(reader, "(", ")")
    reader.skip()
    if reader.source.startswith("[", reader.at):
        values = reader.listed("[", "]", lambda: _scalar(reader))
        data = np.array(values, outs[0].type.dtype.numpy).tobytes()
    else:
        word = reader.match(_HEX, "bytes in hex")
        data = b"" if word == "empty" else bytes.fromhex(word)
    return Constant(Table(data, order))


def _recur(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    def step() -> tuple[str, bool, int]:
        dim = reader.name()
        forward = reader.accept("forward")
        if not forward:
            reader.expect("backward")
        return dim, forward, reader.number()

    def read() -> Read:
        return Read(reader.number(), reader.listed("[", "]", reader.number))

    over = reader.listed("(", ")", step)
    reads = reader.listed("(", ")", read)
    inits, captured = _vars(reader, known), _vars(reader, known)
    keep = _dims(reader, "(", ")") if reader.accept("keep") else ()
    return Recur(
        tuple(o[0] for o in over),
        tuple(o[1] for o in over),
        tuple(o[2] for o in over),
        reads,
        inits,
        captured,
        _program(reader),
        cast(tuple[Keep, ...], keep),
    )


def _custom(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    args, primal = _vars(reader, known), _program(reader)
    forward = _program(reader) if reader.accept("forward") else None
    backward = _program(reader) if reader.accept("backward") else None
    return Custom(primal, forward, backward, args)


def _interleave(reader: _Reader, known: Vars, outs: Sequence[Var]) -> Op:
    dims = reader.listed("(", ")", lambda: (reader.name(), reader.number()))
    return Interleave(_vars(reader, known), dims)


_READERS: dict[str, Callable[[_Reader, Vars, Sequence[Var]], Op]] = {
    "reduce": _reduce,
    "reindex": _reindex,
    "reduce_at": _reduce_at,
    "constant": _constant,
    "recur": _recur,
    "custom": _custom,
    "interleave": _interleave,
    "group": lambda r, known, outs: Group(_var(r, known), r.number(), r.name()),
    "iota": lambda r, known, outs: Iota(r.name()),
    "random_bits": lambda r, known, outs: RandomBits(_var(r, known), _dims(r, "(", ")")),
    "cond": lambda r, known, outs: _cond(r, known),
    "while": lambda r, known, outs: _while(r, known),
    "sort": lambda r, known, outs: Sort(_var(r, known), r.name(), r.accept("descending")),
    "top_k": lambda r, known, outs: TopK(_var(r, known), r.name(), r.name()),
    "call": lambda r, known, outs: Call(
        json.loads(r.match(_STRING, "a name in quotes")), _vars(r, known)
    ),
}


def _cond(reader: _Reader, known: Vars) -> Op:
    pred, args = _var(reader, known), _vars(reader, known)
    then = _program(reader)
    return Cond(pred, then, _program(reader), args)


def _while(reader: _Reader, known: Vars) -> Op:
    captured, state = _vars(reader, known), _vars(reader, known)
    test = _program(reader)
    return While(test, _program(reader), captured, state)
