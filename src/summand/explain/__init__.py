"""What the compiler decided about a function, and what each kernel costs.

    print(explain(f, (x, w)))        text: loops, layouts, flops, bytes, bounds; times with run=True
    profile(f, (x, w)).kernels       the same numbers, for each kernel

Both take a function made by `jit`, or any function, and arguments for it.
"""

from summand.explain.profile import KernelTime, Profile, profile
from summand.explain.report import explain

__all__ = ["KernelTime", "Profile", "explain", "profile"]
