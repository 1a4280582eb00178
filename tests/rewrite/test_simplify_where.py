import pytest

from summand.dtypes import f32
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.nodes import Map, Reindex, Type
from summand.rewrite.simplify.simplify import simplify
from tests.rewrite.agreement import assert_same_results


def shifted(form, fn, bound, fill=2.5):
    b = Builder()
    x = b.param(Type.of(f32, {"t": 6, "c": 2}))
    here = b.map(fn, b.iota("t", 6), b.constant(bound, b.iota("t", 6).type.dtype))
    read = b.reindex(x, {"t": parse(form)}, {"t": 6}, "fill")
    return b.finish([b.map("where", here, read, b.constant(fill, f32))])


@pytest.mark.parametrize(
    ("form", "fn", "bound", "goes"),
    [
        ("t - 1", "ge", 1, True),
        ("t - 1", "gt", 0, True),
        ("t + 2", "lt", 4, True),
        ("t - 1", "ge", 2, False),
        ("t - 1", "lt", 1, False),
    ],
)
def test_a_padded_read_makes_the_selection_itself(form, fn, bound, goes):
    program = shifted(form, fn, bound)
    new = simplify(program)
    assert_same_results(program, new, exact=True)
    assert any(isinstance(e.op, Map) and e.op.fn == "where" for e in new.eqns) != goes
    fills = [e.op.fill for e in new.eqns if isinstance(e.op, Reindex)]
    assert fills == [2.5 if goes else 0]
