"""Large results that are the same along a dim: kept once, shown everywhere, used as any other."""

import numpy as np
import pytest

import summand as sm
from summand.ir.interp import run
from summand.ir.parse import parse
from summand.ir.verify import verify
from summand.rewrite.repeats import without_repeats
from tests.programs import arguments

n, m = sm.dims("n m")
LONG = 1 << 20

MANY = """program (%0: f32{m=64}, %1: f32{n=8192}) {
  %2: f32{m=64} = exp %0
  %3: i32{n=8192} = iota n
  %4: bool{n=8192} = eq %3 %3
  %5: f32{m=64,n=8192} = where %4 %2 %2
  %6: f32{} = reduce sum {n} %1
  %7: f32{m=64,n=8192} = mul %5 %6
  %8: f32{m=64,n=8192} = add %7 %1
  return %5, %6, %7, %8
}"""


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal(LONG, dtype=np.float32)


def test_which_results_lose_which_dims():
    program = parse(MANY)
    new = without_repeats(program)
    verify(new)
    assert [str(r.type) for r in new.results] == [
        "f32{m=64}",
        "f32{}",
        "f32{m=64}",
        "f32{m=64,n=8192}",
    ]
    args = arguments(program, 0)
    for old, found in zip(run(program, args), run(new, args)):
        kept = [slice(None) if d in found.order else 0 for d in old.order]
        np.testing.assert_array_equal(found.array, old.array[tuple(kept)])


@pytest.mark.parametrize(
    "text",
    [
        # small
        """program (%0: f32{}) {
  %1: i32{n=100} = iota n
  %2: bool{n=100} = eq %1 %1
  %3: f32{n=100} = where %2 %0 %0
  return %3
}""",
        # no parameter decides it
        """program (%0: f32{}) {
  %1: i32{n=1000000} = iota n
  %2: bool{n=1000000} = eq %1 %1
  %3: f32{} = constant 0.0
  %4: f32{n=1000000} = where %2 %3 %3
  return %4
}""",
        # the places differ, the array along them, too
        """program (%0: f32{k=10}) {
  %1: f32{n=1000000} = reindex %0 {k: n//100000} trusted
  return %1
}""",
    ],
)
def test_left_alone(text):
    program = parse(text)
    assert without_repeats(program) is program


def test_gradient_of_a_sum(x):
    value, gradient = sm.jit(sm.value_and_grad(lambda x: sm.sum[n](x) ** 2))(sm.array(x, n))
    shown = gradient.numpy(n)
    assert shown.shape == (LONG,) and shown.strides == (0,) and not shown.flags.writeable
    np.testing.assert_allclose(abs(shown[:: LONG // 7]), 2 * np.sqrt(value.numpy()), rtol=1e-5)


def test_in_further_programs(x):
    @sm.jit
    def spread(a):
        return sm.exp(a) + sm.zeros({n: 1024})

    a = sm.array(x[:1024], m)
    out = spread(a)
    assert out.numpy(n, m).strides[0] == 0
    again = sm.jit(lambda y: sm.sum[m](y * y))(out)
    want = (np.exp(x[:1024].astype(np.float64)) ** 2).sum()
    np.testing.assert_allclose(again.numpy(n), np.full(1024, want), rtol=1e-5)
    np.testing.assert_allclose((out + 1).numpy(n, m)[5], np.exp(x[:1024]) + 1, rtol=1e-6)
    with sm.interpret():
        np.testing.assert_allclose(spread(a).numpy(m, n), out.numpy(m, n), rtol=1e-6)
