"""A compiled program as plain data: what the cache stores and an executable is made from.

    to_bytes(artifact)  ->  one line of JSON, then the objects and constants as they are
    from_bytes(data)    ->  the artifact; ValueError where the data is not one

No pickle: reading an entry can build nothing but these classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Port:
    """A parameter or result: its slot, NumPy storage, shape and dims, dense in row-major order.

    `name` is for messages only.
    """

    slot: int
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """A buffer inside the arena: its slot, byte offset and bytes. `name` is for messages only."""

    slot: int
    offset: int
    nbytes: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class RangeCheck:
    """After the run every element of result `number` must lie in 0 <= v < size."""

    number: int
    size: int
    message: str  # with {value}


@dataclass(frozen=True, slots=True)
class Host:
    """A call of a Python function on whole buffers, known to the process by name."""

    name: str
    args: tuple[Port, ...]
    outs: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """Object files and how to run them.

    `code` is a program for `pool_code`'s `run`, in which a launch names its function by number in
    `functions`. `launches` has the function of each launch, `slots` counts the buffers' addresses,
    `args` the words of launch arguments. `arena` bytes hold the `regions`; `scratch` bytes are what
    one thread needs. Results that `checks` name are not handed out.
    """

    objects: tuple[bytes, ...]
    functions: tuple[str, ...]
    code: tuple[int, ...]
    launches: tuple[int, ...]
    slots: int
    args: int
    params: tuple[Port, ...]
    results: tuple[Port, ...]
    regions: tuple[Region, ...] = ()
    constants: tuple[tuple[int, bytes], ...] = ()
    arena: int = 0
    scratch: int = 0
    checks: tuple[RangeCheck, ...] = ()
    hosts: tuple[Host, ...] = ()


def to_bytes(artifact: Artifact) -> bytes:
    """The artifact as bytes, the same ones every time."""
    header = {
        "objects": [len(o) for o in artifact.objects],
        "constants": [(slot, len(data)) for slot, data in artifact.constants],
        "functions": artifact.functions,
        "code": artifact.code,
        "launches": artifact.launches,
        "slots": artifact.slots,
        "args": artifact.args,
        "params": _plain(artifact.params),
        "results": _plain(artifact.results),
        "regions": [(r.slot, r.offset, r.nbytes, r.name) for r in artifact.regions],
        "arena": artifact.arena,
        "scratch": artifact.scratch,
        "checks": [(c.number, c.size, c.message) for c in artifact.checks],
        "hosts": [(h.name, _plain(h.args), _plain(h.outs)) for h in artifact.hosts],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((text, b"\n", *artifact.objects, *(data for _, data in artifact.constants)))


def from_bytes(data: bytes) -> Artifact:
    """Read an artifact back. Raises ValueError where a part is missing or of the wrong kind."""
    text, newline, rest = data.partition(b"\n")
    try:
        header = json.loads(text)
        lengths = [*header["objects"], *(n for _, n in header["constants"])]
        if not newline or sum(lengths) != len(rest) or any(n < 0 for n in lengths):
            raise ValueError("the parts do not fill the entry")
        parts, at = [], 0
        for length in lengths:
            parts.append(rest[at : at + length])
            at += length
        count = len(header["objects"])
        slots = [slot for slot, _ in header["constants"]]
        return Artifact(
            objects=tuple(parts[:count]),
            functions=tuple(str(f) for f in header["functions"]),
            code=tuple(int(w) for w in header["code"]),
            launches=tuple(int(k) for k in header["launches"]),
            slots=int(header["slots"]),
            args=int(header["args"]),
            params=_ports(header["params"]),
            results=_ports(header["results"]),
            regions=tuple(
                Region(int(s), int(o), int(n), str(t)) for s, o, n, t in header["regions"]
            ),
            constants=tuple(zip(slots, parts[count:], strict=True)),
            arena=int(header["arena"]),
            scratch=int(header["scratch"]),
            checks=tuple(RangeCheck(int(n), int(s), str(m)) for n, s, m in header["checks"]),
            hosts=tuple(Host(str(n), _ports(a), _ports(o)) for n, a, o in header["hosts"]),
        )
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a compiled program: {error!r}") from error


_Plain = tuple[int, str, tuple[int, ...], tuple[str, ...], str]


def _plain(ports: Sequence[Port]) -> list[_Plain]:
    return [(p.slot, p.dtype, p.shape, p.dims, p.name) for p in ports]


def _ports(plain: Sequence[_Plain]) -> tuple[Port, ...]:
    return tuple(_port(*p) for p in plain)


def _port(slot: int, dtype: str, shape: Sequence[int], dims: Sequence[str], name: str) -> Port:
    sizes = tuple(int(n) for n in shape)
    return Port(int(slot), str(dtype), sizes, tuple(str(d) for d in dims), str(name))
