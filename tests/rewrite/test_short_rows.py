"""Groups of a few channels: vectors and tiles take several groups together."""

from summand.dtypes import f32
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Type
from summand.options import Options, Target
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.layout import Bodies, choose_orders
from summand.rewrite.plan.nodes import Graph
from summand.rewrite.plan.tiling import choose_tiles

TARGET = Target("x86_64-unknown-linux-gnu", "generic", "")
ORDER = ("n", "x", "g", "k")


def normed(images, pixels, groups=32, channels=4):
    """Two sums over each group's pixels and channels, and what is made of both; orders, tiles."""
    b = Builder()
    x = b.param(Type.of(f32, {"n": images, "x": pixels, "g": groups, "k": channels}))
    (total,) = b.reduce(SUM, ["x", "k"], x)
    off = b.map("tanh", b.map("sub", x, total))
    (spread,) = b.reduce(SUM, ["x", "k"], b.map("mul", off, off))
    program = b.finish([b.map("div", off, spread)])
    plan = fuse(program, TARGET, Options(), {x: ORDER})
    (cluster,) = plan.items
    fixed = {x: ORDER, program.results[0]: ORDER}
    bodies = Bodies.of(plan.program)
    orders = choose_orders(plan.items, fixed, cluster.roots, bodies, TARGET.l2)
    tiles = choose_tiles(Graph.of(plan.program), cluster, orders, TARGET)
    return orders[off], {t.dim: t.tile for t in tiles}


def test_what_lives_in_a_tile_has_the_channels_of_several_groups_side_by_side():
    order, _ = normed(8, 4096)
    assert order[-2:] == ("g", "k")


def test_a_tile_that_overflows_the_second_cache_has_whole_rows():
    _, tiles = normed(8, 4096)
    assert tiles == {"n": 1, "g": 32}


def test_a_tile_that_fits_has_no_more_than_it_needs():
    _, tiles = normed(8, 256)
    assert tiles == {"n": 1, "g": 16}
