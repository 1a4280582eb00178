"""Summand's functions under JAX's transforms."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import summand as sm
from tests.interop.jax_programs import PROGRAMS

jax = pytest.importorskip("jax", reason="JAX is needed: pip install summand[jax]")
jnp = jax.numpy
check_grads = pytest.importorskip("jax.test_util").check_grads
smj = pytest.importorskip("summand.jax")
xla = pytest.importorskip("summand.interop.xla")

n, i, k, j, t = sm.dims("n i k j t")


@contextmanager
def wide(on=True):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", on)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture(autouse=True)
def always_wide():
    with wide():
        yield


def given(program):
    function = smj.function(out=program.out, **program.inputs)(program.function)
    return function, [jnp.asarray(a) for a in program.arrays]


def of_inexact(program, function, arrays):
    """The function of its float arguments, with its float results only."""

    def reduced(*chosen):
        own = list(arrays)
        for place, x in zip(program.inexact, chosen, strict=True):
            own[place] = x
        leaves = jax.tree.leaves(function(*own))
        return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]

    return reduced, [arrays[p] for p in program.inexact]


def native(program):
    """What Summand itself gives, as arrays in the order of the leaves of `out`."""
    named = [
        sm.array(a, *dims) for a, dims in zip(program.arrays, program.inputs.values(), strict=True)
    ]
    results = jax.tree.leaves(
        sm.jit(program.function)(*named), is_leaf=lambda x: isinstance(x, sm.Array)
    )
    dims = jax.tree.leaves(program.out, is_leaf=smj_is_dims)
    return [r.numpy(*d) for r, d in zip(results, dims, strict=True)]


def smj_is_dims(x):
    return isinstance(x, tuple) and all(isinstance(d, sm.Dim) for d in x)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_numbers_eager_and_compiled(name):
    program = PROGRAMS[name]
    function, arrays = given(program)
    eager = jax.tree.leaves(function(*arrays))
    compiled = jax.tree.leaves(jax.jit(function)(*arrays))
    shapes = jax.tree.leaves(jax.eval_shape(function, *arrays))
    for ours, jitted, shape, wanted in zip(eager, compiled, shapes, native(program), strict=True):
        np.testing.assert_array_equal(ours, wanted)
        np.testing.assert_array_equal(ours, jitted)
        assert (shape.shape, shape.dtype) == (ours.shape, ours.dtype)


@pytest.mark.parametrize("name", PROGRAMS)
def test_derivatives_to_second_order(name):
    program = PROGRAMS[name]
    reduced, arrays = of_inexact(program, *given(program))
    check_grads(reduced, arrays, order=2, atol=1e-5, rtol=1e-5, eps=1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_extra_axis_of_every_argument(name):
    program = PROGRAMS[name]
    reduced, arrays = of_inexact(program, *given(program))
    many = [jnp.stack([a, 2 * a, a + 1], axis=a.ndim) for a in arrays]

    def gradient(*chosen):
        return jax.grad(lambda *a: sum(jnp.sum(abs(x) ** 2) for x in reduced(*a)))(*chosen)

    found = jax.vmap(lambda *a: (reduced(*a), gradient(*a)), in_axes=-1)(*many)
    for place in range(3):
        alone = (lambda *a: (reduced(*a), gradient(*a)))(*(m[..., place] for m in many))
        for ours, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours[place], wanted, rtol=1e-10, atol=1e-10)


# ---- transforms of JAX around it


@smj.function(a=(i, k), b=(k, j), out=(i, j))
def layer(a, b, scale=1.0, *, power=1, act="tanh"):
    act = {"tanh": sm.tanh, "sin": sm.sin}[act]
    return act(sm.sum[k](a * b) * scale) ** power


with wide():
    A, B = (jnp.asarray(np.random.default_rng(1).normal(size=s)) for s in ((3, 4), (4, 4)))


def reference(a, b, scale=1.0):
    return jnp.tanh(a @ b * scale)


def close(ours, wanted):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


def both(use):
    return use(layer), use(reference)


USES = {
    "jit": lambda f: jax.jit(f)(A, B),
    "grad": lambda f: jax.grad(lambda a, b: f(a, b).sum(), (0, 1))(A, B),
    "jit of grad": lambda f: jax.jit(jax.grad(lambda b: f(A, b).sum()))(B),
    "grad by a float": lambda f: jax.grad(lambda s: f(A, B, s).sum())(1.5),
    "jvp": lambda f: jax.jvp(f, (A, B), (A * 2, B + 1)),
    "linearize": lambda f: jax.linearize(f, A, B)[1](A * 2, B + 1),
    "jacfwd": lambda f: jax.jacfwd(f)(A, B),
    "jacrev": lambda f: jax.jacrev(f, 1)(A, B),
    "hessian": lambda f: jax.hessian(lambda b: (f(A, b) ** 2).sum())(B),
    "third order": lambda f: jax.grad(
        lambda s: jax.grad(lambda s: jax.grad(lambda s: f(A, B, s).sum())(s))(s)
    )(1.5),
    "vmap": lambda f: jax.vmap(f, (None, 2))(A, jnp.stack([B, B + 1], 2)),
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda b: f(A, b).sum()))(jnp.stack([B, -B])),
    "grad of vmap": lambda f: jax.grad(
        lambda b: (jax.vmap(f, (0, None))(jnp.stack([A, -A]), b) ** 2).sum()
    )(B),
    "vmap of vmap": lambda f: jax.vmap(jax.vmap(f, (0, None)), (None, 0))(
        jnp.stack([A, -A]), jnp.stack([B, B + 1, B * 2])
    ),
    "scan": lambda f: jax.grad(
        lambda b: jax.lax.scan(lambda c, x: (f(c, b) + x, c.sum()), A, jnp.ones(5))[0].sum()
    )(B),
    "checkpoint": lambda f: jax.grad(lambda b: jax.checkpoint(f)(jax.checkpoint(f)(A, b), b).sum())(
        B
    ),
    "while": lambda f: jax.lax.fori_loop(0, 3, lambda _, a: f(a, B), A),
    "cond": lambda f: jax.grad(lambda b: jax.lax.cond(True, f, lambda a, b: a, A, b).sum())(B),
    "eval_shape": lambda f: np.array(jax.eval_shape(f, A, B).shape),
    "disable_jit": lambda f: _without_jit(f),
    "numpy arrays": lambda f: f(np.asarray(A), np.asarray(B)),
    "reversed memory": lambda f: f(np.asarray(A)[::-1], np.asarray(B).T),
    "linear_transpose": lambda f: jax.vjp(lambda b: f(A, b), B)[1](A),
}


def _without_jit(f):
    with jax.disable_jit():
        return f(A, B)


@pytest.mark.parametrize("name", USES)
def test_transforms(name):
    close(*both(USES[name]))


def test_transposing_a_linear_function():
    @smj.function(a=(i, k), out=(i,))
    def rows(a):
        return 3 * sm.sum[k](a)

    close(jax.linear_transpose(rows, A)(jnp.ones(3)), [jnp.full((3, 4), 3.0)])
    both = jax.linear_transpose(jax.vmap(rows), jnp.stack([A, A]))(jnp.ones((2, 3)))
    close(both, [jnp.full((2, 3, 4), 3.0)])


def test_backward_keeps_no_more_than_it_reads():
    @smj.function(a=(i, k), b=(k, j), out=(i, j))
    def matmul(a, b):
        return sm.sum[k](a * b)

    jaxpr = jax.make_jaxpr(jax.grad(lambda a: matmul(a, B).sum()))(A)
    inner = [e for e in jaxpr.eqns if "jaxpr" in e.params][-1]
    assert len(inner.invars) == 2  # b and the cotangent, not a


def test_constants_and_keywords():
    close(layer(A, B, 2.0, power=3, act="sin"), jnp.sin(A @ B * 2) ** 3)
    close(layer(a=A, b=B, power=2), jnp.tanh(A @ B) ** 2)


def test_pytrees_methods_and_none():
    class Affine:
        @smj.function(p={"w": (k, j), "b": (j,)}, x=(i, k), bias=(j,), out={"y": (i, j)})
        def __call__(self, p, x, bias=None):
            y = sm.sum[k](x * p["w"]) + p["b"]
            return {"y": y if bias is None else y + bias}

    p = {"w": B, "b": B[0]}
    close(Affine()(p, A), {"y": A @ B + B[0]})
    close(Affine()(p, A, B[1]), {"y": A @ B + B[0] + B[1]})
    grads = jax.grad(lambda p: Affine()(p, A)["y"].sum())(p)
    close(grads["b"], jnp.full(4, 3.0))


def test_closed_over_arrays_have_gradients():
    def loss(b):
        @smj.function(a=(i, k), out=(i, j))
        def inner(a):
            named = smj.array(b, k, j)
            return sm.sum[k](a * named) + sm.sum[k](smj.array(b, k, j))

        return (inner(A) ** 2).sum()

    close(jax.grad(loss)(B), jax.grad(lambda b: ((A @ b + b.sum(0)) ** 2).sum())(B))
    close(jax.jit(jax.grad(loss))(B), jax.grad(loss)(B))


def test_arrays_of_summand_are_constants():
    table = sm.array(np.asarray(B), k, j) * 2

    @smj.function(a=(i, k), out=(i, j))
    def inner(a):
        return sm.sum[k](a * table)

    close(jax.jit(inner)(A), A @ (2 * B))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8", "int32", "bool"])
def test_element_types(dtype):
    @smj.function(a=(i, k), out=(k, i))
    def same(a):
        return sm.where(a == a, a, a)

    x = jnp.asarray([[1, 0, 2], [0, 0, 1]]).astype(dtype)
    assert same(x).dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(same(x)), np.asarray(x).T)
    with jax.disable_jit():
        assert same(x).dtype == x.dtype


def test_weak_numbers_keep_the_type_of_arrays():
    single = layer(A.astype(jnp.float32), B.astype(jnp.float32), 2.0)
    assert single.dtype == jnp.float32


def test_empty_arrays():
    close(layer(A[:, :0], B[:0]), jnp.zeros((3, 4)))
    assert layer(A[:0], B).shape == (0, 4)


def test_calls_of_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    big = jnp.asarray(np.random.default_rng(2).normal(size=(64, 64)))
    wanted = np.asarray(layer(big, big))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: np.asarray(layer(big, big)), range(64)):
            np.testing.assert_array_equal(found, wanted)


def test_nothing_is_copied():
    """A buffer of half a gigabyte is read, and one number comes back."""

    @smj.function(a=(i,), out=())
    def first(a):
        return a[i:0] + a[i:-1]

    big = jnp.zeros(1 << 26, jnp.float32)
    compiled = jax.jit(first).lower(big).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 1 << 20


def test_kernel_sums_are_no_matrix():
    """Neither the sums over all pairs nor their gradients hold a number for each pair."""

    @smj.function(x=(i, k), z=(j, k), a=(j,), out=(i,))
    def gauss(x, z, a):
        return sm.sum[j](sm.exp(-sm.sum[k]((x - z) ** 2)) * a)

    x, a = jnp.ones((3000, 3), jnp.float32), jnp.ones(3000, jnp.float32)
    before = set(xla._REGISTRY.known)
    jax.jit(jax.grad(lambda x, a: gauss(x, x, a).sum(), (0, 1))).lower(x, a)
    new = [xla._REGISTRY.known[name] for name in set(xla._REGISTRY.known) - before]
    assert new and max(r.executable.temporary_bytes for r in new) < 3000 * 3000 * 4 / 4


CACHED = """
import jax, jax.numpy as jnp, summand as sm, summand.jax as smj
jax.config.update("jax_compilation_cache_dir", FOLDER)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
k = sm.Dim("k")
square = smj.function(a=(k,), out=())(lambda a: sm.sum[k](a * a))
print(jax.jit(jax.grad(square))(jnp.arange(3.0)))
"""


def test_the_cache_of_xla_on_disk(tmp_path):
    """Another process finds XLA's code there, and the right program of ours."""
    found = []
    for _ in range(2):
        code = CACHED.replace("FOLDER", repr(str(tmp_path)))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append((done.stdout, sorted(p.name for p in tmp_path.iterdir())))
    assert found[0] == found[1] and found[0][0] == "[0. 2. 4.]\n"


# ---- what goes wrong


def test_an_index_out_of_range_is_an_error_of_the_run():
    @smj.function(a=(n, k), at=(i,), out=(i, k))
    def rows(a, at):
        return a[n:at]

    with pytest.raises(Exception, match=r"index 7 ") as found:
        jax.jit(rows)(A, jnp.asarray([0, 7])).block_until_ready()
    assert "OUT_OF_RANGE" in str(found.value)
    close(rows(A, jnp.asarray([2, 0])), A[jnp.asarray([2, 0])])


def _leaked():
    kept = []

    @smj.function(a=(k,), out=(k,))
    def leaky(a):
        kept.append(a)
        return a * 2

    leaky(B[0])
    return kept[0].numpy()


def _leaked_tracer():
    kept = []
    jax.jit(lambda b: kept.append(b))(B)
    return layer(A, kept[0])


def _widened():
    @smj.function(a=(k,), out=(k,))
    def widened(a):
        return a.astype(sm.f64)

    with wide(False):
        widened(jnp.ones(3))


def _foreign():
    @smj.function(a=(k,), out=(k,))
    def host(a):
        return jnp.ones(3)

    return host(B[0])


def _mixed():
    @smj.function(a=(k,), out=(k,))
    def mixed(a):
        return a * B[0]

    return mixed(B[0])


BAD = {
    "wrong number of axes": (
        lambda: layer(A[0], B),
        ValueError,
        "layer: a has 1 axes, but other dims\n  given: f64[4]\n  dims:  (i, k)\n",
    ),
    "sizes differ": (
        lambda: layer(A, B[:2]),
        ValueError,
        "layer: k has two sizes\n  a: k=4\n  b: k=2\n",
    ),
    "under jit": (
        lambda: jax.jit(layer)(A, B[:2]),
        ValueError,
        "layer: k has two sizes\n  a: k=4\n  b: k=2\n",
    ),
    "element type": (
        lambda: layer(A.astype(jnp.float8_e4m3fn), B),
        TypeError,
        "layer: a has elements of type float8_e4m3fn, which Summand has not\n",
    ),
    "a list": (
        lambda: layer([[1.0]], B),
        TypeError,
        "layer: a is no array, but list\n",
    ),
    "operands": (
        lambda: layer(A > 0, B, act=sm.sin),
        KeyError,
        "",
    ),
    "integer gradient": (
        lambda: jax.grad(lambda b: layer(A, b).sum())(jnp.ones((4, 4), jnp.int32)),
        TypeError,
        "grad requires real- or complex-valued inputs",
    ),
    "leaked array": (_leaked, TypeError, "numpy() of a traced array was asked for\n"),
    "leaked tracer": (
        _leaked_tracer,
        jax.errors.UnexpectedTracerError,
        "Encountered an unexpected",
    ),
    "64 bits": (
        _widened,
        TypeError,
        "widened: its result is f64[3], but JAX's 64-bit types are switched off\n",
    ),
    "an array of JAX returned": (
        _foreign,
        TypeError,
        "host returned DynamicJaxprTracer as its result\n  host(B[0])",
    ),
    "an array of JAX inside": (
        _mixed,
        TypeError,
        "DynamicJaxprTracer is not an array or a number\n  a * B[0]",
    ),
    "array outside": (
        lambda: smj.array(B, k, j),
        TypeError,
        "array outside of a function\n",
    ),
    "another device": (
        lambda: jax.jit(layer).trace(A, B).lower(lowering_platforms=("cuda",)),
        NotImplementedError,
        "layer: Summand compiles for the CPU; it has no code for other devices yet\n",
    ),
    "unknown argument": (
        lambda: smj.function(q=(k,), out=(k,))(lambda a: a),
        TypeError,
        "<lambda> has no argument q\n",
    ),
}


@pytest.mark.parametrize("act, kind, text", BAD.values(), ids=BAD)
def test_errors(act, kind, text):
    with pytest.raises(kind) as found:
        act()
    assert str(found.value).startswith(text), str(found.value)
