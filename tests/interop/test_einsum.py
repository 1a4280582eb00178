"""summand.einsum against numpy.einsum: forms, element types, strides, errors."""

import numpy as np
import opt_einsum
import pytest

import summand as sm
from summand.interop import einsum as module

WHOLE = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES = ["bool", *WHOLE, "float16", "float32", "float64", "complex64", "complex128"]
COUNT = 600


@pytest.fixture
def compiled(monkeypatch):
    """Counts the calls that ran compiled code."""
    calls = []
    run = module._run
    monkeypatch.setattr(module, "_run", lambda *a: calls.append(1) or run(*a))
    return calls


def numbers(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.6)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(-4 if dtype.kind == "i" else 0, 5, shape)).astype(dtype)
    x = np.asarray(rng.normal(size=shape))
    return (x + 1j * rng.normal(size=shape) if dtype.kind == "c" else x).astype(dtype)


def laid_out(rng, shape, dtype):
    """An array of this shape in some strides."""
    kind = rng.integers(0, 6)
    if kind == 0:
        return numbers(rng, shape, dtype)
    if kind == 1:
        return np.asfortranarray(numbers(rng, shape, dtype))
    if kind == 2:
        axes = rng.permutation(len(shape))
        x = numbers(rng, [shape[a] for a in axes], dtype)
        return x.transpose(np.argsort(axes)) if shape else x
    if kind == 3:
        wide = numbers(rng, [2 * n for n in shape], dtype)
        return wide[tuple(slice(None, None, 2) for _ in shape)]
    if kind == 4:
        return numbers(rng, shape, dtype)[tuple(slice(None, None, -1) for _ in shape)]
    x = np.array(numbers(rng, shape, dtype))
    x.flags.writeable = False
    return x


def case(seed):
    """Subscripts and operands: repeated labels, ellipsis, broadcasting, implicit output."""
    rng = np.random.default_rng(seed)
    labels = list("abcde"[: rng.integers(1, 6)])
    sizes = {s: int(rng.choice([1, 2, 3, 4, 5])) for s in labels}
    inside = [int(rng.integers(1, 4)) for _ in range(rng.integers(0, 3))]  # of the ellipsis
    dotted = rng.random() < 0.35
    terms, operands = [], []
    dtype = rng.choice(DTYPES)
    for _ in range(rng.integers(1, 5)):
        term = list(rng.choice(labels, rng.integers(0, 4)))
        shape = [1 if rng.random() < 0.1 else sizes[s] for s in term]
        own = []
        if dotted and rng.random() < 0.8:
            own = [
                1 if rng.random() < 0.2 else n for n in inside[rng.integers(0, len(inside) + 1) :]
            ]
            at = rng.integers(0, len(term) + 1)
            term[at:at] = ["..."]
            shape[at:at] = own
        seen = {}
        flat = [s for s in term if s != "..."]
        plain = [
            n
            for k, n in enumerate(shape)
            if "..." not in term or not term.index("...") <= k < term.index("...") + len(own)
        ]
        for s, n in zip(flat, plain, strict=True):
            seen.setdefault(s, n)
        shape = []
        for s in term:
            shape += own if s == "..." else [seen[s]]
        terms.append("".join(term))
        if rng.random() < 0.3:
            dtype = rng.choice(DTYPES)
        operands.append(laid_out(rng, tuple(shape), dtype))
    text = ",".join(terms)
    used = [s for s in labels if s in text]
    if rng.random() < 0.7:
        chosen = list(rng.permutation([s for s in used if rng.random() < 0.5]))
        if "..." in text:
            chosen.insert(rng.integers(0, len(chosen) + 1), "...")
        text += "->" + "".join(chosen)
    if rng.random() < 0.2:
        text = " ".join(text).replace(". . .", "...").replace("- >", "->")
    return text, operands


def same(ours, wanted, operands):
    assert type(ours) is type(wanted)
    assert ours.dtype == wanted.dtype and ours.shape == wanted.shape
    narrow = {"f2": 2e-2, "f4": 1e-4, "c8": 1e-4}.get(wanted.dtype.str[1:], 1e-10)
    if wanted.dtype.kind in "biu":
        np.testing.assert_array_equal(ours, wanted)
    else:
        np.testing.assert_allclose(ours, wanted, rtol=narrow, atol=narrow)


@pytest.mark.parametrize("block", range(12))
def test_generated_subscripts(block, compiled):
    ran = 0
    for seed in range(block * COUNT // 12, (block + 1) * COUNT // 12):
        text, operands = case(seed)
        kept = [x.copy() for x in operands]
        try:
            wanted = np.einsum(text, *operands)
        except Exception as error:
            with pytest.raises(type(error)) as found:
                sm.einsum(text, *operands)
            assert str(found.value) == str(error)
            continue
        same(sm.einsum(text, *operands), wanted, operands)
        for x, before in zip(operands, kept, strict=True):
            np.testing.assert_array_equal(x, before)
        ran += 1
    assert ran > 35 and len(compiled) > 30


RNG = np.random.default_rng(5)
A, B, C = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5)), RNG.normal(size=(5, 3))
SQUARE, CUBE = RNG.normal(size=(4, 4)), RNG.normal(size=(3, 3, 3))
FORMS = {
    "trace": ("ii", SQUARE),
    "trace of an axis pair": ("aba->b", RNG.normal(size=(3, 2, 3))),
    "diagonals": ("ii,ii->i", SQUARE, SQUARE),
    "implicit": ("kj,ik", B, A),
    "many": ("ab,bc,ca,ab,bc->", A, B, C, A, B),
    "outer": ("i,j,k->kij", A[0], B[0], C[0]),
    "broadcast of 1": ("ab,ab->ab", A, A[:, :1]),
    "ellipsis": ("...ij,...jk->...ik", RNG.normal(size=(2, 1, 3, 4)), RNG.normal(size=(6, 4, 5))),
    "ellipsis summed": ("i...->...", CUBE),
    "interleaved": (A, [0, 1], B, [1, 2]),
    "interleaved output": (A, [0, 27], B, [27, 2], [2, 0]),
    "interleaved ellipsis": (CUBE, [Ellipsis, 1], A, [1, 0], [0, Ellipsis]),
    "lists": ("ij,j", [[1, 2], [3, 4]], [5, 6]),
    "numbers": (",ij->ji", 2.5, A),
    "expanded": ("ij,ij->i", np.broadcast_to(A[0], (6, 4)), np.broadcast_to(2.0, (6, 4))),
    "empty": ("ij,jk->ik", A[:, :0], B[:0]),
    "empty result": ("ij,jk->ik", A[:0], B),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name, compiled):
    same(np.asarray(sm.einsum(*FORMS[name])), np.asarray(np.einsum(*FORMS[name])), ())
    assert compiled


VIEWS = {"ij": A, "ji": A, "ii->i": SQUARE, "iji->ji": CUBE, "...i->i...": CUBE}


@pytest.mark.parametrize("text", VIEWS)
def test_what_only_picks_axes_is_a_view(text):
    x = VIEWS[text].copy()
    found = sm.einsum(text, x)
    np.testing.assert_array_equal(found, np.einsum(text, x))
    assert np.shares_memory(found, x) and np.asarray(found).flags.writeable


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("dtype", [None, "f4", "f8", np.complex64, int])
@pytest.mark.parametrize("casting", ["no", "equiv", "safe", "same_kind", "unsafe"])
@pytest.mark.parametrize("target", [None, "f4", "f8", "c16", "i4"])
@pytest.mark.parametrize("kinds", [("f4", "f8"), ("i2", "f4"), ("i8", "i4")])
def test_dtype_casting_and_out(dtype, casting, target, kinds):
    operands = [(10 * x).astype(kind) for x, kind in zip((A, B), kinds, strict=True)]
    wanted = None if target is None else np.full((3, 5), 7, target)
    ours = None if target is None else np.full((3, 5), 7, target)
    options = {"dtype": dtype, "casting": casting}
    try:
        expected = np.einsum("ij,jk->ik", *operands, out=wanted, **options)
    except TypeError as error:
        with pytest.raises(TypeError) as found:
            sm.einsum("ij,jk->ik", *operands, out=ours, **options)
        assert str(found.value) == str(error)
        return
    found = sm.einsum("ij,jk->ik", *operands, out=ours, **options)
    assert target is None or found is ours
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("order", "KACF")
@pytest.mark.parametrize("first", "CF")
@pytest.mark.parametrize("second", "CF")
def test_order(order, first, second):
    a, b = np.asarray(RNG.normal(size=(3, 4, 5)), order=first), np.asarray(B, order=second)
    for text in ("abc,cd->abd", "abc,bc->abc", "abc,bc->cab"):
        b = np.asarray(RNG.normal(size=(5, 6) if "d" in text else (4, 5)), order=second)
        found, wanted = (f(text, a, b, order=order) for f in (sm.einsum, np.einsum))
        np.testing.assert_allclose(found, wanted)
        assert found.strides == wanted.strides


def test_out_in_any_strides_and_over_an_operand():
    wanted = A @ B
    for out in (
        np.empty((3, 5)),
        np.empty((5, 3)).T,
        np.empty((6, 10))[::2, ::2],
        np.empty((3, 5))[::-1],
        np.empty((3, 5), np.complex128),
    ):
        assert sm.einsum("ij,jk->ik", A, B, out=out) is out
        np.testing.assert_allclose(out, wanted)
    x = SQUARE.copy()
    sm.einsum("ij,jk->ik", x, x, out=x)
    np.testing.assert_allclose(x, SQUARE @ SQUARE)


def test_results_may_be_written():
    found = sm.einsum("ij,jk->ik", A, B)
    found[0, 0] = 1
    assert found[0, 0] == 1


def test_memory_is_read_where_it_lies(monkeypatch):
    """Whatever the strides, the program is given the caller's own memory."""
    seen = []
    original = module._seen

    def watched(read, array):
        seen.append(np.shares_memory(original(read, array), array))
        return original(read, array)

    monkeypatch.setattr(module, "_seen", watched)
    wide = RNG.normal(size=(8, 9, 10))
    for x in (wide, wide.T, wide[::-1], wide[:, ::2], wide[::-2, :, ::-3], wide.transpose(1, 0, 2)):
        np.testing.assert_allclose(sm.einsum("abc->b", x), np.einsum("abc->b", x))
    assert len(seen) == 6 and all(seen)


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble, object, ">f8", "<i4", ">c8"])
def test_other_element_types(dtype):
    a, b = A.astype(dtype), B.astype(dtype)
    found, wanted = (f("ij,jk->ik", a, b) for f in (sm.einsum, np.einsum))
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found.astype(complex), wanted.astype(complex), rtol=1e-5)


WRONG = {
    "no operands": (),
    "no arrays": ("ij",),
    "too many subscripts": ("ijk", A),
    "too few": ("i", A),
    "number of operands": ("ij,jk", A),
    "sizes": ("ij,ij", A, B),
    "repeated sizes": ("ii", A),
    "character": ("i$", A),
    "output twice": ("ij->ii", A),
    "output unknown": ("ij->k", A),
    "two arrows": ("ij->i->j", A),
    "dots": ("i..j", A),
    "dots left over": ("...ij->ij", CUBE),
    "strings": ("i->", np.array(["a", "b"])),
    "label": (A, [0, 99]),
    "label kind": (A, ["i", "j"]),
    "ragged": ("ij", [[1, 2], [3]]),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_those_of_numpy(name):
    with pytest.raises(Exception) as wanted:
        np.einsum(*WRONG[name])
    with pytest.raises(wanted.type) as found:
        sm.einsum(*WRONG[name])
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize(
    "options",
    [{"order": "Q"}, {"casting": "no way"}, {"dtype": "nothing"}, {"out": np.empty((2, 2))}],
)
def test_options_that_numpy_refuses(options):
    with pytest.raises(Exception) as wanted:
        np.einsum("ij,jk->ik", A, B, **options)
    with pytest.raises(wanted.type) as found:
        sm.einsum("ij,jk->ik", A, B, **options)
    assert str(found.value) == str(wanted.value)


PATHS = [True, False, "greedy", "optimal", "auto", "dp", "branch-2", [(0, 1), (0, 1)]]


@pytest.mark.parametrize("optimize", [*PATHS, ["einsum_path", (1, 2), (0, 1)]], ids=str)
def test_paths(optimize):
    found = sm.einsum("ij,jk,kl->il", A, B, C, optimize=optimize)
    np.testing.assert_allclose(found, A @ B @ C)


def test_a_path_that_is_none():
    with pytest.raises(KeyError, match="best ever"):
        sm.einsum("ij,jk,kl->il", A, B, C, optimize="best ever")


@pytest.mark.parametrize("text", ["ab,bc,cd->ad", "ab,bc,ca->", "ab,cb,cd->dab", "ab,bc,bd->acd"])
def test_backend_of_opt_einsum(text, compiled):
    inputs = text.split("->")[0].split(",")
    sizes = dict(zip("abcd", (2, 3, 4, 5), strict=True))
    operands = [RNG.normal(size=[sizes[s] for s in term]) for term in inputs]
    found = opt_einsum.contract(text, *operands, backend="summand")
    np.testing.assert_allclose(found, np.einsum(text, *operands))
    again = opt_einsum.contract_expression(text, *(x.shape for x in operands))
    np.testing.assert_allclose(again(*operands, backend="summand"), found)
    assert compiled
