"""Contestants in processes of their own, which may crash or hang without ending the benchmark.

    with Process("torch", ("-m", "benchmarks.core.peer", "torch"), patience=90) as process:
        process.ready({"key": "caps_fwd"})    the answer of the other end, after one run
        process.runs(0.4)                     seconds of runs that take about so long in all

Both ends speak lines of JSON; the other end is `serve(ready)`. A process lives from request to
request, until it fails. What it imports, spins on and allocates is nobody else's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import subprocess
import sys
from collections.abc import Callable

from benchmarks.harness import Contestant, Thunk, here
from summand.runtime import machine

Answer = dict[str, object]


class ProcessError(Exception):
    """A contestant that crashed, hangs, or cannot run what it is asked for."""


class Process:
    """A contestant, started when it is first needed and again after a failure."""

    def __init__(self, name: str, arguments: tuple[str, ...], patience: float) -> None:
        self.name = name
        self.patience = patience
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ready(self, request: Answer) -> Answer:
        """Make something ready and run it once."""
        return self._ask(request)

    def runs(self, budget: float) -> tuple[float, ...]:
        """A contestant of `take_turns`."""
        return tuple(self._ask({"budget": budget})["seconds"])  # type: ignore[arg-type]

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self, request: Answer) -> Answer:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer: Answer = json.loads(self._line(self._process))
        except (OSError, ProcessError) as failure:
            self.stop()
            raise ProcessError(str(failure)) from None
        if "failed" in answer:
            raise ProcessError(str(answer["failed"]))
        return answer

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self.patience):
                raise ProcessError(f"no answer in {self.patience:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise ProcessError(f"crashed (exit status {process.wait()})")
        return line


def guarded(process: Process, failed: dict[str, str]) -> Contestant:
    """A contestant that takes no further part once it fails, which `failed` then tells."""

    def runs(budget: float) -> tuple[float, ...]:
        if process.name not in failed:
            with contextlib.suppress(ProcessError):
                return process.runs(budget)
            failed[process.name] = "failed while it was measured"
        return (math.inf,)

    return runs


def serve(ready: Callable[[Answer], tuple[Thunk, Answer]]) -> None:
    """The other end: answer requests until the pipe closes. What libraries print goes to stderr.

    The process gets as many processors as we have threads.
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
                answer: Answer = {"seconds": here(run)(request["budget"])}
            else:
                run, answer = ready(request)
        except Exception as failure:
            answer = {"failed": f"{type(failure).__name__}: {failure}"[:300]}
        print(json.dumps(answer), file=replies, flush=True)
