"""Copies of what is handed over and asked for, in orders that the compiler chooses."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import summand as sm
from summand import compiler
from summand.ir.builder import Builder
from summand.ir.nodes import SUM
from summand.rewrite.plan.copies import LARGE, copied_bytes, is_copy, with_copies
from summand.runtime import machine
from summand.runtime.executable import Executable
from tests.lower.cases import value
from tests.rewrite.agreement import assert_same_results
from tests.schedule.cases import NARROW

b, d, h, k, q = sm.dims("b d h k q")
DIMS = (b, h, q, d)


def product(n=129):
    new = Builder()
    a, w, bias = value(new, i=n, k=n), value(new, j=n, k=n), value(new, j=n)
    (out,) = new.reduce(SUM, ["k"], new.map("mul", a, w))
    return new.finish([new.map("add", out, bias), new.map("exp", bias)])


@pytest.mark.parametrize("wanted", [(None, None), (("j", "i"), ("j",))])
def test_what_is_large_and_has_an_order_is_copied(wanted):
    program = product()
    copied, kept = with_copies(program, dict(zip(program.params, [("i", "k")] * 3)), wanted)
    assert_same_results(program, copied)
    assert sum(map(is_copy, copied.eqns)) == (2 if wanted[0] is None else 4)
    assert list(kept) == [copied.params[2]]
    size = 129 * 129 * 4
    assert copied_bytes(program, wanted) == 4 * size * (2 if wanted[0] is None else 3)
    assert size >= LARGE


def attention(qs, ks, vs):
    s = 0.125 * sm.sum[d](qs * ks[q:k])
    e = sm.exp(s - sm.max[k](s))
    return sm.sum[k](e * vs[q:k]) / sm.sum[k](e)


def arrays(orders, sizes=(2, 8, 256, 64)):
    """Three arrays with the axes b h q d in these orders."""
    rng = np.random.default_rng(0)
    found = []
    for order in orders:
        data = rng.standard_normal(sizes, np.float32).transpose(order)
        found.append(sm.array(np.ascontiguousarray(data), *(DIMS[axis] for axis in order)))
    return found


def copies(text):
    return sum("= convert %" in line for line in text.splitlines())


@pytest.mark.parametrize("turned", [False, True])
def test_arrays_across_the_loops_are_copied(turned, monkeypatch):
    """Heads innermost in the keys, batches in the queries: scores would be written to memory."""
    monkeypatch.setattr(machine, "target", lambda: NARROW)
    orders = [(3, 1, 2, 0), (2, 3, 0, 1), (3, 1, 0, 2)] if turned else [(0, 1, 2, 3)] * 3
    given = arrays(orders, (2, 8, 512, 64))
    assert bool(copies(sm.jit(attention).inspect("fused", *given))) == turned


@pytest.mark.parametrize("orders", list(itertools.permutations(range(4)))[::5])
def test_agrees_where_everything_is_copied(orders, monkeypatch):
    """Forced: the results are those of the arrays as they are."""
    monkeypatch.setattr(compiler, "SLOWER", 0.0)
    monkeypatch.setattr(compiler, "DEARER", 0.0)
    monkeypatch.setattr(compiler, "FASTER", float("inf"))
    given = arrays([orders, orders[::-1], (1, 0, 2, 3)], (2, 4, 80, 64))
    request, inputs = sm.jit(attention).request(*given)
    asked = replace(request, result_order=(("d", "q", "h", "b"),))
    (found,) = Executable(compiler.build(asked, compiler.Log())).run(inputs)
    with sm.interpret():
        wanted = attention(*given).numpy(d, q, h, b)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
