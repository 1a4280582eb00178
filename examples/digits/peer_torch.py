"""The demo's network as PyTorch users write it: unfold, einsum, autograd, torch.optim.Adam.

The same mathematics and the same initial weights as `capsules.py`, for `summand demo --compare`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

SHARPNESS = 0.6


def windows(a: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """a{n, x, y, …} -> {n, x', y', …, kx, ky}."""
    return a.unfold(1, size, stride).unfold(2, size, stride)


def em_routing(
    votes: torch.Tensor, a: torch.Tensor, beta_u: torch.Tensor, beta_a: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """votes{p, input, c, h}, a{p, input} -> poses{p, c, h}, activations{p, c}; 3 iterations."""
    r = torch.full(votes.shape[:3], 1.0 / votes.shape[2])
    for iteration in range(3):
        ra = r * a[:, :, None]
        total = ra.sum(1) + 1e-6
        mu = torch.einsum("pic,pich->pch", ra, votes) / total[..., None]
        d2 = (votes - mu[:, None]) ** 2
        var = torch.einsum("pic,pich->pch", ra, d2) / total[..., None] + 1e-4
        half_log = 0.5 * torch.log(var)
        cost = (beta_u[:, None] + half_log).sum(-1) * total
        centred = cost - cost.mean(-1, keepdim=True)
        spread = torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
        act = torch.sigmoid(SHARPNESS * (iteration + 1) * (beta_a - centred / spread))
        if iteration < 2:
            logp = -(d2 / (2 * var[:, None])).sum(-1) - half_log.sum(-1)[:, None]
            r = torch.softmax(logp + torch.log(act + 1e-6)[:, None], 2)
    return mu, act


def conv_caps(
    pose: torch.Tensor,
    a: torch.Tensor,
    w: dict[str, torch.Tensor],
    layer: str,
    size: int,
    stride: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """pose{n, x, y, b, i, k}, a{n, x, y, b} -> the next layer's."""
    patches = windows(pose, size, stride)  # n x y b i k u v
    n, x, y, b = patches.shape[:4]
    votes = torch.einsum("nxybikuv,uvbckj->nxyuvbcij", patches, w[f"{layer}.W"])
    c = votes.shape[6]
    votes = votes.reshape(n * x * y, size * size * b, c, 16)
    inputs = windows(a, size, stride).permute(0, 1, 2, 4, 5, 3).reshape(n * x * y, size * size * b)
    mu, act = em_routing(votes, inputs, w[f"{layer}.beta_u"], w[f"{layer}.beta_a"])
    return mu.reshape(n, x, y, c, 4, 4), act.reshape(n, x, y, c)


def forward(w: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """image{n, x, y} -> class activations{n, class}."""
    stem = F.relu(F.conv2d(image[:, None], w["stem.W"][:, None], w["stem.b"], padding=1))
    h = stem.permute(0, 2, 3, 1)
    pose = torch.einsum("nxyf,fbik->nxybik", h, w["primary.W"]) + w["primary.b"]
    a = torch.sigmoid(torch.einsum("nxyf,fb->nxyb", h, w["primary.A"]) + w["primary.a"])
    pose, a = conv_caps(pose, a, w, "caps1", 3, 2)
    pose, a = conv_caps(pose, a, w, "caps2", 2, 1)
    votes = torch.einsum("nxybik,bckj->nxybcij", pose, w["class.W"])
    n, x, y, b, c = votes.shape[:5]
    place = torch.zeros(x, y, 4, 4)
    place[:, :, 0, 3] = (torch.arange(x) / x)[:, None]
    place[:, :, 1, 3] = (torch.arange(y) / y)[None]
    votes = (votes + place[None, :, :, None, None]).reshape(n, x * y * b, c, 16)
    return em_routing(votes, a.reshape(n, -1), w["class.beta_u"], w["class.beta_a"])[1]


def spread_loss(act: torch.Tensor, label: torch.Tensor, margin: float) -> torch.Tensor:
    """Mean over the batch of Σ over wrong classes of max(0, margin - (a_t - a_i))²."""
    target = act.gather(1, label[:, None])
    miss = F.relu(margin - (target - act)) ** 2
    wrong = torch.ones_like(act).scatter(1, label[:, None], 0.0)
    return (miss * wrong).sum(1).mean()


class Trainer:
    """The training step that the demo compares; `compiled` adds torch.compile."""

    def __init__(self, weights: dict[str, np.ndarray], compiled: bool = False) -> None:
        self.w = {k: torch.tensor(a).requires_grad_() for k, a in weights.items()}
        self.optimizer = torch.optim.Adam(self.w.values(), eps=1e-8)
        self.loss: Callable[..., torch.Tensor] = torch.compile(loss) if compiled else loss

    def step(self, image: np.ndarray, target: np.ndarray, margin: float, rate: float) -> float:
        """One step on a batch; the loss before it."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        value = self.loss(self.w, torch.from_numpy(image), torch.from_numpy(target), margin)
        value.backward()
        self.optimizer.step()
        return float(value)


def loss(
    w: dict[str, torch.Tensor], image: torch.Tensor, target: torch.Tensor, margin: float
) -> torch.Tensor:
    """Spread loss of a batch; target holds i64 class numbers."""
    return spread_loss(forward(w, image), target, margin)
