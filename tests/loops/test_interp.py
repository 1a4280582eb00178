"""The loop IR's meaning, on kernels written by hand."""

import numpy as np
import pytest

from summand.dtypes import bf16, f16, f32, i32
from summand.errors import InternalError
from summand.ir.index import Form, parse
from summand.loops.interp import run_kernel, run_module
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Bound,
    Branch,
    Buffer,
    Carry,
    Combine,
    Const,
    Copy,
    Fold,
    Guard,
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
    Place,
    Position,
    Repeat,
    Store,
    When,
)

SUM = Combine("add", (0,))
MAX = Combine("max", (float("-inf"),))
RNG = np.random.default_rng(0)


def at(form: str, *guards: Guard, dynamic=()) -> Address:
    return Address(parse(form), dynamic, guards)


def load(buffer: str, form: str, *guards: Guard, dtype=f32, fill=0, dynamic=()) -> Load:
    return Load(buffer, at(form, *guards, dynamic=dynamic), dtype, fill)


def kernel(params, body, grid=(), scratch=()) -> Kernel:
    return Kernel("k", tuple(params), tuple(scratch), tuple(grid), tuple(body))


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def buf(name: str, size: int, dtype=f32, memory="global") -> Buffer:
    return Buffer(name, dtype, size, memory)


def test_softmax_over_scratch():
    n, m = 6, 5
    body = [
        Nest(
            (("i", 2), ("j", m)),
            (load("x", f"{2 * m}*I + {m}*i + j"), Fold(MAX, ("j",), (0,), f32)),
            (Store("m", at("i"), 1),),
        ),
        Nest(
            (("i", 2), ("j", m)),
            (
                load("x", f"{2 * m}*I + {m}*i + j"),
                load("m", "i"),
                Apply("sub", (0, 1), f32),
                Apply("exp", (2,), f32),
                Fold(SUM, ("j",), (3,), f32),
                Apply("div", (3, 4), f32),
            ),
            (Store("y", at(f"{2 * m}*I + {m}*i + j"), 5),),
        ),
    ]
    k = kernel(
        [buf("x", n * m), buf("y", n * m)],
        body,
        [("I", n // 2)],
        [buf("m", 2, memory="scratch")],
    )
    x = floats(n, m)
    y = np.empty(n * m, np.float32)
    run_kernel(k, {"x": x.reshape(-1), "y": y})
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y.reshape(n, m), e / e.sum(1, keepdims=True), rtol=1e-6)


def test_guard_gives_fill():
    n = 5
    code = (
        load("x", "i + k - 1", Guard(parse("i + k - 1"), n), fill=0),
        load("w", "k"),
        Apply("mul", (0, 1), f32),
        Fold(SUM, ("k",), (2,), f32),
    )
    nest = Nest((("i", n), ("k", 3)), code, (Store("y", at("i"), 3),))
    x, w, y = floats(n), floats(3), np.empty(n, np.float32)
    run_kernel(kernel([buf("x", n), buf("w", 3), buf("y", n)], [nest]), {"x": x, "w": w, "y": y})
    np.testing.assert_allclose(y, np.correlate(np.pad(x, 1), w, "valid"), rtol=1e-6)


def test_guarded_store_leaves_memory():
    nest = Nest(
        (("i", 8),), (Const(1.0, f32),), (Store("y", at("i", Guard(parse("i - 2"), 3)), 0),)
    )
    y = np.zeros(8, np.float32)
    run_kernel(kernel([buf("y", 8)], [nest]), {"y": y})
    assert y.tolist() == [0, 0, 1, 1, 1, 0, 0, 0]


def test_bounds_restrict_a_fold():
    n = 7
    nest = Nest(
        (("i", n), ("j", n)),
        (load("x", "j"), Fold(SUM, ("j",), (0,), f32)),
        (Store("y", at("i"), 1),),
        bounds=(Bound("j", (parse("i - 2"),), (parse("i + 1"),)),),
    )
    x, y = floats(n), np.empty(n, np.float32)
    run_kernel(kernel([buf("x", n), buf("y", n)], [nest]), {"x": x, "y": y})
    expected = [x[max(0, i - 2) : i + 1].sum() for i in range(n)]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_bounds_hide_addresses_out_of_range():
    nest = Nest(
        (("i", 4), ("j", 4)),
        (load("x", "i + j"), Fold(SUM, ("j",), (0,), f32)),
        (Store("y", at("i"), 1),),
        bounds=(Bound("j", (), (parse("4 - i"),)),),
    )
    x, y = floats(4), np.empty(4, np.float32)
    run_kernel(kernel([buf("x", 4), buf("y", 4)], [nest]), {"x": x, "y": y})
    np.testing.assert_allclose(y, [x[i:].sum() for i in range(4)], rtol=1e-5, atol=1e-6)


def test_fold_with_code_finds_the_argument_of_the_maximum():
    code = (
        *(Arg(k, t) for k, t in enumerate((f32, i32, f32, i32))),
        Apply("ge", (0, 2), i32),
        Apply("convert", (4,), i32),
        Apply("max", (0, 2), f32),
        Apply("mul", (5, 1), i32),
        Const(1, i32),
        Apply("sub", (8, 5), i32),
        Apply("mul", (9, 3), i32),
        Apply("add", (7, 10), i32),
    )
    combine = Combine(None, (float("-inf"), -1), code, (6, 11), commutative=False)
    nest = Nest(
        (("i", 3), ("j", 9)),
        (
            load("x", "9*i + j"),
            Position(Form.of("j"), i32),
            Fold(combine, ("j",), (0, 1), f32),
            Part(2, 1, i32),
        ),
        (Store("v", at("i"), 2), Store("p", at("i"), 3)),
    )
    x, v, p = floats(3, 9), np.empty(3, np.float32), np.empty(3, np.int32)
    k = kernel([buf("x", 27), buf("v", 3), buf("p", 3, i32)], [nest])
    run_kernel(k, {"x": x.reshape(-1), "v": v, "p": p})
    assert p.tolist() == x.argmax(1).tolist()
    assert v.tolist() == x.max(1).tolist()


def test_carry_and_last():
    # h = a[t, n] * h + b[t]; y[t] = sum over n of h; last[n] = h
    t, n = 6, 4
    nest = Nest(
        (("t", t), ("n", n)),
        (
            Const(0.5, f32),
            Carry("t", 0, 5, f32),
            load("a", f"{n}*t + n"),
            load("b", "t"),
            Apply("mul", (2, 1), f32),
            Apply("add", (4, 3), f32),
            Fold(SUM, ("n",), (5,), f32),
            Last(1, f32),
        ),
        (Store("y", at("t"), 6), Store("last", at("n"), 7)),
        ordered=("t",),
    )
    a, b = floats(t, n), floats(t)
    y, last = np.empty(t, np.float32), np.empty(n, np.float32)
    params = [buf("a", t * n), buf("b", t), buf("y", t), buf("last", n)]
    run_kernel(kernel(params, [nest]), {"a": a.reshape(-1), "b": b, "y": y, "last": last})
    h, expected = np.full(n, 0.5, np.float32), []
    for p in range(t):
        h = a[p] * h + b[p]
        expected.append(h.sum())
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    np.testing.assert_allclose(last, h, rtol=1e-6)


def test_carry_without_a_cycle_is_a_shift():
    nest = Nest(
        (("t", 5),),
        (load("x", "t"), Const(9.0, f32), Carry("t", 1, 0, f32), Last(2, f32)),
        (Store("y", at("t"), 2), Store("z", at("0"), 3)),
        ordered=("t",),
    )
    x, y, z = floats(5), np.empty(5, np.float32), np.empty(1, np.float32)
    run_kernel(kernel([buf("x", 5), buf("y", 5), buf("z", 1)], [nest]), {"x": x, "y": y, "z": z})
    assert y.tolist() == [9.0, *x[:4].tolist()]
    assert z[0] == x[4]


def test_carries_along_two_dims():
    # D[i, j] = c[i, j] + max(D[i-1, j], D[i, j-1]), zero outside
    n, m = 3, 4
    nest = Nest(
        (("i", n), ("j", m)),
        (
            Const(0.0, f32),
            Carry("i", 0, 5, f32),
            Carry("j", 0, 5, f32),
            Apply("max", (1, 2), f32),
            load("c", f"{m}*i + j"),
            Apply("add", (3, 4), f32),
        ),
        (Store("d", at(f"{m}*i + j"), 5),),
        ordered=("i", "j"),
    )
    c, d = floats(n, m), np.empty(n * m, np.float32)
    run_kernel(kernel([buf("c", n * m), buf("d", n * m)], [nest]), {"c": c.reshape(-1), "d": d})
    want = np.zeros((n + 1, m + 1), np.float32)
    for i in range(n):
        for j in range(m):
            want[i + 1, j + 1] = c[i, j] + max(want[i, j + 1], want[i + 1, j])
    np.testing.assert_allclose(d.reshape(n, m), want[1:, 1:], rtol=1e-6)


def test_combining_stores_gather_duplicates_in_order():
    nest = Nest(
        (("p", 6),),
        (load("k", "p", dtype=i32), load("x", "p")),
        (Store("y", Address(Form(), ((0, 1),)), 1, "add"),),
        ordered=("p",),
    )
    k = np.array([0, 2, 2, 1, 0, 2], np.int32)
    x, y = floats(6), np.zeros(3, np.float32)
    run_kernel(
        kernel([buf("k", 6, i32), buf("x", 6), buf("y", 3)], [nest]), {"k": k, "x": x, "y": y}
    )
    expected = np.zeros(3, np.float32)
    np.add.at(expected, k, x)
    assert y.tolist() == expected.tolist()


def test_ordered_nest_reads_what_it_stored():
    nest = Nest(
        (("t", 5),),
        (load("y", "t"), Const(2.0, f32), Apply("mul", (0, 1), f32)),
        (Store("y", at("t + 1"), 2),),
        ordered=("t",),
    )
    y = np.ones(6, np.float32)
    run_kernel(kernel([buf("y", 6)], [nest]), {"y": y})
    assert y.tolist() == [1, 2, 4, 8, 16, 32]


def test_loop_let_when():
    nest = Nest((("i", 4),), (Position(parse("o"), f32),), (Store("y", at("o + i"), 0),))
    late = Nest((), (Const(-1.0, f32),), (Store("y", at("0"), 0),))
    body = [
        Loop("T", 3, (Let("o", parse("4*T"), 0, 6, (nest,)),)),
        When((Guard(parse("1"), 2),), (late,)),
        When((Guard(parse("2"), 2),), (Nest((), (Const(5.0, f32),), (Store("y", at("1"), 0),)),)),
    ]
    y = np.empty(10, np.float32)
    run_kernel(kernel([buf("y", 10)], body), {"y": y})
    assert y.tolist() == [-1, 0, 0, 0, 4, 4, 6, 6, 6, 6]


@pytest.mark.parametrize("dtype", [f16, bf16])
def test_narrow_floats_round_when_stored(dtype):
    nest = Nest(
        (("i", 3),),
        (load("x", "i"), Const(1.0009765625, f32), Apply("mul", (0, 1), f32)),
        (Store("y", at("i"), 2),),
    )
    x = np.array([1.0, 2.0, -3.0], np.float16)
    stored = x if dtype is f16 else (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    y = np.empty(3, dtype.numpy)
    run_kernel(kernel([buf("x", 3, dtype), buf("y", 3, dtype)], [nest]), {"x": stored, "y": y})
    wide = y.astype(np.float32) if dtype is f16 else (y.astype(np.uint32) << 16).view(np.float32)
    tolerance = 2**-10 if dtype is f16 else 2**-8
    np.testing.assert_allclose(wide, x.astype(np.float32) * 1.0009765625, rtol=tolerance)


def test_empty_dims():
    nest = Nest(
        (("i", 2), ("j", 0)),
        (load("x", "j"), Fold(SUM, ("j",), (0,), f32)),
        (Store("y", at("i"), 1), Store("x", at("j"), 0)),
    )
    x, y = np.empty(0, np.float32), np.ones(2, np.float32)
    run_kernel(kernel([buf("x", 0), buf("y", 2)], [nest]), {"x": x, "y": y})
    assert y.tolist() == [0, 0]


def test_scratch_holds_nothing_at_first():
    nest = Nest((("i", 2),), (load("s", "i"),), (Store("y", at("i"), 0),))
    y = np.zeros(2, np.float32)
    run_kernel(kernel([buf("y", 2)], [nest], scratch=[buf("s", 2, memory="scratch")]), {"y": y})
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("nest", "message"),
    [
        (Nest((("i", 5),), (load("x", "i"),), (Store("y", at("i"), 0),)), "element 4 of x"),
        (Nest((("i", 4),), (load("x", "i - 1"),), (Store("y", at("i"), 0),)), "element -1 of x"),
        (Nest((("i", 4),), (load("x", "i"),), (Store("y", at("i + 1"), 0),)), "element 4 of y"),
        (Nest((("i", 4),), (load("x", "i"),), (Store("y", at("0"), 0),)), "different values"),
    ],
)
def test_faults_are_found(nest, message):
    buffers = {"x": floats(4), "y": np.zeros(4, np.float32)}
    with pytest.raises(InternalError, match=message):
        run_kernel(kernel([buf("x", 4), buf("y", 4)], [nest]), buffers)


def test_two_tasks_may_store_equal_values_only():
    same = Nest((("i", 3),), (Position(parse("T + i"), f32),), (Store("y", at("T + i"), 0),))
    run_kernel(kernel([buf("y", 4)], [same], [("T", 2)]), {"y": np.zeros(4, np.float32)})
    other = Nest((), (Position(parse("T"), f32),), (Store("y", at("0"), 0),))
    with pytest.raises(InternalError, match="two tasks"):
        run_kernel(kernel([buf("y", 1)], [other], [("T", 2)]), {"y": np.zeros(1, np.float32)})


def test_module_steps():
    double = kernel(
        [buf("a", 2), buf("b", 2)],
        [Nest((("i", 2),), (load("a", "i"), Apply("add", (0, 0), f32)), (Store("b", at("i"), 1),))],
    )
    small = kernel(
        [buf("a", 2), Buffer("p", i32, 1)],
        [
            Nest(
                (),
                (load("a", "0"), Const(100.0, f32), Apply("lt", (0, 1), i32)),
                (Store("p", at("0"), 2),),
            )
        ],
    )
    module = Module(
        (double, small),
        (
            Copy("x", "s"),
            Repeat((Launch(1, ("s", "p")),), "p", (Launch(0, ("s", "t")), Copy("t", "s"))),
            Branch("p", (), (Copy("s", "y"),)),
        ),
        (
            Place("x", f32, 2, "param"),
            Place("y", f32, 2, "result"),
            Place("s", f32, 2, "arena", 0),
            Place("t", f32, 2, "arena", 8),
            Place("p", i32, 1, "arena", 16),
        ),
        (Layout((("i", 2),)),),
        (Layout((("i", 2),)),),
        arena=20,
    )
    (y,) = run_module(module, [np.array([3.0, 1.0], np.float32)])
    assert y.tolist() == [192.0, 64.0]
