"""The pipeline from Program to Executable.

    compile(program, orders…)             ->   Executable: from memory, from disk, or made anew
    inspect(program, orders…, "fused")    ->   the text of one stage

`PASSES` lists the rewrites with a reason for each. After them the program is fused into a plan,
lowered to scheduled loops, and written as LLVM text. A program is looked up by its text before any
pass runs, so a warm start costs no more than that text and the loading of machine code.

`SUMMAND_DUMP=all` (or stages by name, with commas) prints each stage's text as programs compile.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from summand.assemble import assemble, launched
from summand.codegen.cpu.module import Parts, scratch_bytes
from summand.complex_ports import param_orders, result_orders, with_complex_ports
from summand.errors import ArgumentError, InternalError, Loc, SummandError
from summand.ir.foreign import find
from summand.ir.named import Named
from summand.ir.nodes import (
    Cond,
    Custom,
    Group,
    Program,
    Recur,
    ReduceAt,
    Reindex,
    While,
)
from summand.ir.text import text as program_text
from summand.ir.verify import verify
from summand.loops.nodes import Check, Kernel, Module
from summand.loops.text import text as loops_text
from summand.loops.verify_module import verify_module
from summand.options import Options, Target
from summand.rewrite.checks import IndexCheck, insert_checks
from summand.rewrite.contract import contract
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.expand import expand
from summand.rewrite.inline import inline
from summand.rewrite.merge_equal import merge_equal
from summand.rewrite.online import online
from summand.rewrite.places.deinterleave import deinterleave
from summand.rewrite.places.grouped import grouped
from summand.rewrite.places.mirror import mirror
from summand.rewrite.places.placed import placed
from summand.rewrite.places.rows import gather_rows
from summand.rewrite.places.sparse_factors import sparse_factors
from summand.rewrite.places.sparse_sums import sparse_sums
from summand.rewrite.places.unwrap import unwrap
from summand.rewrite.places.window_adjoint import window_adjoint
from summand.rewrite.plan.copies import copied_bytes, with_copies
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.nodes import Plan
from summand.rewrite.plan.text import text as plan_text
from summand.rewrite.recur.accumulate import accumulate
from summand.rewrite.recur.begin import begin
from summand.rewrite.recur.split import split_recur
from summand.rewrite.simplify.simplify import simplify
from summand.rewrite.split_complex import split_complex
from summand.rewrite.sums_apart import sums_apart
from summand.runtime import cache, jit, machine
from summand.runtime.artifact import Artifact, from_bytes, to_bytes
from summand.runtime.executable import Executable, Labelled
from summand.schedule.lower import lower_plan, turns_something
from summand.schedule.outcome import predicted_cycles

Order = tuple[str, ...]  # dims in memory, outermost first
DEFAULT = Options()
MOST_COPIED = 12  # kernels of a program that is scheduled twice, with copies and without
MOST_MOVED = 4 << 30  # bytes that pass for copies, which need memory of a quarter of that
DEARER = 3.0  # how much longer than the copies the rest takes
SLOWER = 1.3  # than what arithmetic in full vectors and moving the bytes would take
ROWS_APART = 3.0  # the same, from which rows in other places may be the cause, not other rows
FASTER = 0.9  # share of the time that is left with copies


@dataclass(frozen=True, slots=True)
class Pass:
    """A rewrite of programs and why it stands where it does."""

    run: Callable[[Program], Program]
    reason: str

    @property
    def name(self) -> str:
        """The pass's name: its function's."""
        return self.run.__name__


PASSES = (
    Pass(inline, "rules of differentiation have done their work"),
    Pass(drop_unused, "gradients that nobody asked for"),
    Pass(merge_equal, "a function that is traced twice must be simplified only once"),
    Pass(simplify, "fold constants, so that later passes see fewer equations"),
    Pass(merge_equal, "differentiation repeats forward work"),
    Pass(accumulate, "a sum over the steps of a loop needs no step kept"),
    Pass(begin, "the adjoint of a last state is no addend of every step"),
    Pass(split_recur, "what a recurrence's states do not need leaves its loop"),
    Pass(unwrap, "an affine read is a vector and has an affine adjoint; a remainder has neither"),
    Pass(window_adjoint, "a gradient that is a sum into affine places is a contraction"),
    Pass(deinterleave, "parts of an adjoint that are read apart are dense, the whole is not"),
    Pass(mirror, "a window read from its other end has the same costly parts"),
    Pass(sparse_factors, "a product with a constant that is zero nearly everywhere, too"),
    Pass(sparse_sums, "a product with a scatter is zero nearly everywhere"),
    Pass(expand, "lowering knows no sorts, groups and random bits"),
    Pass(split_complex, "lowering knows no complex numbers"),
    Pass(simplify, "what was expanded has constants of its own"),
    Pass(merge_equal, "and repeats itself"),
    Pass(sums_apart, "a sum that waits for another one is a pass of its own"),
    Pass(contract, "products under sums in the order that takes fewest operations"),
    Pass(merge_equal, "two sums may contract the same product"),
    Pass(drop_unused, "nobody reads what was merged away"),
)

STAGES = (
    "traced",
    *dict.fromkeys(p.name for p in PASSES),
    "checks",
    "fused",
    "loops",
    "llvm",
    "assembly",
    "log",
)


@dataclass(frozen=True, slots=True)
class Request:
    """All that a compilation depends on besides the compiler itself."""

    program: Program
    param_order: tuple[Order, ...]
    result_order: tuple[Order | None, ...]
    options: Options
    target: Target

    def key(self) -> str:
        """The name of this compilation in every cache."""
        return cache.digest(
            compiler_version(),
            program_text(self.program),
            repr((self.param_order, self.result_order)),
            repr(self.options),
            repr(self.target),
            *(str(loc) for loc in _raising(self.program)),
        )


def _raising(program: Program) -> Iterator[Loc | None]:
    """Where the user wrote what may raise when it runs: messages in artifacts name the line."""
    for eqn in program.eqns:
        match eqn.op:
            case Reindex(mode="raise") | ReduceAt(mode="raise") | Group():
                yield eqn.loc
            case Recur() | While():
                yield from _raising(eqn.op.body)
            case Cond():
                yield from _raising(eqn.op.then)
                yield from _raising(eqn.op.other)
            case Custom():
                yield from _raising(eqn.op.primal)
            case _:
                pass


@dataclass(slots=True)
class Log:
    """What each stage did: its seconds, whether it left the program as it was; wanted texts."""

    wanted: frozenset[str] = frozenset()
    printed: frozenset[str] = frozenset()
    rows: list[tuple[str, float, bool]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def stage(
        self,
        name: str,
        began: float,
        unchanged: Callable[[], bool],
        text: Callable[[], str],
    ) -> None:
        """Note that a stage has ended. What only the log shows is found out only for the log."""
        seconds = time.perf_counter() - began
        logged = "log" in self.wanted or "log" in self.printed
        self.rows.append((name, seconds, logged and unchanged()))
        if name in self.wanted or name in self.printed:
            self.texts[name] = text()
        if name in self.printed:
            print(f"---- {name}\n{self.texts[name]}", file=sys.stderr)

    def text(self) -> str:
        """The log for people: milliseconds, stage, and whether it left everything as it was."""
        lines = [
            f"{seconds * 1e3:9.2f} ms  {name}{' (unchanged)' if unchanged else ''}"
            for name, seconds, unchanged in self.rows
        ]
        total = sum(seconds for _, seconds, _ in self.rows)
        return "\n".join([*lines, f"{total * 1e3:9.2f} ms  total"])


def _never() -> bool:
    """Stages that are no rewrite make something else of what they get."""
    return False


# ---- the stages


def rewrite(request: Request, log: Log) -> Program:
    """Run all passes."""
    program = request.program
    log.stage("traced", time.perf_counter(), _never, lambda: program_text(program))
    if request.options.verify:
        _verified("traced", program)
    for step in PASSES:
        began = time.perf_counter()
        before, program = program, step.run(program)
        same = functools.partial(operator.eq, before, program)
        log.stage(step.name, began, same, functools.partial(program_text, program))
        if request.options.verify:
            _verified(step.name, program)
    return program


def check(request: Request, program: Program, log: Log) -> tuple[Program, tuple[IndexCheck, ...]]:
    """Add hidden results that tell whether gathered indices were in range."""
    began = time.perf_counter()
    checked, checks = insert_checks(program)
    log.stage("checks", began, lambda: checked == program, lambda: program_text(checked))
    if request.options.verify:
        _verified("checks", checked)
    return checked, checks


def plan(request: Request, program: Program, log: Log, copies: bool = False) -> Plan:
    """Cut the program into kernels; with `copies` of what the user hands over and asks for."""
    began = time.perf_counter()
    params = param_orders(request.program, request.param_order)
    program = placed(gather_rows(grouped(program), params, request.result_order))
    program = online(program, request.target, dict(zip(program.params, params, strict=True)))
    orders = dict(zip(program.params, params, strict=True))
    if copies:
        program, orders = with_copies(program, orders, request.result_order)
    fused = fuse(program, request.target, request.options, orders)
    log.stage("fused", began, _never, lambda: plan_text(fused))
    return fused


def _orders_in_memory(
    request: Request, fused: Plan
) -> tuple[tuple[Order, ...], tuple[Order | None, ...]]:
    """Of parameters and results, those of the checks too."""
    hidden = len(fused.program.results) - len(request.result_order)
    params = param_orders(request.program, request.param_order)
    return params, result_orders(request.program, request.result_order, hidden)


def schedule(
    request: Request,
    fused: Plan,
    checks: tuple[IndexCheck, ...],
    log: Log,
    code: Code | None = None,
) -> Module:
    """Lower every kernel to loops and schedule them; `code` gets each when it is done."""
    began = time.perf_counter()
    params, results = _orders_in_memory(request, fused)
    module = lower_plan(
        fused,
        params,
        results,
        request.target,
        request.options,
        made=None if code is None else code.add,
    )
    found = (Check(n, c.size, c.message) for c in checks for n in (c.least, c.greatest))
    module = replace(module, checks=tuple(found))
    began += code.seconds if code else 0.0
    log.stage("loops", began, _never, lambda: loops_text(module))
    if request.options.verify:
        verify_module(module)
    return module


class Code:
    """Machine code in the making: LLVM works on one part while kernels of the next are scheduled
    and written.

    with Code(target) as code:
        code.add(kernel); code.add(another)
        files = code.files(log)
    """

    def __init__(self, target: Target) -> None:
        self.seconds = 0.0  # for writing text
        self._target = target
        self._texts: list[str] = []
        self._objects = jit.Objects(target)
        self._parts = Parts(target, self._take)

    def _take(self, text: str) -> None:
        self._texts.append(text)
        self._objects.add(text)

    def add(self, kernel: Kernel) -> None:
        """Write a scheduled kernel."""
        began = time.perf_counter()
        self._parts.add(kernel)
        self.seconds += time.perf_counter() - began

    def begin_anew(self) -> None:
        """Forget all kernels."""
        self._texts.clear()
        self._objects.forget()
        self._parts = Parts(self._target, self._take)

    def files(self, log: Log) -> list[bytes]:
        """The object files of all kernels."""
        began = time.perf_counter()
        self._parts.finish()
        log.stage("llvm", began - self.seconds, _never, lambda: "\n".join(self._texts))
        began = time.perf_counter()
        files = self._objects.files()
        log.stage("assembly", began, _never, lambda: _assembly(self._texts, self._target))
        return files

    def __enter__(self) -> Code:
        self._objects.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._objects.__exit__(*error)


def _assembly(texts: Sequence[str], target: Target) -> str:
    return "\n".join(jit.assembly(text, target) for text in texts)


def lowered(request: Request, log: Log, code: Code | None = None) -> Module:
    """The scheduled module of a request: everything before code generation, or beside it."""
    program, checks = check(request, rewrite(request, log), log)
    module = schedule(request, plan(request, program, log), checks, log, code)
    other = _from_copies(request, program, checks, module, log)
    if other is None:
        return module
    if code is not None:
        code.begin_anew()
        for kernel in other.kernels:
            code.add(kernel)
    return other


def _from_copies(
    request: Request,
    program: Program,
    checks: tuple[IndexCheck, ...],
    module: Module,
    log: Log,
) -> Module | None:
    """The module with copies of parameters and results, where it is predicted to be faster: tried
    where much is computed, and more slowly than vectors could."""
    began = time.perf_counter()
    moved = copied_bytes(program, request.result_order)
    copied = moved / request.target.dram_bytes_per_cycle
    if not 0 < moved < MOST_MOVED or not request.options.fuse:
        return None
    if len(module.kernels) > MOST_COPIED:
        return None
    cycles, least = _predicted_cycles(module, request.target)
    if cycles < DEARER * copied or cycles < SLOWER * least:
        return None
    tried = Log(log.wanted, log.printed)
    fused = plan(request, program, tried, copies=True)
    orders = _orders_in_memory(request, fused)
    inner = cycles < ROWS_APART * least
    if not turns_something(fused, *orders, request.target, request.options, inner):
        return None
    other = schedule(request, fused, checks, tried)
    if _predicted_cycles(other, request.target)[0] > FASTER * cycles:
        log.stage("copies", began, lambda: True, lambda: "not worth their time")
        return None
    log.rows += tried.rows
    log.texts |= tried.texts
    return other


def _predicted_cycles(module: Module, target: Target) -> tuple[float, float]:
    """As they are and at least; of loops and branches each launch once."""
    return predicted_cycles([module.kernels[x.kernel] for x in launched(module.steps)], target)


def build(request: Request, log: Log) -> Artifact:
    """Run the whole pipeline."""
    with Code(request.target) as code:
        if request.options.verify:  # no code of what has not been verified
            module = lowered(request, log)
            for kernel in module.kernels:
                code.add(kernel)
        else:
            module = lowered(request, log, code)
        objects = code.files(log)
    scratch = max((scratch_bytes(k) for k in module.kernels), default=0)
    return with_complex_ports(assemble(module, objects, scratch), request.program)


def _verified(stage: str, program: Program) -> None:
    try:
        verify(program)
    except InternalError as error:
        raise InternalError(f"after {stage}: {error}\n{program_text(program)}") from error


# ---- what callers use


def request(
    program: Program,
    param_order: Sequence[Order],
    result_order: Sequence[Order | None],
    options: Options = DEFAULT,
) -> Request:
    """A compilation for this machine.

    A result that is left open and has the dims of a parameter takes that parameter's order: a state
    that goes round a loop of calls keeps its layout, and a gradient has that of its value.
    """
    known = {frozenset(order): tuple(order) for order in reversed(param_order) if len(order) > 1}
    results = tuple(
        known.get(result.type.names) if order is None else order
        for result, order in zip(program.results, result_order, strict=True)
    )
    return Request(program, tuple(param_order), results, options, machine.target())


def compile(  # the stage's name, as in re.compile
    program: Program,
    param_order: Sequence[Order],
    result_order: Sequence[Order | None],
    options: Options = DEFAULT,
) -> Executable:
    """The executable of a program whose arrays have their dims in the given orders.

    Orders are outermost first, dense; None lets the compiler choose a result's, which its port in
    `Executable.visible` then tells.
    """
    asked = request(program, param_order, result_order, options)
    key = asked.key()
    place = (key, machine.cache_folder())  # another folder is another, perhaps empty, cache
    with _LOCK:
        found = _LOADED.get(place)
        if found is not None:
            _LOADED.move_to_end(place)
            return found
    executable = _from_disk(key) or _anew(asked, key)
    with _LOCK:
        executable = _LOADED.setdefault(place, executable)
        while len(_LOADED) > KEEP:
            _LOADED.popitem(last=False)
    return executable


def inspect(
    program: Program,
    param_order: Sequence[Order],
    result_order: Sequence[Order | None],
    stage: str,
    options: Options = DEFAULT,
) -> str:
    """The text of one of `STAGES` for a program; "log" is the time of each stage."""
    if stage not in STAGES:
        raise ArgumentError(f"{stage!r} is no stage of compilation: {', '.join(STAGES)}")
    asked = request(program, param_order, result_order, options)
    log = Log(wanted=frozenset({stage}))
    if stage in ("llvm", "assembly", "log"):
        build(asked, log)
    elif stage in ("fused", "loops"):
        lowered(asked, log)
    else:
        check(asked, rewrite(asked, log), log)
    return log.text() if stage == "log" else log.texts[stage]


def forget() -> None:
    """Drop every executable that is kept in memory; the disk still has them."""
    with _LOCK:
        _LOADED.clear()


KEEP = 256  # executables in memory; those that a caller holds live on without
_LOADED: OrderedDict[tuple[str, Path], Executable] = OrderedDict()
_LOCK = threading.Lock()


def _renew_lock() -> None:
    """A thread that held the lock is not in the child of a fork."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _from_disk(key: str) -> Executable | None:
    store = cache.default()
    payload = store.load(key)
    if payload is None:
        return None
    try:
        return Executable(from_bytes(payload), find=_foreign)
    except (ValueError, InternalError):
        store.discard(key)  # whole, but not ours: a colliding version, or another LLVM's object
        return None


def _anew(request: Request, key: str) -> Executable:
    log = Log(frozenset(request.options.dump), _dumped())
    try:
        artifact = build(request, log)
    except (SummandError, InternalError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        stage = log.rows[-1][0] if log.rows else "nothing"
        raise InternalError(
            f"the stage after {stage!r} failed: {error!r}\n{program_text(request.program)}"
        ) from error
    if "log" in log.printed:
        print(f"---- log\n{log.text()}", file=sys.stderr)
    cache.default().save(key, to_bytes(artifact))
    return Executable(artifact, find=_foreign)


def _foreign(name: str) -> Callable[[Sequence[Labelled]], Sequence[Labelled]]:
    """A registered foreign function in terms of arrays and their dims."""
    function = find(name)

    def run(args: Sequence[Labelled]) -> list[Labelled]:
        results = function.run([Named(array, dims) for array, dims in args])
        return [(r.array, r.order) for r in results]

    return run


def _dumped() -> frozenset[str]:
    names = frozenset(n for n in os.environ.get("SUMMAND_DUMP", "").split(",") if n)
    return frozenset(STAGES) - {"assembly"} if "all" in names else names


@functools.cache
def compiler_version() -> str:
    """The compiler's own part of every key: its version, its sources as they are, and LLVM's."""
    root = str(Path(__file__).parent)
    found = (s for folder, _, names in os.walk(root) for s in _sources(folder, root, names))
    return cache.digest("summand", jit.version(), *sorted(found))


def _sources(folder: str, root: str, names: Sequence[str]) -> Iterator[str]:
    """The sources in a folder: their size and when they were last changed."""
    for name in names:
        if name.endswith(".py"):
            path = f"{folder}/{name}"
            info = os.stat(path)
            yield f"{path.removeprefix(root)} {info.st_size} {info.st_mtime_ns}"
