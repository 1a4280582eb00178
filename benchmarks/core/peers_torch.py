"""The core programs as PyTorch users write them, each at its best known formulation.

A peer takes the case's arrays in their natural order and returns a function of no arguments.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

Thunk = Callable[[], object]
torch.set_num_threads(2)


def tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(a)) for a in arrays]


def capsules(P, W):
    n, x, _, c = P.shape[:4]
    o = W.shape[3]
    out = (x - 3) // 2 + 1
    a = P.permute(0, 4, 3, 5, 1, 2).reshape(n * 4, c * 4, x, x)
    w = W.permute(3, 5, 2, 4, 0, 1).reshape(o * 4, c * 4, 3, 3)
    r = F.conv2d(a, w, stride=2)
    return r.reshape(n, 4, o, 4, out, out).permute(0, 4, 5, 2, 1, 3).contiguous()


def max_plus(A, B):
    return torch.cat([(a[:, :, None] + B[None]).max(1).values for a in A.split(8)])


def gauss(X, Y, B):
    z = X @ Y.T - 0.5 * (X * X).sum(1)[:, None] - 0.5 * (Y * Y).sum(1)
    return torch.exp(z) @ B


def ten_operations(a):
    c = torch.maximum(a * 1.5 + 0.25, torch.tensor(-3.0)) * 0.5
    c = torch.minimum(c - 0.125, torch.tensor(3.0))
    return torch.abs(c * c - 1.0) + a


INDEX = torch.arange(512)[:, None] - torch.arange(512)[None] + 511


def attention(Q, K, V, T):
    s = torch.einsum("bhqd,bhkd->bhqk", Q, K) * 0.125
    s = 30 * torch.tanh(s / 30) + T[:, INDEX]
    return torch.softmax(s, -1) @ V


def scan(U, D, A, B, C):
    decay = torch.exp(torch.einsum("bdt,ds->tbds", D, A))
    drive = torch.einsum("bdt,bst,bdt->tbds", D, B, U)
    state = torch.zeros(decay.shape[1:])
    states = []
    for a, v in zip(decay.unbind(0), drive.unbind(0)):
        state = a * state + v
        states.append(state)
    return torch.einsum("tbds,bst->bdt", torch.stack(states), C)


def em(V, a):
    r = torch.full(V.shape[:3], 1.0 / V.shape[2])
    for iteration in range(3):
        ra = r * a[:, :, None]
        s = ra.sum(1)[:, :, None] + 1e-8
        mu = torch.einsum("bij,bijd->bjd", ra, V) / s
        d2 = (V - mu[:, None]) ** 2
        var = torch.einsum("bij,bijd->bjd", ra, d2) / s + 1e-4
        half = (0.5 * torch.log(var)).sum(-1)
        act = torch.sigmoid(1e-2 * (1.0 - half * s[..., 0] * 1e-2))
        if iteration < 2:
            z = -(d2 / (2 * var[:, None])).sum(-1) - half[:, None] + torch.log(act)[:, None]
            r = torch.softmax(z, -1)
    return mu


def gradient(f, tensors, of, cotangent=None):
    """Value and gradients of Σ f², or the gradients from a cotangent."""
    leaves = [t.clone().requires_grad_(q in of) for q, t in enumerate(tensors)]

    def run():
        out = f(*leaves)
        loss = (out**2).sum() if cotangent is None else (out * cotangent).sum()
        return torch.autograd.grad(loss, [leaves[q] for q in of])

    return run


def conv(A, W):
    return F.conv2d(A, W, padding=1)


FORWARD = {
    "caps_fwd": capsules,
    "matmul_1024": lambda A, B: A @ B,
    "max_plus_fwd": max_plus,
    "gauss_sum": gauss,
    "softmax_row": lambda Z: torch.softmax(Z, 1),
    "softmax_col": lambda Z: torch.softmax(Z, 0),
    "chain": ten_operations,
    "attention_fwd": attention,
    "scan_fwd": scan,
    "em_routing": em,
}


def peer(key: str, arrays: list[np.ndarray], compiled: bool) -> Thunk | None:
    """The peer of a case, or None where there is none."""
    wrap = torch.compile if compiled else (lambda f: f)
    t = tensors(arrays)
    if key in ("scan_fwd", "scan_grad") and compiled:
        return None  # 1,024 unrolled steps compile for minutes
    if key == "conv_nhwc":
        a = t[0].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        w = t[1].permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        f = wrap(conv)
        return no_grad(f, [a, w])
    if key in FORWARD:
        return no_grad(wrap(FORWARD[key]), t)
    match key:
        case "caps_dP":
            return gradient(wrap(capsules), t[:2], [0], t[2])
        case "caps_dW":
            return gradient(wrap(capsules), t[:2], [1], t[2])
        case "max_plus_grad":
            return gradient(wrap(max_plus), t, [0, 1])
        case "attention_grad":
            return gradient(wrap(attention), t[:4], [0, 1, 2, 3], t[4])
        case "scan_grad":
            return gradient(scan, t, [0, 1, 2, 3, 4])
    return None


def no_grad(f, t) -> Thunk:
    def run():
        with torch.no_grad():
            return f(*t)

    return run
