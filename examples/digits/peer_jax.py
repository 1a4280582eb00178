"""The demo's network as JAX users write it: jax.numpy, einsum, jax.value_and_grad, jax.jit, Adam.

The same mathematics and initial weights as `capsules.py`, for `summand demo --compare jax`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

SHARPNESS = 0.6
Weights = dict[str, jax.Array]


def windows(a: jax.Array, size: int, stride: int) -> jax.Array:
    """a{n, x, y, …} -> {n, x', y', kx, ky, …}."""
    out = (a.shape[1] - size) // stride + 1
    rows = jnp.stack([a[:, u : u + stride * out : stride] for u in range(size)], 3)
    columns = [rows[:, :, v : v + stride * out : stride] for v in range(size)]
    return jnp.stack(columns, 4)


def em_routing(
    votes: jax.Array, a: jax.Array, beta_u: jax.Array, beta_a: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """votes{p, input, c, h}, a{p, input} -> poses{p, c, h}, activations{p, c}; 3 iterations."""
    r = jnp.full(votes.shape[:3], 1.0 / votes.shape[2])
    for iteration in (1, 2, 3):
        ra = r * a[:, :, None]
        total = ra.sum(1) + 1e-6
        mu = jnp.einsum("pic,pich->pch", ra, votes) / total[..., None]
        d2 = (votes - mu[:, None]) ** 2
        var = jnp.einsum("pic,pich->pch", ra, d2) / total[..., None] + 1e-4
        half_log = 0.5 * jnp.log(var)
        cost = (beta_u[:, None] + half_log).sum(-1) * total
        centred = cost - cost.mean(-1, keepdims=True)
        spread = jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        act = jax.nn.sigmoid(SHARPNESS * iteration * (beta_a - centred / spread))
        if iteration < 3:
            logp = -(d2 / (2 * var[:, None])).sum(-1) - half_log.sum(-1)[:, None]
            r = jax.nn.softmax(logp + jnp.log(act + 1e-6)[:, None], 2)
    return mu, act


def conv_caps(
    pose: jax.Array, a: jax.Array, w: Weights, layer: str, size: int, stride: int
) -> tuple[jax.Array, jax.Array]:
    """pose{n, x, y, b, i, k}, a{n, x, y, b} -> the next layer's."""
    patches = windows(pose, size, stride)
    n, x, y = patches.shape[:3]
    votes = jnp.einsum("nxyuvbik,uvbckj->nxyuvbcij", patches, w[f"{layer}.W"])
    b, c = votes.shape[5:7]
    votes = votes.reshape(n * x * y, size * size * b, c, 16)
    inputs = windows(a, size, stride).reshape(n * x * y, size * size * b)
    mu, act = em_routing(votes, inputs, w[f"{layer}.beta_u"], w[f"{layer}.beta_a"])
    return mu.reshape(n, x, y, c, 4, 4), act.reshape(n, x, y, c)


def forward(w: Weights, image: jax.Array) -> jax.Array:
    """image{n, x, y} -> class activations{n, class}."""
    stem = jax.lax.conv(image[:, None], w["stem.W"][:, None], (1, 1), "SAME")
    h = jax.nn.relu(stem + w["stem.b"][:, None, None]).transpose(0, 2, 3, 1)
    pose = jnp.einsum("nxyf,fbik->nxybik", h, w["primary.W"]) + w["primary.b"]
    a = jax.nn.sigmoid(jnp.einsum("nxyf,fb->nxyb", h, w["primary.A"]) + w["primary.a"])
    pose, a = conv_caps(pose, a, w, "caps1", 3, 2)
    pose, a = conv_caps(pose, a, w, "caps2", 2, 1)
    votes = jnp.einsum("nxybik,bckj->nxybcij", pose, w["class.W"])
    n, x, y, b, c = votes.shape[:5]
    place = jnp.zeros((x, y, 4, 4))
    place = place.at[:, :, 0, 3].set((jnp.arange(x) / x)[:, None])
    place = place.at[:, :, 1, 3].set((jnp.arange(y) / y)[None])
    votes = (votes + place[None, :, :, None, None]).reshape(n, x * y * b, c, 16)
    return em_routing(votes, a.reshape(n, -1), w["class.beta_u"], w["class.beta_a"])[1]


def loss(w: Weights, image: jax.Array, target: jax.Array, margin: jax.Array) -> jax.Array:
    """Spread loss, mean over the batch."""
    act = forward(w, image)
    right = jax.nn.one_hot(target, act.shape[1])
    miss = jax.nn.relu(margin - ((act * right).sum(1, keepdims=True) - act))
    return ((1 - right) * miss**2).sum(1).mean()


@jax.jit
def step(
    w: Weights,
    m: Weights,
    v: Weights,
    t: jax.Array,
    image: jax.Array,
    target: jax.Array,
    margin: jax.Array,
    rate: jax.Array,
) -> tuple[Weights, Weights, Weights, jax.Array, jax.Array]:
    """One step of Adam."""
    value, g = jax.value_and_grad(loss)(w, image, target, margin)
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
    a, b = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
    w = jax.tree.map(lambda w, m, v: w - rate * (m * a) / (jnp.sqrt(v * b) + 1e-8), w, m, v)
    return w, m, v, t, value


class Trainer:
    """The training step with the interface that the demo compares."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.w = {k: jnp.asarray(a) for k, a in weights.items()}
        self.m = jax.tree.map(jnp.zeros_like, self.w)
        self.v = jax.tree.map(jnp.zeros_like, self.w)
        self.t = jnp.float32(0)

    def step(self, image: np.ndarray, target: np.ndarray, margin: float, rate: float) -> float:
        """One step on a batch; the loss before it."""
        args = (jnp.asarray(image), jnp.asarray(target), jnp.float32(margin), jnp.float32(rate))
        self.w, self.m, self.v, self.t, value = step(self.w, self.m, self.v, self.t, *args)
        return float(value)
