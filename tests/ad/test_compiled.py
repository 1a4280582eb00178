"""Gradients of random programs: compiled, they agree with the interpreter."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from summand import compiler
from summand.ad import vjp
from summand.errors import DerivativeError
from summand.ir.interp import run
from tests.ad.test_random import in_double
from tests.programs import arguments, programs
from tests.rewrite.agreement import assert_close


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUMMAND_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def orders(variables):
    return [tuple(d for d, _ in v.type.dims) for v in variables]


@given(programs())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_gradients_of_random_programs(program):
    program = in_double(program)
    wrt = tuple(n for n, p in enumerate(program.params) if p.type.dtype.is_inexact)
    assume(wrt)
    try:
        gradient = vjp(program, wrt)
    except DerivativeError:
        return
    args = arguments(gradient)
    with np.errstate(all="ignore"):
        wanted = run(gradient, args)
    assume(all(np.isfinite(w.array).all() for w in wanted if w.array.dtype.kind == "f"))
    executable = compiler.compile(gradient, orders(gradient.params), orders(gradient.results))
    found = executable.run([np.array(a.array, order="C") for a in args])
    for var, a, b in zip(gradient.results, wanted, found, strict=True):
        assert_close(a.array, np.asarray(b), var.type.dtype)
