"""Read loop IR back from the text that `loops/text.py` writes; anything else is a ValueError.

Lines are nested by indentation; a line is read by one regular expression, which says what may
stand there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from summand import dtypes
from summand.dtypes import DType
from summand.ir import index
from summand.ir.index import Form
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Bound,
    Branch,
    Buffer,
    Carry,
    Check,
    Combine,
    Const,
    Copy,
    Fold,
    Foreign,
    Guard,
    Instr,
    Kernel,
    Last,
    Launch,
    Layout,
    Let,
    Load,
    Loop,
    Module,
    Nest,
    Part,
    Piece,
    Place,
    Position,
    Ref,
    Repeat,
    Rounds,
    Scalar,
    Schedule,
    Step,
    Stmt,
    Store,
    When,
)

Dims = tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Line:
    """A line and the lines that are nested under it."""

    text: str
    inner: list[_Line] = field(default_factory=list)

    def match(self, pattern: str) -> re.Match[str]:
        """The line's parts; a ValueError where it is no such line."""
        found = re.fullmatch(pattern, self.text)
        if found is None:
            raise ValueError(f"not loop IR: {self.text!r}")
        return found

    def leaf(self) -> _Line:
        """The line itself, under which nothing may be nested."""
        if self.inner:
            raise ValueError(f"nothing may be nested under {self.text!r}")
        return self

    @property
    def word(self) -> str:
        """The first word."""
        return self.text.split(" ", 1)[0].split("(", 1)[0]


def parse(source: str) -> Kernel | Module:
    """Read a kernel or a module from its text."""
    lines = _nested(source)
    if lines and lines[0].word == "module":
        return _module(lines[0], lines[1:])
    if len(lines) != 1:
        raise ValueError(f"not one kernel: {source[:80]!r}")
    return _kernel(lines[0])


def _nested(source: str) -> list[_Line]:
    top = _Line("")
    open_lines = [top]
    for raw in source.splitlines():
        if not raw.strip():
            continue
        depth = (len(raw) - len(raw.lstrip())) // 2
        if depth >= len(open_lines):
            raise ValueError(f"indented too far: {raw!r}")
        line = _Line(raw.strip())
        open_lines[depth].inner.append(line)
        open_lines[depth + 1 :] = [line]
    return top.inner


# ---- kernels


def _kernel(line: _Line) -> Kernel:
    m = line.match(r"kernel ([^(]+)\((.*?)\)(?: scratch\((.*)\))?")
    grid: Dims = ()
    body = line.inner
    if body and body[0].word == "grid":
        grid = _sizes(body[0].match(r"grid (.*)").group(1))
        body = body[1:]
    params = _buffers(m.group(2), "global")
    return Kernel(m.group(1), params, _buffers(m.group(3) or "", "scratch"), grid, _body(body))


def _buffers(source: str, memory: Literal["global", "scratch"]) -> tuple[Buffer, ...]:
    found = re.findall(r"([^ ,:]+): (\w+)\[(\d+)\](?: space (\d+))?", source)
    return tuple(Buffer(n, _dtype(t), int(size), memory, int(s or 0)) for n, t, size, s in found)


def _dtype(name: str) -> DType:
    return dtypes.BY_NAME[name]


def _sizes(source: str) -> Dims:
    pairs = (item.rsplit("=", 1) for item in source.split())
    return tuple((d, int(n)) for d, n in pairs)


def _body(lines: Sequence[_Line]) -> tuple[Stmt, ...]:
    return tuple(_stmt(line) for line in lines)


def _stmt(line: _Line) -> Stmt:
    match line.word:
        case "nest":
            return _nest(line)
        case "for":
            m = line.match(r"for (\S+)=(\d+)")
            return Loop(m.group(1), int(m.group(2)), _body(line.inner))
        case "let":
            m = line.match(r"let (\S+) = clip\((.+), (-?\d+), (-?\d+)\)")
            form = index.parse(m.group(2))
            return Let(m.group(1), form, int(m.group(3)), int(m.group(4)), _body(line.inner))
        case "when":
            m = line.match(r"when ?(.*)")
            return When(_guards(m.group(1)), _body(line.inner))
        case _:
            raise ValueError(f"not a statement: {line.text!r}")


def _nest(line: _Line) -> Nest:
    m = line.match(r"nest((?: [^ =()]+=\d+)*)(?: ordered\((.*?)\))?(?: schedule\((.*)\))?")
    bounds: list[Bound] = []
    code: list[Instr] = []
    stores: list[Store] = []
    for inner in line.inner:
        if inner.word == "bound":
            bounds.append(_bound(inner.leaf()))
        elif inner.word == "store":
            stores.append(_store(inner.leaf()))
        else:
            code.append(_instruction(inner, len(code)))
    schedule = None if m.group(3) is None else _schedule(m.group(3))
    ordered = tuple((m.group(2) or "").split())
    return Nest(_sizes(m.group(1)), tuple(code), tuple(stores), tuple(bounds), ordered, schedule)


def _bound(line: _Line) -> Bound:
    m = line.match(r"bound (\S+)(?: from (.*?))?(?: to (.*))?")
    low, high = (tuple(index.parse(f) for f in (g or "").split(", ") if f) for g in m.groups()[1:])
    return Bound(m.group(1), low, high)


def _schedule(source: str) -> Schedule:
    items = (part.partition(" ") for part in source.split("; "))
    parts = {name: rest for name, _, rest in items if name}

    def pieces(name: str) -> tuple[Piece, ...]:
        return tuple(Piece(d, n) for d, n in _sizes(parts.get(name, "")))

    return Schedule(
        lanes=pieces("lanes"),
        tile=pieces("tile"),
        unroll=pieces("unroll"),
        loops=tuple(parts.get("loops", "").split()),
        end_lanes=pieces("end_lanes"),
        copies=int(parts.get("copies", 1)),
        streaming="streaming" in parts,
        prefetch=_sizes(parts.get("prefetch", "")),
    )


# ---- code of a nest


def _instruction(line: _Line, position: int) -> Instr:
    m = line.match(r"%(\d+): (\w+) = (\w+) ?(.*)")
    if int(m.group(1)) != position:
        raise ValueError(f"value %{position} is missing before {line.text!r}")
    dtype, word = _dtype(m.group(2)), m.group(3)
    rest = _Line(m.group(4), line.inner if word == "fold" else line.leaf().inner)
    match word:
        case "const":
            return Const(_scalar(rest.text), dtype)
        case "position":
            return Position(index.parse(rest.text), dtype)
        case "load":
            p = rest.match(r"([^\[]+)\[(.*?)\](?: if (.*?))?(?: else (\S+))?")
            at = _address(p.group(2), p.group(3))
            return Load(p.group(1), at, dtype, _scalar(p.group(4) or "0"))
        case "fold":
            return _fold(rest, dtype)
        case "part":
            p = rest.match(r"(\d+) of %(\d+)")
            return Part(int(p.group(2)), int(p.group(1)), dtype)
        case "carry":
            p = rest.match(r"(\S+) from %(\d+) next %(\d+)")
            return Carry(p.group(1), int(p.group(2)), int(p.group(3)), dtype)
        case "last":
            return Last(int(rest.match(r"%(\d+)").group(1)), dtype)
        case "arg":
            return Arg(int(rest.text), dtype)
        case _:
            return Apply(word, _refs(rest.text), dtype)


def _refs(source: str) -> tuple[Ref, ...]:
    return tuple(int(r) for r in re.findall(r"%(\d+)", source))


def _scalar(source: str) -> Scalar:
    if source in ("True", "False"):
        return source == "True"
    if re.fullmatch(r"-?\d+", source):
        return int(source)
    return math.nan if source == "nan" else float(source)


def _fold(line: _Line, dtype: DType) -> Fold:
    m = line.match(r"(\w+)\{(.*)\} from (.*) of ((?:%\d+ ?)*?)( in order)?")
    code: tuple[Instr, ...] = ()
    results: tuple[Ref, ...] = ()
    if line.inner:
        code = tuple(_instruction(inner, r) for r, inner in enumerate(line.inner[:-1]))
        results = _refs(line.inner[-1].match(r"give (.*)").group(1))
    identity = tuple(_scalar(s) for s in m.group(3).split(", "))
    fn = None if m.group(1) == "code" else m.group(1)
    combine = Combine(fn, identity, code, results, m.group(5) is None)
    return Fold(combine, tuple(m.group(2).split()), _refs(m.group(4)), dtype)


def _store(line: _Line) -> Store:
    m = line.match(r"store (?:(\w+) )?([^\[ ]+)\[(.*?)\](?: if (.*))? = %(\d+)")
    return Store(m.group(2), _address(m.group(3), m.group(4)), int(m.group(5)), m.group(1))


def _address(offset: str, guards: str | None) -> Address:
    form, dynamic = _offset(offset)
    return Address(form, dynamic, _guards(guards or ""))


def _offset(source: str) -> tuple[Form, tuple[tuple[Ref, int], ...]]:
    terms = source.split(" + ")
    computed = [m for t in terms if (m := re.fullmatch(r"(-?\d+)\*%(\d+)", t))]
    affine = [t for t in terms if not re.fullmatch(r"-?\d+\*%\d+", t)]
    dynamic = tuple((int(m.group(2)), int(m.group(1))) for m in computed)
    return index.parse(" + ".join(affine) or "0"), dynamic


def _guards(source: str) -> tuple[Guard, ...]:
    guards = []
    for item in source.split(" and ") if source else ():
        m = _Line(item).match(r"0 <= (.*) < (\d+)")
        form, dynamic = _offset(m.group(1))
        guards.append(Guard(form, int(m.group(2)), dynamic))
    return tuple(guards)


# ---- modules


def _module(head: _Line, kernels: Sequence[_Line]) -> Module:
    arena = int(head.match(r"module arena (\d+)").group(1))
    layouts: dict[str, list[Layout]] = {"param": [], "result": []}
    places: list[Place] = []
    checks: list[Check] = []
    steps: tuple[Step, ...] = ()
    for line in head.inner:
        match line.word:
            case "layout":
                m = line.match(r"layout (\w+) \d+: ?(.*)")
                layouts[m.group(1)].append(Layout(_sizes(m.group(2))))
            case "check":
                m = line.match(r"check (\d+) < (\d+) (.*)")
                checks.append(Check(int(m.group(1)), int(m.group(2)), json.loads(m.group(3))))
            case "steps":
                steps = _steps(line.inner)
            case _:
                places.append(_place(line))
    return Module(
        tuple(_kernel(k) for k in kernels),
        steps,
        tuple(places),
        tuple(layouts["param"]),
        tuple(layouts["result"]),
        arena,
        tuple(checks),
    )


def _place(line: _Line) -> Place:
    m = line.match(r"(param|result|arena|constant) (\d+) (\S+): (\w+)\[(\d+)\](?: data (\w+))?")
    kind = cast(Literal["param", "result", "arena", "constant"], m.group(1))
    data = bytes.fromhex((m.group(6) or "").replace("empty", ""))
    return Place(m.group(3), _dtype(m.group(4)), int(m.group(5)), kind, int(m.group(2)), data)


def _steps(lines: Sequence[_Line]) -> tuple[Step, ...]:
    steps: list[Step] = []
    rest = list(lines)
    while rest:
        line = rest.pop(0)
        match line.word:
            case "launch":
                m = line.match(r"launch (\d+)\((.*)\)")
                steps.append(Launch(int(m.group(1)), tuple(m.group(2).split(", "))))
            case "copy":
                m = line.match(r"copy (\S+) to (\S+)")
                steps.append(Copy(m.group(1), m.group(2)))
            case "if":
                other = rest.pop(0)
                flag = line.match(r"if (\S+)").group(1)
                steps.append(Branch(flag, _steps(line.inner), _steps(other.inner)))
            case "repeat":
                loop = rest.pop(0)
                flag = loop.match(r"while (\S+)").group(1)
                steps.append(Repeat(_steps(line.inner), flag, _steps(loop.inner)))
            case "rounds":
                count = int(line.match(r"rounds (\d+)").group(1))
                body = tuple(s for s in _steps(line.inner) if isinstance(s, Launch))
                steps.append(Rounds(count, body))
            case _:
                steps.append(_foreign(line))
    return tuple(steps)


def _foreign(line: _Line) -> Foreign:
    m = line.match(r"foreign (\S+) \((.*)\) -> \((.*)\)")
    args, outs = (
        tuple(
            (item.split()[0], Layout(_sizes(item.partition(" ")[2])))
            for item in g.split(", ")
            if item
        )
        for g in m.groups()[1:]
    )
    return Foreign(m.group(1), args, outs)
