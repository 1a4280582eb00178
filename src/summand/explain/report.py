"""A compiled function as text: each kernel's loops, layouts, costs and times.

    kernel k0_reduce   %3 = sum{k} at model.py:12
      reads   p0 f32[i=512, k=512]   p1 f32[k=512, j=512]
      writes  r0 f32[i=512, j=512]
      268 Mflop, 3.1 MB, 87 flop/B; bound 1.17 ms by arithmetic, predicted 1.25 ms
      measured 1.21 ms: 222 GFLOP/s, 0.97 of the FMA peak
      grid …  (the loops)

Dims of a layout are written outermost first. The bound is the least time that the machine's peak
and bandwidth, measured beside, allow; what is measured is the median over whole runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from summand import compiler
from summand.api import Jit, jit
from summand.assemble import launched
from summand.explain.profile import KernelTime, Profile, profile_module
from summand.loops.nodes import Kernel, Launch, Load, Module, Nest, Place, Stmt
from summand.loops.text import text
from summand.schedule.outcome import predict


def explain(function: Callable[..., object], arguments: Sequence[object], run: bool = False) -> str:
    """What was decided for a function on these arguments; with `run`, what each kernel costs."""
    compiled = function if isinstance(function, Jit) else jit(function)
    request, inputs = compiled.request(*arguments)
    log = compiler.Log()
    module = compiler.lowered(request, log)
    measured = None
    if run:
        executable = compiler.compile(
            request.program, request.param_order, request.result_order, request.options
        )
        measured = profile_module(module, request, executable, inputs)
    return report(module, request, measured)


def report(module: Module, request: compiler.Request, measured: Profile | None) -> str:
    """The text for a lowered program."""
    times = {k.name: k for k in measured.kernels} if measured else {}
    first: dict[int, Launch] = {}
    for step in launched(module.steps):
        first.setdefault(step.kernel, step)
    blocks = [_head(module, measured)]
    places = {p.name: p for p in module.places}
    for number, step in first.items():
        kernel = module.kernels[number]
        lines = [f"kernel {kernel.name}   {kernel.note}".rstrip()]
        lines += [f"  {line}" for line in _layouts(kernel, step, places)]
        lines.append(f"  {_costs(kernel, request)}")
        if kernel.name in times and measured:
            lines += [f"  {line}" for line in _measured(times[kernel.name], measured)]
        lines += [f"  {line}" for line in text(kernel).rstrip().splitlines()[1:]]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _head(module: Module, measured: Profile | None) -> str:
    stored = sum(p.size * p.dtype.bytes for p in module.places if p.kind in ("param", "result"))
    count = len(module.kernels)
    line = (
        f"{count} kernel{'s' * (count != 1)}; arguments and results {_bytes(stored)}, "
        f"temporaries {_bytes(module.arena)}"
    )
    if measured is None:
        return line
    return (
        f"{line}\none run {_seconds(measured.seconds)}; FMA peak "
        f"{measured.peak_flops / 1e9:.0f} GFLOP/s, copy {measured.bandwidth / 1e9:.1f} GB/s"
    )


def _layouts(kernel: Kernel, step: Launch, places: dict[str, Place]) -> list[str]:
    """What the kernel reads and writes, with the order of the dims in memory."""
    reads, writes = _touched(kernel.body)
    rows = []
    for word, names in (("reads ", reads), ("writes", writes)):
        shown = [
            f"{buffer.name}={_place(places[name])}"
            for buffer, name in zip(kernel.params, step.buffers, strict=True)
            if buffer.name in names
        ]
        if shown:
            rows.append(f"{word}  {'   '.join(shown)}")
    if kernel.scratch:
        sizes = (f"{b.name} {b.dtype}[{b.size}]" for b in kernel.scratch)
        rows.append(f"scratch {'   '.join(sizes)}")
    return rows


def _place(place: Place) -> str:
    dims = ", ".join(f"{d}={n}" for d, n in place.dims) if place.dims else str(place.size)
    return f"{place.name} {place.dtype}[{dims}]"


def _touched(body: Sequence[Stmt]) -> tuple[set[str], set[str]]:
    """Names of the buffers that are read and written."""
    reads: set[str] = set()
    writes: set[str] = set()
    for stmt in body:
        if isinstance(stmt, Nest):
            reads |= {i.buffer for i in stmt.code if isinstance(i, Load)}
            writes |= {s.buffer for s in stmt.stores}
        else:
            inner = _touched(stmt.body)
            reads |= inner[0]
            writes |= inner[1]
    return reads, writes


def _costs(kernel: Kernel, request: compiler.Request) -> str:
    found = predict(kernel, request.target)
    ratio = f", {found.flops / found.bytes:.3g} flop/byte" if found.bytes else ""
    limit = "memory" if found.is_memory_bound else "arithmetic"
    tasks = f"{found.tasks} task{'s' * (found.tasks != 1)}"
    return f"{_count(found.flops)}flop, {_bytes(found.bytes)}{ratio}, bound by {limit}; {tasks}"


def _measured(row: KernelTime, measured: Profile) -> list[str]:
    rate = row.flops / row.seconds
    moved = row.bytes / row.seconds
    share = row.seconds / max(measured.seconds, row.seconds)
    times = f" in {row.launches} launches" if row.launches > 1 else ""
    return [
        f"bound {_seconds(row.bound)}, predicted {_seconds(row.predicted)}",
        f"measured {_seconds(row.seconds)}{times} ({share:.0%} of the run): "
        f"{rate / 1e9:.1f} GFLOP/s ({rate / measured.peak_flops:.2f} of peak), "
        f"{moved / 1e9:.1f} GB/s ({moved / measured.bandwidth:.2f} of copy)",
    ]


def _seconds(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _bytes(count: float) -> str:
    return f"{_count(count)}B"


def _count(number: float) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.3g} "
