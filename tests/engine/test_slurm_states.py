"""Reading what SLURM says of jobs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.engine.slurm import cluster as slurm
from kit.engine.slurm.cluster import Seen, advice, each_id, parents, parse_squeue
from kit.errors import Preflight

SQUEUE = """\
12_1|RUNNING|None|node01
12_[2-4,7%2]|PENDING|Resources|
13|CANCELLED|None|
garbage
"""
CLUSTER = slurm.Cluster.__new__(slurm.Cluster)  # asking needs no folder
Answers = Callable[..., None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Make SLURM's commands answer: name -> (status, stdout, stderr); absent ones are absent."""

    def set(**by_name: tuple[int, str, str]) -> None:
        def run(line: list[str]) -> subprocess.CompletedProcess[str] | None:
            if line[0] not in by_name:
                return None
            status, out, err = by_name[line[0]]
            return subprocess.CompletedProcess(line, status, out, err)

        monkeypatch.setattr(slurm, "run", run)

    return set


def test_squeue_with_arrays() -> None:
    found = parse_squeue(SQUEUE)
    assert list(found) == ["12_1", "12_2", "12_3", "12_4", "12_7", "13"]
    assert found["12_1"] == Seen(state="RUNNING", reason="None", node="node01")
    assert found["12_7"].live
    assert not found["13"].live
    assert each_id("5_[x]") == []


def test_array_elements_are_asked_for_by_their_job() -> None:
    assert parents(["12_1", "12_2", "9"]) == ["12", "9"]


def test_no_answer_is_not_an_end(answers: Answers) -> None:
    answers()
    assert CLUSTER.ask(["1"]) is None
    answers(squeue=(1, "", "slurm_load_jobs error: Unable to contact slurm controller"))
    assert CLUSTER.ask(["1"]) is None
    answers(squeue=(1, "", "slurm_load_jobs error: Invalid job id specified"))
    assert CLUSTER.ask(["1"]) == {}
    answers(squeue=(0, SQUEUE, ""))
    assert "12_3" in (CLUSTER.ask(["12_3"]) or {})


def test_scontrol_then_sacct_then_nothing(answers: Answers) -> None:
    line = "JobId=3 ArrayJobId=1 JobState=TIMEOUT Reason=TimeLimit NodeList=n1 ExitCode=0:15\n"
    sacct = (0, "CANCELLED by 0|0:9|n2\n", "")
    answers(scontrol=(0, line, ""), sacct=sacct)
    assert CLUSTER.explain("1_1") == Seen("TIMEOUT", "TimeLimit", "n1", "0:15")
    answers(scontrol=(1, "", "Invalid job id"), sacct=sacct)
    assert CLUSTER.explain("1_1") == Seen("CANCELLED", "", "n2", "0:9")
    answers(scontrol=(1, "", ""), sacct=(1, "", "Slurm accounting storage is disabled"))
    assert CLUSTER.explain("1_1") == Seen()


def test_words() -> None:
    assert Seen("TIMEOUT", "TimeLimit", "n1", "0:15").words() == (
        "TIMEOUT, exit code 0:15, reason TimeLimit, on n1"
    )
    assert Seen("FAILED", "None", "(null)", "0:0").words() == "FAILED"
    assert Seen().words() == "unknown to SLURM"


@pytest.mark.parametrize(
    ("seen", "why", "next_step"),
    [
        (Seen("TIMEOUT"), "time limit", "--slurm time="),
        (Seen("OUT_OF_MEMORY"), "memory", "--slurm mem="),
        (Seen("NODE_FAIL", node="n7"), "node failed", "--slurm exclude=n7"),
        (Seen("CANCELLED"), "cancelled", "same command again"),
        (Seen("DEADLINE"), "deadline", "deadline"),
        (Seen("FAILED", exit_code="0:9"), "killed from outside", "--slurm mem="),
        (Seen("FAILED", exit_code="137:0"), "killed from outside", "--slurm mem="),
        (Seen("FAILED", exit_code="1:0"), "without telling why", "same command again"),
        (Seen(), "forgets jobs", "same command again"),
    ],
)
def test_advice(seen: Seen, why: str, next_step: str) -> None:
    told = advice(seen)
    assert why in told[0]
    assert next_step in told[1]


def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert slurm.run(["squeue"]) is None


# Commands that end jobs, and what is cleared away.


@pytest.mark.parametrize("kill", [False, True])
def test_jobs_are_asked_to_end_or_killed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    lines: list[list[str]] = []
    monkeypatch.setattr(slurm, "run", lines.append)
    ids = [f"{number:04}" for number in range(slurm._MOST_IDS + 1)]
    made = slurm.Cluster(tmp_path)
    made.cancel([], kill=kill)
    assert lines == []
    made.cancel(reversed(ids), kill=kill)
    signalled = [line for line in lines if "--signal=KILL" in line]
    plain = [line for line in lines if line not in signalled]
    for asked in (plain, signalled if kill else plain):
        named = [id for line in asked for id in line if id.isdigit()]
        assert named == ids
        assert len(asked) == 2
    assert bool(signalled) is kill
    assert {line[0] for line in lines} == {"scancel"}


def test_what_finished_jobs_leave_is_cleared_away_and_what_they_said_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1_0_result.pkl", "2_submitted.pkl", ".submission_file_7.sh", "1_0_log.out"):
        (tmp_path / name).touch()
    (tmp_path / "1_0_log.err").write_text("a warning")
    (tmp_path / "notes.txt").touch()
    naps: list[float] = []
    monkeypatch.setattr(slurm.time, "sleep", naps.append)
    slurm.Cluster(tmp_path).tidy(["1"])
    assert {path.name for path in tmp_path.iterdir()} == {"1_0_log.err", "notes.txt"}
    assert naps == []


@pytest.mark.parametrize(("patience", "naps"), [(0.0, 0), (0.5, 4)])
def test_a_last_file_that_does_not_come_is_waited_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, naps: int
) -> None:
    clock = [64.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += 0.125

    monkeypatch.setattr(slurm, "_LAST_SECONDS", patience)
    monkeypatch.setattr(slurm.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(slurm.time, "sleep", sleep)
    slurm.Cluster(tmp_path).tidy(["1"])
    assert len(slept) == naps


def test_without_submitit_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(Preflight, match="needs submitit") as caught:
        slurm.require()
    assert "[slurm]" in caught.value.next_step
