"""What fusion decides for kernels that everybody knows, and that it decides it fast."""

import time

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import MAX, SUM, Type
from summand.options import Options, Target
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.nodes import Cluster, Graph
from summand.rewrite.plan.tiling import choose_tiles
from summand.rewrite.plan.units import product
from tests.lower.cases import attention, layer_norm, routing, scan, softmax, two_layers, value

TARGET = Target("x86_64", "generic", "")


def plan(program):
    return fuse(program, TARGET, Options())


def clusters(program):
    return [i for i in plan(program).items if isinstance(i, Cluster)]


def only(program):
    (cluster,) = clusters(program)
    return cluster


def shared(cluster):
    return {d for d, _ in cluster.shared}


def test_softmax_is_one_kernel_of_three_nests():
    cluster = only(softmax(4096, 4096, "j"))
    assert shared(cluster) == {"i"}
    assert [len(s.roots) for s in cluster.stages] == [1, 2, 1]  # max; exp and its sum; quotient
    assert len(cluster.scratch) == 3


def test_softmax_over_the_other_dim_tiles_whole_lines():
    program = softmax(4096, 4096, "i")
    found = plan(program)
    (cluster,) = found.items
    assert shared(cluster) == {"j"}
    (x,) = program.params
    orders = {v: ("i", "j") for v in (x, *cluster.roots) if len(v.type.dims) == 2}
    graph = Graph.of(found.program)
    (tile,) = choose_tiles(graph, cluster, orders, TARGET)
    assert tile.dim == "j"
    assert 32 <= tile.tile <= 64
    assert tile.steps >= 4 * TARGET.threads


def test_softmax_of_long_columns_walks_whole_rows_three_times():
    program = softmax(4096, 4096, "i")
    (x,) = program.params
    kernels = fuse(program, TARGET, Options(), {x: ("i", "j")}).items
    assert [len(k.stages[0].roots) for k in kernels] == [1, 1, 1]  # max; sum of exp; quotient
    assert sum(r.type.count == x.type.count for k in kernels for r in k.roots) == 1
    assert len(fuse(program, TARGET, Options(), {x: ("j", "i")}).items) == 1


def test_layer_norm_is_one_kernel():
    cluster = only(layer_norm(8192, 1024))
    assert shared(cluster) == {"i"}
    assert len(cluster.stages) == 3


def test_scores_of_attention_never_reach_memory():
    cluster = only(attention(2, 8, 512, 64))
    assert shared(cluster) == {"b", "h", "t"}
    stored = [v for v in cluster.roots if v not in cluster.scratch]
    assert [v.type.names for v in stored] == [frozenset({"b", "h", "t", "d"})]


def test_routing_is_one_kernel():
    cluster = only(drop_unused(routing(144, 144, 16)))
    assert shared(cluster) == {"n"}
    assert len(cluster.stages) > 10


def test_products_of_large_matrices_keep_their_own_tiling():
    found = clusters(two_layers(1024, 1024, 1024, 1024))
    assert len(found) == 2
    assert all(len(c.stages) == 1 for c in found)


def test_a_small_second_layer_does_not_take_a_product_its_tiles():
    b = Builder()
    x, w, v = value(b, t=512, i=784), value(b, i=784, h=512), value(b, h=512, o=10)
    hidden = b.map("max", b.reduce(SUM, ["i"], b.map("mul", x, w))[0], b.constant(0, dt.f32))
    found = clusters(b.finish(b.reduce(SUM, ["h"], b.map("mul", hidden, v))))
    assert [len(c.stages) for c in found] == [1, 1]


def test_a_map_of_a_sum_is_computed_in_the_nest_of_the_sum():
    b = Builder()
    x, w, bias = value(b, i=64, k=64), value(b, k=64, j=64), value(b, j=64)
    y = b.map("add", b.reduce(SUM, ["k"], b.map("mul", x, w))[0], bias)
    program = b.finish([b.map("tanh", y)])
    cluster = only(program)
    assert [s.roots for s in cluster.stages] == [program.results]


def test_what_a_product_reads_often_is_computed_once():
    b = Builder()
    x, w = value(b, i=512, k=512), value(b, k=512, j=512)
    e = b.map("exp", x)
    found = clusters(b.finish(b.reduce(SUM, ["k"], b.map("mul", e, w))))
    assert any(e in c.roots for c in found)


def test_a_cheap_value_of_two_readers_is_computed_twice():
    b = Builder()
    x = value(b, i=1 << 20)
    y = b.map("add", x, b.constant(1.0, dt.f32))
    program = b.finish([b.map("exp", y), b.map("sin", y)])
    assert all(y not in c.roots for c in clusters(program))


def test_small_sums_run_inside_large_ones():
    b = Builder()
    x, y, w = value(b, i=4096, d=3), value(b, j=4096, d=3), value(b, j=4096)
    off = b.map("sub", x, y)
    far = b.reduce(SUM, ["d"], b.map("mul", off, off))[0]
    near = b.map("mul", b.map("exp", b.map("neg", far)), w)
    cluster = only(b.finish(b.reduce(SUM, ["j"], near)))
    assert len(cluster.stages) == 1


def test_states_that_only_a_sum_reads_stay_in_registers():
    program = scan(2, 256, 16, 1024)
    cluster = only(program)
    (stage,) = [s for s in cluster.stages if s.carried is not None]
    assert stage.roots == program.results
    assert not any("s" in v.type.names and "t" in v.type.names for v in cluster.roots)


def test_fusion_off_gives_every_value_its_kernel():
    found = fuse(softmax(64, 64, "j"), TARGET, Options(fuse=False))
    assert all(len(c.stages) == 1 for c in found.items)
    assert len(found.items) > 1


def test_a_long_program_is_fused_fast():
    b = Builder()
    x = value(b, n=64, i=32)
    for _ in range(150):
        w = value(b, i=32, k=32)
        y = b.map("tanh", b.reduce(SUM, ["i"], b.map("mul", x, w))[0])
        z = b.map("add", b.rename(y, {"k": "i"}), x)
        mean = b.map("mul", b.reduce(SUM, ["i"], z)[0], b.constant(1 / 32, dt.f32))
        x = b.map("mul", b.map("sub", z, mean), b.constant(0.5, dt.f32))
    program = b.finish([x])
    assert len(program.eqns) > 1300
    began = time.process_time()
    plan(program)
    assert time.process_time() - began < 2.0


def test_a_small_table_of_places_does_not_cost_a_kernel_its_tiles():
    b = Builder()
    x, y = value(b, n=64, i=256, d=32), value(b, n=64, i=256, d=32)
    before = b.map("sub", b.iota("i", 256), b.constant(3, dt.i32))
    places = b.map("add", b.map("max", before, b.constant(0, dt.i32)), b.iota("w", 7))
    near = b.reindex(x, {"i": places}, {}, "clip")
    score = b.reduce(SUM, ["d"], b.map("mul", near, y))[0]
    weight = b.map("exp", b.map("sub", score, b.reduce(MAX, ["w"], score)[0]))
    program = b.finish([b.map("div", weight, b.reduce(SUM, ["w"], weight)[0])])
    assert {"n", "i"} in [shared(c) for c in clusters(program)]


def test_tiles_follow_memory_whatever_the_dims_are_called_there():
    """Sums over u of both k and k * v, where k lies in memory as {n, t, e}."""
    b = Builder()
    k, v = value(b, n=16, t=4096, e=64), value(b, n=16, t=4096, d=64)
    keys = b.map("exp", b.rename(k, {"t": "u", "e": "f"}))
    values = b.rename(v, {"t": "u"})
    total = b.reduce(SUM, ["u"], keys)[0]
    state = b.reduce(SUM, ["u"], b.map("mul", keys, values))[0]
    found = plan(b.finish([total, state]))
    (cluster,) = found.items
    orders = {k: ("n", "t", "e"), v: ("n", "t", "d")}
    tiles = choose_tiles(Graph.of(found.program), cluster, orders, TARGET)
    assert {t.dim: t.tile for t in tiles}["f"] >= 16


def test_halves_of_different_tiles_stay_apart():
    """What is made along u and read along t would keep nothing in the cache in one kernel."""
    b = Builder()
    q, k = value(b, n=16, t=4096, e=64), value(b, n=16, u=4096, e=64)
    v = value(b, n=16, u=4096, d=64)
    keys, queries = b.map("exp", k), b.map("exp", q)
    state = b.reduce(SUM, ["u"], b.map("mul", keys, v))[0]
    top = b.reduce(SUM, ["e"], b.map("mul", queries, state))[0]
    low = b.reduce(SUM, ["e"], b.map("mul", queries, b.reduce(SUM, ["u"], keys)[0]))[0]
    found = clusters(b.finish([b.map("div", top, low)]))
    assert [c for c in found if "t" in shared(c)]


def similarities(i, j, block, few):
    """The greatest products of each block, and a few of them at computed places."""
    b = Builder()
    x, y = value(b, i=i, d=64), value(b, j=j, d=64)
    place = b.param(Type.of(dt.i32, {"i": i, "q": few}))
    whole = b.reduce(SUM, ["d"], b.map("mul", x, y))[0]
    form = Form.of("w") * block + Form.of("v")
    parts = b.reindex(b.map("abs", whole), {"j": form}, {"w": j // block, "v": block})
    best = b.reduce(MAX, ["v"], parts)[0]
    return b.finish([best, b.reindex(whole, {"j": place}, {})]), whole


def test_products_that_are_read_elsewhere_are_taken_there():
    program, whole = similarities(1024, 16384, 32, 10)
    found = clusters(program)
    assert all(r.type.count < whole.type.count for c in found for r in set(c.roots) - c.scratch)
    assert any(shared(c) == {"i", "w"} for c in found)


def test_products_that_are_read_more_often_are_kept():
    program, whole = similarities(1024, 16384, 32, 8000)
    assert whole in {r for c in clusters(program) for r in c.roots}


def test_tiles_that_add_to_few_sums_hold_enough_for_them():
    """The gradient by its 5×5 kernel, beside the convolution, of a dilation for each channel."""
    b = Builder()
    image, kernel = value(b, n=8, c=64, x=96, y=96), value(b, c=64, p=5, q=5)
    dilation = b.param(Type.of(dt.i32, {"c": 64}))
    index = {}
    for d, tap in (("x", "p"), ("y", "q")):
        steps = b.map("sub", b.iota(tap, 5), b.constant(2, dt.i32))
        index[d] = b.map("add", b.iota(d, 96), b.map("mul", dilation, steps))
    near = b.reindex(image, index, {}, "fill")
    out = b.reduce(SUM, ["p", "q"], b.map("mul", near, kernel))[0]
    by_kernel = b.reduce(SUM, ["n", "x", "y"], b.map("mul", near, out))[0]
    found = plan(b.finish([out, by_kernel]))
    cluster = next(i for i in found.items if isinstance(i, Cluster) and len(i.stages) == 2)
    orders = {v: ("n", "c", "x", "y") for v in (image, *cluster.roots) if len(v.type.dims) == 4}
    tiles = choose_tiles(Graph.of(found.program), cluster, orders, TARGET)
    assert product(t.tile for t in tiles if t.dim != "c") >= 512
