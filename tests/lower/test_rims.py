"""Maps with conditions at their rims: padding and periods."""

import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import Read, Recur, Type
from summand.loops.nodes import Nest
from summand.rewrite.recur import carried
from tests.lower.agreement import assert_compiles, assert_lowers, rewritten
from tests.lower.cases import value
from tests.programs import arguments


def neighbours(b, u, n, m):
    """The sum of four neighbours, periodic, and of a product beyond the rim, which is 2 there."""
    total = None
    for dim, size, by in (("y", n, 1), ("y", n, n - 1), ("x", m, 1), ("x", m, m - 1)):
        near = b.reindex(u, {dim: (Form.of(dim) + by) % size}, {dim: size})
        total = near if total is None else b.map("add", total, near)
    square = b.reindex(b.map("mul", u, u), {"y": Form.of("y") + 3}, {"y": n}, "fill", 2.0)
    edge = b.reindex(b.map("mul", u, total), {"y": Form.of("y") - 2}, {"y": n}, "fill", 0.0)
    return b.map("add", b.map("mul", total, b.constant(0.1, dt.f32)), b.map("sub", square, edge))


def plain(n, m):
    b = Builder()
    return b.finish([neighbours(b, value(b, y=n, x=m), n, m)])


def stepped(n, m, t=3, keep="all"):
    inner = Builder()
    u = value(inner, y=n, x=m)
    inner.param(Type(dt.i32))
    body = inner.finish([inner.map("tanh", neighbours(inner, u, n, m))])
    b = Builder()
    sizes = {"y": n, "x": m, **({"t": t} if keep == "all" else {})}
    start = value(b, y=n, x=m)
    op = Recur(("t",), (True,), (t,), (Read(0, (1,)),), (start,), (), body, (keep,))
    return b.finish(b.emit(op, [Type.of(dt.f32, sizes)]))


SIZES = [(256, 20), (509, 9), (1400, 3), (149, 40), (20, 256)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("make", [plain, stepped])
def test_compiled(make, sizes, monkeypatch):
    monkeypatch.setattr(carried, "POINTS", 1)
    program = make(*sizes)
    assert_compiles(program)


@pytest.mark.parametrize("keep", ["all", "last"])
def test_the_middle_has_no_conditions_along_the_lanes(keep, monkeypatch):
    monkeypatch.setattr(carried, "POINTS", 1)
    program = rewritten(stepped(256, 20, keep=keep))
    module = assert_lowers(program, arguments(program), scheduled=True)
    nests = [s for k in module.kernels for s in _nests(k.body)]
    middles = [n for n in nests if 128 < n.extents.get("y", 0) < 256]
    assert middles
    for nest in middles:
        guards = [g for i in nest.code for g in getattr(getattr(i, "at", None), "guards", ())]
        assert not any(g.form.coefficient("y") for g in guards)


def _nests(body):
    for stmt in body:
        if isinstance(stmt, Nest):
            yield stmt
        else:
            yield from _nests(stmt.body)
