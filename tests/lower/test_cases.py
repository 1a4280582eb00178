"""Fused kernels, recurrences, scatters, gathers and control flow: lowered, they mean the same."""

import numpy as np
import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import SUM, Cond, Interleave, Monoid, Type, While
from summand.ir.text import parse
from summand.loops.nodes import Branch, Copy, Loop, Repeat
from summand.options import Options, Target
from summand.schedule.lower import lower
from tests.lower.agreement import assert_lowers, rewritten
from tests.lower.cases import (
    attention,
    edit_distance,
    layer_norm,
    recurrent,
    routing,
    scan,
    softmax,
    two_layers,
    value,
)
from tests.programs import arguments

# a small cache, so that small programs are tiled, and tails with them
SMALL = Target("x86_64", "generic", "", l1=1 << 10, l2=1 << 13, l3=1 << 20)

PROGRAMS = {
    "softmax over rows": softmax(33, 50, "j"),
    "softmax over columns": softmax(50, 70, "i"),
    "layer norm": layer_norm(30, 40),
    "attention": attention(2, 2, 13, 4),
    "routing": routing(5, 6, 3),
    "two layers": two_layers(9, 8, 7, 6),
    "scan": scan(2, 5, 3, 7),
    "scan backward": scan(2, 5, 3, 7, forward=False),
    "scan, last state": scan(2, 5, 3, 7, keep="last", summed=False),
    "scan backward, last state": scan(2, 5, 3, 7, False, "last", False),
    "recurrent": recurrent(2, 3, 5),
    "recurrent backward": recurrent(2, 3, 5, forward=False),
    "recurrent, last state": recurrent(2, 3, 5, keep="last"),
    "recurrent, two back": recurrent(2, 3, 6, shift=2),
    "recurrent, two back, last": recurrent(2, 3, 6, False, "last", 2),
    "edit distance": edit_distance(2, 4, 5),
    "edit distance, last": edit_distance(2, 4, 5, "last"),
}


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("target", [SMALL, Target("x86_64", "generic", "")], ids=["small", "real"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, target, scheduled):
    program = PROGRAMS[name]
    assert_lowers(program, arguments(program), target=target, scheduled=scheduled)


def test_windows_padding_and_blocks():
    b = Builder()
    x, w = value(b, x=12, c=3), value(b, c=3, k=3)
    near = b.reindex(x, {"x": Form.of("x") + Form.of("k") - 1}, {"x": 12, "k": 3}, "fill", 0.5)
    conv = b.reduce(SUM, ["c", "k"], b.map("mul", near, w))[0]
    late = b.reindex(b.map("exp", x), {"x": Form.of("x") - 2}, {"x": 12}, "fill", 7.0)
    blocks = b.reindex(x, {"x": Form.of("p") * 4 + "q"}, {"p": 3, "q": 4})
    back = {"p": Form.of("z") // 4, "q": Form.of("z") % 4}
    flat = b.reindex(b.map("exp", blocks), back, {"z": 12})
    program = b.finish([conv, late, flat, b.reindex(flat, {"z": Form.of("z") + 1}, {"z": 11})])
    module = assert_lowers(program, arguments(program))
    # p and q are one dim of twelve in memory: splitting z makes the read affine
    assert not any("floordiv" in str(k.body) for k in module.kernels)


@pytest.mark.parametrize("mode", ["clip", "fill"])
def test_gather_and_scatter_stay_in_range(mode):
    b = Builder()
    x, places = value(b, x=6, c=2), value(b, dt.i32, n=5)
    rows = b.reindex(x, {"x": places}, {}, mode, 3.0)
    sums = b.reduce_at(SUM, ["n"], [rows], {"q": places}, {"q": 4}, mode)[0]
    program = b.finish([rows, sums])
    args = arguments(program)
    args[1].array[:] = [3, -2, 14, 0, 3]
    assert_lowers(program, args)


def arg_max():
    b = Builder()
    left, at, right, there = (b.param(Type(t)) for t in (dt.f32, dt.i32, dt.f32, dt.i32))
    first = b.map("ge", left, right)
    results = [b.map("where", first, left, right), b.map("where", first, at, there)]
    return Monoid("argmax", (float("-inf"), 0), b.finish(results), commutative=False)


def test_monoids_of_several_components():
    b = Builder()
    x, places = value(b, i=4, j=5), value(b, dt.i32, j=5)
    at = b.map("add", b.iota("j", 5), b.convert(b.map("mul", x, b.constant(0.0, dt.f32)), dt.i32))
    whole = b.reduce(arg_max(), ["j"], x, at)
    parts = b.reduce_at(arg_max(), ["j"], [x, at], {"q": places}, {"q": 3}, "clip")
    program = b.finish([*whole, *parts])
    assert_lowers(program, arguments(program))


def test_interleave_stores_parts_with_a_stride():
    b = Builder()
    x, y = value(b, x=4, k=3), value(b, x=3)
    even = b.reduce(SUM, ["k"], x)[0]
    out = b.emit(Interleave((even, b.map("exp", y)), (("x", 2),)), [Type.of(dt.f32, {"x": 7})])
    program = b.finish(out)
    module = assert_lowers(program, arguments(program))
    assert module.arena == 0


def scalar_program(*makes):
    b = Builder()
    x, s = value(b, i=4), value(b)
    return b.finish([make(b, x, s) for make in makes])


def test_cond_runs_one_branch():
    then = scalar_program(lambda b, x, s: b.map("mul", x, s), lambda b, x, s: x)
    other = scalar_program(
        lambda b, x, s: b.map("add", b.map("exp", x), s), lambda b, x, s: b.map("neg", x)
    )
    b = Builder()
    x, s = value(b, i=4), value(b)
    positive = b.map("gt", s, b.constant(0.0, dt.f32))
    outs = b.emit(Cond(positive, then, other, (b.map("sin", x), s)), [x.type, x.type])
    program = b.finish([b.map("add", outs[0], outs[0]), outs[1]])
    for sign in (1, -1):
        args = arguments(program)
        args[1].array[...] = sign
        module = assert_lowers(program, args)
        assert any(isinstance(step, Branch) for step in module.steps)


def test_while_carries_its_state():
    b = Builder()
    value(b)
    value(b, i=4)
    test = b.finish([b.map("lt", b.param(Type(dt.i32)), b.constant(5, dt.i32))])
    b = Builder()
    c, x, n = value(b), value(b, i=4), b.param(Type(dt.i32))
    body = b.finish([b.map("mul", x, c), b.map("add", n, b.constant(1, dt.i32))])
    b = Builder()
    x, c = value(b, i=4), value(b)
    outs = b.emit(While(test, body, (c,), (x, b.constant(0, dt.i32))), [x.type, Type(dt.i32)])
    program = b.finish(outs)
    module = assert_lowers(program, arguments(program))
    assert any(isinstance(step, Repeat) for step in module.steps)


def test_results_that_are_parameters_repeats_and_constants():
    b = Builder()
    x = value(b, i=3, j=2)
    y = b.map("exp", x)
    table = b.table(np.arange(3, dtype=np.float32), ["i"], dt.f32)
    program = b.finish([x, y, y, table, b.constant(2.5, dt.bf16)])
    module = assert_lowers(program, arguments(program))
    assert sum(isinstance(step, Copy) for step in module.steps) == 4
    turned = lower(
        program, [("j", "i")], [("i", "j"), None, ("j", "i"), None, None], SMALL, Options()
    )
    assert turned.results[0].dims == (("i", 3), ("j", 2))


def test_nothing_is_launched_for_values_without_elements():
    b = Builder()
    x = value(b, i=0, j=3)
    program = b.finish([b.map("exp", x), *b.reduce(SUM, ["i"], x)])
    module = assert_lowers(program, arguments(program))
    assert len(module.kernels) == 1


def test_equal_kernels_are_emitted_once():
    b = Builder()
    x, w = value(b, i=40, j=40), value(b, i=40, j=40)
    for _ in range(3):
        x = b.rename(
            b.reduce(SUM, ["j"], b.map("mul", x, b.rename(w, {"i": "j", "j": "k"})))[0], {"k": "j"}
        )
        x = b.map("barrier", x)
    program = b.finish([x])
    module = assert_lowers(program, arguments(program), fuse=False)
    assert len(module.steps) > len(module.kernels)


def test_a_recurrence_with_a_product_is_a_loop():
    program = recurrent(2, 3, 5)
    module = assert_lowers(program, arguments(program))
    assert any(isinstance(s, Loop) for k in module.kernels for s in k.body)


def test_a_long_chain_is_cut_before_the_nests_become_too_deep():
    b = Builder()
    x = value(b, i=3)
    for k in range(400):
        x = b.map("tanh" if k % 2 else "neg", x)
        x = b.rename(x, {"i": "j"}) if k % 3 == 0 else x
        x = b.rename(x, {"j": "i"}) if "j" in x.type.names else x
    program = b.finish([x])
    assert_lowers(program, arguments(program))


def test_a_scatter_of_equal_values_counts_them():
    program = parse(
        """
        program (%0: f32{j=1}) {
          %1: i32{x=3} = iota x
          %2: i32{} = constant 0
          %3: i32{x=3} = mul %1 %2
          %4: f32{x=3} = reindex %0 {j: %3} raise
          %5: f32{y=1} = reduce_at sum {x} %4 {y: %3} raise
          return %5
        }
        """
    )
    assert_lowers(rewritten(program), arguments(program))
