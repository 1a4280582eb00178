"""Kernels: the grid, scratch, loops, tiles moved back to the edge, conditions, streaming."""

import ctypes
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from summand.codegen.cpu import module
from summand.codegen.cpu.module import emit_kernel, scratch_bytes
from summand.dtypes import f32, i64
from summand.ir.index import parse
from summand.loops.nodes import (
    Apply,
    Const,
    Guard,
    Kernel,
    Let,
    Load,
    Loop,
    Nest,
    Position,
    Store,
    When,
)
from summand.runtime import jit
from summand.runtime.machine import target
from tests.codegen.kernels import (
    at,
    buffer,
    check,
    check_nest,
    greatest,
    random_buffers,
    schedule,
    total,
)

M = 70


def softmax(first, second, third) -> Kernel:
    x = Load("x", at(f"{4 * M}*I+{M}*i+j"), f32)
    box = (("i", 4), ("j", M))
    nests = (
        Nest(box, (x, greatest("j", 0)), (Store("m", at("i"), 1),)),
        Nest(
            box,
            (
                x,
                Load("m", at("i"), f32),
                Apply("sub", (0, 1), f32),
                Apply("exp", (2,), f32),
                total("j", 3),
            ),
            (Store("e", at(f"{M}*i+j"), 3), Store("s", at("i"), 4)),
        ),
        Nest(
            box,
            (
                Load("e", at(f"{M}*i+j"), f32),
                Load("s", at("i"), f32),
                Apply("div", (0, 1), f32),
            ),
            (Store("y", at(f"{4 * M}*I+{M}*i+j"), 2),),
        ),
    )
    return Kernel(
        "softmax",
        (buffer("x", 24 * M), buffer("y", 24 * M)),
        (buffer("m", 4), buffer("e", 4 * M), buffer("s", 4)),
        (("I", 6),),
        tuple(replace(n, schedule=s) for n, s in zip(nests, (first, second, third))),
    )


@pytest.mark.parametrize(
    "schedules",
    [
        (None, None, None),
        (
            schedule("j16", "i4", "j2", "j", copies=2),
            schedule("j16", "i4", "", "j"),
            schedule("j16", "i4", "", "j", streaming=True),
        ),
        (
            schedule("j16", "i1", "", "i j", prefetch=(("x", 64),)),
            schedule("i4", "", "", "j"),
            schedule("j16", "", "", "i j"),
        ),
    ],
)
def test_softmax_with_scratch(schedules):
    kernel = softmax(*schedules)
    assert scratch_bytes(kernel) >= (4 + 4 * M + 4) * 4
    check(kernel, random_buffers(kernel), 1e-5, 1e-6)


def test_loops_tiles_and_conditions():
    copy = Nest(
        (("i", 8),),
        (Load("x", at("o+i"), f32),),
        (Store("y", at("o+i"), 0),),
        schedule=schedule("i8"),
    )
    rare = replace(copy, stores=(Store("z", at("8*T+i"), 0),), schedule=None)
    when = When((Guard(parse("T-1"), 3), Guard(parse("o%3"), 2)), (rare,))
    body = (Loop("T", 5, (Let("o", parse("8*T-3"), 0, 29, (copy, when)),)),)
    kernel = Kernel("k", (buffer("x", 37), buffer("y", 37), buffer("z", 40)), (), (), body)
    check(kernel, random_buffers(kernel))


def test_grid():
    nest = Nest(
        (("i", 8),),
        (Load("x", at("o+i"), f32), Position(parse("o+i+100*I"), i64)),
        (Store("y", at("32*I+8*J+i"), 0), Store("z", at("32*I+8*J+i"), 1)),
        schedule=schedule("i8"),
    )
    params = (buffer("x", 20), buffer("y", 96), buffer("z", 96, i64))
    body = (Let("o", parse("(7*I+J)//2"), 1, 9, (nest,)),)
    kernel = Kernel("k", params, (), (("I", 3), ("J", 4)), body)
    check(kernel, random_buffers(kernel))


def test_streaming_stores_need_aligned_arrays():
    code = (Load("x", at("64*i+j"), f32), Apply("add", (0, 0), f32))
    nest = Nest((("i", 50), ("j", 64)), code, (Store("y", at("64*i+j"), 1),))
    streaming = schedule("j16", "j2", "", "i j", streaming=True)
    # One of the two places that `check` tries is aligned, the other not (3197 elements).
    check_nest(nest, (buffer("x", 3200), buffer("y", 3200)), (streaming,), 0)
    odd = replace(nest, dims=(("i", 49), ("j", 61)))
    check_nest(odd, (buffer("x", 3197), buffer("y", 3197)), (streaming,), 0)
    kernel = Kernel("k", (buffer("x", 3200), buffer("y", 3200)), (), (), ())
    text = emit_kernel(replace(kernel, body=(replace(nest, schedule=streaming),)), target())
    assert "nontemporal" in text


def test_equal_nests_of_a_kernel_share_a_function():
    def step(source: str, result: str) -> Nest:
        code = (
            Load(source, at("40*I+i"), f32),
            Load(source, at("40*I+39-i"), f32),
            Apply("sub", (0, 1), f32),
            Position(parse("I+i"), f32),
            Apply("mul", (2, 3), f32),
        )
        stores = (Store(result, at("40*I+i"), 4),)
        return Nest((("i", 40),), code, stores, schedule=schedule("i16", "", "", "i"))

    names = ["x", "s", "y", "t", "x", "s", "z"]
    nests = tuple(step(a, b) for a, b in pairwise(names))
    params = tuple(buffer(n, 120) for n in "xyz")
    kernel = Kernel("k", params, (buffer("s", 120), buffer("t", 120)), (("I", 3),), nests)
    assert emit_kernel(kernel, target()).count("define void @k.nest") == 1
    check(kernel, random_buffers(kernel), 1e-5, 1e-4)


def test_text_does_not_depend_on_the_run():
    kernel = softmax(schedule("j16", "i4", "j2", "j"), None, None)
    assert emit_kernel(kernel, target()) == emit_kernel(kernel, target())


def test_nests_in_several_modules_are_one_kernel(monkeypatch):
    """Functions of nests may be compiled apart from the kernel that calls them."""
    monkeypatch.setattr(module, "PART", 100)

    def step(number: int) -> Nest:
        code = (Load("x", at("i"), f32), Const(number, f32), Apply("mul", (0, 1), f32))
        stores = (Store("y", at(f"i+{40 * number}"), 2),)
        return Nest((("i", 40),), code, stores, schedule=schedule("i8", "", "", "i"))

    params = (buffer("x", 40), buffer("y", 240))
    kernel = Kernel("k", params, (), (), tuple(step(n) for n in range(6)))
    texts: list[str] = []
    parts = module.Parts(target(), texts.append)
    parts.add(kernel)
    parts.finish()
    assert len(texts) == 7
    library = jit.load(jit.compile_objects(texts, target()), ["k"])
    x, y = np.arange(40, dtype=np.float32), np.zeros(240, np.float32)
    args = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(library.address("k"))(
        ctypes.addressof(args), 0, 0
    )
    np.testing.assert_array_equal(y.reshape(6, 40), np.arange(6)[:, None] * x)


@pytest.mark.parametrize("steps", ["k", "k2", "k3", "k4", "k5"])
@pytest.mark.parametrize("copies", [1, 2])
def test_a_nan_of_any_step_reaches_the_greatest(steps, copies):
    """NaNs join the accumulator two steps at a time: none is lost, none comes from infinities."""
    x = np.random.default_rng(0).standard_normal((20, 11)).astype(np.float32)
    for row, places in enumerate([(0,), (3,), (4, 5), (9,), (10,), (0, 10)]):
        x[2 * row, places] = np.nan
    x[13], x[15, 3:7], x[17, ::2] = -np.inf, np.inf, -np.inf
    nest = Nest(
        (("i", 20), ("k", 11)),
        (Load("x", at("11*i + k"), f32), greatest("k", 0)),
        (Store("y", at("i"), 1),),
    )
    params = (buffer("x", 220), buffer("y", 20))
    unroll = "" if steps == "k" else steps
    for lanes, tile in (("i8", ""), ("i4", "i2"), ("k4", "")):
        chosen = schedule(lanes, tile, unroll, "i k", copies=copies)
        check_nest(nest, params, (chosen,), 0.0, {"x": x.ravel()})
