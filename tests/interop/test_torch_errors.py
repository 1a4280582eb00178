"""What summand.torch says of wrong uses, against golden texts; line numbers are left out.

SUMMAND_GOLDEN=write python -m pytest tests/interop/test_torch_errors.py    writes the texts anew
"""

import inspect
import os
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'summand[torch]'")

from tests.interop import torch_cases  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")
GOLDEN = Path(__file__).parent / "golden_torch"
CASES = [
    f
    for _, f in inspect.getmembers(torch_cases, inspect.isfunction)
    if not inspect.signature(f).parameters
]
HOST = (RuntimeError, TypeError, ValueError, IndexError)  # what PyTorch's users catch


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_message(case):
    with pytest.raises(HOST) as caught:
        case()
    text = f"{type(caught.value).__name__}: {caught.value}\n"
    found = re.sub(r"(cases\.py):\d+", r"\1:#", text)
    path = GOLDEN / f"{case.__name__}.txt"
    if os.environ.get("SUMMAND_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


def test_every_golden_has_its_case():
    assert {p.stem for p in GOLDEN.glob("*.txt")} == {f.__name__ for f in CASES}


def test_a_cuda_tensor_is_refused():
    """There is no device here; what is checked is what a tensor there says of itself."""
    from summand.interop.torch_function import out_of_reach

    class OnDevice:
        layout, is_nested, is_meta, is_cpu = torch.strided, False, False, False
        device = torch.device("cuda", 0)

    error = out_of_reach(OnDevice())
    assert isinstance(error, NotImplementedError)
    assert str(error).splitlines()[0] == (
        "a tensor on cuda:0 was given; Summand has no code for this device yet"
    )
    assert str(error).splitlines()[-1] == (
        "Move it: x.cpu(). It is never copied to another device in silence."
    )
