"""One row of the core benchmark: what is run, against which limit, and whether the bar is met."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import summand as sm
from benchmarks.harness import (
    Limit,
    Thunk,
    Timing,
    copy_bandwidth,
    fma_peak,
    here,
    take_turns,
)

from . import compile_times, demo_step
from .peer import contestants
from .programs import CASES, Case


@dataclass(frozen=True, slots=True)
class Bar:
    """What a key must reach: `kind` says how its value is computed."""

    kind: str
    bar: float
    at_least: bool = True


BARS = {
    "caps_fwd": Bar("fma", 0.88),
    "caps_dP": Bar("fma", 0.85),
    "caps_dW": Bar("fma", 0.78),
    "matmul_1024": Bar("fma", 0.90),
    "conv_nhwc": Bar("fma", 0.90),
    "max_plus_fwd": Bar("fma", 0.85),
    "max_plus_grad": Bar("over_forward", 4.0, at_least=False),
    "gauss_sum": Bar("fma", 0.7),
    "softmax_row": Bar("copy", 0.8),
    "softmax_col": Bar("copy", 0.4),
    "chain": Bar("copy", 0.85),
    "attention_fwd": Bar("fma", 0.65),
    "attention_grad": Bar("fma", 0.6),
    "scan_fwd": Bar("jax", 5.0),
    "scan_grad": Bar("jax", 10.0),
    "em_routing": Bar("compile", 2.0),
    "demo_step": Bar("demo", 2.0),
    "compile_kernel": Bar("cold", 300.0, at_least=False),
    "compile_demo": Bar("cold", 6000.0, at_least=False),
    "call": Bar("microseconds", 20.0, at_least=False),
}


@dataclass(slots=True)
class Row:
    """A measured key."""

    key: str
    value: float
    unit: str
    bar: float
    at_least: bool
    median_ms: float
    spread: float
    limit: float = 0.0
    limit_text: str = ""
    peers: dict[str, dict[str, float]] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    disturbed: bool = False  # the machine was never at its usual speed

    @property
    def met(self) -> bool:
        """Whether the value reaches the bar (and what `extra` bounds holds)."""
        reached = self.value >= self.bar if self.at_least else self.value <= self.bar
        return reached and self.extra.get("within", 1.0) == 1.0

    def record(self) -> dict[str, object]:
        """As written to JSON."""
        return {
            "value": self.value,
            "unit": self.unit,
            "bar": self.bar,
            "met": self.met,
            "limit": self.limit,
            "limit_unit": self.limit_text,
            "median_ms": self.median_ms,
            "spread": self.spread,
            "disturbed": self.disturbed,
            "peers": self.peers,
            **self.extra,
        }


def runner(compiled: Callable[..., object], case: Case) -> Thunk:
    """Run a compiled case to its end."""
    arguments = case.arguments()
    return lambda: sm.evaluate(compiled(*arguments))


def measure(key: str, rounds: int) -> Row:
    """Run one key."""
    kind = BARS[key].kind
    if kind == "cold":
        return _compile(key)
    if kind == "demo":
        return _demo(key, rounds)
    case = CASES[key]()
    compiled = sm.jit(case.function)
    ours = {"summand": runner(compiled, case)}
    if kind == "over_forward":
        forward = CASES["max_plus_fwd"]()
        ours["forward"] = runner(sm.jit(forward.function), forward)
    limit = copy_bandwidth if kind == "copy" else fma_peak
    if kind == "microseconds":
        return _call(key, ours["summand"])
    timings = _in_turns(key, ours, limit, rounds)
    return _row(key, case, timings, compiled)


def _in_turns(
    key: str, ours: dict[str, Thunk], limit: Limit, rounds: int, budget: float = 0.4
) -> dict[str, Timing]:
    """Times of what runs here and of the peers, which run in processes of their own."""
    failed: dict[str, str] = {}
    with contestants(key, failed) as peers:
        mine = {name: here(run) for name, run in ours.items()}
        timings = take_turns({**mine, **peers}, limit, rounds, budget)
    for name, why in failed.items():
        print(f"{key}: {name} fails on this machine ({why}); left out")
    return {name: t for name, t in timings.items() if name not in failed}


def _row(key: str, case: Case, timings: dict[str, Timing], compiled: Callable[..., object]) -> Row:
    bar = BARS[key]
    ours = timings.pop("summand")
    unit, text, extra = "of FMA peak", f"{ours.limit:.0f} GFLOP/s", {}
    match bar.kind:
        case "fma":
            value = ours.fraction(2 * case.slots)
        case "copy":
            value = ours.fraction(case.bytes)
            unit, text = "of copy bandwidth", f"{ours.limit:.1f} GB/s"
        case "over_forward":
            value = ours.median / timings.pop("forward").median
            unit = "× forward"
        case peer:
            unit = f"× faster than {peer}"
            value = timings[peer].median / ours.median if peer in timings else float("nan")
    if key == "gauss_sum":
        scratch = compiled.peak_bytes(*case.arguments())
        extra = {"bytes_over_arguments": scratch, "within": float(scratch < 4e6)}
    return Row(
        key,
        value,
        unit,
        bar.bar,
        bar.at_least,
        ours.median * 1e3,
        ours.spread,
        ours.limit,
        text,
        {name: t.record() for name, t in timings.items()},
        extra,
        ours.disturbed,
    )


def _call(key: str, run: Thunk) -> Row:
    run()
    times = Timing()
    for _ in range(20):
        time.sleep(0.01)
        begin = time.perf_counter()
        for _ in range(200):
            run()
        times.seconds.append((time.perf_counter() - begin) / 200)
    bar = BARS[key]
    value = times.median * 1e6
    return Row(key, value, "µs", bar.bar, False, times.median * 1e3, times.spread)


def _compile(key: str) -> Row:
    cold, warm = compile_times.measure(key)
    bar = BARS[key]
    ratio = warm.median / cold.median
    return Row(
        key,
        cold.median * 1e3,
        "ms cold",
        bar.bar,
        False,
        cold.median * 1e3,
        cold.spread,
        extra={"warm_ms": warm.median * 1e3, "warm_ratio": ratio, "within": float(ratio <= 0.1)},
    )


def _demo(key: str, rounds: int) -> Row:
    timings = _in_turns(key, {"summand": demo_step.ours()}, fma_peak, rounds, budget=1.5)
    ours = timings.pop("summand")
    fastest = min((t.median for t in timings.values()), default=float("nan"))
    bar = BARS[key]
    return Row(
        key,
        fastest / ours.median,
        "× faster than the fastest peer",
        bar.bar,
        True,
        ours.median * 1e3,
        ours.spread,
        ours.limit,
        f"{ours.limit:.0f} GFLOP/s",
        {name: t.record() for name, t in timings.items()},
        disturbed=ours.disturbed,
    )
