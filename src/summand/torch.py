"""Summand inside PyTorch: functions of tensors, written in index notation.

import summand as sm
import summand.torch as smt

n, k, j = sm.dims("n k j")


@smt.function(x=(n, k), w=(k, j), out=(n, j))
def max_plus(x, w):
    return sm.max[k](x + w)


max_plus(x, w)      an operator of PyTorch: autograd, torch.compile, torch.func, DDP
"""

from summand.errors import MissingExtra

try:
    import torch as _torch  # noqa: F401
except ImportError as _error:
    raise MissingExtra(
        "summand.torch needs PyTorch, which is not installed\n"
        "Install it: pip install 'summand[torch]'"
    ) from _error

from summand.interop.torch_function import array, function

__all__ = ["array", "function"]
