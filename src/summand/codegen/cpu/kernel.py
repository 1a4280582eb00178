"""One kernel: its task's place in the grid, its buffers, and its tree of statements.

    define void @NAME(ptr noalias %args, i64 %task, ptr noalias %scratch)

`args` points to the addresses of the global buffers, in the order of `Kernel.params`; `task` is the
row-major index into the grid; `scratch` is the thread's own memory, aligned to 64 bytes, of which
the kernel uses `scratch_bytes(kernel)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

from summand.codegen.cpu.choice import array_bytes
from summand.codegen.cpu.memory import branch
from summand.codegen.cpu.outline import (
    ALIGNMENT,
    MANY,
    Outliner,
    Scope,
    nests_of,
    streams,
    write_nest,
)
from summand.codegen.cpu.plan import Ranges
from summand.codegen.cpu.text import Function, Int, Unit, Value
from summand.codegen.cpu.untangle import untangle
from summand.ir.index import Form
from summand.loops.nodes import Buffer, Guard, Kernel, Let, Loop, Nest, Stmt, When

GAP = 64  # bytes between scratch buffers, so that they do not share a cache line's set


def scratch_bytes(kernel: Kernel) -> int:
    """Bytes of scratch memory that a task of the kernel needs."""
    arrays = max((array_bytes(untangle(n)) for n in nests_of(kernel.body)), default=0)
    return _scratch_layout(kernel)[1] + arrays


def _scratch_layout(kernel: Kernel) -> tuple[dict[str, int], int]:
    """Byte offset of each scratch buffer, and the total."""
    at: dict[str, int] = {}
    end = 0
    for buffer in kernel.scratch:
        space = buffer.space * buffer.dtype.bytes
        start = -(-(end + space) // ALIGNMENT) * ALIGNMENT
        at[buffer.name] = start
        end = start + buffer.size * buffer.dtype.bytes + space + GAP
    return at, -(-end // ALIGNMENT) * ALIGNMENT


def write_kernel(unit: Unit, kernel: Kernel, nests: Callable[[], Unit] | None = None) -> None:
    """Add the function of a kernel to a unit; `nests` gives the units for those of its nests."""
    KernelWriter(unit, kernel, nests or (lambda: unit)).write()


class KernelWriter:
    """Writes the function of one kernel."""

    def __init__(self, unit: Unit, kernel: Kernel, nests_unit: Callable[[], Unit]) -> None:
        params = "ptr noalias %args, i64 %task, ptr noalias %scratch"
        self.kernel = kernel
        self.fn = Function(unit, kernel.name, params)
        self.buffers: dict[str, Buffer] = {b.name: b for b in (*kernel.params, *kernel.scratch)}
        self.bases: dict[str, Value] = {}
        self.arrays = Value("%scratch", "ptr")
        nests = list(nests_of(kernel.body))
        self.streams = any(streams(n) for n in nests)
        self.outliner = Outliner(nests_unit, kernel.name) if len(nests) >= MANY else None

    def write(self) -> None:
        """Write the whole function."""
        self._bind_buffers()
        position, ranges = self._task_position()
        self._body(self.kernel.body, position, ranges)
        if self.streams and self.fn.unit.is_x86:
            self.fn.unit.declare("llvm.x86.sse.sfence", "void", ())
            self.fn.do("call void @llvm.x86.sse.sfence()")
        self.fn.finish()

    def _bind_buffers(self) -> None:
        fn = self.fn
        args, scratch = Value("%args", "ptr"), Value("%scratch", "ptr")
        for number, buffer in enumerate(self.kernel.params):
            slot = fn.at(args, number, "ptr")
            self.bases[buffer.name] = fn.op(f"load ptr, ptr {slot}, align 8", "ptr")
        layout, end = _scratch_layout(self.kernel)
        for name, offset in layout.items():
            self.bases[name] = fn.at(scratch, offset, "i8")
        self.arrays = fn.at(scratch, end, "i8")

    def _task_position(self) -> tuple[dict[str, Int], dict[str, tuple[int, int]]]:
        """Where the task lies along each dim of the grid."""
        fn = self.fn
        position: dict[str, Int] = {}
        rest: Int = Value("%task", "i64")
        for number, (dim, extent) in reversed(list(enumerate(self.kernel.grid))):
            outermost = all(n == 1 for _, n in self.kernel.grid[:number])
            if extent <= 1:
                position[dim] = 0
            elif outermost:
                position[dim] = rest
            else:
                position[dim] = fn.pure(f"urem i64 {rest}, {extent}", "i64")
                rest = fn.pure(f"udiv i64 {rest}, {extent}", "i64")
        return position, {d: (0, max(n - 1, 0)) for d, n in self.kernel.grid}

    # ---- statements

    def _body(self, body: Sequence[Stmt], position: dict[str, Int], ranges: Ranges) -> None:
        for stmt in body:
            match stmt:
                case Nest():
                    self._nest(stmt, position, ranges)
                case Loop():
                    self._loop(stmt, position, ranges)
                case Let():
                    self._let(stmt, position, ranges)
                case When():
                    self._when(stmt, position, ranges)
                case _:
                    assert_never(stmt)

    def _loop(self, loop: Loop, position: dict[str, Int], ranges: Ranges) -> None:
        def run(index: Int, _: list[Value]) -> list[Value]:
            inner = {**ranges, loop.dim: (0, max(loop.extent - 1, 0))}
            self._body(loop.body, {**position, loop.dim: index}, inner)
            return []

        self.fn.loop(0, loop.extent, 1, [], run)

    def _let(self, let: Let, position: dict[str, Int], ranges: Ranges) -> None:
        fn = self.fn
        value = fn.least(fn.greatest(self._form(let.form, position), let.lo), let.hi)
        lo, hi = let.form.interval(ranges)
        lo, hi = (min(max(v, let.lo), let.hi) for v in (lo, hi))
        self._body(let.body, {**position, let.dim: value}, {**ranges, let.dim: (lo, hi)})

    def _when(self, when: When, position: dict[str, Int], ranges: Ranges) -> None:
        holds: Value | None = None
        for guard in when.guards:
            lo, hi = guard.form.interval(ranges)
            if lo < 0 or hi >= guard.size:
                here = self._guard(guard, position)
                both = f"and i1 {holds}, {here}"
                holds = here if holds is None else self.fn.pure(both, "i1")
        branch(self.fn, holds, lambda: self._body(when.body, position, ranges))

    def _guard(self, guard: Guard, position: Mapping[str, Int]) -> Value:
        value = self.fn.i64(self._form(guard.form, position))
        return self.fn.pure(f"icmp ult i64 {value}, {guard.size}", "i1")

    def _form(self, form: Form, position: Mapping[str, Int]) -> Int:
        fn = self.fn
        total: Int = form.const
        for atom, c in form.terms:
            if isinstance(atom, str):
                value = position[atom]
            else:
                inner = self._form(atom.form, position)
                divide = fn.floordiv if atom.op == "//" else fn.mod
                value = divide(inner, atom.by)
            total = fn.add(total, fn.mul(value, c))
        return total

    # ---- nests

    def _nest(self, nest: Nest, position: dict[str, Int], ranges: Ranges) -> None:
        scope = Scope(self.buffers, self.bases, position, ranges, self.arrays)
        if self.outliner is None:
            write_nest(self.fn, nest, scope)
        else:
            self.outliner.call(self.fn, nest, scope)
