"""Recurrences over two dims: a loop over rows, states in registers along the row."""

import numpy as np
import pytest

import summand as sm
from summand import dtypes as dt
from summand.ad import vjp
from summand.ir.builder import Builder
from summand.ir.nodes import Read, Recur, Type
from summand.loops.nodes import Carry, Loop, Nest
from summand.rewrite.drop_unused import drop_unused
from summand.schedule.lower_rows import TOGETHER
from tests.lower.agreement import assert_compiles, assert_lowers
from tests.lower.cases import value
from tests.programs import arguments

NEAR = ((1, 1), (1, 0), (0, 1))
FAR = ((0, 1), (1, -1), (1, 2), (1, 0))  # anywhere in the row before


def table(batch, i, j, shifts=NEAR, forward=(True, True), keep="all"):
    """D = softmin of its neighbours + cost; a second state counts along the rows."""
    inner = Builder()
    params = [value(inner, b=batch) for _ in range(len(shifts) + 2)]
    inner.param(Type(dt.i32)), inner.param(Type(dt.i32))
    *near, count, cost = params
    total = inner.constant(0.0, dt.f32)
    for p in near:
        total = inner.map("add", total, inner.map("exp", inner.map("neg", p)))
    new = inner.map("sub", cost, inner.map("log", total))
    more = inner.map("add", inner.map("mul", count, inner.constant(0.5, dt.f32)), new)
    body = inner.finish([new, more])
    b = Builder()
    cost = value(b, b=batch, i=i, j=j)
    start = b.convert(b.map("max", b.iota("i", i), b.iota("j", j)), dt.f32)
    signs = [1 if f else -1 for f in forward]
    reads = [Read(0, tuple(s * v for s, v in zip(signs, shift))) for shift in shifts]
    reads.append(Read(1, (0, signs[1])))
    inits = (*[start] * len(shifts), value(b, b=batch))
    sizes = {"b": batch, **({"i": i, "j": j} if keep == "all" else {})}
    op = Recur(("i", "j"), forward, (i, j), tuple(reads), inits, (cost,), body, (keep, keep))
    return b.finish(b.emit(op, [Type.of(dt.f32, sizes)] * 2))


@pytest.mark.parametrize("keep", ["all", "last"])
@pytest.mark.parametrize("forward", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("shifts", [NEAR, FAR])
@pytest.mark.parametrize("size", [5, 17])  # a long row is walked beside others
def test_plain(shifts, forward, keep, size):
    program = table(2, 6, size, shifts, forward, keep)
    module = assert_lowers(program, arguments(program))
    (kernel,) = module.kernels
    loop = next(s for s in kernel.body if isinstance(s, Loop))
    nests = [s for s in loop.body if isinstance(s, Nest)]
    assert any(isinstance(i, Carry) for n in nests for i in n.code)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (17, 9, 37), (32, 5, 16), (3, 2, 33), (5, 1, 20)])
@pytest.mark.parametrize("forward", [(True, True), (False, False)])
def test_compiled(sizes, forward):
    for program in (table(*sizes, forward=forward), gradient(table(*sizes, forward=forward))):
        assert_compiles(program)


def gradient(program):
    return drop_unused(vjp(program, tuple(range(len(program.params)))))


def test_states_that_backward_reads_lie_with_the_batch_side_by_side():
    b, i, j = sm.dims("b i j")

    def warped(costs):
        def step(r):
            near = sm.minimum(r[i : i - 1], r[j : j - 1])
            return costs + sm.exp(-near) + sm.exp(-r[i : i - 1, j : j - 1])

        return sm.sum[b](sm.recur(step, over=(i, j), init=0.0)[i:-1, j:-1] ** 2)

    costs = sm.array(np.ones((32, 48, 64), np.float32), b, i, j)
    text = sm.jit(sm.value_and_grad(warped)).inspect("loops", costs)
    turned = text.count("end_lanes")  # rows of the costs, in both directions, and of their gradient
    assert 0 < turned <= 3 * TOGETHER


@pytest.mark.parametrize("rows", [3, 7])
def test_states_of_one_value_have_rows_of_their_own(rows):
    """Each of the three reads of D has a tangent; all are the same value."""
    i, j = sm.dims("i j")
    rng = np.random.default_rng(0)
    cost, u, v = (sm.array(rng.standard_normal((rows, 20)), i, j, dtype=sm.f64) for _ in range(3))

    def soft(cost):
        def step(D):
            return cost + sm.logaddexp(
                sm.logaddexp(D[i : i - 1], D[j : j - 1]), D[i : i - 1, j : j - 1]
            )

        return sm.sum[i, j](sm.recur(step, over=(i, j), init=0.1) * u)

    second = sm.jit(lambda cost: sm.grad(lambda c: sm.sum[i, j](sm.grad(soft)(c) * v))(cost))
    found = second(cost).numpy(i, j)
    with sm.interpret():
        np.testing.assert_allclose(found, second(cost).numpy(i, j), rtol=1e-9, atol=1e-12)
