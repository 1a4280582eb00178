"""A peer in a process of its own, which may crash or hang without ending the benchmark.

    with PeerProcess("torch") as peer:
        first, arrays = peer.start(job)       seconds of the first call, and what it computed
        peer.runs(0.4)                        seconds of runs that take about so long in all

Both ends speak lines of JSON. A process lives from row to row, until it fails.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Thunk, here, once
from summand.runtime import machine

from .case import Case, make
from .perturb import perturbed
from .row import Pass
from .rows import every_row

PEERS = ("torch", "compile", "jax")
PACKAGES = {"torch": "torch", "compile": "torch", "jax": "jax"}
COMMAND = ("-m", "benchmarks.offroad.peer")
SHOWN = 1 << 28  # bytes of results that are handed back to be checked


class PeerError(Exception):
    """A peer that crashed, hangs, or cannot run a row."""


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


class PeerProcess:
    """One peer, started when it is first needed and again after a failure."""

    def __init__(self, name: str, patience: float) -> None:
        self.name = name
        self.patience = patience
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, job: Job) -> tuple[float, list[np.ndarray]]:
        """Make a row ready: seconds of the first call, and its results (none where too large)."""
        with tempfile.TemporaryDirectory() as folder:
            asked = {"row": job.row, "which": job.which, "seed": job.seed, "folder": folder}
            answer = self._ask(asked)
            arrays = [np.load(Path(folder, f"{i}.npy")) for i in range(answer["results"])]
        return answer["first"], arrays

    def runs(self, budget: float) -> tuple[float, ...]:
        """A contestant of `take_turns`."""
        return tuple(self._ask({"budget": budget})["seconds"])

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self, request: dict[str, object]) -> dict:
        if self._process is None:
            command = [sys.executable, *COMMAND, self.name]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = json.loads(self._line())
        except (OSError, PeerError) as failure:
            self.stop()
            raise PeerError(str(failure)) from None
        if "failed" in answer:
            raise PeerError(answer["failed"])
        return answer

    def _line(self) -> str:
        process = self._process
        assert process is not None and process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self.patience):
                raise PeerError(f"no answer in {self.patience:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise PeerError(f"crashed (exit status {process.wait()})")
        return line


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


def _serve(name: str) -> None:
    """Answer requests until the pipe closes. What libraries print goes to stderr.

    The peer gets as many processors as we have threads.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-machine.threads() :])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run: Thunk = lambda: None  # noqa: E731
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "budget" in request:
                answer: dict[str, object] = {"seconds": here(run)(request["budget"])}
            else:
                run, answer = _ready(name, request)
        except Exception as failure:
            answer = {"failed": f"{type(failure).__name__}: {failure}"[:300]}
        print(json.dumps(answer), file=replies, flush=True)


def _ready(name: str, request: dict) -> tuple[Thunk, dict[str, object]]:
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
    _serve(sys.argv[1])
