import os
import stat
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from summand.runtime import cache
from summand.runtime.cache import CacheWarning, Store, digest

KEY = digest("a program")
DATA = bytes(range(256)) * 40


@pytest.fixture
def store(tmp_path):
    cache._warn_once.cache_clear()
    return Store(tmp_path / "programs")


def test_save_and_load(store):
    assert store.load(KEY) is None
    store.save(KEY, DATA)
    assert store.load(KEY) == DATA
    assert store.load(digest("another")) is None
    store.save(KEY, b"")
    assert store.load(KEY) == b""


def test_private_to_its_user(store):
    store.save(KEY, DATA)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    (entry,) = store.entries()
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600


def test_keys_of_different_parts_differ():
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", "")}) == 4


def damaged(data):
    half = len(data) // 2
    yield "empty", b""
    yield "truncated", data[:half]
    yield "one byte short", data[:-1]
    yield "one byte more", data + b"\0"
    yield "a bit flipped in the payload", data[:-1] + bytes([data[-1] ^ 1])
    yield "a bit flipped in the header", bytes([data[0] ^ 1]) + data[1:]
    yield "no newline", data.replace(b"\n", b" ")
    yield "other content", b"\x7fELF" + data


def test_damaged_entries_are_dropped(store):
    store.save(KEY, DATA)
    (entry,) = store.entries()
    whole = entry.path.read_bytes()
    for name, data in damaged(whole):
        entry.path.write_bytes(data)
        assert store.load(KEY) is None, name
        assert not entry.path.exists(), name
        store.save(KEY, DATA)
        assert store.load(KEY) == DATA, name


def test_entry_of_another_key(store):
    other = digest("another")
    store.save(KEY, DATA)
    (entry,) = store.entries()
    entry.path.rename(store.folder / f"{other}{cache.SUFFIX}")
    assert store.load(other) is None


def test_least_recently_used_go_first(tmp_path):
    store = Store(tmp_path, limit=5 * len(DATA))
    keys = [digest(str(k)) for k in range(6)]
    for age, key in enumerate(keys[:4]):
        store.save(key, DATA)
        os.utime(store._path(key), (1000 + age, 1000 + age))
    store.load(keys[0])  # used now
    store.save(keys[4], DATA)
    store.save(keys[5], DATA)
    kept = [key for key in keys if store.load(key) is not None]
    assert keys[0] in kept and keys[5] in kept and keys[1] not in kept
    assert sum(e.size for e in store.entries()) <= store.limit


def test_entry_larger_than_the_store(tmp_path):
    store = Store(tmp_path, limit=100)
    store.save(KEY, DATA)
    assert store.entries() == []


def test_clear(store):
    for k in range(3):
        store.save(digest(str(k)), DATA)
    assert store.clear() == 3
    assert store.entries() == [] and store.clear() == 0


def test_unwritable_folder_warns_once(tmp_path):
    cache._warn_once.cache_clear()
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file" / "programs")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        store.save(KEY, DATA)
        store.save(digest("another"), DATA)
        assert store.load(KEY) is None
    assert [w.category for w in seen] == [CacheWarning]
    assert "SUMMAND_CACHE_DIR" in str(seen[0].message)


def test_full_disk(store, monkeypatch):
    def full(name, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left"):
        store.save(KEY, DATA)
    assert store.load(KEY) is None
    assert list(store.folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX modes")
def test_folder_that_others_can_write_is_not_used(store):
    store.save(KEY, DATA)
    store.folder.chmod(0o777)
    assert store.load(KEY) is None
    with pytest.warns(CacheWarning, match="others may write"):
        store.save(KEY, DATA)


class _InterruptAtLine:
    """Raises KeyboardInterrupt before the k-th line that runs in the function that writes."""

    def __init__(self, k):
        self.left = k

    def __call__(self, frame, event, arg):
        return self.line if frame.f_code is cache._write.__code__ else None

    def line(self, frame, event, arg):
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self.line


def test_interrupted_write_leaves_nothing(store):
    interrupted = 0
    for k in range(1, 100):
        interrupt = _InterruptAtLine(k)
        sys.settrace(interrupt)
        try:
            store.save(KEY, DATA)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        assert all(f.suffix == cache.SUFFIX for f in store.folder.iterdir())
        if interrupt.left > 0:
            break
    assert interrupted >= 4  # each line of the function, the first to the last


def _save_and_load(folder):
    store = Store(folder)
    for _ in range(50):
        store.save(KEY, DATA)
        if store.load(KEY) != DATA:
            return False
    return True


def test_two_processes_at_once(store):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert all(pool.map(_save_and_load, [store.folder] * 2))


def test_folder_from_the_environment(tmp_path):
    text = "from summand.runtime import machine; print(machine.cache_folder())"
    env = {**os.environ, "SUMMAND_CACHE_DIR": str(tmp_path / "here")}
    done = subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "here")


def test_files_of_killed_processes_are_removed(store):
    store.save(KEY, DATA)
    old, new = (store.folder / f"{cache.UNFINISHED}{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    store.save(digest("another"), DATA)
    assert not old.exists() and new.exists()
