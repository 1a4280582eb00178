"""One tree against another: here against itself."""

import json
from pathlib import Path

import pytest

from benchmarks import compare

ROOT = Path(__file__).parents[2]
ROW = "matmul-64x4096x64"


def test_a_tree_against_itself(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compare, "ROUNDS", 1)
    monkeypatch.setattr(compare, "BUDGET", 0.0)
    file = tmp_path / "new" / "r.json"
    given = [str(ROOT), "--rows", ROW, "--passes", "fwd", "--json", str(file)]
    assert compare.main(given) == 0
    (record,) = json.loads(file.read_text())
    assert record["same_loops"]
    assert record["before"]["min"] <= record["before"]["median"]
    assert record["speedup"] == pytest.approx(record["before"]["median"] / record["now"]["median"])
    assert "same loops" in capsys.readouterr().out


def test_a_row_that_is_unknown_to_a_tree(monkeypatch, capsys):
    assert compare.main([str(ROOT), "--rows", "no-such-row", "--passes", "fwd"]) == 1
    assert "failed: KeyError" in capsys.readouterr().out


def test_what_is_no_checkout(tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path)])
    assert "no checkout" in capsys.readouterr().err
