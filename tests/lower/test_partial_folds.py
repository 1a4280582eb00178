"""Reductions of states at all positions run in the recurrence's own loop, in parts."""

from dataclasses import replace

import pytest

from summand import dtypes as dt
from summand.ad import vjp
from summand.compiler import PASSES
from summand.ir.builder import Builder
from summand.ir.nodes import MAX, SUM, Program, Read, Recur, Type
from summand.options import Options
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.plan import clusters
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.nodes import Cluster
from summand.rewrite.recur.partial_folds import partial_folds
from summand.runtime import machine
from tests.lower.agreement import TARGET, assert_compiles, assert_lowers
from tests.lower.cases import value
from tests.programs import arguments
from tests.rewrite.agreement import assert_same_results
from tests.rewrite.golden import assert_golden

SMALL = replace(TARGET, l2=1 << 10)  # a cache that the states of a test overflow


@pytest.fixture(autouse=True)
def _no_program_is_small(monkeypatch):
    monkeypatch.setattr(clusters, "SMALL", 0.0)


def value_type(**sizes):
    return Type.of(dt.f32, sizes)


def states(b, d, s, t, forward=True):
    """h = exp(a) h[t-1] + u v, and its sums over every dim of the states."""
    inner = Builder()
    h, a, u = (value(inner, b=b, d=d, s=s) for _ in range(3))
    inner.param(Type(dt.i32))
    body = inner.finish([inner.map("add", inner.map("mul", a, h), u)])
    new = Builder()
    decay = new.map("exp", new.map("neg", new.map("abs", value(new, b=b, d=d, s=s))))
    drive = new.map("mul", value(new, b=b, d=d, t=t), value(new, b=b, s=s, t=t))
    start = value(new, b=b, d=d, s=s)
    shift = (1,) if forward else (-1,)
    reads = (Read(0, shift),)
    op = Recur(("t",), (forward,), (t,), reads, (start,), (decay, drive), body, ("all",))
    (h,) = new.emit(op, [value_type(b=b, d=d, s=s, t=t)])
    over_s = new.map("tanh", new.reduce(SUM, ["s"], h)[0])
    over_d = new.reduce(SUM, ["d"], new.map("mul", h, over_s))[0]
    over_bt = new.reduce(SUM, ["b", "t"], new.map("mul", h, value(new, b=b, d=d, t=t)))[0]
    greatest = new.reduce(MAX, ["d", "t"], h)[0]
    return new.finish([over_s, over_d, over_bt, greatest])


def gradient(b, d, s, t):
    """The sums over s, and the reverse derivative of all that they read."""
    program = drop_unused(replace_results(states(b, d, s, t), 1))
    return drop_unused(vjp(program, tuple(range(len(program.params)))))


def replace_results(program, count):
    return Program(program.params, program.eqns, program.results[:count])


def lowered(program):
    for step in PASSES:
        program = step.run(program)
    return program


def test_golden():
    assert_golden(
        lambda p: partial_folds(p, SMALL),
        """
        program (%0: f32{b=2,d=40,t=64}, %1: f32{b=2,d=40}) {
          %2: f32{b=2,d=40,t=64} = recur (t forward 64) (0[1]) (%1) (%0)
            (%0: f32{b=2,d=40}, %1: f32{b=2,d=40}, %2: i32{}) {
            %3: f32{b=2,d=40} = add %0 %1
            return %3
          }
          %3: f32{b=2,t=64} = reduce sum {d} %2
          %4: f32{d=40} = reduce sum {b, t} %2
          return %3, %4
        }
        """,
        """
        program (%0: f32{b=2,d=40,t=64}, %1: f32{b=2,d=40}) {
          %2: f32{b=2,d=40,t=64} = recur (t forward 64) (0[1]) (%1) (%0)
            (%0: f32{b=2,d=40}, %1: f32{b=2,d=40}, %2: i32{}) {
            %3: f32{b=2,d=40} = add %0 %1
            return %3
          }
          %3: f32{b=2,d.block=3,t=64} = reduce_at sum {d} %2 {d.block: d//16} trusted
          %4: f32{b=2,t=64} = reduce sum {d.block} %3
          %5: f32{b=2,d=40} = reduce sum {t} %2
          %6: f32{d=40} = reduce sum {b} %5
          return %4, %6
        }
        """,
    )


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("sizes", [(2, 32, 3, 9), (1, 37, 5, 7), (3, 17, 2, 5), (2, 16, 4, 8)])
def test_parts_agree(sizes, forward):
    program = lowered(states(*sizes, forward))
    cut = partial_folds(program, SMALL)
    assert_same_results(program, cut)
    plan = fuse(program, SMALL, Options())
    assert any(i.blocks for i in plan.items if isinstance(i, Cluster)) == (sizes[1] > 16)
    assert_lowers(program, arguments(program), target=SMALL)
    assert_lowers(program, arguments(program), target=SMALL, scheduled=True)


def test_states_are_not_stored():
    """Where only sums of the states are read, no array has their size."""
    program = lowered(states(2, 64, 4, 32))
    plan = fuse(program, SMALL, Options())
    first = next(i for i in plan.items if isinstance(i, Cluster) and i.blocks)
    kept = [v for v in first.roots if v not in first.scratch]
    assert max(v.type.count for v in kept) < 2 * 64 * 4 * 32


@pytest.mark.parametrize("small", [0.0, 30_000.0])
@pytest.mark.parametrize(
    "sizes", [(2, 32, 3, 9), (1, 37, 5, 7), (3, 17, 16, 5), (2, 67, 4, 33), (1, 300, 3, 40)]
)
def test_compiled(sizes, small, monkeypatch):
    target = replace(machine.target(), l2=1 << 10)
    monkeypatch.setattr(machine, "target", lambda: target)
    monkeypatch.setattr(clusters, "SMALL", small)
    for program in (states(*sizes), states(*sizes, forward=False), gradient(*sizes)):
        assert_compiles(program)
