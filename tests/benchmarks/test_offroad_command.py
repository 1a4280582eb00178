"""The off-road benchmark's command: its arguments, its JSON, and peers that fail."""

import json
from dataclasses import replace

import pytest
from benchmarks.harness import here, take_turns
from benchmarks.offroad import __main__ as command
from benchmarks.offroad import peer
from benchmarks.offroad.measure import Limits, measure
from benchmarks.offroad.peer import Job
from benchmarks.offroad.rows import every_row
from benchmarks.processes import ProcessError

from benchmarks import processes

TINY = {"6": replace(every_row()["6"], sizes=every_row()["6"].tiny)}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(command, "every_row", lambda: TINY)
    monkeypatch.setattr(peer, "every_row", lambda: TINY)


def test_record_and_figure(tiny, tmp_path, capsys):
    file = tmp_path / "new" / "r.json"
    given = ["--rows", "6", "--peers", "", "--rounds", "1", "--no-compile-times"]
    assert command.main([*given, "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert {"processor", "threads", "summand", "peak", "bandwidth"} <= set(record["machine"])
    assert [(r["row"], r["pass"]) for r in record["rows"]] == [("6", "fwd"), ("6", "grad")]
    for row in record["rows"]:
        assert {"median", "min", "spread"} <= set(row["ours"])
        assert row["ratio"] is None
        assert row["peers"] == {}
        assert row["fraction"] > 0
        assert row["bound"] == pytest.approx(row["fraction"] * row["ours"]["median"])
        assert row["peak_bytes"] >= 0
        assert row["error"] < 1e-4
        assert {"compile_cold", "compile_warm"} <= set(row)
    assert file.with_suffix(".svg").exists()
    assert file.with_suffix(".png").exists()
    assert "Max-plus" in capsys.readouterr().out


def test_perturbed_results_have_other_orders(tiny):
    job = Job("6", "grad", seed=3)
    measured = measure(job.case(), job, {}, Limits(100.0, 10.0), 1)
    assert measured.right
    assert dict(measured.case.sizes) != dict(TINY["6"].sizes)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rows", "1,99"], "--rows: no 99"),
        (["--passes", "back"], "--passes: no back"),
        (["--peers", "numpy"], "--peers: no numpy"),
        (["--perturb", "x"], "invalid int value"),
        (["--rounds", "0"], "--rounds: at least 1"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.options(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_peer_that_crashes_hangs_or_fails(monkeypatch):
    def with_end(text):
        monkeypatch.setattr(processes.sys, "executable", "/bin/sh")
        return processes.Process("torch", ("-c", text), patience=5.0)

    with with_end("exit 3") as crashing, pytest.raises(ProcessError, match=r"crash|pipe"):
        crashing.runs(0.1)
    with with_end("sleep 60") as hanging, pytest.raises(ProcessError, match="no answer"):
        hanging.patience = 0.1
        hanging.runs(0.1)
    with (
        with_end('read x; echo \'{"failed": "no such thing"}\'; read y') as failing,
        pytest.raises(ProcessError, match="no such thing"),
    ):
        failing.runs(0.1)


def test_turns_of_all_contestants():
    calls = []
    found = take_turns(
        {"a": here(lambda: calls.append("a")), "b": here(lambda: calls.append("b"))},
        limit=lambda: 1.0,
        rounds=1,
        budget=0.001,
    )
    assert set(found) == {"a", "b"} == set(calls)
    assert not found["a"].disturbed
