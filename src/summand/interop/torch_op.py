"""The one operator behind `summand.torch`: summand::run(str program, Tensor[] xs, float[] numbers).

PyTorch's dispatcher sees a program by its text, so graphs that torch.compile and torch.export make
are complete in themselves. Its derivative is the same operator with another program, so backward
can be differentiated, mapped and compiled like forward:

    run(p, xs, numbers)   backward:   run(gradient of p, read of xs + cotangents, numbers)

The autograd kernel is registered by hand: `torch.library.register_autograd` takes three times as
long for lists of tensors, and refuses `torch.func.grad`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from summand.errors import DerivativeError
from summand.interop.torch_programs import Operation, find


class Context(Protocol):
    """What PyTorch keeps of a call for its derivatives, with our own fields."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]
    operation: Operation
    program: str
    numbers: Sequence[float]
    reads: tuple[int, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for `saved_tensors`, with their versions."""

    def save_for_forward(self, *tensors: Tensor) -> None:
        """Keep tensors for `jvp`."""

    def set_materialize_grads(self, value: bool) -> None:
        """Whether cotangents that are zero come as tensors."""


class Keys(Protocol):
    """A set of dispatch keys."""

    def __and__(self, other: Keys) -> Keys: ...


class VmapInfo(Protocol):
    """What torch.func.vmap tells of itself."""

    batch_size: int


_library = torch.library.Library("summand", "DEF")
_library.define("run(str program, Tensor[] xs, float[] numbers) -> Tensor[]")
run = torch.ops.summand.run.default


def _cpu(program: str, xs: Sequence[Tensor], numbers: Sequence[float]) -> list[Tensor]:
    return find(program).run(xs, numbers)


def _fake(program: str, xs: Sequence[Tensor], numbers: Sequence[float]) -> list[Tensor]:
    """Results without numbers, for torch.compile. Sizes are those of the program."""
    operation = find(program)
    operation.check(xs, numbers)
    return [torch.empty(shape, dtype=dtype) for dtype, shape in operation.gives]


def _mapped(
    info: VmapInfo,
    axes: tuple[None, Sequence[int | None], Sequence[None]],
    program: str,
    xs: Sequence[Tensor],
    numbers: Sequence[float],
) -> tuple[list[Tensor], list[int | None]]:
    """torch.func.vmap: the same program with a further dim."""
    operation = find(program)
    wide = operation.batched(axes[1], info.batch_size)
    out = run(wide.spelled_like(program), xs, numbers)
    pairs = zip(wide.kernel.results, operation.kernel.results)
    return out, [0 if len(new) > len(old) else None for new, old in pairs]


# ---- derivatives


def _forward(
    ctx: Context, keyset: Keys, program: str, numbers: Sequence[float], *xs: Tensor
) -> tuple[Tensor, ...]:
    if torch._C._are_functorch_transforms_active():  # the levels below record this call, too
        with torch.enable_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(True):
            out = _below(keyset, program, list(xs), numbers)
    else:
        out = _below(keyset, program, list(xs), numbers)
    operation = find(program)
    wrt = _positions(ctx.needs_input_grad[3:])
    reads = _reads(operation, wrt)
    ctx.operation, ctx.program, ctx.numbers, ctx.reads = operation, program, numbers, reads
    ctx.save_for_backward(*(xs[n] for n in reads))
    if _has_tangents():
        ctx.save_for_forward(*xs)
    ctx.set_materialize_grads(False)
    return tuple(out)


def _reads(operation: Operation, wrt: tuple[int, ...]) -> tuple[int, ...]:
    """The tensors that backward reads; all of them where it will raise that there is none."""
    try:
        return operation.gradient(wrt, operation.kernel.inexact_results)[1]
    except DerivativeError:
        return tuple(range(operation.tensors))


def _backward(ctx: Context, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    wrt = _positions(ctx.needs_input_grad[3:])
    seeds = tuple(n for n in ctx.operation.kernel.inexact_results if cotangents[n] is not None)
    gradients: list[Tensor | None] = [None] * (len(ctx.needs_input_grad) - 3)
    if wrt and seeds:
        pulled, reads = ctx.operation.gradient(wrt, seeds)
        saved = dict(zip(ctx.reads, ctx.saved_tensors, strict=True))
        given = [*(saved[n] for n in reads), *(cotangents[n] for n in seeds)]
        found = run(pulled.spelled_like(ctx.program), given, ctx.numbers)
        for n, gradient in zip(wrt, found, strict=True):
            gradients[n] = gradient
    return (None, None, None, *gradients)


def _push(ctx: Context, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """Forward mode: tangents of the results, None where they have none."""
    given = tangents[3:]
    wrt = tuple(n for n, tangent in enumerate(given) if tangent is not None)
    pushed = ctx.operation.tangent(wrt)
    found = run(
        pushed.spelled_like(ctx.program),
        [*ctx.saved_tensors, *(given[n] for n in wrt)],
        ctx.numbers,
    )
    out: list[Tensor | None] = [None] * len(ctx.operation.gives)
    for n, tangent in zip(ctx.operation.kernel.inexact_results, found, strict=True):
        out[n] = tangent
    return tuple(out)


def _positions(flags: Sequence[bool]) -> tuple[int, ...]:
    return tuple(n for n, flag in enumerate(flags) if flag)


class _Summand(_SingleLevelFunction):  # type: ignore[misc]  # torch is untyped here
    """The call as a node of autograd's graph; its name is what error messages show."""

    forward = staticmethod(_forward)
    backward = staticmethod(_backward)
    jvp = staticmethod(_push)


def _autograd(
    keyset: Keys, program: str, xs: Sequence[Tensor], numbers: Sequence[float]
) -> list[Tensor]:
    """Note what backward needs, where anything needs it; under torch.func, once for each level."""
    needed = torch.is_grad_enabled() and any(x.requires_grad for x in xs)
    if not needed and not _has_tangents():
        return _below(keyset, program, xs, numbers)
    if torch._C._are_functorch_transforms_active():
        with enable_single_level_autograd_function():
            return list(_Summand.apply(keyset, program, numbers, *xs))
    return list(_Summand.apply(keyset, program, numbers, *xs))


def _has_tangents() -> bool:
    """True inside forward-mode differentiation."""
    return bool(torch.autograd.forward_ad._current_level >= 0)


def _below(
    keyset: Keys, program: str, xs: Sequence[Tensor], numbers: Sequence[float]
) -> list[Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        below = keyset & torch._C._after_autograd_keyset
        return cast("list[Tensor]", run.redispatch(below, program, xs, numbers))


_library.impl("run", _cpu, "CPU")
_library.impl("run", _autograd, "Autograd", with_keyset=True)
torch.library.register_fake("summand::run", _fake, lib=_library)
torch.library.register_vmap("summand::run", _mapped, lib=_library)
