"""Small machine programs for tests of the runtime: a kernel in LLVM text, and its launch."""

from __future__ import annotations

from summand.runtime import jit, machine
from summand.runtime.artifact import Artifact, Port
from summand.runtime.pool_code import BACK, COPY, END, LAUNCH, UNLESS

KERNELS = """
define void @add_one(ptr %args, i64 %task, ptr %scratch) {
  %second = getelementptr ptr, ptr %args, i64 1
  %from = load ptr, ptr %args
  %to = load ptr, ptr %second
  %p = getelementptr float, ptr %from, i64 %task
  %x = load float, ptr %p
  %y = fadd float %x, 1.0
  store float %y, ptr %scratch
  %z = load float, ptr %scratch
  %q = getelementptr float, ptr %to, i64 %task
  store float %z, ptr %q
  ret void
}
define void @below(ptr %args, i64 %task, ptr %scratch) {
  %second = getelementptr ptr, ptr %args, i64 1
  %third = getelementptr ptr, ptr %args, i64 2
  %from = load ptr, ptr %args
  %limit = load ptr, ptr %second
  %to = load ptr, ptr %third
  %x = load float, ptr %from
  %l = load float, ptr %limit
  %c = fcmp olt float %x, %l
  %b = zext i1 %c to i8
  store i8 %b, ptr %to
  ret void
}
"""


def compiled() -> bytes:
    """The kernels' object file."""
    return jit.compile_object(KERNELS, machine.target())


def elementwise(shape: tuple[int, ...] = (3, 4)) -> Artifact:
    """result = argument + 1, one task for each element."""
    count = 1
    for n in shape:
        count *= n
    return Artifact(
        objects=(compiled(),),
        functions=("add_one", "below"),
        code=(LAUNCH, 0, count, 0, 0, 2, 0, 1, END) if count else (END,),
        launches=(0,),
        slots=2,
        args=2,
        params=(Port(0, "float32", shape, name="x"),),
        results=(Port(1, "float32", shape),),
        scratch=64,
    )


def counting() -> Artifact:
    """Add one to a copy of the argument while it is below the second; endless if that is inf."""
    top, end = 4, 26
    code = (
        *(COPY, 0, 2, 4),
        *(LAUNCH, 1, 1, 0, 0, 3, 2, 1, 3),
        *(UNLESS, 3, end),
        *(LAUNCH, 0, 1, 3, 1, 2, 2, 2),
        *(BACK, top),
        END,
    )
    return Artifact(
        objects=(compiled(),),
        functions=("add_one", "below"),
        code=code,
        launches=(1, 0),
        slots=4,
        args=5,
        params=(Port(0, "float32", ()), Port(1, "float32", ())),
        results=(Port(2, "float32", ()), Port(3, "bool", ())),
        scratch=64,
    )
