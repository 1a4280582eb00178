"""Summand inside JAX: functions that jit, grad, jvp, vmap, scan and checkpoint hold (CPU).

    import summand as sm, summand.jax as smj

    @smj.function(x=(n, k), w=(k, j), out=(n, j))
    def layer(x, w):
        return sm.max[k](x + w)

    jax.jit(jax.grad(lambda x, w: layer(x, w).sum()))(x, w)

Needs the extra `summand[jax]`. See docs/jax.md.
"""

from summand.errors import MissingExtra

try:
    from summand.interop.jax_function import Function, array, function
except ModuleNotFoundError as error:
    if error.name not in ("jax", "jaxlib"):
        raise
    raise MissingExtra('summand.jax needs JAX\nInstall it: pip install "summand[jax]".') from error

__all__ = ["Function", "array", "function"]
