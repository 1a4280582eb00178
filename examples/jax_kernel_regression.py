"""Kernel regression on 20,000 points in JAX: fitted by optax, summed by Summand.

    python examples/jax_kernel_regression.py                     # Summand's kernel sums
    python examples/jax_kernel_regression.py --kernel jax        # the plain JAX version
    python examples/jax_kernel_regression.py --compare           # both: losses and seconds a step

The model is f(x) = Σⱼ aⱼ exp(-½‖(x - xⱼ) / ℓ‖²) / n with one weight for each point and one width ℓ
for each feature, all of them fitted by Adam to squared errors with a ridge penalty. Plain JAX needs
the matrix of all pairs (1.6 GB for 20,000 points, several times over in its gradient); Summand adds
up each sum as it goes, forward and backward, and has at most a few megabytes of it at any time.

The data are scikit-learn's 442 diabetes patients, four fifths of them resampled with noise.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import summand as sm
import summand.jax as smj

ROWS = 2000  # points whose sums are computed at once: their part of a tile stays in the cache
RIDGE = 1e-4

j, d = sm.dims("j d")


@smj.function(x=(d,), points=(j, d), weights=(j,), out=())
def at_a_point(x, points, weights):
    return sm.sum[j](sm.exp(-0.5 * sm.sum[d]((x - points) ** 2)) * weights)


def summed_by_summand(x, points, weights):
    return jax.lax.map(lambda one: at_a_point(one, points, weights), x, batch_size=ROWS)


def summed_by_jax(x, points, weights):
    squares = (x**2).sum(1)[:, None] + (points**2).sum(1) - 2 * x @ points.T
    return jnp.exp(-0.5 * squares) @ weights


KERNELS = {"summand": summed_by_summand, "jax": summed_by_jax}


def predict(kernel_sum, params, x, points):
    scale = jnp.exp(params["scale"])
    return kernel_sum(x * scale, points * scale, params["weights"]) / len(points)


def loss(kernel_sum, params, x, y):
    found = predict(kernel_sum, params, x, x)
    return jnp.mean((found - y) ** 2) + RIDGE * jnp.mean(params["weights"] * found)


def data(count, seed):
    """Training points (resampled with noise), and patients that were held out."""
    x, y = load_diabetes(return_X_y=True)
    x, y = x / x.std(0), (y - y.mean()) / y.std()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    held_out, kept = order[: len(x) // 5], order[len(x) // 5 :]
    chosen = rng.choice(kept, count)
    more = x[chosen] + 0.1 * rng.normal(size=(count, x.shape[1]))
    arrays = (more, y[chosen], x[held_out], y[held_out])
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def fit(name, x, y, steps):
    """Losses and seconds of each step, and the parameters."""
    params = {"weights": jnp.zeros(len(x)), "scale": jnp.full(x.shape[1], -1.0)}
    optimizer = optax.adam(0.05)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(partial(loss, KERNELS[name]))(params, x, y)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    compiled = step.lower(params, state).compile()
    losses, seconds = [], []
    for _ in range(steps):
        began = time.perf_counter()
        params, state, value = jax.block_until_ready(compiled(params, state))
        seconds.append(time.perf_counter() - began)
        losses.append(float(value))
    return params, losses, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", choices=KERNELS, default="summand")
    parser.add_argument("--compare", action="store_true", help="fit both ways and compare")
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    x, y, x_test, y_test = data(given.points, given.seed)
    least = {}
    for name in KERNELS if given.compare else (given.kernel,):
        params, losses, seconds = fit(name, x, y, given.steps)
        least[name] = min(seconds)
        found = predict(KERNELS[name], params, x_test, x)
        explained = 1 - jnp.mean((found - y_test) ** 2) / jnp.var(y_test)
        print(f"{name:8} loss {losses[0]:.4f} -> {losses[-1]:.4f}", end="   ")
        print(f"held out: {explained:.0%} of the variance explained", end="   ")
        print(f"{np.median(seconds):.3f} s a step (least {least[name]:.3f})")
    if given.compare:
        print(f"Summand is {least['jax'] / least['summand']:.1f} times as fast")


if __name__ == "__main__":
    main()
