"""What a call from JAX costs: through XLA's FFI, through a Python callback, and JAX's own.

python -m benchmarks.jax_calls      prints microseconds, the least of many runs
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import summand as sm
import summand.jax as smj

CALLS, RUNS = 300, 40

i, k, j = sm.dims("i k j")


def program(a, b):
    return sm.sum[k](sm.exp(a) * b)


function = smj.function(a=(i, k), b=(k, j), out=(i, j))(program)


def least(call):
    """The least seconds of a call, over many runs of many calls."""
    jax.block_until_ready(call())
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(CALLS):
            jax.block_until_ready(call())
        found.append((time.perf_counter() - began) / CALLS)
    return min(found)


def main():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((4, 8), (8, 4)))
    named = sm.array(a, i, k), sm.array(b, k, j)
    native = sm.jit(program)
    shape = jax.ShapeDtypeStruct((4, 4), np.float32)

    def back(a, b):
        return native(sm.array(np.asarray(a), i, k), sm.array(np.asarray(b), k, j)).numpy(i, j)

    callback = jax.jit(lambda a, b: jax.pure_callback(back, shape, a, b))
    plain = jax.jit(lambda a, b: jnp.exp(a) @ b)
    inside = jax.jit(function)
    a, b = jnp.asarray(a), jnp.asarray(b)
    rows = {
        "a function of summand.jax": lambda: function(a, b),
        "the same, keywords and constants": lambda: function(a, b=b),
        "the same under jax.jit": lambda: inside(a, b),
        "through jax.pure_callback": lambda: callback(a, b),
        "jax.jit alone": lambda: plain(a, b),
        "sm.jit": lambda: native(*named),
    }
    for name, call in rows.items():
        print(f"{name:34} {least(call) * 1e6:7.1f} µs")


if __name__ == "__main__":
    main()
