import textwrap

import numpy as np
import pytest

from summand import cli
from summand.explain import doctor
from summand.runtime import cache, machine

MODEL = """
import numpy as np
import summand as sm

i, j, k = sm.dims("i j k")
other = sm.Dim("renamed", 3)


def product(a, b):
    return sm.sum[k](a * b)


def product_arguments():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 32, 32)).astype("f4")
    return sm.array(a, i, k), sm.array(b, k, j)


def scaled(a, factor):
    return sm.tanh(a * factor)
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    (tmp_path / "cli_model.py").write_text(textwrap.dedent(MODEL))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SUMMAND_CACHE_DIR", str(tmp_path / "cache"))


def run(capsys, *words):
    status = cli.main(words)
    out = capsys.readouterr()
    return status, out.out, out.err


def test_explain(model, capsys):
    status, out, _ = run(capsys, "explain", "cli_model:product")
    assert status == 0
    assert "kernel k0_" in out and "sum{k} at cli_model.py:10" in out
    assert "f32[i=32, k=32]" in out and "f32[i=32, j=32]" in out
    assert "flop/byte" in out and "nest" in out
    assert "measured" not in out


def test_explain_with_a_run(model, capsys):
    status, out, _ = run(capsys, "explain", "cli_model:product", "--run")
    assert status == 0
    for word in ("FMA peak", "measured", "GFLOP/s", "GB/s", "bound", "predicted"):
        assert word in out


def test_explain_with_arguments(model, capsys):
    words = ("explain", "cli_model:scaled", "f64{i=7, renamed=3}", "0.5")
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "f64[i=7, renamed=3]" in out


@pytest.mark.parametrize("stage", ["traced", "fused", "loops", "llvm", "log"])
def test_explain_a_stage(model, capsys, stage):
    status, out, _ = run(capsys, "explain", "cli_model:product", "--stage", stage)
    assert status == 0
    assert len(out.splitlines()) > 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere:f"], "there is no module nowhere"),
        (["cli_model"], "names no function"),
        (["cli_model:nothing"], "has no function nothing"),
        (["cli_model:scaled", "f32{q=3}", "1"], "has no dim q"),
        (["cli_model:scaled", "f99{i=3}", "1"], "f99 is no element type"),
        (["cli_model:scaled", "what"], "neither a type nor a number"),
    ],
)
def test_bad_words(model, capsys, words, message):
    status, _, err = run(capsys, "explain", *words)
    assert status == 1
    assert message in err and "Traceback" not in err


def test_cache(model, capsys):
    run(capsys, "explain", "cli_model:product", "--run")
    assert cache.default().entries()
    status, out, _ = run(capsys, "cache")
    assert status == 0 and str(machine.cache_folder()) in out.replace("\n", "")
    status, out, _ = run(capsys, "cache", "--clear")
    assert status == 0 and "deleted" in out
    assert not cache.default().entries()


def test_doctor_without_measuring(model):
    rows = dict(doctor.findings(measured=False))
    assert rows["threads"] == str(machine.threads())
    assert rows["NumPy"] == np.__version__
    assert "bits" in rows["vector width"]
    assert set(doctor.OPTIONAL) <= rows.keys()


def test_doctor(model, capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "GFLOP/s" in out and "GB/s" in out


def test_no_command(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main([])
    assert error.value.code == 2
