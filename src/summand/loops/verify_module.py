"""Verify a module: its kernels, the steps that launch them, and where buffers live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, assert_never

from summand.dtypes import bool_
from summand.errors import InternalError
from summand.loops.nodes import (
    Branch,
    Copy,
    Foreign,
    Kernel,
    Launch,
    Layout,
    Module,
    Nest,
    Place,
    Repeat,
    Rounds,
    Step,
    Stmt,
)
from summand.loops.text import text
from summand.loops.verify import verify


def verify_module(module: Module) -> None:
    """Raise InternalError where a module is not well formed; verifies its kernels, too."""
    for kernel in module.kernels:
        verify(kernel)
    places = {p.name: p for p in module.places}
    if len(places) != len(module.places):
        _fail(module, "two places have one name")
    for place in module.places:
        _place(place, module)
    _steps(module.steps, module, places)
    results = {p.number for p in module.places if p.kind == "result"}
    for check in module.checks:
        if check.number not in results or check.number < len(module.results):
            _fail(module, f"check {check.number} is of no hidden result")


def _fail(module: Module, what: str) -> NoReturn:
    raise InternalError(f"verify: {what}\n{text(module)}")


def _place(place: Place, module: Module) -> None:
    match place.kind:
        case "param" | "result":
            layouts = module.params if place.kind == "param" else module.results
            if place.number < len(layouts) and _count(layouts[place.number]) != place.size:
                _fail(module, f"{place.name} has another size than its layout")
            if place.kind == "param" and place.number >= len(layouts):
                _fail(module, f"{place.name} has no layout")
        case "arena":
            end = place.number + place.size * place.dtype.bytes
            if place.number % place.dtype.bytes or not 0 <= place.number <= end <= module.arena:
                _fail(module, f"{place.name} does not lie in the arena")
        case "constant":
            if len(place.data) != place.size * place.dtype.bytes:
                _fail(module, f"{place.name} has other data than its size")
        case _:
            assert_never(place.kind)


def _count(layout: Layout) -> int:
    total = 1
    for _, n in layout.dims:
        total *= n
    return total


def _steps(steps: Sequence[Step], module: Module, places: dict[str, Place]) -> None:
    for step in steps:
        match step:
            case Launch():
                _launch(step, module, places)
            case Copy():
                source, target = (_known(n, module, places) for n in (step.source, step.target))
                if (source.dtype, source.size) != (target.dtype, target.size):
                    _fail(module, f"{source.name} and {target.name} do not fit")
            case Branch():
                _flag(step.flag, module, places)
                _steps((*step.then, *step.other), module, places)
            case Repeat():
                _flag(step.flag, module, places)
                _steps((*step.test, *step.body), module, places)
            case Rounds():
                _rounds(step, module)
                _steps(step.body, module, places)
            case Foreign():
                for name, layout in (*step.args, *step.outs):
                    if _known(name, module, places).size != _count(layout):
                        _fail(module, f"{name} has another size than its layout")
            case _:
                assert_never(step)


def _rounds(step: Rounds, module: Module) -> None:
    for launch in step.body:
        if not 0 <= launch.kernel < len(module.kernels):
            _fail(module, f"there is no kernel {launch.kernel}")
        kernel = module.kernels[launch.kernel]
        if not kernel.grid or kernel.grid[0][1] != step.count:
            _fail(module, f"{kernel.name} has no dim of {step.count} rounds")


def _known(name: str, module: Module, places: dict[str, Place]) -> Place:
    if name not in places:
        _fail(module, f"there is no place {name}")
    return places[name]


def _flag(name: str, module: Module, places: dict[str, Place]) -> None:
    flag = _known(name, module, places)
    if flag.dtype is not bool_ or flag.size != 1:
        _fail(module, f"the condition {name} is no bool scalar")


def _launch(step: Launch, module: Module, places: dict[str, Place]) -> None:
    if not 0 <= step.kernel < len(module.kernels):
        _fail(module, f"there is no kernel {step.kernel}")
    kernel = module.kernels[step.kernel]
    if len(step.buffers) != len(kernel.params):
        _fail(module, f"{kernel.name} takes other buffers")
    written = _written(kernel)
    for buffer, name in zip(kernel.params, step.buffers, strict=True):
        place = _known(name, module, places)
        if place.dtype != buffer.dtype or place.size < buffer.size:
            _fail(module, f"{name} is not what {kernel.name} takes as {buffer.name}")
        if buffer.name in written and place.kind in ("param", "constant"):
            _fail(module, f"{kernel.name} writes to the {place.kind} {name}")


def _written(kernel: Kernel) -> set[str]:
    found: set[str] = set()
    rest: list[Stmt] = list(kernel.body)
    while rest:
        stmt = rest.pop()
        if isinstance(stmt, Nest):
            found |= {s.buffer for s in stmt.stores}
        else:
            rest += stmt.body
    return found
