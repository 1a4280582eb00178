"""The how-to page's code and the example script, run."""

import csv
import importlib
import re
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'summand[torch]'")

from examples import torch_capsules  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
PAGE = Path(__file__).parents[2] / "docs" / "torch.md"


def test_the_pages_code(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "torch_page.py").write_text("\n".join(code))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("torch_page")
    assert "capsules: ci has two sizes" in capsys.readouterr().out


def test_kernels_train_alike(capsys):
    options = ["--compare", "4", "--batch", "8"]
    torch_capsules.main(options)
    printed = capsys.readouterr().out
    difference = float(re.search(r"differ by at most (\S+)", printed).group(1))
    assert difference < 1e-3
    assert len(re.findall("ms a step", printed)) == 2


def test_a_resumed_run_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_capsules, "load_digits", few_digits)
    whole, half = tmp_path / "whole", tmp_path / "half"
    options = ["--batch", "8", "--epochs", "2", "--out"]
    torch_capsules.main([*options, str(whole)])
    start = torch_capsules.Training
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(start, "save", interrupted(start.save))
        torch_capsules.main([*options, str(half)])
    torch_capsules.main([*options, str(half), "--resume", str(half / "checkpoint.pt")])
    logs = [list(csv.reader((p / "log.csv").open())) for p in (whole, half)]
    assert [row[:4] for row in logs[0]] == [row[:4] for row in logs[1]]
    assert len(logs[0]) == 3
    shutil.rmtree(whole)


def few_digits():
    digits = load_all()
    digits.images, digits.target = digits.images[:40], digits.target[:40]
    return digits


load_all = torch_capsules.load_digits


def interrupted(save):
    """Save, then act as Ctrl-C does."""

    def then_stop(run, path):
        save(run, path)
        raise KeyboardInterrupt

    return then_stop
