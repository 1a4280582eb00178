"""The demo: its network against the interpreter's answer, checkpoints, Ctrl-C and --resume."""

import argparse

import numpy as np
import pytest
from rich.console import Console

import summand as sm
from summand import cli
from summand.errors import ArgumentError

pytest.importorskip("sklearn", reason="the demo needs scikit-learn and matplotlib")
pytest.importorskip("matplotlib", reason="the demo needs scikit-learn and matplotlib")

from examples.digits import capsules, train

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def data():
    return train.load_data(0)


@pytest.fixture
def without_measurement(monkeypatch):
    monkeypatch.setattr(train.report, "measure", lambda *arguments: None)


def equal(a, b):
    same = (a.steps, a.seed) == (b.steps, b.seed)
    return same and all(
        np.array_equal(getattr(a, part)[k], getattr(b, part)[k])
        for part in ("weights", "m", "v")
        for k in a.weights
    )


def test_the_network_is_short_and_in_one_file():
    with open(capsules.__file__) as file:
        assert len(file.readlines()) <= 200


def test_a_step_is_what_the_interpreter_computes(data):
    run = train.fresh(0)
    trainer = train.Trainer(run)
    index = np.arange(3)
    arguments = trainer.arguments(data.train_x[index], data.train_y[index], 0.5, 0.01)
    _, _, loss, hit = trainer.step_function(*arguments)
    with sm.interpret():
        _, _, expected, expected_hit = capsules.step(*arguments)
        assert float(loss) == pytest.approx(float(expected), rel=1e-3)
        assert float(hit) == float(expected_hit)


def test_a_checkpoint_holds_everything(tmp_path):
    run = train.fresh(3)
    run.steps, run.curve = 7, [(29, 0.5, 0.25, 0.125)]
    train.save(run, tmp_path / "a.npz")
    again = train.load(tmp_path / "a.npz")
    assert equal(run, again)
    assert again.curve == run.curve


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    data, tmp_path, monkeypatch, without_measurement
):
    whole = train.fresh(0)
    train.train(whole, data, 5, tmp_path / "whole.npz", QUIET)
    step = train.Trainer.step

    def interrupted(self, *arguments):
        if float(self.state["t"]) == 2:
            raise KeyboardInterrupt
        return step(self, *arguments)

    path = tmp_path / "part.npz"
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.train(train.fresh(0), data, 5, path, QUIET)
    part = train.load(path)
    assert part.steps == 2
    train.train(part, data, 5, path, QUIET)
    assert equal(train.load(path), whole)


def test_control_c_ends_with_a_hint(tmp_path, monkeypatch, capsys):
    def interrupt(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.Trainer, "step", interrupt)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 130
    assert "--resume" in capsys.readouterr().out
    assert train.load(tmp_path / "capsules.npz").steps == 0


def test_a_run_that_is_over_already(data, tmp_path, without_measurement):
    run = train.fresh(0)
    run.steps = 4
    numbers = train.train(run, data, 4, tmp_path / "a.npz", QUIET)
    assert numbers.step_times == []
    assert 0 <= numbers.test_accuracy <= 1
    train.report.show(numbers, QUIET)
    train.report.as_json(numbers, {})


def damaged(path, kind):
    train.save(train.fresh(0), path)
    match kind:
        case "missing":
            path.unlink()
        case "text":
            path.write_text("hello\n")
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(path.read_bytes()[:-3000])
        case "altered":
            data = bytearray(path.read_bytes())
            data[2000:2100] = bytes(100)
            path.write_bytes(bytes(data))
        case "other arrays":
            np.savez(path, x=np.zeros(3))
        case "other shapes":
            run = train.fresh(0)
            run.m = {k: a[None] for k, a in run.m.items()}
            train.save(run, path)


KINDS = ("missing", "text", "empty", "truncated", "altered", "other arrays", "other shapes")


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_no_checkpoints(tmp_path, kind, capsys):
    path = tmp_path / "a.npz"
    damaged(path, kind)
    with pytest.raises(ArgumentError, match=r"a\.npz"):
        train.load(path)
    assert cli.main(["demo", "--resume", str(path)]) == 1
    assert "checkpoint" in capsys.readouterr().err


def test_options():
    parser = argparse.ArgumentParser()
    train.arguments(parser)
    options = parser.parse_args(["--epochs", "3", "--compare", "torch", "--compare", "jax"])
    assert (options.epochs, options.compare) == (3, ["torch", "jax"])
