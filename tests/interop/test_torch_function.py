"""Decorated functions as citizens of PyTorch: autograd, compilation, torch.func, export, modes."""

import copy
import io
import pickle
import shutil

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'summand[torch]'")

import summand as sm  # noqa: E402
import summand.torch as smt  # noqa: E402
from summand import compiler  # noqa: E402
from tests.interop.torch_programs import PROGRAMS, inputs_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning")
n, k, j, i, t = sm.dims("n k j i t")
NAMES = sorted(PROGRAMS)


@smt.function(x=(n, k), w=(k, j), out=(n, j))
def linear(x, w):
    return sm.sum[k](x * w)


@smt.function(x=(n, k), out=(n, k))
def scale_and_shift(x, by, shift=0, *, twice=False):
    return (x * by + shift) * (2 if twice else 1)


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 15).reshape(3, 5))
        self.function = linear

    def forward(self, x):
        return self.function(x, self.weight)


def flat(out):
    return (
        list(out.values())
        if isinstance(out, dict)
        else list(out)
        if isinstance(out, tuple)
        else [out]
    )


def compiled(function):
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


@pytest.fixture
def x():
    return torch.linspace(-2, 3, 12).reshape(4, 3)


@pytest.fixture
def w():
    return torch.linspace(-1, 1, 15).reshape(3, 5)


# ---- compilation


@pytest.mark.parametrize("name", NAMES)
def test_compiled_equals_eager_bit_for_bit(name):
    function, inputs = PROGRAMS[name][0], inputs_of(name)
    eager, graph = flat(function(*inputs)), flat(compiled(function)(*inputs))
    assert all(torch.equal(a, b) for a, b in zip(eager, graph, strict=True))
    wrt = [v for v in inputs if v.requires_grad]
    seeds = [torch.linspace(-1, 1, r.numel()).reshape(r.shape).to(r.dtype) for r in eager]
    grads = []
    for out in (eager, graph):
        pairs = [(r, s) for r, s in zip(out, seeds, strict=True) if r.requires_grad]
        grads.append(torch.autograd.grad([r for r, _ in pairs], wrt, [s for _, s in pairs]))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_compiled_among_other_operators(x, w):
    def layer(x, w):
        return torch.relu(linear(x * 2, w)).sum()

    w.requires_grad_()
    layer(x, w).backward()
    expected, w.grad = w.grad, None
    compiled(layer)(x, w).backward()
    assert torch.equal(w.grad, expected)


def test_one_function_at_several_sizes_in_one_graph(x, w):
    def layers(x, w):
        return linear(linear(x, w), w.t()) + linear(x, w[:, :3]) * scale_and_shift(x, 0.5)

    torch.testing.assert_close(compiled(layers)(x, w), layers(x, w))


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="Inductor needs a C++ compiler"
)
def test_inductor(x, w):
    torch.compiler.reset()
    layer = torch.compile(lambda x, w: linear(x, w).relu() + 1, fullgraph=True)
    assert torch.equal(layer(x, w), linear(x, w).relu() + 1)


def test_a_compiled_function_takes_new_sizes_and_numbers(w):
    function = compiled(lambda x, by: linear(scale_and_shift(x, by, twice=True), w))
    for size, by in ((2, 0.5), (3, 0.5), (4, 0.25), (5, 2.0)):
        x = torch.linspace(0, 1, size * 3).reshape(size, 3)
        torch.testing.assert_close(function(x, by), x * by * 2 @ w)


def test_compiled_with_dynamic_sizes_and_constants(w):
    def call(x, shift):
        return linear(scale_and_shift(x, 2.0, shift), w)

    for function in (compiled(call), torch.compile(call, dynamic=True, backend="aot_eager")):
        for size, shift in ((2, 1), (3, 1), (4, 2), (5, 3)):
            x = torch.linspace(0, 1, size * 3).reshape(size, 3)
            torch.testing.assert_close(function(x, shift), (x * 2 + shift) @ w)


def test_export(x, tmp_path):
    module = Linear()
    program = torch.export.export(module, (x,))
    torch.export.save(program, tmp_path / "m.pt2")
    loaded = torch.export.load(tmp_path / "m.pt2").module()
    assert torch.equal(loaded(x), module(x))


# ---- torch.func


def test_func_grad_compiled(x, w):
    graph = compiled(torch.func.grad(lambda w: (linear(x, w) ** 2).sum()))
    torch.testing.assert_close(graph(w), torch.func.grad(lambda w: ((x @ w) ** 2).sum())(w))


@pytest.mark.parametrize("name", NAMES)
def test_vmap_is_a_loop(name):
    function, inputs = PROGRAMS[name][0], [v.detach() for v in inputs_of(name)]
    stacked = [torch.stack([v, v * 0.9 if v.is_floating_point() else v]) for v in inputs]
    rows = [flat(function(*(v[r] for v in stacked))) for r in range(2)]
    for number, got in enumerate(flat(torch.func.vmap(function)(*stacked))):
        torch.testing.assert_close(got, torch.stack([row[number] for row in rows]))


TWICE = {
    "grad of grad": lambda f, w: torch.func.grad(lambda v: (torch.func.grad(f)(v) ** 2).sum())(w),
    "reverse over reverse": lambda f, w: torch.func.jacrev(torch.func.jacrev(f))(w),
    "forward over reverse": lambda f, w: torch.func.hessian(f)(w),
    "reverse over forward": lambda f, w: torch.func.jacrev(torch.func.jacfwd(f))(w),
    "forward over forward": lambda f, w: torch.func.jacfwd(torch.func.jacfwd(f))(w),
    "autograd": lambda f, w: torch.autograd.functional.hessian(f, w),
}


@pytest.mark.parametrize("how", TWICE)
def test_derivatives_nest(how, w):
    squares = smt.function(a=(n, k), out=(n, k))(lambda a: sm.sin(a) * a)
    ours = TWICE[how](lambda v: squares(squares(v)).sum(), w)
    theirs = TWICE[how](lambda v: ((v.sin() * v).sin() * (v.sin() * v)).sum(), w)
    torch.testing.assert_close(ours, theirs)


def test_vmap_over_other_axes(x, w):
    many = torch.stack([w, 2 * w, -w], dim=1)
    got = torch.func.vmap(linear, in_dims=(None, 1), out_dims=2)(x, many)
    torch.testing.assert_close(got, torch.stack([x @ w, x @ w * 2, -(x @ w)], dim=2))


def test_gradients_by_example(x, w):
    by_row = torch.func.vmap(
        torch.func.grad(lambda w, r: (linear(r[None], w) ** 2).sum()), (None, 0)
    )
    expected = torch.stack([torch.func.grad(lambda w, r=r: ((r @ w) ** 2).sum())(w) for r in x])
    torch.testing.assert_close(by_row(w, x), expected)


def test_forward_mode(x, w):
    value, tangent = torch.func.jvp(lambda w: linear(x, w) ** 2, (w,), (w,))
    torch.testing.assert_close(tangent, 2 * value)
    hessian = torch.func.hessian(lambda w: (linear(x, w) ** 2).sum())
    torch.testing.assert_close(hessian(w), torch.func.hessian(lambda w: ((x @ w) ** 2).sum())(w))


def test_jacobian_by_rows(x, w):
    got = torch.func.jacrev(linear, argnums=1)(x, w)
    torch.testing.assert_close(got, torch.func.jacrev(torch.matmul, argnums=1)(x, w))


# ---- autograd's modes


@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
def test_only_the_gradients_that_are_asked_for(x, w, needs):
    x.requires_grad_(needs[0])
    w.requires_grad_(needs[1])
    linear(x, w).sum().backward()
    assert (x.grad is not None, w.grad is not None) == needs
    if needs[0]:
        torch.testing.assert_close(x.grad, w.sum(1).expand(4, 3).contiguous())


def test_only_what_backward_reads_is_saved(x, w):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda v: saved.append(v) or v, lambda v: v):
        linear(x, w.requires_grad_())
    assert [tuple(v.shape) for v in saved] == [(4, 3)]


def test_saved_tensor_hooks_may_change_what_is_kept(x, w):
    with (
        torch.autograd.graph.save_on_cpu(),
        torch.autograd.graph.saved_tensors_hooks(lambda v: v.double(), lambda v: v.float()),
    ):
        out = linear(x, w.requires_grad_())
    out.sum().backward()
    torch.testing.assert_close(w.grad, x.sum(0)[:, None].expand(3, 5))


def test_checkpoint(x, w):
    from torch.utils.checkpoint import checkpoint

    checkpoint(linear, x, w.requires_grad_(), use_reentrant=False).sum().backward()
    torch.testing.assert_close(w.grad, x.sum(0)[:, None].expand(3, 5))


def test_no_grad_and_inference_mode(x, w):
    w.requires_grad_()
    with torch.no_grad():
        assert not linear(x, w).requires_grad
    with torch.inference_mode():
        assert linear(x, w).is_inference()
    assert linear(x, w.detach()).grad_fn is None


def test_autocast_as_the_function_says(x, w):
    as_they_are = linear
    low = smt.function(x=(n, k), w=(k, j), out=(n, j), autocast=True)(lambda x, w: sm.sum[k](x * w))
    full = smt.function(x=(n,), out=(), autocast=torch.float32)(lambda x: sm.sum[n](x))
    assert low(x, w).dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert as_they_are(x, w).dtype == torch.float32
            assert low(x, w).dtype == dtype
            assert full(x[0].to(dtype)).dtype == torch.float32
            v = w.clone().requires_grad_()
            low(x, v).float().sum().backward()
            assert v.grad.dtype == torch.float32
            assert compiled(low)(x, w).dtype == dtype


def test_a_part_of_the_results_in_backward():
    function, (a,) = PROGRAMS["mean_and_centred"][0], inputs_of("mean_and_centred")
    mean, centred = function(a)
    torch.testing.assert_close(
        torch.autograd.grad(mean.sum(), a, retain_graph=True)[0], torch.full_like(a, 0.25)
    )
    torch.testing.assert_close(torch.autograd.grad(centred.sum(), a)[0], torch.zeros_like(a))


def test_results_of_integers_have_no_gradient():
    values, places = PROGRAMS["max_and_place"][0](*inputs_of("max_and_place"))
    assert values.requires_grad and not places.requires_grad
    assert places.dtype in (torch.int32, torch.int64)


def test_complex_gradients_follow_pytorch():
    f = smt.function(a=(n, k), b=(k,), out=(n,))(lambda a, b: sm.sum[k](a.conj() * b * b))
    g = torch.Generator().manual_seed(0)
    a = torch.randn(2, 3, dtype=torch.complex128, generator=g, requires_grad=True)
    b = torch.randn(3, dtype=torch.complex128, generator=g, requires_grad=True)
    assert torch.autograd.gradcheck(f, (a, b))
    torch.testing.assert_close(f(a.conj(), b), (a * b * b).sum(1))


# ---- arguments and layouts


def test_python_numbers_keywords_and_constants(x):
    torch.testing.assert_close(scale_and_shift(x, 0.5), x * 0.5)
    torch.testing.assert_close(scale_and_shift(x, by=0.25, shift=3), x * 0.25 + 3)
    torch.testing.assert_close(scale_and_shift(x, 2, twice=True), x * 4)


def test_a_number_is_an_input_and_not_a_constant(x):
    f = smt.function(x=(n, k), out=(n, k))(lambda x, by: x * by)
    first = f(x, 0.5)
    before = len(compiler._LOADED)
    torch.testing.assert_close(f(x, 0.75), first * 1.5)
    assert len(compiler._LOADED) == before


def test_structures_of_tensors(x, w):
    @smt.function(p={"w": (k, j), "b": [(j,)]}, x=(n, k), out={"y": (n, j), "norm": ()})
    def f(x, p):
        y = sm.sum[k](x * p["w"]) + p["b"][0]
        return {"y": y, "norm": sm.sum[n, j](y * y)}

    b = torch.linspace(0, 1, 5)
    out = f(x, {"w": w, "b": [b]})
    torch.testing.assert_close(out["y"], x @ w + b)
    torch.testing.assert_close(out["norm"], ((x @ w + b) ** 2).sum())
    torch.testing.assert_close(compiled(f)(x, {"w": w, "b": [b]})["y"], out["y"])


def test_integers_and_bools(x):
    f = smt.function(x=(n, k), mask=(n,), places=(t,), out=(t, k))(
        lambda x, mask, places: sm.where(mask, x, -x)[n:places]
    )
    mask = torch.tensor([True, False, True, False])
    places = torch.tensor([3, 0, 1])
    expected = torch.where(mask[:, None], x, -x)[places]
    assert torch.equal(f(x, mask, places), expected)
    assert torch.equal(f(x, mask, places.to(torch.int32)), expected)


def layouts():
    base = torch.linspace(-1, 1, 12 * 14).reshape(12, 14)
    yield "rows with gaps", base[:4, :3]
    yield "steps", base[1::3, 2::4][:4, :3]
    yield "transposed", base[:3, :4].t()
    yield "a row for all", base[0, :3].expand(4, 3)
    yield "a column for all", base[:4, :1].expand(4, 3)
    yield "one number", base[:1, :1].expand(4, 3)
    yield "overlapping", base.flatten().as_strided((4, 3), (1, 1))
    yield "an offset", base.flatten()[5:17].reshape(4, 3)


@pytest.mark.parametrize(("what", "x"), list(layouts()))
def test_any_strides_without_copies(what, x, w, monkeypatch):
    copied = []
    for name in ("contiguous", "clone", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, lambda *a, name=name: copied.append(name))
    got = linear(x, w)
    monkeypatch.undo()
    assert not copied
    torch.testing.assert_close(got, x.clone() @ w)
    v = w.clone().requires_grad_()
    linear(x, v).sum().backward()  # its cotangent is one number for all
    torch.testing.assert_close(v.grad, (x.clone().t() @ torch.ones(4, 5)))


def test_arguments_are_never_written(x, w):
    before = x.clone(), w.clone()
    linear(x, w.requires_grad_()).sum().backward()
    assert torch.equal(x, before[0]) and torch.equal(w.detach(), before[1])
    same = smt.function(x=(n, k), out=(n, k))(lambda x: x)(x)
    assert torch.equal(same, x) and same.data_ptr() != x.data_ptr()


def test_no_elements(w):
    assert linear(torch.zeros(0, 3), w).shape == (0, 5)
    assert torch.equal(linear(torch.zeros(4, 0), torch.zeros(0, 5)), torch.zeros(4, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32])
def test_element_types(x, w, dtype):
    got = linear(x.to(dtype), w.to(dtype))
    assert got.dtype == (x.to(dtype) @ w.to(dtype)).sum().dtype  # sums of integers are int64
    expected = x.to(dtype).double() @ w.to(dtype).double()
    torch.testing.assert_close(got.double(), expected, rtol=1e-2, atol=2e-2)


def test_a_size_compiles_once(w):
    f = smt.function(x=(n, k), out=(n,))(lambda x: sm.sum[k](sm.cos(x) * 3))
    for size in (2, 3):
        f(torch.ones(size, 3))
    before = set(compiler._LOADED)
    for size in (3, 2, 3):
        f(torch.zeros(size, 3))
    assert set(compiler._LOADED) == before


# ---- tensors that a function closes over

factor = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))


@smt.function(x=(n, k), out=(n, k))
def by_a_global(x):
    return x * smt.array(factor, k)


class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    @smt.function(x=(n, k), out=(n, k))
    def forward(self, x):
        return x * smt.array(self.weight, k)


def test_closures_have_gradients(x, monkeypatch):
    (gradient,) = torch.autograd.grad(by_a_global(x).sum(), factor)
    torch.testing.assert_close(gradient, x.sum(0))
    (gradient,) = torch.autograd.grad(compiled(by_a_global)(x).sum(), factor)
    torch.testing.assert_close(gradient, x.sum(0))
    monkeypatch.setitem(globals(), "factor", torch.zeros(3))
    assert torch.equal(by_a_global(x), torch.zeros_like(x))  # the name stands for another tensor


def test_closures_in_cells(x):
    def make(scale):
        return smt.function(x=(n, k), out=(n, k))(lambda x: x * smt.array(scale, k))

    scale = torch.ones(3, requires_grad=True)
    for function in (make(scale), compiled(make(scale))):
        (gradient,) = torch.autograd.grad(function(x).sum(), scale)
        torch.testing.assert_close(gradient, x.sum(0))


def test_parameters_of_modules(x):
    module = Scale()
    module(x).sum().backward()
    torch.testing.assert_close(module.weight.grad, x.sum(0))
    doubled = {"weight": module.weight.detach() * 2}
    torch.testing.assert_close(torch.func.functional_call(module, doubled, (x,)), module(x) * 2)
    module.double()
    assert module(x.double()).dtype == torch.float64


def test_functions_inside_functions(x, w):
    f = smt.function(x=(n, k), w=(k, j), out=(n,))(lambda x, w: sm.sum[j](linear(x, w)))
    torch.testing.assert_close(f(x, w), (x @ w).sum(1))


# ---- copies and pickles


def test_pickling(x):
    module = Linear()
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(other(x), module(x))
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), module(x))
    assert pickle.loads(pickle.dumps(linear)) is linear
    assert linear.__name__ == "linear"
