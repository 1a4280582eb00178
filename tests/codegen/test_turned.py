"""Results of a reduction, transposed in registers where they are stored along another dim."""

import pytest

from summand.dtypes import f32
from summand.loops.nodes import Apply, Const, Load, Nest, Store
from tests.codegen.kernels import at, buffer, check_nest, schedule, total


def correlation(c, y, taps):
    """out[c, y] = Σ_b x[y + b, c] · w[b, c], zero beyond the first and last y; twice that, too."""
    code = (
        Load("w", at(f"{c}*b + c"), f32),
        Load("x", at(f"{c}*y + {c}*b - {c} + c", (), (("y + b - 1", y),)), f32, 0.0),
        Apply("mul", (0, 1), f32),
        total("b", 2),
        Load("bias", at("c"), f32),
        Apply("add", (3, 4), f32),
        Const(2.0, f32),
        Apply("mul", (5, 6), f32),
    )
    stores = (Store("out", at(f"{y}*c + y"), 5), Store("twice", at(f"{y}*c + y"), 7))
    nest = Nest((("c", c), ("y", y), ("b", taps)), code, stores)
    sizes = {"w": c * taps, "x": c * y, "bias": c, "out": c * y, "twice": c * y}
    return nest, tuple(buffer(n, s) for n, s in sizes.items())


@pytest.mark.parametrize(("c", "y"), [(16, 16), (11, 16), (16, 13), (19, 21), (8, 8)])
@pytest.mark.parametrize("taps", [1, 3, 40])
def test_a_product_is_stored_along_its_other_dim(c, y, taps):
    nest, params = correlation(c, y, taps)
    schedules = [
        schedule("c8", "y8", "", "c y b", "y8"),
        schedule("c8", "y8", f"b{taps}", "c y", "y8"),
        schedule("c8", "y8 c2", "", "y c b", "y8"),
        schedule("c16", "y16", "b2", "c y b", "y16"),
    ]
    check_nest(nest, params, schedules)
