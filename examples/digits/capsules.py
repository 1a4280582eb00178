"""Matrix capsules with EM routing, in index notation (Hinton, Sabour, Frosst, ICLR 2018).

Activations are 4×4 matrices (poses) with a probability each. A capsule of one layer multiplies
its pose by a learned matrix to vote for the pose of each capsule of the next; EM finds where the
votes agree.
The batch dim `n` is in the data only: no line below mentions it but the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import optree

import summand as sm
from summand import Array, Dim

n, x, y, i, j, k = sm.dims("n x y i j k")  # batch, image position, rows and columns of a pose
f, label = sm.dims("feature class")
primary, caps1, caps2 = sm.dims("primary caps1 caps2")  # capsule types of each layer

Weights = Mapping[str, Array]
POSE = 4
CLASSES = 10
SHARPNESS = 0.6  # inverse temperature of the activations, times the iteration's number


@dataclass(frozen=True, slots=True)
class Window:
    """A square window of a convolution: its two dims (sized), and its stride."""

    u: Dim
    v: Dim
    stride: int

    def of(self, a: Array) -> Array:
        """a{x, y} -> {x, y, u, v}: what the window sees at each of its positions."""
        return a[x : self.stride * x + self.u, y : self.stride * y + self.v]


def window(size: int, stride: int) -> Window:
    """A window of size × size."""
    return Window(sm.Dim("u", size), sm.Dim("v", size), stride)


STEM, FIRST, SECOND = window(3, 1), window(3, 2), window(2, 1)


def softmax(z: Array, over: Dim) -> Array:
    """Exponentiate and normalise along one dim."""
    e = sm.exp(z - sm.max[over](z))
    return e / sm.sum[over](e)


def em_routing(
    votes: Array, a: Array, beta_u: Array, beta_a: Array, inputs: tuple[Dim, ...], out: Dim
) -> tuple[Array, Array]:
    """Fit one Gaussian for each capsule of `out` to the votes of `inputs`; three iterations of EM.

    votes{inputs, out, i, j}  a{inputs}  beta{out}  ->  poses{out, i, j}, activations{out}
    """
    r = 1.0 / votes.sizes[out]
    for iteration in (1, 2, 3):
        weight = r * a
        total = sm.sum[inputs](weight * sm.ones({out: votes.sizes[out]})) + 1e-6
        mean = sm.sum[inputs](weight * votes) / total
        square = (votes - mean) ** 2
        variance = sm.sum[inputs](weight * square) / total + 1e-4
        log_sigma = sm.sum[i, j](0.5 * sm.log(variance))
        cost = (POSE * POSE * beta_u + log_sigma) * total
        centred = cost - sm.mean[out](cost)
        spread = sm.sqrt(sm.mean[out](centred * centred) + 1e-6)
        activation = sm.sigmoid(SHARPNESS * iteration * (beta_a - centred / spread))
        if iteration < 3:
            log_p = -sm.sum[i, j](square / (2 * variance)) - log_sigma
            r = softmax(log_p + sm.log(activation + 1e-6), out)
    return mean, activation


def conv_caps(
    pose: Array, a: Array, w: Weights, layer: str, win: Window, inputs: Dim, out: Dim
) -> tuple[Array, Array]:
    """A convolutional capsule layer: pose{x,y,inputs,i,k}, a{x,y,inputs} -> the next layer's."""
    votes = sm.sum[k](win.of(pose) * w[f"{layer}.W"])
    over = (win.u, win.v, inputs)
    mean, a = em_routing(votes, win.of(a), w[f"{layer}.beta_u"], w[f"{layer}.beta_a"], over, out)
    return mean[j:k], a


def forward(w: Weights, image: Array) -> Array:
    """image{x, y} -> activations{class}."""
    padded = image.fill(0)[x : x + STEM.u - 1, y : y + STEM.v - 1]
    h = sm.relu(sm.sum[STEM.u, STEM.v](padded * w["stem.W"]) + w["stem.b"])
    pose = sm.sum[f](h * w["primary.W"]) + w["primary.b"]
    a = sm.sigmoid(sm.sum[f](h * w["primary.A"]) + w["primary.a"])
    pose, a = conv_caps(pose, a, w, "caps1", FIRST, primary, caps1)
    pose, a = conv_caps(pose, a, w, "caps2", SECOND, caps1, caps2)
    votes = sm.sum[k](pose * w["class.W"])
    # Coordinate addition: where a vote comes from is added to two elements of its right column.
    place = sm.eq(i, 0) * x / a.sizes[x] + sm.eq(i, 1) * y / a.sizes[y]
    votes = votes + sm.eq(j, 3) * place
    over = (x, y, caps2)
    return em_routing(votes, a, w["class.beta_u"], w["class.beta_a"], over, label)[1]


def spread_loss(activation: Array, target: Array, margin: Array) -> Array:
    """Mean over n of Σ over wrong classes of max(0, margin - (a_target - a_class))²."""
    right = sm.eq(target, label)
    miss = sm.relu(margin - (sm.sum[label](sm.where(right, activation, 0.0)) - activation))
    return sm.mean[n](sm.sum[label](sm.where(right, 0.0, miss * miss)))


def loss(w: Weights, image: Array, target: Array, margin: Array) -> tuple[Array, Array]:
    """The loss, and the fraction of the batch whose most active class is the target."""
    activation = forward(w, image)
    hit = sm.argmax[label](activation) == target
    return spread_loss(activation, target, margin), sm.mean[n](hit.astype(sm.f32))


State = dict[str, object]


def adam(w: Weights, g: Weights, state: State, rate: Array) -> tuple[Weights, State]:
    """One step of Adam (Kingma & Ba 2015) on a pytree of weights."""
    t = state["t"] + 1.0
    m = optree.tree_map(lambda m, g: 0.9 * m + 0.1 * g, state["m"], g)
    v = optree.tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, state["v"], g)
    m_scale, v_scale = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
    new = optree.tree_map(
        lambda w, m, v: w - rate * (m * m_scale) / (sm.sqrt(v * v_scale) + 1e-8), w, m, v
    )
    return new, {"t": t, "m": m, "v": v}


def step(
    w: Weights, state: State, image: Array, target: Array, margin: Array, rate: Array
) -> tuple[Weights, State, Array, Array]:
    """One training step: new weights, new state of Adam, loss and accuracy of the batch."""
    (value, hit), g = sm.value_and_grad(loss, has_aux=True)(w, image, target, margin)
    w, state = adam(w, g, state, rate)
    return w, state, value, hit


DIMS: dict[str, tuple[Dim, ...]] = {
    "stem.W": (f, STEM.u, STEM.v),
    "stem.b": (f,),
    "primary.W": (f, primary, i, k),
    "primary.b": (primary, i, k),
    "primary.A": (f, primary),
    "primary.a": (primary,),
    "caps1.W": (FIRST.u, FIRST.v, primary, caps1, k, j),
    "caps1.beta_u": (caps1,),
    "caps1.beta_a": (caps1,),
    "caps2.W": (SECOND.u, SECOND.v, caps1, caps2, k, j),
    "caps2.beta_u": (caps2,),
    "caps2.beta_a": (caps2,),
    "class.W": (caps2, label, k, j),
    "class.beta_u": (label,),
    "class.beta_a": (label,),
}


def initial_weights(seed: int, features: int = 32, capsules: int = 8) -> dict[str, np.ndarray]:
    """Seeded weights, each with its dims in the order of DIMS.

    The matrices of capsules begin near the identity, so that the first votes nearly agree.
    """
    rng = np.random.default_rng(seed)
    sizes = {f: features, primary: capsules, caps1: capsules, caps2: capsules, label: CLASSES}
    scale = {"stem.W": math.sqrt(2 / 9), "primary.W": features**-0.5, "primary.A": features**-0.5}
    weights = {}
    for name, dims in DIMS.items():
        shape = [d.size or sizes.get(d, POSE) for d in dims]
        spread = scale.get(name, 0.1) if name[-1] in "WA" else 0.0
        weights[name] = (spread * rng.standard_normal(shape)).astype(np.float32)
        if dims[-2:] == (k, j):
            weights[name] += np.eye(POSE, dtype=np.float32)
    return weights
