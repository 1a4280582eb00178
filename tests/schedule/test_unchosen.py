"""Sizes and storage orders that nobody chose: what the schedule does about them."""

import math

import pytest

from summand.loops.nodes import Let, Loop
from summand.schedule import nests
from summand.schedule.accesses import analyse
from summand.schedule.choose import schedule_kernel
from summand.schedule.cost import build_model, score
from summand.schedule.grid import Unit, spread
from summand.schedule.moves import chain_of, nests_of
from summand.schedule.order import Walk
from summand.schedule.partials import find_cut
from tests.schedule import cases
from tests.schedule.running import check_schedule


def depthwise(n, x, y, c, along):
    """Σ_ab u[n, x + a, y + b, c] · w[a, b, c], stored with the dim `along` innermost."""
    order = {"c": (x * y * c, y * c, c, 1), "y": (y, n * y, 1, x * n * y)}[along]
    out = " + ".join(f"{k}*{d}" for k, d in zip(order, "nxyc", strict=True))
    row = (y + 2) * c
    image = (f"{(x + 2) * row}*n + {row}*x + {row}*a + {c}*y + {c}*b + c", n * (x + 2) * row)
    dims = {"n": n, "x": x, "y": y, "c": c, "a": 3, "b": 3}
    weights = (f"{3 * c}*a + {c}*b + c", 9 * c)
    return cases.contraction("depthwise", dims, (out, n * x * y * c), weights, image, "ab")


def test_a_result_that_lies_across_the_vectors_is_transposed():
    kernel = schedule_kernel(depthwise(8, 112, 112, 64, "y"), cases.NARROW).kernels[-1]
    (nest,) = nests_of(kernel.body)
    assert [p.dim for p in nest.schedule.lanes] == ["c"]
    assert [p.dim for p in nest.schedule.end_lanes] == ["y"]


@pytest.mark.parametrize("along", ["c", "y"])
@pytest.mark.parametrize("sizes", [(2, 5, 16, 16), (1, 4, 19, 11), (3, 3, 8, 24)])
def test_transposed_results_are_the_same(sizes, along):
    check_schedule(depthwise(*sizes, along), cases.NARROW)


def kept_loops(kernel):
    """Kept dims, as tasks and loops around the nest and in it walk them, outer first."""
    loops, body = [d for d, _ in kernel.grid], kernel.body
    while isinstance(body[-1], Loop | Let):
        loops += [body[-1].dim] if isinstance(body[-1], Loop) else []
        body = body[-1].body
    (nest,) = nests_of(kernel.body)
    inside = [d for d in nest.schedule.loops if d not in ("a", "b")]
    return [*(name.split("_")[0] for name in loops), *inside]


def test_rows_that_begin_anywhere_in_a_line_are_walked_whole():
    """73 channels: blocks of 16 of them touch two lines each, so they are innermost."""
    kernel = schedule_kernel(depthwise(7, 109, 127, 73, "c"), cases.NARROW).kernels[-1]
    assert kept_loops(kernel)[-1] == "c"


def test_loops_around_uneven_tiles_keep_their_order():
    """y does not divide into tiles, x does: x stays outside of it all the same."""
    kernel = schedule_kernel(depthwise(4, 64, 127, 64, "c"), cases.NARROW).kernels[-1]
    loops = kept_loops(kernel)
    assert loops.index("x") < loops.index("y")


@pytest.mark.parametrize(("row", "stays"), [(1024, False), (1040, True)])
def test_rows_that_meet_in_one_set_of_the_cache_do_not_stay_in_it(row, stays):
    image = (f"{row}*y + {row}*b + 16*x + 16*a + c", 1 << 20)
    out = ("4096*c + 64*y + x", 1 << 20)
    dims = {"c": 16, "y": 64, "x": 64, "a": 3, "b": 3}
    kernel = cases.contraction("k", dims, out, image, ("48*a + 16*b + c", 144), "ab")
    walk = Walk(analyse(kernel.body[0], {p.name: 32 for p in kernel.params}), {"y": 8, "c": 8})
    assert walk.fits(frozenset(), cases.NARROW.l1) == stays
    assert walk.fits(frozenset(), cases.NARROW.l2)


def test_what_shares_a_cache_line_is_one_task():
    chain = chain_of(cases.matmul(64, 64, 8))
    for least, tasks in ((1, 16), (4, 4)):
        spread_out = spread(chain, [Unit("n", 16, 4, least=least)], 16)
        assert math.prod(n for _, n in spread_out.kernel.grid) == tasks


def test_a_reduction_is_cut_along_rows_into_even_parts():
    """59 rows and 61 columns: not one column to a part, with half of them left."""
    dims = {"o": 4, "y": 59, "x": 61}
    kernel = cases.contraction("k", dims, ("o", 4), ("61*y + x", 3599), ("4*x + o", 244), "yx")
    cut = find_cut(analyse(kernel.body[0], {p.name: 32 for p in kernel.params}), 32)
    assert (cut.dim, cut.parts, cut.size, cut.rest) == ("y", 29, 2, 1)


def test_a_ragged_vector_takes_a_register_for_its_mask():
    registers = []
    for n in (18, 24):
        kernel = cases.matmul(64, n, 64)
        facts = analyse(kernel.body[0], {p.name: 32 for p in kernel.params})
        lanes = (nests.Piece("n", 8),)
        model = build_model(facts, lanes, frozenset(), ("n", "m"), cases.NARROW)
        registers.append(score(model, [3, 4], cases.NARROW).registers)
    assert registers[0] == registers[1] + 1
