"""Differentiation of programs, IR to IR: `vjp` in reverse, `jvp` forward, nested in any order."""

from summand.ad.forward import jvp
from summand.ad.reverse import vjp

__all__ = ["jvp", "vjp"]
