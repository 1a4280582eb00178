"""What is computed again by each reader, and what is kept."""

from summand.dtypes import f32
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Type
from summand.options import Options, Target
from summand.rewrite.plan.fuse import fuse

TARGET = Target("x86_64-unknown-linux-gnu", "generic", "")


def two_readers(fn, wide=1 << 22):
    """y = fn(x) read elementwise, and again by a sum over everything and what follows from it."""
    b = Builder()
    x = b.param(Type.of(f32, {"i": wide}))
    y = b.map(fn, x)
    (total,) = b.reduce(SUM, ["i"], b.map("mul", y, x))
    again = b.map("mul", y, total)
    program = b.finish([again])
    return program, y


def stored(program, options=None):
    plan = fuse(program, TARGET, options or Options())
    return {r.id for item in plan.items for s in item.stages for r in s.roots}


def test_a_cheap_map_is_computed_again_after_the_reduction_between():
    program, y = two_readers("sqrt")
    assert y.id not in stored(program)


def test_without_rematerialisation_it_is_kept():
    program, y = two_readers("sqrt")
    assert y.id in stored(program, Options(remat=False))


def test_a_dear_chain_is_kept():
    b = Builder()
    x = b.param(Type.of(f32, {"i": 1 << 22}))
    y = x
    for _ in range(24):
        y = b.map("erf", y)
    (total,) = b.reduce(SUM, ["i"], b.map("mul", y, x))
    program = b.finish([b.map("mul", y, total)])
    assert y.id in stored(program)


def test_what_is_not_kept_leaves_no_reason_to_keep_what_it_was_made_from():
    """Rounds of sums over both dims of exp(f - c): no array of both dims is kept."""
    b = Builder()
    x, y = b.param(Type.of(f32, {"i": 1024, "d": 3})), b.param(Type.of(f32, {"j": 1024, "d": 3}))
    off = b.map("sub", x, y)
    (cost,) = b.reduce(SUM, ["d"], b.map("mul", off, off))
    g = b.param(Type.of(f32, {"j": 1024}))
    kept = []
    for _ in range(4):
        e = b.map("exp", b.map("sub", g, cost))
        f = b.map("log", b.reduce(SUM, ["j"], e)[0])
        again = b.map("exp", b.map("sub", f, cost))
        g = b.map("log", b.reduce(SUM, ["i"], again)[0])
        kept += [e, again]
    (total,) = b.reduce(SUM, ["i", "j"], b.map("mul", kept[0], kept[1]))
    plan = fuse(b.finish([g, total]), TARGET, Options())
    whole = {
        r
        for item in plan.items
        for s in item.stages
        for r in s.roots
        if r not in item.scratch and r.type.count == 1 << 20
    }
    assert not whole


def test_values_in_a_program_of_large_arrays_are_priced_by_the_cache():
    b = Builder()
    x = b.param(Type.of(f32, {"i": 1024, "j": 1024}))
    y = b.map("exp", x)
    (rows,) = b.reduce(SUM, ["j"], y)
    program = b.finish([b.map("div", y, rows), b.reduce(SUM, ["i"], b.map("mul", y, rows))[0]])
    assert y.id in stored(program)


def test_what_is_cheap_to_make_from_a_kept_value_is_not_kept_beside_it():
    """silu and its derivative: the tanh is kept in scratch, what follows from it is not."""
    b = Builder()
    x = b.param(Type.of(f32, {"i": 4096, "j": 512}))
    (top,) = b.reduce(SUM, ["j"], x)
    t = b.map("tanh", b.map("sub", x, top))
    gate = b.map("add", t, b.map("mul", t, t))
    silu = b.map("mul", x, gate)
    (total,) = b.reduce(SUM, ["j"], b.map("mul", silu, gate))
    result = b.map("mul", b.map("add", silu, gate), b.map("sub", total, t))
    kept = stored(b.finish([result]))
    assert t.id in kept
    assert gate.id not in kept and silu.id not in kept
