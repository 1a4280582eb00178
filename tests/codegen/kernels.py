"""Run generated kernels on arrays that lie against forbidden pages, and compare with the oracle.

check_nest(nest, (buffer("x", 45), buffer("y", 7)), (None, schedule("j16", "i2", "", "i j")))
"""

import ctypes
import mmap
import re
from dataclasses import replace

import numpy as np

from summand.codegen.cpu.module import emit_kernel, scratch_bytes
from summand.dtypes import bf16, bool_, f32
from summand.ir.index import parse
from summand.loops.interp import run_kernel
from summand.loops.nodes import Address, Buffer, Combine, Fold, Guard, Kernel, Nest, Piece, Schedule
from summand.options import Target
from summand.runtime.jit import compile_objects, load
from summand.runtime.machine import target

PAGE = mmap.PAGESIZE


def pieces(text: str):
    """ "i4 j2" as pieces, outer first."""
    found = (re.fullmatch(r"([a-z]+)(\d+)", word) for word in text.split())
    return tuple(Piece(m[1], int(m[2])) for m in found)


def schedule(lanes="", tile="", unroll="", loops="", end="", **rest) -> Schedule:
    """A schedule from texts of its pieces."""
    return Schedule(
        pieces(lanes), pieces(tile), pieces(unroll), tuple(loops.split()), pieces(end), **rest
    )


def at(form: str, dynamic=(), guards=()) -> Address:
    """An address from the text of its form; guards are (form, size)."""
    return Address(parse(form), tuple(dynamic), tuple(Guard(parse(f), n) for f, n in guards))


def buffer(name: str, size: int, dtype=f32, **rest) -> Buffer:
    """A buffer of f32, where nothing else is said."""
    return Buffer(name, dtype, size, **rest)


def total(dims: str, arg: int, dtype=f32) -> Fold:
    """A sum over dims."""
    return Fold(Combine("add", (0,)), tuple(dims.split()), (arg,), dtype)


def greatest(dims: str, arg: int, dtype=f32) -> Fold:
    """A maximum over dims."""
    return Fold(Combine("max", (float("-inf"),)), tuple(dims.split()), (arg,), dtype)


def random_array(size: int, dtype, seed: int) -> np.ndarray:
    """Normal floats, integers in 0 … 99."""
    rng = np.random.default_rng(seed)
    if dtype is bool_:
        return rng.integers(0, 2, size).astype(bool)
    if dtype is bf16:
        return (rng.standard_normal(size).astype("f4").view("u4") >> 16).astype("u2")
    if dtype.is_float:
        return rng.standard_normal(size).astype(dtype.numpy)
    return rng.integers(0, 100, size).astype(dtype.numpy)


def random_buffers(kernel: Kernel):
    """Something in every buffer."""
    return {b.name: random_array(b.size, b.dtype, k) for k, b in enumerate(kernel.params)}


def check_nest(nest: Nest, params, schedules, tolerance: float = 1e-5, buffers=None):
    """A nest computes what the interpreter says, under each schedule."""
    for s in schedules:
        kernel = Kernel("k", tuple(params), (), (), (replace(nest, schedule=s),))
        check(kernel, {**random_buffers(kernel), **(buffers or {})}, tolerance, tolerance)


_libc = ctypes.CDLL(None)


class Fenced:
    """Memory for an array that ends (or begins) exactly at a page that may not be touched."""

    def __init__(self, data: np.ndarray, at_end: bool) -> None:
        pages = -(-max(data.nbytes, 1) // PAGE)
        self.map = mmap.mmap(-1, (pages + 2) * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for page in (0, pages + 1):
            place = ctypes.c_void_p(self.address + page * PAGE)
            assert _libc.mprotect(place, ctypes.c_size_t(PAGE), 0) == 0
        start = PAGE + (pages * PAGE - data.nbytes if at_end else 0)
        whole = np.frombuffer(self.map, np.uint8, data.nbytes, start)
        self.array = whole.view(data.dtype)
        self.array[:] = data

    def close(self) -> np.ndarray:
        """What the array holds, after which its memory may go."""
        out = self.array.copy()
        _libc.mprotect(ctypes.c_void_p(self.address), ctypes.c_size_t(len(self.map)), 3)
        return out


def compiled(kernel: Kernel, machine: Target | None = None):
    """The native function of a kernel, for this processor or one that it can stand in for."""
    machine = machine or target()
    text = emit_kernel(kernel, machine)
    library = load(compile_objects([text], machine), [kernel.name])
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    return kind(library.address(kernel.name)), library


def run_native(kernel: Kernel, buffers, at_end: bool = True, machine: Target | None = None):
    """All tasks of a kernel on copies of 1-D buffers; returns the copies."""
    function, library = compiled(kernel, machine)
    held = {b.name: Fenced(buffers[b.name], at_end) for b in kernel.params}
    pointers = [held[b.name].array.ctypes.data for b in kernel.params]
    args = (ctypes.c_void_p * max(len(pointers), 1))(*pointers)
    scratch = Fenced(np.full(max(scratch_bytes(kernel), 64), 0xFF, np.uint8), False)
    tasks = int(np.prod([n for _, n in kernel.grid], dtype=np.int64))
    for task in range(tasks):
        function(ctypes.addressof(args), task, scratch.array.ctypes.data)
    del library
    return {name: f.close() for name, f in held.items()}


def check(kernel: Kernel, buffers, rtol: float = 0, atol: float = 0, machine=None):
    """The kernel's buffers after a native run equal those that the interpreter leaves."""
    expected = {name: a.copy() for name, a in buffers.items()}
    run_kernel(kernel, expected)
    for at_end in (True, False):
        found = run_native(kernel, buffers, at_end, machine)
        for name, array in expected.items():
            np.testing.assert_allclose(
                found[name].astype("float64"),
                array.astype("float64"),
                rtol=rtol,
                atol=atol,
                err_msg=name,
            )
    return found
