"""The peers of a row, each in a process of its own.

with PeerProcess("torch", patience=90) as peer:
    first, arrays = peer.start(job)       seconds of the first call, and what it computed
    peer.runs(0.4)                        seconds of runs that take about so long in all
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Thunk, once
from benchmarks.processes import Answer, Process, serve
from summand.runtime import machine

from .case import Case, make
from .perturb import perturbed
from .row import Pass
from .rows import every_row

PEERS = ("torch", "compile", "jax")
PACKAGES = {"torch": "torch", "compile": "torch", "jax": "jax"}
SHOWN = 1 << 28  # bytes of results that are handed back to be checked


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is to run; `seed` of a perturbation, or None for the listed sizes."""

    row: str
    which: Pass
    seed: int | None = None

    def case(self) -> Case:
        """The arrays, the same in every process."""
        row = every_row()[self.row]
        return make(row) if self.seed is None else perturbed(row, row.sizes, self.seed)


class PeerProcess(Process):
    """One peer."""

    def __init__(self, name: str, patience: float) -> None:
        super().__init__(name, ("-m", "benchmarks.offroad.peer", name), patience)

    def start(self, job: Job) -> tuple[float, list[np.ndarray]]:
        """Make a row ready: seconds of the first call, and its results (none where too large)."""
        with tempfile.TemporaryDirectory() as folder:
            asked = {"row": job.row, "which": job.which, "seed": job.seed, "folder": folder}
            answer = self.ready(asked)
            arrays = [np.load(Path(folder, f"{i}.npy")) for i in range(answer["results"])]
        return answer["first"], arrays


# ---- the other end


def in_torch(case: Case, which: Pass, compiled: bool) -> Thunk:
    """A row in PyTorch, eager or compiled."""
    import torch

    torch.set_num_threads(machine.threads())
    formulation = case.row.compile if compiled and case.row.compile else case.row.torch
    arrays = [torch.from_numpy(a) for a in case.arrays()]
    run = formulation(torch, case.sizes)
    places = case.differentiated()
    if which == "fwd":
        forward = torch.compile(run, dynamic=False) if compiled else run

        def value() -> object:
            with torch.no_grad():
                return [forward(*arrays)]

        return value
    for i in places:
        arrays[i].requires_grad_()
    loss = _loss(run)
    if compiled:
        loss = torch.compile(loss, dynamic=False)

    def gradient() -> object:
        out = loss(*arrays)
        return [out.detach(), *torch.autograd.grad(out, [arrays[i] for i in places])]

    return gradient


def in_jax(case: Case, which: Pass) -> Thunk:
    """A row under jax.jit."""
    import jax
    import jax.scipy

    arrays = [jax.numpy.asarray(a) for a in case.arrays()]
    run = case.row.jax(jax, case.sizes)
    if which == "grad":
        run = jax.value_and_grad(_loss(run), argnums=case.differentiated())
    compiled = jax.jit(run)

    def wait() -> object:
        out = jax.block_until_ready(compiled(*arrays))
        return [out[0], *out[1]] if which == "grad" else [out]

    return wait


def _loss(run: Callable[..., object]) -> Callable[..., object]:
    return lambda *arrays: (run(*arrays) ** 2).sum()


def ready(name: str, request: Answer) -> tuple[Thunk, Answer]:
    """Make a row ready, run it once and leave its results where they are asked for."""
    case = Job(request["row"], request["which"], request["seed"]).case()
    begin = time.perf_counter()
    if name == "jax":
        run = in_jax(case, request["which"])
    else:
        run = in_torch(case, request["which"], name == "compile")
    made: list[object] = []
    once(lambda: made.extend(run()))
    first = time.perf_counter() - begin
    arrays = [np.asarray(a) for a in made]
    shown = arrays if sum(a.nbytes for a in arrays) <= SHOWN else []
    for i, array in enumerate(shown):
        np.save(Path(request["folder"], f"{i}.npy"), array)
    return run, {"first": first, "results": len(shown)}


if __name__ == "__main__":
    serve(lambda request: ready(sys.argv[1], request))
