"""Random expressions: compiled against interpreted, reverse against forward mode and differences.

A failing seed is run alone with  pytest "tests/lang/test_random_expressions.py::test_seed[17]".
"""

import random

import numpy as np
import pytest

import summand as sm

DIMS = sm.dims("a b c d e")
SIZES = dict(zip(DIMS, (3, 4, 5, 2, 3), strict=True))


@pytest.fixture
def way():
    return "compiled"


def spread(v, dim, step, at):
    """Positions that visit a dim in another order."""
    places = [(p * step + at) % v.sizes[dim] for p in range(v.sizes[dim])]
    return sm.array(np.array(places), dim)


def window(v, dim, at):
    w = sm.Dim("w", 2)
    return sm.sum[w](v.fill(0.5)[dim : dim + w - at] * (w + 1.0))


def valid_window(v, dim, at):
    w = sm.Dim("w", min(2, v.sizes[dim]))
    return sm.max[dim, w](v[dim : dim + w])


def against_itself(v, dim, at):
    other = sm.Dim("other")
    return sm.sum[other](v[dim:other] * sm.where(other <= dim, 1.0, 0.3) * v)


def recurrence(v, dim, at):
    back = -1 if at else 1
    return sm.recur(lambda h: 0.5 * h[dim : dim + back] * sm.tanh(v) + v, over=dim, init=0.1)


def scattered(v, dim, at):
    return sm.sum[dim](v, at={dim: spread(v, dim, 5, at)}, sizes={dim: v.sizes[dim]})


def doubled(v, dim, at):
    return sm.sum[dim](sm.concat((v, v * 2), dim) ** 2)


UNARY = (
    lambda v: sm.exp(-v * v),
    sm.tanh,
    sm.sin,
    lambda v: sm.cond(sm.sum[v.dims](v) > 0, lambda: v * 2, lambda: sm.sin(v)),
)
BINARY = (
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x / (2 + y * y),
    sm.maximum,
    sm.minimum,
    lambda x, y: sm.where(x > y * 0.5, x, y),
)
ALONG = (
    lambda v, dim, at: sm.sum[dim](v),
    lambda v, dim, at: sm.mean[dim](v),
    lambda v, dim, at: sm.prod[dim](v),
    lambda v, dim, at: sm.max[dim](v),
    lambda v, dim, at: sm.logsumexp[dim](v),
    lambda v, dim, at: v * sm.argmax[dim](v),
    lambda v, dim, at: v.fill(0)[dim : dim - at] + v,
    lambda v, dim, at: v[dim : (v.sizes[dim] - 1) - dim] * 2 + v,
    lambda v, dim, at: v[dim : spread(v, dim, 7, at)],
    lambda v, dim, at: sm.sort(v, dim),
    window,
    valid_window,
    against_itself,
    recurrence,
    scattered,
    doubled,
)


class Expression:
    """A random expression of leaf arrays; calling it on other leaves computes it for them."""

    def __init__(self, seed):
        self.choose = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.leaves = []
        self.of = self.grow(self.choose.randint(2, 5))

    def __call__(self, *leaves):
        value = self.of(leaves)
        return sm.sum[value.dims](value * value * 0.1 + value)

    def fresh(self, dims):
        shape = [SIZES[d] for d in dims]
        return sm.array(self.numbers.standard_normal(shape) * 0.7 + 0.1, *dims)

    def grow(self, depth):
        if depth == 0 or self.choose.random() < 0.12:
            number = len(self.leaves)
            self.leaves.append(self.fresh(self.choose.sample(DIMS, self.choose.randint(0, 3))))
            return lambda leaves: leaves[number]
        kind = self.choose.random()
        x = self.grow(depth - 1)
        if kind < 0.25:
            f, y = self.choose.choice(BINARY), self.grow(depth - 1)
            return lambda leaves: f(x(leaves), y(leaves))
        if kind < 0.4:
            f = self.choose.choice(UNARY)
            return lambda leaves: f(x(leaves))
        f, pick, at = self.choose.choice(ALONG), self.choose.random(), self.choose.randint(0, 2)

        def along(leaves):
            value = x(leaves)
            dims = sorted(value.dims, key=lambda d: d.name)
            return f(value, dims[int(pick * len(dims))], at) if dims else value

        return along

    def direction(self):
        return [self.fresh(leaf.dims) for leaf in self.leaves]


@pytest.mark.parametrize("seed", range(40))
def test_seed(seed):
    f = Expression(seed)
    leaves = tuple(f.leaves)
    both = sm.value_and_grad(f, argnums=tuple(range(len(leaves))))
    compiled, gradients = sm.jit(both)(*leaves)
    towards = f.direction()
    with sm.interpret():
        plain, expected = both(*leaves)
        np.testing.assert_allclose(float(compiled), float(plain), rtol=1e-9, atol=1e-9)
        for found, wanted, leaf in zip(gradients, expected, leaves, strict=True):
            a, b = found.numpy(*leaf.dims), wanted.numpy(*leaf.dims)
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)
        pairs = zip(expected, towards, strict=True)
        reverse = sum(float(sm.sum[g.dims](g * t)) for g, t in pairs)
        _, forward = sm.jvp(f, leaves, towards)
        np.testing.assert_allclose(float(forward), reverse, rtol=1e-8, atol=1e-8)
        step = 1e-6
        high, low = (
            float(f(*(x + sign * step * t for x, t in zip(leaves, towards, strict=True))))
            for sign in (1, -1)
        )
    np.testing.assert_allclose((high - low) / (2 * step), reverse, rtol=1e-4, atol=1e-4)
