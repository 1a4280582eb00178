"""Each error message against its golden text; line numbers are left out, the rest is exact.

SUMMAND_GOLDEN=write python -m pytest tests/errors    writes the texts anew
"""

import inspect
import os
import re
from pathlib import Path

import pytest

import summand as sm
from tests.errors import cases

GOLDEN = Path(__file__).parent / "golden"
CASES = [f for _, f in inspect.getmembers(cases, inspect.isfunction) if f.__name__ != "floats"]


def message_of(case):
    with sm.interpret(), pytest.raises(sm.errors.SummandError) as caught:
        case()
    return f"{type(caught.value).__name__}: {caught.value}\n"


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_message(case):
    found = re.sub(r"(cases\.py):\d+", r"\1:#", message_of(case))
    path = GOLDEN / f"{case.__name__}.txt"
    if os.environ.get("SUMMAND_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


def test_every_golden_has_its_case():
    assert {p.stem for p in GOLDEN.glob("*.txt")} == {f.__name__ for f in CASES}


def test_the_language_pages_own_example():
    found = message_of(cases.two_sizes_for_one_dim).splitlines()
    assert found[0] == "DimError: sum over k, but k has two sizes"
    assert re.fullmatch(r"  x: f32\{i=128, k=64\}   cases\.py:\d+", found[1])
    assert re.fullmatch(r"  w: f32\{k=32, j=10\}    cases\.py:\d+", found[2])
    assert re.fullmatch(r"  sm\.sum\[k\]\(x \* w\)      cases\.py:\d+", found[3])
    assert found[4] == "Slice one operand, or rename its k: w[k: k2]."
    assert len(found) == 5
