"""The cache on disk, whole programs: damaged, unwritable, full, shared. Results stay right."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

import summand as sm
from summand import compiler
from summand.runtime import cache
from summand.runtime.cache import SUFFIX, CacheWarning
from tests.robust.both import floats

i, k = sm.dims("i k")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SUMMAND_CACHE_DIR", str(tmp_path / "cache"))
    cache._warn_once.cache_clear()
    compiler.forget()
    return tmp_path / "cache"


def answer():
    """Compute with a program as a new process would: nothing is kept in memory."""
    compiler.forget()
    f = sm.jit(lambda x: sm.sum[k](sm.exp(x) * 3 + x))
    return float(f(floats([0.0, 1.0], k)))


RIGHT = 3 + 3 * np.e + 1


def entries(folder):
    return sorted(p for p in folder.rglob(f"*{SUFFIX}"))


def test_a_warm_start_is_the_same(folder):
    assert answer() == pytest.approx(RIGHT, rel=1e-6)
    before = {p: p.read_bytes() for p in entries(folder)}
    assert before
    assert answer() == pytest.approx(RIGHT, rel=1e-6)
    assert {p: p.read_bytes() for p in entries(folder)} == before


DAMAGES = {
    "empty": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "code altered": lambda data: data[:-500] + bytes(500),
    "a bit of the code": lambda data: data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
    "text": lambda data: b"not a program\n" * 100,
    "another entry's header": lambda data: data.replace(b"1", b"2", 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_rebuilt(folder, name):
    assert answer() == pytest.approx(RIGHT, rel=1e-6)
    whole = {p: p.read_bytes() for p in entries(folder)}
    for path, data in whole.items():
        path.write_bytes(DAMAGES[name](data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert answer() == pytest.approx(RIGHT, rel=1e-6)
    for path, data in whole.items():
        assert not path.exists() or path.read_bytes() != DAMAGES[name](data)


def test_a_whole_entry_with_a_program_of_other_types_is_not_believed(folder):
    """Sealed as it should be, but its payload is no program."""
    assert answer() == pytest.approx(RIGHT, rel=1e-6)
    store = cache.default()
    for path in entries(folder):
        store.save(path.name.removesuffix(SUFFIX), b'{"objects": []}\n')
    assert answer() == pytest.approx(RIGHT, rel=1e-6)


@pytest.mark.filterwarnings("ignore::summand.runtime.cache.CacheWarning")
def test_an_entry_that_cannot_be_read(folder):
    assert answer() == pytest.approx(RIGHT, rel=1e-6)
    for path in entries(folder):
        path.unlink()
        path.mkdir()  # unreadable for root, too
    assert answer() == pytest.approx(RIGHT, rel=1e-6)


def test_an_unwritable_folder_works_and_warns_once(folder):
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            assert answer() == pytest.approx(RIGHT, rel=1e-6)
    assert [w.category for w in seen] == [CacheWarning]


def test_a_full_disk_works_and_warns_once(folder, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            assert answer() == pytest.approx(RIGHT, rel=1e-6)
    assert [w.category for w in seen] == [CacheWarning]
    assert "No space left" in str(seen[0].message)


def test_a_folder_that_vanishes(folder):
    assert answer() == pytest.approx(RIGHT, rel=1e-6)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    assert answer() == pytest.approx(RIGHT, rel=1e-6)


PROGRAM = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np, summand as sm
i, k = sm.dims("i k")
sys.stdin.readline()  # both begin at once
for n in range(6):
    f = sm.jit(lambda x: sm.sum[k](sm.tanh(x * n) + sm.exp(x)))
    found = f(sm.array(np.ones((3, 4)), i, k)).numpy()
    assert np.allclose(found, 4 * (np.tanh(n) + np.e)), found
print("right")
"""


def started(folder):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "SUMMAND_CACHE_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_compile_the_same_programs_at_once(folder):
    processes = [started(folder) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert out.strip() == "right", err
    assert not [p for p in folder.rglob("*") if p.name.startswith(".new-")]
    (again,) = [started(folder)]
    out, err = again.communicate("\n", timeout=120)
    assert out.strip() == "right", err


def test_two_machines_do_not_share_an_entry(folder):
    """The processor is a part of the key: code for another one is never found."""
    request, _ = sm.jit(lambda x: x + 1).request(floats([1.0], k))
    other = type(request)(
        request.program,
        request.param_order,
        request.result_order,
        request.options,
        type(request.target)(request.target.triple, "generic", ""),
    )
    assert request.key() != other.key()
