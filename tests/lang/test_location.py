"""Where messages say that things were made: files, notebook cells, text without a file."""

import linecache
import sys
import types

import pytest

import summand as sm
from summand.errors import DimError
from summand.lang.location import here

CODE = "k = sm.Dim('k')\nx = sm.array([1.0], k)\nk = sm.Dim('k')\nsm.sum[k](x)\n"


def message_of(filename):
    with pytest.raises(DimError) as caught:
        exec(compile(CODE, filename, "exec"), {"sm": sm})
    return str(caught.value)


def test_here_is_this_line():
    loc = here()
    assert loc.file == "test_location.py"
    assert loc.text == "loc = here()"


def test_an_old_notebooks_cell():
    assert "k@In[12]:1" in message_of("<ipython-input-12-0a1b2c>")


def test_a_new_notebooks_cell(monkeypatch):
    name = "/var/ipykernel_7/123.py"
    shell = types.SimpleNamespace(compile=types.SimpleNamespace(_filename_map={name: 4}))
    monkeypatch.setattr(sys.modules["__main__"], "get_ipython", lambda: shell, raising=False)
    linecache.cache[name] = (len(CODE), None, CODE.splitlines(keepends=True), name)
    found = message_of(name)
    assert "x: f32{k@In[4]:1=1}   In[4]:2" in found
    assert "sm.sum[k](x)          In[4]:4" in found


def test_code_without_a_file():
    assert "(no source text)" in message_of("<string>")


def test_a_cell_that_runs_twice():
    name = "<ipython-input-5-aa>"
    space = {"sm": sm}
    exec(compile("k = sm.Dim('k')", name, "exec"), space)
    space["x"] = sm.array([1.0], space["k"])
    exec(compile("k = sm.Dim('k')", name, "exec"), space)
    with pytest.raises(DimError, match=r"k@In\[5\]:1 \(run 2\)") as caught:
        sm.sum[space["k"]](space["x"])
    assert "makes new dims each time" in str(caught.value)
