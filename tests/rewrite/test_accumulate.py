import numpy as np
import pytest

from summand.dtypes import f16, f32, f64, i32
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, Read, Recur, Type
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.recur.accumulate import accumulate

N, T = 4, 5


def array(dtype=f64, **sizes):
    return Type.of(dtype, sizes)


def summed(step, forward=True, over=("t",), also=False, dtype=f64):
    """h[t] = step(h[t-1], c[t]), g[t] = h[t-1] * c[t]; the sum of g, and h at the end."""
    body = Builder()
    h, c = body.param(array(dtype, x=N)), body.param(array(dtype, x=N))
    body.param(Type.of(i32, {}))
    g = body.map("mul", h, c)
    inner = body.finish([step(body, h, c), g])
    b = Builder()
    start, slices = b.param(array(dtype, x=N)), b.param(array(dtype, x=N, t=T))
    back = 1 if forward else -1
    op = Recur(("t",), (forward,), (T,), (Read(0, (back,)),), (start,), (slices,), inner)
    whole = array(dtype, x=N, t=T)
    states, products = b.emit(op, [whole, whole])
    total = b.reduce(SUM, over, products)[0]
    last = b.reindex(states, {"t": parse(str(T - 1 if forward else 0))}, {})
    return drop_unused(b.finish([total, last, *([products] if also else [])]))


def neighbours(b, h, c):
    moved = b.reindex(h, {"x": parse("x + 1")}, {"x": N}, "fill")
    return b.map("add", moved, c)


def pointwise(b, h, c):
    return b.map("add", h, c)


def same(program, rtol=1e-13):
    verify(program)
    new = accumulate(program)
    verify(new)
    rng = np.random.default_rng(0)
    args = []
    for p in program.params:
        values = rng.normal(size=[n for _, n in p.type.dims])
        args.append(
            Named(
                values.astype(p.type.dtype.name.replace("f", "float")),
                tuple(d for d, _ in p.type.dims),
            )
        )
    for a, b in zip(run(program, args), run(new, args), strict=True):
        np.testing.assert_allclose(a.array, b.array, rtol=rtol)
    return new


def test_a_sum_over_steps_becomes_a_state():
    program = summed(neighbours)
    new = same(program)
    assert "reduce" not in text(new)
    (loop,) = [e.op for e in new.eqns if isinstance(e.op, Recur)]
    assert loop.keep == ("last", "last")
    assert [(r.state, r.shift) for r in loop.reads] == [(0, (1,)), (1, (1,))]


def test_from_the_end():
    assert "reduce" not in text(same(summed(neighbours, forward=False)))


def test_a_narrow_type_is_summed_in_a_wide_one():
    new = accumulate(summed(neighbours, dtype=f16))
    verify(new)
    (loop,) = [e for e in new.eqns if isinstance(e.op, Recur)]
    assert loop.outs[1].type.dtype == f32


@pytest.mark.parametrize(
    "program",
    [
        summed(pointwise),  # a fold of the nest that runs it in registers
        summed(neighbours, also=True),  # every step is wanted, too
        summed(neighbours, over=("t", "x")),  # a contraction of all steps at once
    ],
    ids=["registers", "kept", "more dims"],
)
def test_others_stay(program):
    assert text(same(program)) == text(program)
