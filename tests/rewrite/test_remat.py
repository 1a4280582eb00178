"""What is computed again by each reader, and what is kept."""

from summand.dtypes import f32
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Type
from summand.options import Options, Target
from summand.rewrite.fuse import fuse

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
