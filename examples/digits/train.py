"""Train the capsule network of `capsules.py` on scikit-learn's digits: the job of `summand demo`.

Shows a live progress bar; at the end a table of compile times, steps per second and the costliest
kernels; writes a learning curve (PNG), the weights (`.npz`, also the checkpoint of `--resume`), and
with `--json` the numbers. Ctrl-C leaves a valid checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import summand as sm
from summand.errors import ArgumentError

from . import capsules as net
from . import report

EPOCHS = 160
BATCH = 48
RATE = 0.01
MARGIN = 0.9


@dataclass(frozen=True, slots=True)
class Data:
    """Images{n, x, y} in 0 … 1 and classes{n}, split into training and held-out test sets."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@dataclass(slots=True)
class Run:
    """Everything that a checkpoint holds."""

    weights: dict[str, np.ndarray]
    m: dict[str, np.ndarray]
    v: dict[str, np.ndarray]
    steps: int = 0
    seed: int = 0
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)


def load_data(seed: int) -> Data:
    """scikit-learn's 1,797 real scans of digits; 360 of them are held out, stratified."""
    digits = load_digits()
    x = (digits.images / 16).astype(np.float32)
    y = digits.target.astype(np.int32)
    a, b, c, d = train_test_split(x, y, test_size=360, random_state=seed, stratify=y)
    return Data(a, c, b, d)


def save(run: Run, path: Path) -> None:
    """Write a checkpoint; a reader never sees half of one."""
    arrays = {f"w:{k}": a for k, a in run.weights.items()}
    arrays |= {f"m:{k}": a for k, a in run.m.items()}
    arrays |= {f"v:{k}": a for k, a in run.v.items()}
    arrays["steps"] = np.array([run.steps, run.seed])
    arrays["curve"] = np.array(run.curve, np.float64).reshape(-1, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    os.replace(partial, path)


def load(path: Path) -> Run:
    """Read a checkpoint. Raises ArgumentError where the file is none."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
        parts = {kind: {k: arrays[f"{kind}:{k}"] for k in net.DIMS} for kind in "wmv"}
        steps, seed = (int(v) for v in arrays["steps"])
        curve = [(int(s), float(a), float(b), float(c)) for s, a, b, c in arrays["curve"]]
    except OSError as error:
        raise ArgumentError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _no_checkpoint(path) from error
    expected = fresh(seed).weights
    for part in parts.values():
        if any(part[k].shape != a.shape or part[k].dtype != a.dtype for k, a in expected.items()):
            raise _no_checkpoint(path)
    return Run(parts["w"], parts["m"], parts["v"], steps, seed, curve)


def _no_checkpoint(path: Path) -> ArgumentError:
    return ArgumentError(
        f"{path} is not a checkpoint of this network\n"
        "--resume takes the .npz file that an earlier run wrote, whole and unaltered."
    )


def fresh(seed: int) -> Run:
    """Initial weights, Adam's moments zero."""
    w = net.initial_weights(seed)
    zero = {k: np.zeros_like(a) for k, a in w.items()}
    return Run(w, zero, {k: a.copy() for k, a in zero.items()}, seed=seed)


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by -1, 0 or 1 pixels in both directions, zeros at the edge."""
    size = images.shape[1]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    at = rng.choice(3, size=(len(images), 2), p=[0.25, 0.5, 0.25])
    return np.stack([p[a : a + size, b : b + size] for p, (a, b) in zip(padded, at, strict=True)])


def rate_at(progress: float) -> float:
    """Cosine schedule down to a twentieth."""
    return RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def batches(data: Data, seed: int, start: int, stop: int) -> list[np.ndarray]:
    """The sample numbers of steps start … stop-1: each epoch a seeded permutation of its own."""
    per_epoch = len(data.train_x) // BATCH
    found = []
    for step in range(start, stop):
        epoch, at = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(data.train_x))
        found.append(order[at * BATCH : (at + 1) * BATCH])
    return found


class Trainer:
    """The compiled training step, and the state that it carries from call to call."""

    def __init__(self, run: Run) -> None:
        self.step_function = sm.jit(net.step)
        self.predict_function = sm.jit(net.forward)
        self.weights = {k: sm.array(a, *net.DIMS[k]) for k, a in run.weights.items()}
        self.state: net.State = {
            "t": sm.array(np.float32(run.steps)),
            "m": {k: sm.array(a, *net.DIMS[k]) for k, a in run.m.items()},
            "v": {k: sm.array(a, *net.DIMS[k]) for k, a in run.v.items()},
        }

    def arguments(
        self, image: np.ndarray, target: np.ndarray, margin: float, rate: float
    ) -> tuple[object, ...]:
        """What the step function is called with."""
        return (
            self.weights,
            self.state,
            sm.array(image, net.n, net.x, net.y),
            sm.array(target, net.n),
            sm.array(np.float32(margin)),
            sm.array(np.float32(rate)),
        )

    def step(
        self, image: np.ndarray, target: np.ndarray, margin: float, rate: float
    ) -> tuple[float, float]:
        """One step on a batch: its loss and its accuracy."""
        out = self.step_function(*self.arguments(image, target, margin, rate))
        self.weights, self.state, value, hit = out
        return float(value), float(hit)

    def accuracy(self, data: Data) -> float:
        """The fraction of the held-out set that is classified right."""
        activation = self.predict_function(self.weights, sm.array(data.test_x, net.n, net.x, net.y))
        return float((activation.numpy(net.n, net.label).argmax(1) == data.test_y).mean())

    def store(self, run: Run) -> None:
        """Copy the state into `run`, to be saved."""
        run.weights = {k: a.numpy(*net.DIMS[k]) for k, a in self.weights.items()}
        run.m = {k: a.numpy(*net.DIMS[k]) for k, a in self.state["m"].items()}
        run.v = {k: a.numpy(*net.DIMS[k]) for k, a in self.state["v"].items()}


def train(run: Run, data: Data, total: int, checkpoint: Path, console: Console) -> report.Numbers:
    """Train from run.steps to `total` steps; the numbers for the final table."""
    trainer = Trainer(run)
    per_epoch = len(data.train_x) // BATCH
    numbers = report.Numbers()
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[shown]}"),
        TimeRemainingColumn(),
    )
    begin = time.perf_counter()
    first = run.steps
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("train", total=total, completed=run.steps, shown="compiling")
            for index in batches(data, run.seed, run.steps, total):
                f = run.steps / total
                started = time.perf_counter()
                rng = np.random.default_rng([run.seed, run.steps])
                image, target = shifted(data.train_x[index], rng), data.train_y[index]
                value, hit = trainer.step(image, target, MARGIN, rate_at(f))
                run.steps += 1
                numbers.step_times.append(time.perf_counter() - started)
                if run.steps % per_epoch == 0 or run.steps == total:
                    run.curve.append((run.steps, value, hit, trainer.accuracy(data)))
                speed = (run.steps - first) / (time.perf_counter() - begin)
                tested = f"  test {run.curve[-1][3]:.1%}" if run.curve else ""
                shown = f"loss {value:.4f}  batch {hit:.0%}{tested}  {speed:.1f} steps/s"
                progress.update(task, advance=1, shown=shown)
    finally:
        trainer.store(run)
        save(run, checkpoint)
    numbers.train_seconds = time.perf_counter() - begin
    numbers.test_accuracy = trainer.accuracy(data)
    index = batches(data, run.seed, 0, 1)[0]
    arguments = trainer.arguments(data.train_x[index], data.train_y[index], 0.9, 0.0)
    report.measure(numbers, net.step, arguments)
    return numbers


def compare(run: Run, data: Data, names: list[str], console: Console) -> dict[str, report.Peer]:
    """Train the same network in each named system; step times in turns, with pauses between."""
    runners = {"summand": Trainer(run), **{name: report.peer(name, run.weights) for name in names}}
    losses: dict[str, list[float]] = {name: [] for name in runners}
    times: dict[str, list[float]] = {name: [] for name in runners}
    steps = batches(data, run.seed, 0, 24)
    for start in range(0, len(steps), 8):
        for name, runner in runners.items():
            time.sleep(0.3)
            for index in steps[start : start + 8]:
                image, target = data.train_x[index], data.train_y[index]
                begin = time.perf_counter()
                out = runner.step(image, target.astype(np.int64), 0.2, 0.001)
                times[name].append(time.perf_counter() - begin)
                losses[name].append(out[0] if isinstance(out, tuple) else out)
    return report.compared(losses, times, console)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `summand demo`."""
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of what is written")
    parser.add_argument("--resume", type=Path, help="go on from this checkpoint")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument(
        "--compare", action="append", default=[], choices=["torch", "compile", "jax"]
    )


def main(options: argparse.Namespace) -> int:
    """Run the demo; the exit status."""
    console = Console()
    run = load(options.resume) if options.resume else fresh(options.seed)
    data = load_data(run.seed)
    peers = compare(fresh(run.seed), data, options.compare, console) if options.compare else {}
    checkpoint = options.out / "capsules.npz"
    total = options.epochs * (len(data.train_x) // BATCH)
    try:
        numbers = train(run, data, total, checkpoint, console)
    except KeyboardInterrupt:
        console.print(f"Stopped at step {run.steps}; go on with --resume {checkpoint}")
        return 130
    curve = options.out / "learning_curve.png"
    report.draw_curve(run.curve, curve)
    report.show(numbers, console)
    console.print(f"Learning curve: {curve}\nWeights: {checkpoint}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report.as_json(numbers, peers), indent=2) + "\n")
        console.print(f"Numbers: {options.json}")
    return 0
