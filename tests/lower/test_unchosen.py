"""Sizes and storage orders that nobody chose: tiles, sums over them, states, and guards."""

import re

import numpy as np
import pytest

import summand as sm


def random(*dims):
    values = np.random.default_rng(len(dims)).standard_normal([d.size for d in dims])
    return values.astype(np.float32)


def tiles(text):
    """Extents of the dims of a kernel's nests."""
    return [{d: int(n) for d, n in re.findall(r"(\w+)=(\d+)", line)} for line in nests(text)]


def nests(text):
    return re.findall(r"nest ([^(]*) schedule", text)


def attention(q, k, v, dims):
    _, _, j, d = dims
    s = sm.sum[d](q * k) * d.size**-0.5
    e = sm.exp(s - sm.max[j](s))
    return sm.sum[j](e / sm.sum[j](e) * v)


def heads(order):
    """Attention over 8 heads and 512 positions, all arrays in an order of the dims h, i, d."""
    h, i, j, d = sm.Dim("h", 8), sm.Dim("i", 512), sm.Dim("j", 512), sm.Dim("d", 64)
    named = {"h": h, "i": i, "d": d}
    own = [named[n] for n in order]
    other = [j if n is i else n for n in own]
    arrays = (sm.array(random(*own), *own), *(sm.array(random(*other), *other) for _ in "kv"))
    return (h, i, j, d), arrays


@pytest.mark.parametrize("order", ["ihd", "idh"])
def test_scores_of_all_heads_do_not_leave_the_cache(order):
    """Heads that lie innermost would fill lines; the scores of all of them would fill megabytes."""
    dims, arrays = heads(order)
    text = sm.jit(lambda q, k, v: attention(q, k, v, dims)).inspect("loops", *arrays)
    scores = [t for t in tiles(text) if {"j", "d"} <= t.keys()]
    assert scores
    held = max(t.get("h", 1) * t.get("i", 1) * t["j"] for t in scores)
    assert held * 4 <= 1 << 20


@pytest.mark.parametrize("order", ["idh", "dhi", "dih", "hid"])
def test_what_tiles_add_to_lies_in_the_order_of_its_rows(order):
    """The gradient of keys, however they lie: added up by whole vectors, and moved at last."""
    dims, arrays = heads(order)
    h, i, _, d = dims

    def loss(q, k, v):
        return sm.sum[h, i, d](attention(q, k, v, dims) ** 2)

    text = sm.jit(sm.grad(loss, argnums=(1,))).inspect("loops", *arrays)
    added = re.findall(r"store add \w+\[([^\]]*)\]", text)
    assert added
    for form in added:
        strides = [int(n or 1) for n in re.findall(r"(?:(\d+)\*)?[hijd]\b", form)]
        assert not strides or min(strides) == 1


def test_operands_that_a_group_reads_anyway_do_not_cut_it():
    """A Gaussian sum with gradients: the exponential is evaluated once, whatever the sizes are."""
    i, j, d = sm.Dim("i", 8192), sm.Dim("j", 8537), sm.Dim("d", 4)

    def loss(x, y, b):
        r = sm.sum[d]((x - y) ** 2)
        return sm.sum[i](sm.sum[j](sm.exp(-r / 2) * b) ** 2)

    arrays = (random(i, d), random(j, d), random(j))
    named = (sm.array(arrays[0], i, d), sm.array(arrays[1], j, d), sm.array(arrays[2], j))
    text = sm.jit(sm.grad(loss, argnums=(0, 1, 2))).inspect("loops", *named)
    assert text.count("= exp ") == 1


# ---- recurrences


@pytest.mark.parametrize("keep", ["all", "last"])
@pytest.mark.parametrize("size", [71, 64, 13])
def test_tiles_of_a_recurrence_need_not_divide_its_dims(size, keep):
    """A matrix for state, of which 71 rows make tiles that overlap; each keeps its own states."""
    b, t, i, j = sm.Dim("b", 5), sm.Dim("t", 7), sm.Dim("i", 67), sm.Dim("j", size)
    k, u = random(b, t, i) / 8, random(b, t, j)

    def rule(k, u):
        def new(state):
            before = state[t : t - 1]
            return before + k * (u - sm.sum[i](k * before))

        states = sm.recur(new, over=t, init=0.0)
        return states if keep == "all" else states[t:-1]

    run = sm.jit(rule)
    args = sm.array(k, b, t, i), sm.array(u, b, t, j)
    state, wanted = np.zeros((5, 67, size)), []
    for n in range(7):
        missing = u[:, n] - np.einsum("bi,bij->bj", k[:, n], state)
        state = state + np.einsum("bi,bj->bij", k[:, n], missing)
        wanted.append(state)
    found = run(*args)
    if keep == "all":
        np.testing.assert_allclose(found.numpy(t, b, i, j), wanted, rtol=2e-4, atol=2e-5)
    else:
        np.testing.assert_allclose(found.numpy(b, i, j), state, rtol=2e-4, atol=2e-5)


# ---- guards that nobody needs


def test_only_loads_that_could_leave_their_array_ask():
    """The last block of a streamed top 3 is not full: queries have no such end."""
    i, j, d = sm.Dim("i", 1021), sm.Dim("j", 14621), sm.Dim("d", 24)
    x, y, best = random(i, d), random(j, d), sm.Dim("best", 3)

    def nearest(x, y):
        return sm.top_k(sm.sum[d](x * y) * 2.0, j, best)

    run = sm.jit(nearest)
    args = sm.array(x, i, d), sm.array(y, j, d)
    text = run.inspect("loops", *args)
    guarded = re.findall(r"load \w+\[([^\]]*)\] if", text)
    assert any("j" in form for form in guarded)
    assert not any(form.startswith("d + 24*i") for form in guarded)
    values = run(*args)[0]
    wanted = -np.sort(-2 * (x @ y.T), axis=1)[:, :3]
    np.testing.assert_allclose(values.numpy(i, best), wanted, rtol=1e-4)
