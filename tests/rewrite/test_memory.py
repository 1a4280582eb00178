"""The arena: what lives at once lies apart, what is dead is reused, what cannot fit is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summand.errors import Loc, OutOfMemoryError
from summand.ir.builder import Builder
from summand.ir.nodes import SUM
from summand.options import Options
from summand.rewrite.plan.memory import ALIGN, Life, arena_offsets, check_fits, human, peak_bytes
from summand.schedule.lower import lower
from tests.lower.agreement import TARGET
from tests.lower.cases import value


@st.composite
def lives(draw):
    first = draw(st.integers(0, 20))
    return Life(first, first + draw(st.integers(0, 10)), draw(st.integers(0, 5000)))


@given(st.lists(lives(), max_size=30))
def test_buffers_that_live_at_once_lie_apart(found):
    named = {f"v{k}": life for k, life in enumerate(found)}
    offsets, end = arena_offsets(named)
    for a, one in named.items():
        assert offsets[a] % ALIGN == 0
        assert offsets[a] + one.nbytes <= end
        for b, two in named.items():
            if a != b and one.first <= two.last and two.first <= one.last:
                above = offsets[a] >= offsets[b] + two.nbytes
                below = offsets[b] >= offsets[a] + one.nbytes
                assert above or below


def test_dead_buffers_are_reused():
    named = {"a": Life(0, 1, 4096), "b": Life(1, 2, 4096), "c": Life(2, 3, 4096)}
    offsets, end = arena_offsets(named)
    assert end == 2 * 4096
    assert offsets["a"] == offsets["c"]


def test_a_chain_of_steps_needs_two_buffers():
    b = Builder()
    x = value(b, i=1024)
    for _ in range(6):
        x = b.map("barrier", b.map("exp", x))
        x = b.reduce_at(SUM, ["i"], [x], {"j": b.iota("i", 1024)}, {"j": 1024})[0]
        x = b.rename(x, {"j": "i"})
    module = lower(b.finish([x]), [("i",)], [("i",)], TARGET, Options(fuse=False))
    temporaries = [p for p in module.places if p.kind == "arena"]
    assert len(temporaries) > 3
    assert module.arena <= 3 * 4096


def test_peak_counts_everything_at_once():
    assert peak_bytes({"x": 100, "y": 28}, 4096) == 4224


def test_a_value_that_cannot_fit_is_named_with_its_size():
    with pytest.raises(OutOfMemoryError) as caught:
        check_fits("f32{i=1099511627776}", 4 << 40, Loc("model.py", 7, "x"), 16 << 30)
    message = str(caught.value)
    assert "f32{i=1099511627776}" in message
    assert "4.0 TB" in message
    assert "model.py:7" in message


def test_lowering_refuses_what_no_machine_holds():
    b = Builder()
    x, y = value(b, i=1 << 24), value(b, j=1 << 24)
    with pytest.raises(OutOfMemoryError):
        lower(b.finish([b.map("mul", x, y)]), [("i",), ("j",)], [None], TARGET, Options())


@pytest.mark.parametrize(
    ("nbytes", "text"), [(5, "5 bytes"), (2048, "2.0 KB"), (3 << 20, "3.0 MB")]
)
def test_sizes_read_well(nbytes, text):
    assert human(nbytes) == text
