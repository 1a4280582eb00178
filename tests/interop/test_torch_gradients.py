"""First and second derivatives of every kind of program, by PyTorch's own checks."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'summand[torch]'")

import summand.torch as smt  # noqa: E402
from summand.interop.torch_function import calls_of  # noqa: E402
from summand.interop.torch_op import run  # noqa: E402
from tests.interop.torch_programs import PROGRAMS, inputs_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")
NAMES = sorted(PROGRAMS)


def floats(function):
    """Only the results that have gradients, as a tuple."""

    def called(*inputs):
        out = function(*inputs)
        leaves = out.values() if isinstance(out, dict) else out if isinstance(out, tuple) else [out]
        return tuple(x for x in leaves if x.is_floating_point())

    return called


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    torch.autograd.gradcheck(floats(PROGRAMS[name][0]), inputs_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_gradgradcheck(name):
    torch.autograd.gradgradcheck(floats(PROGRAMS[name][0]), inputs_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name):
    """PyTorch's checks of an operator: schema, autograd, fake tensors, compilation."""
    function, inputs = PROGRAMS[name][0], inputs_of(name)
    function(*inputs)
    (entry,) = calls_of(function).entries.values()
    torch.library.opcheck(run, (entry.text, [*inputs, *entry.constants], []))
    torch.library.opcheck(run, (entry.digest, [*inputs, *entry.constants], []))


def test_there_are_programs_of_every_kind():
    assert len(PROGRAMS) >= 20
    assert smt.function is not None
