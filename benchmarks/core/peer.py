"""The other end of a peer's process: a key of the benchmark in PyTorch (eager, compiled) or JAX.

python -m benchmarks.core.peer torch|compile|jax      answers requests, as `processes.serve` does
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from benchmarks.harness import Contestant, Thunk, once
from benchmarks.processes import Answer, Process, ProcessError, guarded, serve

from . import demo_step
from .programs import CASES

PACKAGES = {"torch": "torch", "compile": "torch", "jax": "jax"}
PATIENCE = 300.0  # seconds that a call may take: PyTorch compiles the demo's step for minutes


@contextmanager
def contestants(key: str, failed: dict[str, str]) -> Iterator[dict[str, Contestant]]:
    """The installed peers of a key, each in a process of its own while the context lasts.

    One that crashes or cannot run it is left out, and `failed` says why: torch.compile 2.13
    crashes in the backward pass of the demo's network on some machines.
    """
    with ExitStack() as stack:
        found: dict[str, Contestant] = {}
        for name, package in PACKAGES.items():
            if not find_spec(package):
                continue
            command = ("-m", "benchmarks.core.peer", name)
            process = stack.enter_context(Process(name, command, PATIENCE))
            try:
                answer = process.ready({"key": key})
            except ProcessError as failure:
                failed[name] = str(failure)
                continue
            if answer["known"]:
                found[name] = guarded(process, failed)
        yield found


def formulation(name: str, key: str) -> Thunk | None:
    """A key in this process's system, or None where it has none."""
    if key == "demo_step":
        return demo_step.peer(name)
    arrays = [a.values for a in CASES[key]().inputs]
    if name == "jax":
        from . import peers_jax

        return peers_jax.peer(key, arrays)
    from . import peers_torch

    return peers_torch.peer(key, arrays, compiled=name == "compile")


def ready(name: str, request: Answer) -> tuple[Thunk, Answer]:
    """Make a key ready and run it a few times: crashes show here."""
    run = formulation(name, str(request["key"]))
    if run is None:
        return (lambda: None), {"known": False}
    for _ in range(3):
        once(run)
    return run, {"known": True}


if __name__ == "__main__":
    serve(lambda request: ready(sys.argv[1], request))
