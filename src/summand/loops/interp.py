"""What loop IR means: run kernels and modules on NumPy buffers, point by point in meaning.

The oracle of code generation and of schedule moves, and their sanitizer: every touched address is
checked, scratch starts as garbage in each task, and two tasks may not meet in one element.
Schedules are ignored. Fast enough for tests only, though a nest is evaluated over its whole box at
once (`loops/nest.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np

from summand.errors import InternalError
from summand.loops.nest import Memory, guards_hold, run_nest
from summand.loops.nodes import (
    Branch,
    Copy,
    Foreign,
    Kernel,
    Launch,
    Let,
    Loop,
    Module,
    Nest,
    Place,
    Repeat,
    Rounds,
    Step,
    Stmt,
    When,
)
from summand.loops.storage import garbage

Buffers = dict[str, np.ndarray]


def run_kernel(kernel: Kernel, buffers: Mapping[str, np.ndarray], turn: int | None = None) -> None:
    """Run all tasks of a kernel in place on its global buffers (1-D, by parameter name); `turn`:
    only those at one position of the grid's outermost dim."""
    memory = Memory(kernel, buffers)
    sizes = [n for _, n in kernel.grid]
    for task, at in enumerate(np.ndindex(*sizes)):
        if turn is not None and at[0] != turn:
            continue
        memory.start_task(task)
        env = {d: p for (d, _), p in zip(kernel.grid, at, strict=True)}
        _run_body(kernel.body, env, memory)


def _run_body(body: Sequence[Stmt], env: dict[str, int], memory: Memory) -> None:
    for stmt in body:
        match stmt:
            case Nest():
                run_nest(stmt, env, memory)
            case Loop():
                for p in range(stmt.extent):
                    _run_body(stmt.body, {**env, stmt.dim: p}, memory)
            case Let():
                value = min(max(stmt.form.evaluate(env), stmt.lo), stmt.hi)
                _run_body(stmt.body, {**env, stmt.dim: value}, memory)
            case When():
                if guards_hold(stmt.guards, env):
                    _run_body(stmt.body, env, memory)
            case _:
                assert_never(stmt)


def run_module(module: Module, params: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run a module's steps on arrays (laid out as `module.params` says); returns the results.

    Results come in the order of their numbers, hidden ones (`module.checks`) included.
    """
    buffers = _place(module, params)
    _run_steps(module.steps, module, buffers)
    found = {p.number: buffers[p.name] for p in module.places if p.kind == "result"}
    out = []
    for number in sorted(found):
        flat = found[number]
        if number < len(module.results):
            flat = flat.reshape([n for _, n in module.results[number].dims])
        out.append(flat)
    return out


def _place(module: Module, params: Sequence[np.ndarray]) -> Buffers:
    """Program buffers by name. Those in the arena are views of one block of bytes, so that a place
    reused too early shows."""
    arena = np.empty(module.arena, np.uint8)
    garbage(arena)
    buffers: Buffers = {}
    for place in module.places:
        buffers[place.name] = _place_one(place, arena, params)
    return buffers


def _place_one(place: Place, arena: np.ndarray, params: Sequence[np.ndarray]) -> np.ndarray:
    match place.kind:
        case "param":
            flat = np.array(params[place.number], dtype=place.dtype.numpy, copy=True).reshape(-1)
        case "result":
            flat = np.empty(place.size, place.dtype.numpy)
            garbage(flat)
        case "constant":
            flat = np.frombuffer(bytearray(place.data), place.dtype.numpy)
        case "arena":
            end = place.number + place.size * place.dtype.bytes
            if place.number < 0 or end > arena.size:
                raise InternalError(f"interp: {place.name} lies outside the arena: {place}")
            flat = arena[place.number : end].view(place.dtype.numpy)
        case _:
            assert_never(place.kind)
    if flat.size != place.size:
        raise InternalError(f"interp: {place.name} has {flat.size} elements, not {place.size}")
    return flat


def _run_steps(steps: Sequence[Step], module: Module, buffers: Buffers) -> None:
    for step in steps:
        match step:
            case Launch():
                _launch(step, module, buffers)
            case Rounds():
                for turn in range(step.count):
                    for launch in step.body:
                        _launch(launch, module, buffers, turn)
            case Branch():
                taken = step.then if buffers[step.flag][0] else step.other
                _run_steps(taken, module, buffers)
            case Repeat():
                _run_steps(step.test, module, buffers)
                while buffers[step.flag][0]:
                    _run_steps(step.body, module, buffers)
                    _run_steps(step.test, module, buffers)
            case Copy():
                buffers[step.target][:] = buffers[step.source]
            case Foreign():
                raise InternalError(f"interp: {step.name} is no part of the loop IR")
            case _:
                assert_never(step)


def _launch(step: Launch, module: Module, buffers: Buffers, turn: int | None = None) -> None:
    kernel = module.kernels[step.kernel]
    names = [b.name for b in kernel.params]
    bound = {n: buffers[g] for n, g in zip(names, step.buffers, strict=True)}
    run_kernel(kernel, bound, turn)
