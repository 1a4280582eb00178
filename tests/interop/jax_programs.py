"""Programs of every kind with the arrays they are called on, for tests of derivatives."""

from dataclasses import dataclass

import numpy as np

import summand as sm

n, i, k, j, x, w, t, u = sm.dims("n i k j x w t u")
q, kv = sm.dims("q kv")
two, three = sm.Dim("w2", 2), sm.Dim("w3", 3)
RNG = np.random.default_rng(7)


def normal(*shape):
    return RNG.normal(size=shape)


def positive(*shape):
    return RNG.uniform(0.5, 1.5, size=shape)


def integers(high, *shape):
    return RNG.integers(0, high, size=shape).astype(np.int32)


@dataclass(frozen=True)
class Program:
    function: object
    inputs: dict
    out: object
    arrays: tuple

    @property
    def inexact(self):
        """Positions of the arguments that have derivatives."""
        return tuple(p for p, a in enumerate(self.arrays) if np.issubdtype(a.dtype, np.inexact))


def layer_norm(a, gain):
    centred = a - sm.mean[k](a)
    return centred * sm.rsqrt(sm.mean[k](centred * centred) + 1e-3) * gain


def attention(Q, K, V):
    z = sm.sum[k](Q * K[t:u])
    e = sm.exp(z - sm.max[u](z))
    return sm.sum[u](e / sm.sum[u](e) * V[t:u])


def causal(Q, K):
    return sm.logsumexp[u](sm.where(u <= t, sm.sum[k](Q * K[t:u]), -1e9))


def lstm(a, b):
    def step(state):
        h = state["h"][t : t - 1]
        kept = sm.sigmoid(a + b * h) * state["c"][t : t - 1] + sm.tanh(a - h)
        return {"h": sm.tanh(kept), "c": kept}

    found = sm.recur(step, over=t, init={"h": 0.0, "c": 0.5})
    return found["h"] * found["c"]


def edit(cost):
    return sm.recur(
        lambda D: (
            sm.logaddexp(sm.logaddexp(D[i : i - 1], D[j : j - 1]), D[i : i - 1, j : j - 1]) + cost
        ),
        over=(i, j),
        init=0.1,
    )


def product(a):
    both = sm.Monoid(lambda p, r: p * r, 1, commutative=True)
    return both[k](a)


def affine(a, b):
    chain = sm.Monoid(lambda p, r: (p[0] * r[0], p[1] * r[0] + r[1]), (1.0, 0.0))
    return chain[t]((a, b))


IJ = (i, j)
PROGRAMS = {
    "matmul": Program(
        lambda a, b: sm.sum[k](a * b),
        {"a": (i, k), "b": (k, j)},
        IJ,
        (normal(3, 4), normal(4, 2)),
    ),
    "three factors": Program(
        lambda a, b, c: sm.sum[k, n](a * b * c),
        {"a": (i, k), "b": (k, n), "c": (n, j)},
        (j, i),
        (normal(3, 4), normal(4, 2), normal(2, 3)),
    ),
    "elementwise": Program(
        lambda a, b: sm.exp(sm.sin(a) * b) / (1 + a * a),
        {"a": (i, j), "b": (j,)},
        IJ,
        (normal(3, 4), normal(4)),
    ),
    "layer norm": Program(
        layer_norm, {"a": (n, k), "gain": (k,)}, (n, k), (normal(3, 5), normal(5))
    ),
    "attention": Program(
        attention,
        {"Q": (t, k), "K": (t, k), "V": (t, k)},
        (t, k),
        (normal(4, 3), normal(4, 3), normal(4, 3)),
    ),
    "causal": Program(causal, {"Q": (t, k), "K": (t, k)}, (t,), (normal(4, 3), normal(4, 3))),
    "gauss sums": Program(
        lambda a, b, v: sm.sum[j](sm.exp(-sm.sum[k]((a - b) ** 2)) * v),
        {"a": (i, k), "b": (j, k), "v": (j,)},
        (i,),
        (normal(3, 2), normal(4, 2), normal(4)),
    ),
    "window": Program(
        lambda a, f: sm.sum[w](a[x : x + w] * f),
        {"a": (n, x), "f": (w,)},
        (n, x),
        (normal(2, 8), normal(3)),
    ),
    "strided window": Program(
        lambda a, f: sm.sum[w](a[x : 2 * x + w] * f),
        {"a": (n, x), "f": (w,)},
        (n, x),
        (normal(2, 9), normal(3)),
    ),
    "padded window": Program(
        lambda a, f: sm.sum[w](a.fill(0)[x : x + w - 1] * f),
        {"a": (x,), "f": (w,)},
        (x,),
        (normal(6), normal(3)),
    ),
    "pool": Program(lambda a: sm.max[two](a[x : 2 * x + two]), {"a": (x,)}, (x,), (normal(8),)),
    "turned": Program(lambda a: a[x : 5 - x] * a, {"a": (x,)}, (x,), (normal(6),)),
    "gather": Program(
        lambda a, at: a[n:at] ** 2,
        {"a": (n, k), "at": (i,)},
        (i, k),
        (normal(5, 2), integers(5, 4)),
    ),
    "embedding": Program(
        lambda a, at, b: sm.sum[k](a[n:at] * b),
        {"a": (n, k), "at": (i, t), "b": (k, j)},
        (i, t, j),
        (normal(5, 2), integers(5, 3, 2), normal(2, 3)),
    ),
    "scatter": Program(
        lambda a, at: sm.sum[t](a * a, at={n: at}, sizes={n: 4}),
        {"a": (t, k), "at": (t,)},
        (n, k),
        (normal(6, 2), integers(4, 6)),
    ),
    "scatter max": Program(
        lambda a, at: sm.max[t](sm.sin(a), at={n: at}, sizes={n: 3}),
        {"a": (t,), "at": (t,)},
        (n,),
        (normal(7), np.array([0, 1, 2, 0, 1, 2, 0], np.int32)),
    ),
    "max": Program(
        lambda a, b: sm.max[k](a + b), {"a": (i, k), "b": (k, j)}, IJ, (normal(3, 4), normal(4, 2))
    ),
    "prod": Program(lambda a: sm.prod[k](a), {"a": (i, k)}, (i,), (positive(3, 4),)),
    "own monoid": Program(product, {"a": (i, k)}, (i,), (positive(3, 4),)),
    "pair monoid": Program(
        affine, {"a": (t, i), "b": (t, i)}, ((i,), (i,)), (positive(4, 2), normal(4, 2))
    ),
    "scan": Program(
        lambda a, b: sm.recur(lambda h: a * h[t : t - 1] + b, over=t, init=0.5),
        {"a": (t, n), "b": (t,)},
        (n, t),
        (positive(5, 2), normal(5)),
    ),
    "last state": Program(
        lambda a: sm.recur(lambda h: sm.tanh(h[t : t - 1] + a), over=t, init=0.0)[t:4],
        {"a": (t, n)},
        (n,),
        (normal(5, 2),),
    ),
    "lstm": Program(lstm, {"a": (t, n), "b": (n,)}, (t, n), (normal(4, 2), normal(2))),
    "lattice": Program(edit, {"cost": (i, j)}, (i, j), (normal(3, 4),)),
    "several outputs": Program(
        lambda a, b: {"sum": sm.sum[k](a * b), "all": (a + b, sm.max[k](a))},
        {"a": (i, k), "b": (k,)},
        {"sum": (i,), "all": ((k, i), (i,))},
        (normal(3, 4), normal(4)),
    ),
    "integer output": Program(
        lambda a: (sm.argmax[k](a), sm.sum[k](a * a)),
        {"a": (i, k)},
        ((i,), (i,)),
        (normal(3, 4),),
    ),
    "sort": Program(lambda a: sm.sort(a, over=k) * a, {"a": (i, k)}, (i, k), (normal(3, 5),)),
    "cond": Program(
        lambda a, b: sm.cond(sm.sum[k](b) > 0, lambda: a * a, lambda: sm.exp(a)),
        {"a": (k,), "b": (k,)},
        (k,),
        (normal(4), positive(4)),
    ),
    "complex": Program(
        lambda a, b: sm.sum[k](a * sm.exp(b)) * a.conj(),
        {"a": (i, k), "b": (k,)},
        (i, k),
        (normal(3, 2) + 1j * normal(3, 2), normal(2) + 1j * normal(2)),
    ),
}
