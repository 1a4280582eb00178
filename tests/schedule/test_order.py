"""The order of a nest's tiles, by what the caches hold; and what tiles fetch again."""

from summand.dtypes import f32, i32
from summand.ir.index import parse
from summand.loops.nodes import (
    Address,
    Apply,
    Buffer,
    Combine,
    Fold,
    Guard,
    Kernel,
    Load,
    Nest,
    Store,
)
from summand.schedule.accesses import analyse
from summand.schedule.choose import schedule_kernel
from summand.schedule.moves import nests_of
from summand.schedule.order import fetched_again, lines_of, tile_order
from tests.schedule import cases


def nest_of(dims, out, a, b, reduced):
    kernel = cases.contraction("k", dims, out, a, b, reduced)
    return kernel, analyse(kernel.body[0], {p.name: 32 for p in kernel.params})


INVOLUTION = {"g": 16, "c": 16, "x": 56, "y": 56, "p": 7, "q": 7}


def involution():
    image = ("50176*g + 3136*c + 62*x + 62*p + y + q", 1 << 20)
    weights = ("153664*g + 21952*p + 3136*q + 56*x + y", 1 << 22)
    out = ("50176*g + 3136*c + 56*x + y", 1 << 20)
    return nest_of(INVOLUTION, out, image, weights, "pq")


def test_lines_count_windows_once():
    _, facts = involution()
    image, weights = facts.loads
    assert lines_of(weights, {"y": 8}, facts.deps) == 1
    assert lines_of(weights, {"y": 56}, facts.deps) == 4
    assert lines_of(weights, {"x": 56, "y": 56}, facts.deps) == 196
    assert lines_of(weights, {"p": 7, "q": 7, "y": 8}, facts.deps) == 49
    assert lines_of(image, {"p": 7, "q": 7, "y": 8}, facts.deps) == 13  # of 56 bytes, anywhere
    assert lines_of(image, {"x": 56, "p": 7, "q": 7, "y": 56}, facts.deps) == 241


def test_lines_of_computed_places_are_apart():
    kernel = cases.chosen_matrices(blocks=5, experts=4, rows=3, m=6, k=7)
    facts = analyse(kernel.body[0], {p.name: p.dtype.bits for p in kernel.params})
    loose = next(a for a in facts.loads if a.loose)
    assert lines_of(loose, {"c": 5}, facts.deps) == 5


def shifted(sizes):
    """out[n, x, y] = Σ_ab u[n, x + s[a], y + s[b]] · w[a, b]; zero outside of 96 x 96."""
    guards = (Guard(parse("x"), 96, ((0, 1),)), Guard(parse("y"), 96, ((1, 1),)))
    code = (
        Load("s", Address(parse("a")), i32),
        Load("s", Address(parse("b")), i32),
        Load("u", Address(parse("9216*n + 96*x + y"), ((0, 96), (1, 1)), guards), f32),
        cases.load("w", "5*a + b"),
        Apply("mul", (2, 3), f32),
        Fold(Combine("add", (0.0,)), ("a", "b"), (4,), f32),
    )
    out = Store("out", Address(parse("9216*n + 96*x + y")), 5)
    params = (Buffer("s", i32, 5), Buffer("u", f32, 9216 * sizes["n"]), Buffer("w", f32, 25))
    params = (*params, Buffer("out", f32, 9216 * sizes["n"]))
    return Kernel("k", params, (), (), (Nest(tuple(sizes.items()), code, (out,)),))


SHIFTED = {"n": 512, "x": 96, "y": 96, "a": 5, "b": 5}


def test_shifts_from_a_table_stay_within_their_guards():
    kernel = shifted(SHIFTED)
    facts = analyse(kernel.body[0], {p.name: p.dtype.bits for p in kernel.params})
    image = facts.loads[2]
    assert lines_of(image, {"y": 32}, facts.deps) == 2
    assert lines_of(image, {"y": 32, "a": 5}, facts.deps) == 10
    assert lines_of(image, {"y": 32, "b": 5}, facts.deps) == 6  # no more than a row
    assert lines_of(image, {"x": 96, "y": 96, "a": 5, "b": 5}, facts.deps) == 576
    assert lines_of(image, {"n": 2, "x": 96, "y": 96, "a": 5, "b": 5}, facts.deps) == 1152


def test_shifted_rows_are_walked_one_after_another():
    """One comparison decides for the vectors of two rows, and a row is read whole."""
    done = schedule_kernel(shifted(SHIFTED), cases.NARROW).kernels[-1]
    (nest,) = nests_of(done.body)
    assert {p.dim: p.count for p in nest.schedule.tile} == {"x": 2, "y": 4}
    assert [d for d in nest.schedule.loops if d in ("x", "y")] == ["x", "y"]


def test_weights_of_every_place_are_read_once():
    _, facts = involution()
    default = ["y", "g", "c", "x"]
    order = tile_order(facts, {"y": 8, "c": 8}, default, 9e6, cases.NARROW)
    assert order == ("g", "x", "y", "c")
    assert tile_order(facts, {"y": 8, "c": 8}, order, 9e6, cases.NARROW) == ()
    assert tile_order(facts, {"y": 8, "c": 8}, default, 9e9, cases.NARROW) == ()


def test_tasks_follow_the_order():
    kernel, _ = involution()
    done = schedule_kernel(kernel, cases.NARROW).kernels[-1]
    assert [d[0] for d, _ in done.grid] == ["g", "x"]


def test_a_product_keeps_its_order():
    _, facts = nest_of(
        {"m": 192, "n": 192, "k": 192},
        ("192*m + n", 1 << 16),
        ("192*m + k", 1 << 16),
        ("192*k + n", 1 << 16),
        "k",
    )
    assert tile_order(facts, {"m": 4, "n": 24}, ["n", "m"], 1e6, cases.NARROW) == ()
    assert fetched_again(facts, {"m": 4, "n": 24}, cases.NARROW) == 0.0


def test_strips_that_overflow_the_cache_are_read_in_parts():
    dims = {"a": 3, "b": 3, "c": 64, "n": 8, "x": 112, "y": 112}
    image = ("831744*n + 7296*x + 7296*a + 64*y + 64*b + c", 831744 * 8)
    grads = ("802816*n + 7168*x + 64*y + c", 802816 * 8)
    kernel, facts = nest_of(dims, ("192*a + 64*b + c", 576), image, grads, "nxy")
    assert fetched_again(facts, {"b": 3, "c": 16}, cases.NARROW) > 1e6
    scheduled = schedule_kernel(kernel, cases.NARROW)
    first = scheduled.kernels[0]
    assert first.name == "k_parts" and first.grid == (("x_p_o", 28),)
    assert first.params[-1].size == 28 * 576


def strided_windows(size, step):
    """Σ u[c, x·step + a·3, y·step + b·3, n] · w[o, c, a, b], eight images in the lanes."""
    row = 8 * (step * size + 13)
    image = f"{row * row // 8}*c + {step * row}*x + {3 * row}*a + {8 * step}*y + 24*b + n"
    weights = ("800*o + 25*c + 5*a + b", 51200)
    dims = {"x": size, "y": size, "n": 8, "o": 64, "c": 32, "a": 5, "b": 5}
    out = (f"{512 * size}*x + 512*y + 8*o + n", 512 * size * size)
    return cases.contraction("k", dims, out, (image, 4 * row * row), weights, "cab")


def test_short_rows_that_many_tiles_read_stay_in_the_first_cache():
    """Channels in blocks, so that the window of a block is near for all 64 results."""
    scheduled = schedule_kernel(strided_windows(33, 2), cases.NARROW)
    (sums,) = [b.name for b in scheduled.kernels[-1].scratch]
    nest = next(n for n in nests_of(scheduled.kernels[-1].body) if "c" in n.extents)
    assert sums == "sums0"
    assert nest.extents["c"] < 32


def test_long_runs_arrive_in_time():
    """Panels of a product: one run of memory each."""
    kernel = schedule_kernel(cases.matmul(1024, 1024, 1024), cases.NARROW).kernels[-1]
    assert not kernel.scratch


def test_masks_that_few_tiles_need_do_not_order_a_reduction():
    """Σ_cab u[n, c, x - a, y - b] · w[c, o, a, b]: vectors along y, of which few leave u."""
    row, out = 35, 69
    guards = (("x - a", 32), ("y - b", 32))
    image = ("65536*n + 1024*c + 32*x - 32*a + y - b", 1 << 19, *guards)
    weights = ("128*c + 16*o + 4*a + b", 1024)
    dims = {"n": 8, "o": 8, "x": row, "y": row, "a": 4, "b": 4, "c": 8}
    stored = (f"{8 * out * out}*n + {out * out}*o + {2 * out}*x + 2*y", 64 * out * out)
    kernel = cases.contraction("k", dims, stored, image, weights, "abc")
    scheduled = schedule_kernel(kernel, cases.NARROW).kernels[-1]
    schedule = next(iter(nests_of(scheduled.body))).schedule
    walked = [*schedule.loops, *(p.dim for p in schedule.unroll)]
    assert [d for d in walked if d in "bc"][-1] == "b"
