"""What this machine can do at most: the ceilings that kernels are compared with.

    fma_peak(2)        ->  229.8   GFLOP/s of float32 on two threads
    copy_bandwidth()   ->  47.1    GB/s, bytes read plus bytes written

Both run generated code on the pool, as every kernel does. Machines are shared and noisy: each is
the best of several runs.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Sequence

import numpy as np

from summand.options import Target
from summand.runtime import jit, machine, memory, pool_code
from summand.runtime.pool import Call, Pool, default

_CHAINS = 12  # independent sums: enough to hide the latency of every processor's FMA pipes
_RUNS = 8  # at least, of the FMA peak
_UNROLL = 8  # vectors that one turn of the copy loop moves


def fma_peak(threads: int | None = None, seconds: float = 0.2) -> float:
    """GFLOP/s of fused multiply-adds on float32 vectors held in registers (two flops for each)."""
    target = machine.target()
    pool = default() if threads in (None, default().threads) else Pool(threads or 1)
    turns = np.array([1000], np.int64)
    sink = np.zeros(16 * pool.threads, np.float32)
    address = _code(target).address("summand_fma")
    flops = 2 * _CHAINS * (target.vector_bytes // 4) * pool.threads
    best, spent, runs = 0.0, 0.0, 0
    while spent < seconds or runs < _RUNS:  # a run in which the thread had to wait tells nothing
        took = _timed(pool, address, pool.threads, [turns, sink])
        best = max(best, flops * int(turns[0]) / took / 1e9)
        if took < seconds / 16:
            turns *= 2
        spent += took
        runs += 1
    return best


def copy_bandwidth(repeats: int = 7) -> float:
    """GB/s of a copy between arrays four times the last cache, past the cache on the way out.

    Bytes read and bytes written are both counted, as in STREAM's Copy; the stores are non-temporal,
    so that no line is read only to be overwritten.
    """
    target, pool = machine.target(), default()
    piece = 1 << 18
    count = max(4 * target.l3 // piece, 4 * pool.threads)
    source, _ = memory.default().array((piece * count,), np.dtype(np.uint8))
    sink, _ = memory.default().array((piece * count,), np.dtype(np.uint8))
    source.fill(1)
    sink.fill(0)
    words = np.array([piece // (_UNROLL * target.vector_bytes), piece], np.int64)
    address = _code(target).address("summand_copy")
    took = min(_timed(pool, address, count, [words, source, sink]) for _ in range(repeats))
    return 2 * piece * count / took / 1e9


def _timed(pool: Pool, address: int, tasks: int, buffers: Sequence[np.ndarray]) -> float:
    """Seconds of one launch."""
    slots = range(len(buffers))
    words = [pool_code.LAUNCH, address, tasks, 0, 0, len(buffers), *slots, pool_code.END]
    call = Call((ctypes.c_int64 * len(words))(*words), len(buffers), len(buffers))
    for slot, array in zip(slots, buffers):
        call.slots[slot] = memory.address_of(array)
    began = time.perf_counter()
    pool.run(call)
    return time.perf_counter() - began


@functools.cache
def _code(target: Target) -> jit.Library:
    text = peak_text(target.vector_bytes // 4)
    return jit.load([jit.compile_object(text, target)], ["summand_fma", "summand_copy"])


def peak_text(lanes: int) -> str:
    """The LLVM text of both measurements, for vectors of so many floats."""
    attributes = f'nounwind "prefer-vector-width"="{32 * lanes}"'
    tail = f"attributes #0 = {{ {attributes} }}\n!0 = !{{i32 1}}\n"
    return "\n".join((_fma_text(lanes), _copy_text(lanes), tail))


def _fma_text(lanes: int) -> str:
    """x ← x·a + b on several vectors at once; their sum is stored, so that none is dropped."""
    vector = f"<{lanes} x float>"
    a, b = (f"splat (float {v})" for v in ("5.000000e-01", "2.500000e-01"))
    chains = range(_CHAINS)
    fma = f"@llvm.fma.v{lanes}f32"
    phis = "\n".join(f"  %x{c} = phi {vector} [ {a}, %entry ], [ %y{c}, %top ]" for c in chains)
    body = "\n".join(
        f"  %y{c} = call {vector} {fma}({vector} %x{c}, {vector} {a}, {vector} {b})" for c in chains
    )
    sums = "\n".join(
        f"  %s{c} = fadd {vector} {f'%s{c - 1}' if c else 'zeroinitializer'}, %y{c}" for c in chains
    )
    return f"""
declare {vector} {fma}({vector}, {vector}, {vector})
define void @summand_fma(ptr %args, i64 %task, ptr %scratch) #0 {{
entry:
  %second = getelementptr ptr, ptr %args, i64 1
  %words = load ptr, ptr %args
  %sink = load ptr, ptr %second
  %turns = load i64, ptr %words
  br label %top
top:
  %turn = phi i64 [ 0, %entry ], [ %next, %top ]
{phis}
{body}
  %next = add i64 %turn, 1
  %more = icmp slt i64 %next, %turns
  br i1 %more, label %top, label %out
out:
{sums}
  %one = extractelement {vector} %s{_CHAINS - 1}, i64 0
  %line = mul i64 %task, 16
  %place = getelementptr float, ptr %sink, i64 %line
  store float %one, ptr %place
  ret void
}}
"""


def _copy_text(lanes: int) -> str:
    """One piece of a copy: whole vectors, stored past the cache."""
    vector, size = f"<{lanes} x float>", 4 * lanes
    moves = "\n".join(
        f"""  %o{k} = add i64 %at, {k * size}
  %f{k} = getelementptr i8, ptr %from, i64 %o{k}
  %t{k} = getelementptr i8, ptr %to, i64 %o{k}
  %v{k} = load {vector}, ptr %f{k}, align {size}
  store {vector} %v{k}, ptr %t{k}, align {size}, !nontemporal !0"""
        for k in range(_UNROLL)
    )
    return f"""
define void @summand_copy(ptr %args, i64 %task, ptr %scratch) #0 {{
entry:
  %second = getelementptr ptr, ptr %args, i64 1
  %third = getelementptr ptr, ptr %args, i64 2
  %words = load ptr, ptr %args
  %source = load ptr, ptr %second
  %sink = load ptr, ptr %third
  %after = getelementptr i64, ptr %words, i64 1
  %turns = load i64, ptr %words
  %piece = load i64, ptr %after
  %start = mul i64 %task, %piece
  %from = getelementptr i8, ptr %source, i64 %start
  %to = getelementptr i8, ptr %sink, i64 %start
  br label %top
top:
  %turn = phi i64 [ 0, %entry ], [ %next, %top ]
  %at = mul i64 %turn, {_UNROLL * size}
{moves}
  %next = add i64 %turn, 1
  %more = icmp slt i64 %next, %turns
  br i1 %more, label %top, label %out
out:
  ret void
}}
"""
