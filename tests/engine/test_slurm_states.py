"""Reading what SLURM says of jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from kit.engine.slurm import cluster as slurm
from kit.engine.slurm.cluster import Seen, advice, each_id, parents, parse_squeue

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
