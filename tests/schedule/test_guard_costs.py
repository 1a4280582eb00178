"""What guards cost a register tile, by how far they reach in it."""

import numpy as np
import pytest

from summand.schedule.accesses import analyse
from summand.schedule.guard_costs import asked_of
from tests.schedule import cases

DIMS = {"x": 8, "y": 56, "b": 3}


def asked(masks=1.0, looped=("b",), guard=("y + b - 1", 56)):
    kernel = cases.contraction(
        "k", DIMS, ("56*x + y", 448), ("56*x + y + b", 450, guard), ("b", 3), ("b",)
    )
    facts = analyse(kernel.body[0], {p.name: 32 for p in kernel.params})
    image = facts.loads[0]
    return asked_of(facts, image, ("y", "x"), {"y": 8}, frozenset(looped), 2.0, masks)


@pytest.mark.parametrize(("y", "share"), [(1, 9 / 56), (2, 17 / 56), (6, 49 / 56), (7, 1.0)])
def test_guards_are_asked_near_the_border(y, share):
    found = asked()
    assert found.share(np.array([[y, 1]], np.int64)) == pytest.approx(share)
    assert found.cost(np.array([[y, 3]], np.int64)) == pytest.approx(2.0 * 3 * y * share)


def test_masks_stay_in_registers_where_every_tile_has_a_border():
    found = asked(guard=("y", 56), looped=("b",))
    assert found.registers(np.array([[1, 2], [7, 2]], np.int64)).tolist() == [0.0, 0.0]
    found = asked(guard=("y - 1", 48))
    assert found.registers(np.array([[1, 2], [7, 2]], np.int64)).tolist() == [0.0, 7.0]


def test_masks_that_every_step_changes_do_not_stay():
    assert asked().registers(np.array([[7, 1]], np.int64)).tolist() == [0.0]
