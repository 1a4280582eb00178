"""Recurrences whose steps are launched one by one."""

import numpy as np
import pytest

from summand import compiler
from summand import dtypes as dt
from summand.ad import vjp
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.interp import run
from summand.ir.nodes import Read, Recur, Type
from summand.loops import parse, text
from summand.loops.nodes import Load, Rounds
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.recur import carried
from summand.runtime.executable import Executable
from summand.runtime.pool import Pool
from summand.schedule.moves import nests_of
from tests.lower.agreement import assert_lowers, order_of, rewritten
from tests.lower.cases import value
from tests.programs import arguments
from tests.rewrite.agreement import assert_close


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Steps of any size are launched."""
    monkeypatch.setattr(carried, "POINTS", 1)


def stencil(n=5, m=6, t=4, forward=True, keep="last"):
    """u = u w + u of the neighbours, padded; v counts what has flowed."""
    inner = Builder()
    u, v, w = (value(inner, y=n, x=m) for _ in range(3))
    inner.param(Type(dt.i32))
    down = inner.reindex(u, {"y": Form.of("y") + 1}, {"y": n}, "fill", 0.0)
    left = inner.reindex(u, {"x": Form.of("x") - 1}, {"x": m}, "fill", 0.0)
    new = inner.map("add", inner.map("mul", u, w), inner.map("mul", down, left))
    body = inner.finish([new, inner.map("add", v, new)])
    b = Builder()
    start, w = value(b, y=n, x=m), value(b, y=n, x=m)
    back = (1 if forward else -1,)
    sizes = {"y": n, "x": m, **({"t": t} if keep == "all" else {})}
    reads = (Read(0, back), Read(1, back))
    op = Recur(("t",), (forward,), (t,), reads, (start, start), (w,), body, (keep, "last"))
    kinds = [Type.of(dt.f32, sizes), Type.of(dt.f32, {"y": n, "x": m})]
    return b.finish(b.emit(op, kinds))


def gradient(program):
    return drop_unused(vjp(program, tuple(range(len(program.params)))))


@pytest.mark.parametrize("t", [2, 3, 4])
@pytest.mark.parametrize("keep", ["all", "last"])
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("scheduled", [True, False])
def test_lowered(t, forward, keep, scheduled):
    program = stencil(t=t, forward=forward, keep=keep)
    module = assert_lowers(program, arguments(program), scheduled=scheduled)
    (rounds,) = [s for s in module.steps if isinstance(s, Rounds)]
    assert rounds.count == t
    assert all(module.kernels[s.kernel].grid[0] == ("t", t) for s in rounds.body)
    assert parse.parse(text.text(module)).steps == module.steps


def test_gradient_is_launched_too():
    program = rewritten(gradient(stencil(keep="all")))
    module = assert_lowers(program, arguments(program), scheduled=True)
    assert sum(isinstance(s, Rounds) for s in module.steps) >= 2


def test_one_step_is_none():
    program = stencil(t=1)
    module = assert_lowers(program, arguments(program), scheduled=True)
    assert not any(isinstance(s, Rounds) for s in module.steps)


def test_any_number_of_threads_computes_the_same():
    program = gradient(stencil(160, 301, 5))
    args = arguments(program)
    params = [order_of(p) for p in program.params]
    artifact = compiler.compile(program, params, [order_of(r) for r in program.results]).artifact
    arrays = [np.ascontiguousarray(a.transposed(o).array) for a, o in zip(args, params)]
    found = []
    for threads in (1, 2, 5):
        pool = Pool(threads)
        found.append(Executable(artifact, pool).run(arrays))
        pool.stop()
    for var, wanted, *got in zip(program.results, run(program, args), *found, strict=True):
        assert_close(wanted.transposed(order_of(var)).array, got[0], var.type.dtype)
        assert all(np.array_equal(got[0], other) for other in got[1:])


def test_a_step_reads_its_states_where_they_are():
    """What a body reads of the step before has a name; that is no copy."""
    program = stencil(64, 96, keep="last")
    module = assert_lowers(program, arguments(program), scheduled=True)
    (rounds,) = [s for s in module.steps if isinstance(s, Rounds)]
    kernels = [module.kernels[s.kernel] for s in rounds.body]
    copies = [k.name for k in kernels if all(isinstance(i, Load) for i in nests_of(k.body)[0].code)]
    assert not copies
