"""Train a small matrix-capsule network on scikit-learn's digits, in PyTorch.

    python examples/torch_capsules.py --kernel summand --epochs 20
    python examples/torch_capsules.py --compare 50      both kernels, same seeds: losses, step times
    python examples/torch_capsules.py --compare 50 --compile     the same under torch.compile

An ordinary training script: nn.Module, DataLoader, AdamW, cosine schedule, checkpoints to resume
from, a CSV log. One layer in it is unusual: a convolution of 4×4 matrices whose votes are routed by
EM (Hinton, Sabour, Frosst, ICLR 2018). It is written twice, in index notation and in PyTorch's
operators; `KERNELS[name]` is the only line that differs.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import summand as sm
import summand.torch as smt

SHARPNESS = 0.6  # inverse temperature of the activations, times the iteration's number
CLASSES = 10

# ---- the layer in index notation

n, x, y, u, v, b, c, i, j, k = sm.dims("n x y u v b c i j k")


def em_routing(votes, a, beta_u, beta_a):
    """Fit a Gaussian for each capsule c to the votes of all u, v, b; three iterations of EM."""
    r = sm.full({d: votes.sizes[d] for d in (u, v, b, c)}, 1.0 / votes.sizes[c])
    for iteration in (1, 2, 3):
        weight = r * a
        total = sm.sum[u, v, b](weight) + 1e-6
        mean = sm.sum[u, v, b](weight * votes) / total
        square = (votes - mean) ** 2
        variance = sm.sum[u, v, b](weight * square) / total + 1e-4
        log_sigma = sm.sum[i, j](0.5 * sm.log(variance))
        cost = (16 * beta_u + log_sigma) * total
        centred = cost - sm.mean[c](cost)
        spread = sm.sqrt(sm.mean[c](centred * centred) + 1e-6)
        active = sm.sigmoid(SHARPNESS * iteration * (beta_a - centred / spread))
        if iteration < 3:
            z = sm.log(active + 1e-6) - log_sigma - sm.sum[i, j](square / (2 * variance))
            e = sm.exp(z - sm.max[c](z))
            r = e / sm.sum[c](e)
    return mean, active


@smt.function(
    pose=(n, x, y, b, i, k),
    a=(n, x, y, b),
    W=(u, v, b, c, k, j),
    beta_u=(c,),
    beta_a=(c,),
    out=((n, x, y, c, i, j), (n, x, y, c)),
)
def summand_capsules(pose, a, W, beta_u, beta_a, stride):
    votes = sm.sum[k](pose[x : stride * x + u, y : stride * y + v] * W)
    return em_routing(votes, a[x : stride * x + u, y : stride * y + v], beta_u, beta_a)


# ---- the same in PyTorch's operators


def torch_capsules(pose, a, W, beta_u, beta_a, stride):
    size = W.shape[0]
    windows = pose.unfold(1, size, stride).unfold(2, size, stride)  # n x y b i k u v
    votes = torch.einsum("nxybikuv,uvbckj->nxyuvbcij", windows, W)
    count = votes.shape[:3]
    votes = votes.reshape(count.numel(), -1, W.shape[3], 16)  # p inputs c 16
    a = a.unfold(1, size, stride).unfold(2, size, stride).permute(0, 1, 2, 4, 5, 3)
    a = a.reshape(count.numel(), -1, 1)
    r = torch.full(votes.shape[:3], 1.0 / votes.shape[2])
    for iteration in (1, 2, 3):
        weight = r * a
        total = weight.sum(1) + 1e-6
        mean = torch.einsum("pic,pich->pch", weight, votes) / total[..., None]
        square = (votes - mean[:, None]) ** 2
        variance = torch.einsum("pic,pich->pch", weight, square) / total[..., None] + 1e-4
        log_sigma = 0.5 * torch.log(variance).sum(-1)
        cost = (16 * beta_u + log_sigma) * total
        centred = cost - cost.mean(-1, keepdim=True)
        spread = torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
        active = torch.sigmoid(SHARPNESS * iteration * (beta_a - centred / spread))
        if iteration < 3:
            z = torch.log(active + 1e-6) - log_sigma
            r = torch.softmax(z[:, None] - (square / (2 * variance[:, None])).sum(-1), 2)
    return mean.reshape(*count, -1, 4, 4), active.reshape(*count, -1)


KERNELS = {"torch": torch_capsules, "summand": summand_capsules}

# ---- the network


class Capsules(nn.Module):
    """A convolution from `inputs` to `outputs` types of capsules."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, kernel: str) -> None:
        super().__init__()
        identity = torch.eye(4)[:, None, :].transpose(0, 1)
        noise = 0.2 * torch.randn(size, size, inputs, outputs, 4, 4)
        self.weight = nn.Parameter(identity + noise)
        self.beta_u = nn.Parameter(torch.zeros(outputs))
        self.beta_a = nn.Parameter(torch.zeros(outputs))
        self.stride = stride
        self.kernel = KERNELS[kernel]

    def forward(self, pose: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return self.kernel(pose, a, self.weight, self.beta_u, self.beta_a, self.stride)


class Network(nn.Module):
    """Image (batch, 8, 8) to the activations of the classes (batch, 10)."""

    def __init__(self, kernel: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.pose = nn.Linear(32, 8 * 16)
        self.active = nn.Linear(32, 8)
        self.first = Capsules(8, 8, 3, 2, kernel)  # 8×8 -> 3×3 places
        self.second = Capsules(8, CLASSES, 3, 1, kernel)  # -> one place

    def forward(self, image: Tensor) -> Tensor:
        h = F.relu(self.stem(image[:, None])).permute(0, 2, 3, 1)
        pose = self.pose(h).unflatten(-1, (8, 4, 4))
        _, active = self.second(*self.first(pose, torch.sigmoid(self.active(h))))
        return active.flatten(1)


def spread_loss(active: Tensor, label: Tensor, margin: float) -> Tensor:
    """Every wrong class should be less active than the right one by a margin: mean of squares."""
    miss = F.relu(margin - active.gather(1, label[:, None]) + active) ** 2
    return miss.scatter(1, label[:, None], 0.0).sum() / (len(label) * (CLASSES - 1))


# ---- training


class Training:
    """A run: model, data, optimizer and schedule, all from one seed."""

    def __init__(self, kernel: str, epochs: int, seed: int, compiled: bool, batch: int) -> None:
        torch.manual_seed(seed)
        self.model = Network(kernel)
        digits = load_digits()
        data = TensorDataset(
            torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target)
        )
        shuffle = torch.Generator().manual_seed(seed)
        train, self.held_out = random_split(data, [0.8, 0.2], generator=shuffle)
        self.batches = DataLoader(
            train, batch_size=batch, shuffle=True, drop_last=True, generator=shuffle
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, weight_decay=1e-4)
        steps = epochs * len(self.batches)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.run = torch.compile(self.model, fullgraph=True) if compiled else self.model
        self.epoch = 0

    def step(self, image: Tensor, label: Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = spread_loss(self.run(image), label, margin=0.9)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    @torch.no_grad()
    def accuracy(self) -> float:
        image, label = next(iter(DataLoader(self.held_out, batch_size=len(self.held_out))))
        return (self.model(image).argmax(1) == label).float().mean().item()

    def save(self, path: Path) -> None:
        state = {part: getattr(self, part).state_dict() for part in self.PARTS}
        shuffle = self.batches.generator.get_state()
        torch.save({**state, "epoch": self.epoch, "shuffle": shuffle}, path)

    def load(self, path: Path) -> None:
        state = torch.load(path)
        for part in self.PARTS:
            getattr(self, part).load_state_dict(state[part])
        self.batches.generator.set_state(state["shuffle"])
        self.epoch = state["epoch"]

    PARTS = ("model", "optimizer", "schedule")


def train(options: argparse.Namespace) -> None:
    """Train with one kernel; the log and the checkpoint are written after every epoch."""
    run = Training(options.kernel, options.epochs, options.seed, options.compile, options.batch)
    if options.resume:
        run.load(options.resume)
    options.out.mkdir(parents=True, exist_ok=True)
    log_path = options.out / "log.csv"
    fresh = not log_path.exists()
    with log_path.open("a", newline="") as file:
        log = csv.writer(file)
        if fresh:
            log.writerow(["epoch", "loss", "accuracy", "rate", "milliseconds"])
        while run.epoch < options.epochs:
            losses, times = [], []
            for image, label in run.batches:
                began = time.perf_counter()
                losses.append(run.step(image, label))
                times.append(time.perf_counter() - began)
            run.epoch += 1
            row = [statistics.fmean(losses), run.accuracy(), run.schedule.get_last_lr()[0]]
            row.append(statistics.median(times) * 1e3)
            log.writerow([run.epoch, *(f"{value:.6g}" for value in row)])
            file.flush()
            run.save(options.out / "checkpoint.pt")
            print(f"epoch {run.epoch:3}  loss {row[0]:.4f}  held out {row[1]:.3f}", end="  ")
            print(f"{row[3]:.1f} ms a step")


def steps(run: Training) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from run.batches


def compare(options: argparse.Namespace) -> dict[str, float]:
    """The same steps with both kernels, in turns: losses, and the median times of a step."""
    runs = {
        kernel: Training(kernel, options.epochs, options.seed, options.compile, options.batch)
        for kernel in KERNELS
    }
    batches = {kernel: steps(run) for kernel, run in runs.items()}
    losses: dict[str, list[float]] = {kernel: [] for kernel in runs}
    times: dict[str, list[float]] = {kernel: [] for kernel in runs}
    for _ in range(options.compare):
        for kernel, run in runs.items():
            image, label = next(batches[kernel])
            began = time.perf_counter()
            losses[kernel].append(run.step(image, label))
            times[kernel].append(time.perf_counter() - began)
    pairs = zip(losses["torch"], losses["summand"], strict=True)
    difference = max(abs(p - q) for p, q in pairs)
    found = {k: statistics.median(t[min(3, len(t) - 1) :]) * 1e3 for k, t in times.items()}
    print(f"losses of {options.compare} steps differ by at most {difference:.2g}")
    for kernel, milliseconds in found.items():
        print(f"{kernel:8} {milliseconds:8.2f} ms a step, last loss {losses[kernel][-1]:.4f}")
    print(f"summand is {found['torch'] / found['summand']:.2f} times as fast")
    return {"difference": difference, **found}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", choices=KERNELS, default="summand")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="torch.compile around the model")
    parser.add_argument("--compare", type=int, metavar="STEPS", help="both kernels in turns")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--out", type=Path, default=Path("out/torch_capsules"))
    options = parser.parse_args(arguments)
    if options.compare:
        compare(options)
    else:
        train(options)


if __name__ == "__main__":
    main()
