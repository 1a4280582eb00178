"""The programs of the core benchmark, each a few lines of index notation, with their inputs.

A `Case` has the function, its arguments, and the work that it must do: FMA-pipe operations (one
vector instruction slot for each 16 f32 elements on AVX-512; a multiply-add counts once) and bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import summand as sm

n, x, y, i, j, k, d = sm.dims("n x y i j k d")
ci, co, kx, ky = sm.dims("ci co kx ky")
b, h, t, u, s = sm.dims("b h t u s")
m, v = sm.dims("m v")


@dataclass(frozen=True, slots=True)
class Input:
    """An array in its natural storage order, and the dims of its axes."""

    values: np.ndarray
    dims: tuple[sm.Dim, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """`function(*arguments())`; `slots`: FMA-pipe operations; `bytes`: least memory traffic."""

    function: Callable[..., object]
    inputs: tuple[Input, ...]
    slots: float = 0.0
    bytes: float = 0.0

    def arguments(self) -> list[sm.Array]:
        """The inputs as Summand arrays."""
        return [sm.array(a.values, *a.dims) for a in self.inputs]


def normal(seed: int, shape: tuple[int, ...], *dims: sm.Dim) -> Input:
    """Seeded standard normal f32."""
    return Input(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32), dims)


def positive(seed: int, scale: float, shape: tuple[int, ...], *dims: sm.Dim) -> Input:
    """Absolute values of seeded normals, times `scale`."""
    values = normal(seed, shape, *dims).values
    return Input(np.float32(scale) * np.abs(values), dims)


def capsules(P: sm.Array, W: sm.Array) -> sm.Array:
    """P{n,x,y,ci,i,k}  W{kx,ky,ci,co,k,j}  ->  {n,x,y,co,i,j}; stride 2."""
    return sm.sum[kx, ky, ci, k](P[x : 2 * x + kx, y : 2 * y + ky] * W)


CAPSULE_SLOTS = 16 * 7 * 7 * 32 * 4 * 4 * 9 * 32 * 4


def capsule_inputs() -> tuple[Input, Input, Input]:
    """Poses, weights, and a cotangent of the result."""
    return (
        normal(0, (16, 15, 15, 32, 4, 4), n, x, y, ci, i, k),
        normal(1, (3, 3, 32, 32, 4, 4), kx, ky, ci, co, k, j),
        normal(2, (16, 7, 7, 32, 4, 4), n, x, y, co, i, j),
    )


def caps_fwd() -> Case:
    """Convolutional capsules."""
    return Case(capsules, capsule_inputs()[:2], CAPSULE_SLOTS)


def caps_dP() -> Case:
    """Their gradient by the poses."""
    P, W, g = capsule_inputs()
    return Case(
        lambda P, W, g: sm.vjp(lambda P: capsules(P, W), P)[1](g)[0], (P, W, g), CAPSULE_SLOTS
    )


def caps_dW() -> Case:
    """Their gradient by the weights."""
    P, W, g = capsule_inputs()
    return Case(
        lambda P, W, g: sm.vjp(lambda W: capsules(P, W), W)[1](g)[0], (P, W, g), CAPSULE_SLOTS
    )


def matmul(size: int = 1024) -> Case:
    """Matrix product."""
    A, B = normal(0, (size, size), i, k), normal(1, (size, size), k, j)
    return Case(lambda A, B: sm.sum[k](A * B), (A, B), float(size) ** 3)


def conv(A: sm.Array, W: sm.Array) -> sm.Array:
    """3×3, padded by fill(0)."""
    return sm.sum[kx, ky, ci](A.fill(0)[x : x + kx - 1, y : y + ky - 1] * W)


def conv_nhwc() -> Case:
    """Convolution, channels last."""
    A = normal(0, (4, 56, 56, 64), n, x, y, ci)
    W = normal(1, (3, 3, 64, 64), kx, ky, ci, co)
    return Case(conv, (A, W), 4 * 56 * 56 * 64 * 64 * 9)


def max_plus(A: sm.Array, B: sm.Array) -> sm.Array:
    """A{i,k}  B{k,j}."""
    return sm.max[k](A + B)


def max_plus_fwd() -> Case:
    """Max-plus product; one add and one max for each (i, j, k)."""
    A, B = normal(0, (512, 512), i, k), normal(1, (512, 512), k, j)
    return Case(max_plus, (A, B), 2 * 512.0**3)


def max_plus_grad() -> Case:
    """Value and gradient of Σ out²."""
    A, B = max_plus_fwd().inputs
    loss = lambda A, B: sm.sum[i, j](max_plus(A, B) ** 2)  # noqa: E731
    return Case(sm.value_and_grad(loss, argnums=(0, 1)), (A, B), 2 * 512.0**3)


def gauss(X: sm.Array, Y: sm.Array, B: sm.Array) -> sm.Array:
    """X{i,d}  Y{j,d}  B{j}."""
    return sm.sum[j](sm.exp(-0.5 * sm.sum[d]((X - Y) ** 2)) * B)


GAUSS_SLOTS = 3 + 3 + 1 + 9 + 1  # subtract, square-add, scale, exp, multiply-add


def gauss_sum() -> Case:
    """Gaussian kernel sum."""
    inputs = (normal(0, (8192, 3), i, d), normal(1, (8192, 3), j, d), normal(2, (8192,), j))
    return Case(gauss, inputs, GAUSS_SLOTS * 8192.0**2)


def softmax(z: sm.Array, over: sm.Dim) -> sm.Array:
    """Exponentiate and normalise along one dim."""
    e = sm.exp(z - sm.max[over](z))
    return e / sm.sum[over](e)


def softmax_row() -> Case:
    """Softmax over the contiguous dim."""
    Z = normal(0, (4096, 4096), i, j)
    return Case(lambda Z: softmax(Z, j), (Z,), bytes=8 * 4096.0**2)


def softmax_col() -> Case:
    """Softmax over the other dim."""
    Z = normal(0, (4096, 4096), i, j)
    return Case(lambda Z: softmax(Z, i), (Z,), bytes=8 * 4096.0**2)


def ten_operations(a: sm.Array) -> sm.Array:
    """Ten elementwise operations."""
    c = sm.maximum(a * 1.5 + 0.25, -3.0) * 0.5
    c = sm.minimum(c - 0.125, 3.0)
    return sm.abs(c * c - 1.0) + a


def chain() -> Case:
    """Ten elementwise operations over 16M elements."""
    return Case(ten_operations, (normal(0, (16 << 20,), i),), bytes=8.0 * (16 << 20))


def attention(Q: sm.Array, K: sm.Array, V: sm.Array, T: sm.Array) -> sm.Array:
    """Softcap 30·tanh(s/30) and a learned bias T[h, t - u]; Q, K, V{b,h,t,d}  T{h,m}."""
    keys = K[t:u]
    score = 30.0 * sm.tanh(sm.sum[d](Q * keys) * (0.125 / 30.0)) + T[m : t - u + (T.sizes[m] // 2)]
    return sm.sum[u](softmax(score, u) * V[t:u])


ATTENTION_SLOTS = 2.0 * 2 * 8 * 512 * 512 * 64


def attention_inputs() -> tuple[Input, ...]:
    """Queries, keys, values, and the bias of each relative position."""
    shape = (2, 8, 512, 64)
    qkv = tuple(normal(seed, shape, b, h, t, d) for seed in range(3))
    return (*qkv, normal(3, (8, 1023), h, m))


def attention_fwd() -> Case:
    """Attention; only the two products are counted."""
    return Case(attention, attention_inputs(), ATTENTION_SLOTS)


def attention_grad() -> Case:
    """The gradients of Q, K, V and T from a cotangent, scores recomputed: five products."""
    inputs = attention_inputs()
    g = normal(4, (2, 8, 512, 64), b, h, t, d)

    def gradient(Q, K, V, T, g):
        return sm.vjp(attention, Q, K, V, T)[1](g)

    return Case(gradient, (*inputs, g), 2.5 * ATTENTION_SLOTS)


def scan(U: sm.Array, D: sm.Array, A: sm.Array, B: sm.Array, C: sm.Array) -> sm.Array:
    """Selective scan: U, D{b,d,t}  A{d,s}  B, C{b,s,t}."""
    decay, drive = sm.exp(D * A), D * U * B
    state = sm.recur(lambda z: decay * z[t : t - 1] + drive, over=t, init=0.0)
    return sm.sum[s](state * C)


def scan_inputs() -> tuple[Input, ...]:
    """b2 d256 n16 L1024; steps positive, A negative."""
    return (
        normal(0, (2, 256, 1024), b, d, t),
        positive(1, 0.1, (2, 256, 1024), b, d, t),
        positive(2, -1.0, (256, 16), d, s),
        normal(3, (2, 16, 1024), b, s, t),
        normal(4, (2, 16, 1024), b, s, t),
    )


def scan_fwd() -> Case:
    """Selective scan."""
    return Case(scan, scan_inputs(), 2 * 256 * 16 * 1024 * 13.0)


def scan_grad() -> Case:
    """Value and gradient of Σ y² by every input."""
    loss = lambda *a: sm.sum[b, d, t](scan(*a) ** 2)  # noqa: E731
    return Case(
        sm.value_and_grad(loss, argnums=(0, 1, 2, 3, 4)),
        scan_inputs(),
        2 * 256 * 16 * 1024 * 45.0,
    )


def em(V: sm.Array, a: sm.Array) -> sm.Array:
    """EM routing, three iterations, over votes V{b,i,j,d} and activations a{b,i}."""
    r = sm.ones({j: V.sizes[j]}) / V.sizes[j]
    for iteration in range(3):
        ra = r * a
        total = sm.sum[i](ra) + 1e-8
        mean = sm.sum[i](ra * V) / total
        square = (V - mean) ** 2
        variance = sm.sum[i](ra * square) / total + 1e-4
        half = sm.sum[d](0.5 * sm.log(variance))
        activation = sm.sigmoid(1e-2 * (1.0 - half * total * 1e-2))
        if iteration < 2:
            log_p = -sm.sum[d](square / (2 * variance)) - half + sm.log(activation)
            r = softmax(log_p, j)
    return mean


def em_routing() -> Case:
    """Three iterations over votes 144×144×16×16."""
    V = normal(0, (144, 144, 16, 16), b, i, j, d)
    a = positive(1, 1.0, (144, 144), b, i)
    return Case(em, (V, a), bytes=4.0 * 144 * 144 * 256)


def call() -> Case:
    """A compiled program on tiny arrays: the overhead of a call."""
    return Case(lambda A, B: A * 2.0 + B, (normal(0, (4,), i), normal(1, (4,), i)))


CASES = {
    f.__name__: f
    for f in (
        caps_fwd,
        caps_dP,
        caps_dW,
        conv_nhwc,
        max_plus_fwd,
        max_plus_grad,
        gauss_sum,
        softmax_row,
        softmax_col,
        chain,
        attention_fwd,
        attention_grad,
        scan_fwd,
        scan_grad,
        em_routing,
        call,
    )
}
CASES["matmul_1024"] = matmul
