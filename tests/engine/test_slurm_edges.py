"""Times, limits and answers of SLURM at their borders, and ranks of a step that end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine import torchrun
from kit.engine.events import EventLog, event
from kit.engine.job import stop_seconds
from kit.engine.launch import Nodes
from kit.engine.registry import NoParams, StepKind
from kit.engine.runner import STOP_MARGIN
from kit.engine.slurm import cluster, task
from kit.engine.slurm.cluster import (
    Cluster,
    Seen,
    SubmissionRefused,
    advice,
    each_id,
    parents,
    parse_squeue,
)
from kit.engine.slurm.options import SIGNAL_SECONDS
from kit.engine.slurm.task import StepTask
from kit.engine.torchrun import Killed, Ranks, command, launch
from kit.engine.worker import Measured
from kit.errors import StepFailed
from tests.engine.test_local import instance
from tests.engine.test_slurm_executor import Table
from tests.engine.test_slurm_options import asked

BUSY = SubmissionRefused("Socket timed out", transient=True)


@pytest.mark.parametrize(("refresh", "wait"), [(1.0, 10.0), (0.5, 5.0), (4.0, 10.0)])
def test_a_refused_job_waits_twice_as_long_each_time(
    tmp_path: Path, refresh: float, wait: float
) -> None:
    table = Table(tmp_path, refresh=refresh, gather=0.0)
    table.cluster.refusals = [BUSY, BUSY]
    table.start("a")
    (note,) = table.poll(0)
    assert "trying again" in note["text"]
    assert table.poll(wait - 0.25) == []
    (note,) = table.poll(0.25)
    assert note["event"] == "note"
    assert table.poll(2 * wait - 0.25) == []
    assert [item["event"] for item in table.poll(0.25)] == ["step-submitted"]


def test_the_last_try_is_a_failure(tmp_path: Path) -> None:
    table = Table(tmp_path, gather=0.0)
    table.cluster.refusals = [BUSY] * 9
    table.start("a")
    seen = [item["event"] for _ in range(9) for item in table.poll(1000.0)]
    assert seen == ["note"] * 5 + ["step-failed"]


@pytest.mark.parametrize(
    ("since", "refresh", "every"),
    [(0.0, 1.0, 2.0), (4.0, 1.0, 2.0), (10.0, 1.0, 5.0), (30.0, 1.0, 15.0), (99.0, 1.0, 15.0),
     (10.0, 0.5, 2.5), (10.0, 7.0, 5.0)],
)  # fmt: skip
def test_slurm_is_asked_often_while_something_is_new(
    tmp_path: Path, since: float, refresh: float, every: float
) -> None:
    executor = Table(tmp_path, refresh=refresh).executor
    assert executor._ask_every(executor._last_submission + since) == every
    executor.stop(kill=False)
    assert executor._ask_every(executor._last_submission + since) == min(1.0, refresh)


@pytest.mark.parametrize(("gpus", "words"), [(0, ""), (1, ", 1 GPU"), (2, ", 2 GPUs")])
def test_a_submitted_job_says_what_it_asked_for(tmp_path: Path, gpus: int, words: str) -> None:
    table = Table(tmp_path, gather=0.0)
    table.start("a", gpus=gpus, memory_gb=1, minutes=10)
    (said,) = table.poll()
    assert said["reason"] == f"SLURM job 1 (time 30 min, 1792MB{words})"


def test_nothing_of_a_closed_run_is_left(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.start("a", "b")
    table.poll()
    table.tell(1, "step-started", "a")
    table.executor.close()
    assert not list(table.executor.folder.glob("job-*"))
    assert table.executor.fits(instance("x"))


@pytest.mark.parametrize("seconds", [0.0, 15.0, 45.0, 46.0, 1000.0])
def test_a_job_is_told_so_early_that_its_step_can_save(seconds: float) -> None:
    """At least the usual notice, and half of it on top of what the step needs."""
    made = asked(stop_seconds=seconds)["signal_delay_s"]
    assert made == max(SIGNAL_SECONDS, seconds + SIGNAL_SECONDS / 2)
    short = asked("time=4", stop_seconds=seconds)["signal_delay_s"]
    assert short == 60 if made > 60 else made
    assert isinstance(short, int)


@pytest.mark.parametrize(
    ("minutes", "asked_for"), [(0.0, 15), (5.0, 15), (5.1, 16), (10.0, 30), (10.1, 31)]
)
def test_three_times_the_planned_minutes(minutes: float, asked_for: int) -> None:
    assert asked(minutes=minutes)["time"] == asked_for


@pytest.mark.parametrize(
    ("gpus", "threads", "cpus"), [(0, 1, 1), (0, 6, 6), (1, 1, 4), (1, 6, 6), (3, 6, 12)]
)
def test_cores_of_a_job(gpus: int, threads: int, cpus: int) -> None:
    made = asked(gpus=gpus, threads=threads)
    assert made["cpus_per_task"] == cpus
    assert ("gpus_per_node" in made) is bool(gpus)


# Its commands.


def test_a_command_answers_in_text_or_not_at_all() -> None:
    said = cluster.run([sys.executable, "-c", "print('x'); raise SystemExit(3)"])
    assert said is not None
    assert (said.stdout, said.returncode) == ("x\n", 3)
    assert cluster.run(["no-such-command-anywhere"]) is None


class Answers:
    """What each command prints, and every line that was run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.lines: list[list[str]] = []
        self.answers = answers
        monkeypatch.setattr(cluster, "run", self.run)

    def run(self, line: list[str]) -> Any:
        self.lines.append(line)
        answer = self.answers.get(line[0])
        if answer is None:
            return None
        code, out, err = answer
        return subprocess.CompletedProcess(line, code, out, err)


def test_submitting_asks_for_one_task_in_an_array_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    class Executor:
        def __init__(self, folder: Path) -> None:
            assert folder == tmp_path / "slurm"

        def update_parameters(self, **parameters: Any) -> None:
            given.append(parameters)

        def submit_array(self, tasks: list[Any]) -> list[Any]:
            return [SimpleNamespace(job_id=f"7_{n}") for n, _ in enumerate(tasks)]

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmExecutor=Executor))
    tasks = [StepTask(b"{}", "events", 1) for _ in range(3)]
    assert Cluster(tmp_path / "slurm").submit(tasks, {"time": 5}) == ["7_0", "7_1", "7_2"]
    (made,) = given
    assert (made["time"], made["array_parallelism"], made["use_srun"]) == (5, 3, True)


@pytest.mark.parametrize(
    ("text", "transient"),
    [("", True), ("Connection refused", True), ("error: QOSMaxSubmitLimit: SubmitLimit", True),
     ("Invalid partition", False)],
)  # fmt: skip
def test_which_refusals_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, transient: bool
) -> None:
    def refuse(folder: Path) -> Any:
        def submit(tasks: Any) -> Any:
            raise RuntimeError(text)

        return SimpleNamespace(update_parameters=lambda **how: None, submit_array=submit)

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmExecutor=refuse))
    with pytest.raises(SubmissionRefused) as caught:
        Cluster(tmp_path).submit([StepTask(b"{}", "events", 1)], {})
    assert caught.value.transient is transient
    assert str(caught.value)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (None, None),
        ((0, "7_[1-2]|PENDING|Priority|\n8|RUNNING|None|n1\nodd\n", ""),
         {"7_1": "PENDING", "7_2": "PENDING", "8": "RUNNING"}),
        ((1, "", "slurm_load_jobs error: Invalid job id specified"), {}),
        ((1, "", "Unable to contact slurm controller"), None),
    ],
)  # fmt: skip
def test_what_squeue_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, seen: dict[str, str] | None
) -> None:
    answers = Answers(monkeypatch, squeue=answer)
    found = Cluster(tmp_path).ask(["7_2", "8", "7_1"])
    assert (None if found is None else {id: at.state for id, at in found.items()}) == seen
    assert answers.lines[0][-1] == "--jobs=7,8"


CONTROL = (
    "JobId=7 JobState=TIMEOUT Reason=TimeLimit NodeList=n3 ExitCode=0:15\nJobId=8 JobState=X\n"
)


@pytest.mark.parametrize(
    ("scontrol", "sacct", "seen"),
    [
        ((0, CONTROL, ""), None, Seen("TIMEOUT", "TimeLimit", "n3", "0:15")),
        ((1, CONTROL, ""), (0, "CANCELLED by 5|0:9|n1|\nX|Y|Z\n", ""),
         Seen("CANCELLED", "", "n1", "0:9")),
        (None, (0, "FAILED|1:0|n1\n", ""), Seen("FAILED", "", "n1", "1:0")),
        (None, (0, "|1:0|n1\n", ""), Seen("", "", "n1", "1:0")),
        (None, (0, "FAILED|1:0\n", ""), Seen()),
        (None, (1, "FAILED|1:0|n1\n", ""), Seen()),
        (None, None, Seen()),
    ],
)  # fmt: skip
def test_what_is_said_of_a_job_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scontrol: Any, sacct: Any, seen: Seen
) -> None:
    Answers(monkeypatch, scontrol=scontrol, sacct=sacct)
    assert Cluster(tmp_path).explain("7") == seen


@pytest.mark.parametrize("kill", [False, True])
def test_jobs_are_cancelled_many_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    answers = Answers(monkeypatch)
    monkeypatch.setattr(cluster, "_MOST_IDS", 2)
    Cluster(tmp_path).cancel(["c", "a", "e", "b", "d"], kill=kill)
    ids = [line[1 + 2 * ("--full" in line) :] for line in answers.lines]
    wanted = [["a", "b"], ["c", "d"], ["e"]]
    assert ids == ([some for some in wanted for _ in range(2)] if kill else wanted)
    assert sum("--signal=KILL" in line for line in answers.lines) == 3 * kill


@pytest.mark.parametrize(
    ("text", "ids"),
    [("12", ["12"]), ("12_3", ["12_3"]), ("12_[4-6,9%2]", ["12_4", "12_5", "12_6", "12_9"]),
     ("12_[0]", ["12_0"]), ("12_[x-3]", []), ("12_[3-x]", [])],
)  # fmt: skip
def test_ids_as_squeue_writes_them(text: str, ids: list[str]) -> None:
    assert each_id(text) == ids


def test_parents_are_named_once_in_order() -> None:
    assert parents(["9_1", "10", "9_2", "1_0"]) == ["1", "10", "9"]


def test_lines_of_squeue_that_are_none() -> None:
    assert parse_squeue("a|b|c\n 7|RUNNING|None|n1 \n\n") == {
        "7": Seen(state="RUNNING", reason="None", node="n1")
    }


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Seen(), "unknown to SLURM"),
        (Seen("FAILED", "None", "(null)", "0:0"), "FAILED"),
        (Seen("FAILED", "Why", "n1", "1:0"), "FAILED, exit code 1:0, reason Why, on n1"),
    ],
)
def test_a_state_in_a_phrase(seen: Seen, words: str) -> None:
    assert seen.words() == words


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Seen("TIMEOUT"), "time limit"),
        (Seen("OUT_OF_MEMORY"), "more memory"),
        (Seen("NODE_FAIL", node="n7"), "node failed"),
        (Seen("BOOT_FAIL"), "node failed"),
        (Seen("CANCELLED", exit_code="0:9"), "cancelled it"),
        (Seen("DEADLINE"), "deadline"),
        (Seen("FAILED", exit_code="0:9"), "killed from outside"),
        (Seen("FAILED", exit_code="137:0"), "killed from outside"),
        (Seen(), "forgets jobs"),
        (Seen("FAILED", exit_code="1:0"), "without telling why"),
    ],
)
def test_why_a_job_ended(seen: Seen, why: str) -> None:
    said, typed = advice(seen)
    assert why in said
    assert "run the same command again" in typed
    assert ("exclude=n7" in typed) is (seen.node == "n7")


# In a job.


class Clocked:
    """An executor whose polls take a second each, and say nothing."""

    def __init__(self) -> None:
        self.now = 100.0
        self.polls = 0
        self.stops: list[bool] = []

    def poll(self, seconds: float) -> list[Any]:
        self.polls += 1
        self.now += 1.0
        return []

    def stop(self, *, kill: bool) -> None:
        self.stops.append(kill)


@pytest.mark.parametrize("seconds", [7.0, None])
def test_a_step_has_its_time_to_save_before_the_job_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    pytest.importorskip("submitit", reason="needs the extra: pip install '.[slurm]'")
    made, executor = StepTask(b"{}", str(tmp_path / "events"), 1), Clocked()
    one = instance("x", stop_seconds=seconds)
    made._job = SimpleNamespace(instance=one)  # type: ignore[assignment]
    made._executor = executor  # type: ignore[assignment]
    made._begun, made._asked, made._ended = True, False, False
    monkeypatch.setattr(task, "time", SimpleNamespace(monotonic=lambda: executor.now))
    made.checkpoint()
    assert executor.stops == [False]  # it may save, so it is not killed
    assert executor.polls == stop_seconds(one) + STOP_MARGIN + 1
    assert made._asked


@pytest.mark.parametrize(
    ("environ", "job", "restarts", "words"),
    [
        ({}, "", 0, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": ""}, "7", 0, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}, "7", 0, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, "7", 1, ", restarted 1 time"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2",
          "SLURM_RESTART_COUNT": "3"}, "7_2", 3, ", restarted 3 times"),
    ],
)  # fmt: skip
def test_a_job_says_which_it_is(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], job: str, restarts: int, words: str
) -> None:
    for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    said = task._started(instance("x"))
    assert (said["job"], said["restarts"], said["step"]) == (job, restarts, "x")
    assert said["reason"].endswith(f"on {said['host']}{words}")


# Ranks.


@pytest.mark.parametrize(
    ("repeatable", "nodes", "deaths", "again"),
    [(True, 1, 1, True), (True, 1, 2, True), (False, 1, 1, False), (True, 2, 1, False),
     (True, 1, 0, False)],
)  # fmt: skip
def test_a_step_of_a_killed_rank_is_tried_once_more_on_one_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeatable: bool, nodes: int, deaths: int,
    again: bool,
) -> None:  # fmt: skip
    tries: list[list[str]] = []

    def attempt(job: Any, kind: Any, out: Path, scratch: Path, emit: Any) -> Measured:
        tries.append([path.name for path in out.iterdir()])
        (out / "half").touch()
        (out.parent / "events").mkdir()
        if len(tries) <= deaths:
            raise Killed("rank 1 was killed")
        return Measured(peak_memory_gb=2.0)

    monkeypatch.setattr(torchrun, "_attempt", attempt)
    monkeypatch.setattr(torchrun, "nodes_here", lambda: Nodes(count=nodes))
    kind = StepKind("a/b", 1, NoParams, print, {}, (), repeatable=repeatable)
    said: list[Any] = []
    out = tmp_path / "out"
    out.mkdir()
    job: Any = SimpleNamespace(instance=instance("x"))
    act: Callable[[], Measured] = lambda: launch(job, kind, out, tmp_path, said.append)  # noqa: E731
    if deaths > again:
        with pytest.raises(Killed) as caught:
            act()
        assert ("it was tried twice" in caught.value.why) is again
    else:
        assert act().peak_memory_gb == 2.0
    assert tries == [[]] * (1 + again)
    assert [item["event"] for item in said] == ["step-repeated"] * again


def ranks(folder: Path, *items: tuple[int, str, dict[str, Any]]) -> Ranks:
    logs: dict[int, EventLog] = {}
    for rank, name, fields in items:
        log = logs.setdefault(rank, EventLog(folder / str(rank)))
        log(event(name, "x", rank=rank, **fields))
    return Ranks(folder)


def begun(pid: int, host: str = "here") -> dict[str, Any]:
    return {"pid": pid, "host": host}


@pytest.mark.parametrize(
    ("ends", "dead", "lost"),
    [
        ([], [], None),
        ([], [11], (1, 11)),
        ([], [10, 11], (0, 10)),
        ([(1, "rank-done", {"measured": {}})], [11], None),
        ([(1, "rank-stopped", {})], [11], None),
        ([(0, "rank-failed", {"at": 1.0, "failure": {"type": "E", "message": "m"}})], [11], None),
    ],
)
def test_the_first_rank_that_is_gone_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: list[Any], dead: list[int], lost: Any
) -> None:
    """A rank of another host cannot be looked at from here."""
    monkeypatch.setattr(torchrun.socket, "gethostname", lambda: "here")
    monkeypatch.setattr(torchrun, "alive", lambda pid: True)
    starts = [(0, "rank-started", begun(10)), (1, "rank-started", begun(11))]
    made = ranks(tmp_path, *starts, (2, "rank-started", begun(12, "there")))
    assert list(made.news()) == []
    assert made.living() == [10, 11]
    assert not made.trouble
    for rank, name, fields in ends:
        EventLog(tmp_path / str(rank))(event(name, "x", rank=rank, **fields))
    if ends and ends[0][1] == "rank-failed":
        assert list(made.news()) == []
        assert made.trouble
    monkeypatch.setattr(torchrun, "alive", lambda pid: pid not in dead)
    EventLog(tmp_path / "0")(event("progress", "x", done=1))
    assert [item["event"] for item in made.news()] == ["progress"]
    assert made.lost == lost
    assert made.trouble is (lost is not None or bool(made.failures))


def test_memory_of_processes_adds_up_and_of_gpus_is_the_largest(tmp_path: Path) -> None:
    def done(memory: float, gpu: float) -> dict[str, Any]:
        made = Measured(peak_memory_gb=memory, peak_gpu_memory_gb=gpu)
        return {"measured": msgspec.to_builtins(made)}

    made = ranks(tmp_path, *[(n, "rank-done", done(n + 1.0, g)) for n, g in enumerate((3, 7, 5))])
    assert list(made.news()) == []
    assert (made.measured.peak_memory_gb, made.measured.peak_gpu_memory_gb) == (6.0, 7.0)
    assert (made.living(), made.trouble, made.lost) == ([], False, None)


@pytest.mark.parametrize(
    ("printed", "message", "killed"),
    [
        ("exitcode  : -9 (pid: 42)", "rank 3 was killed by SIGKILL", True),
        ("exitcode  : 1 (local_rank: 3) (pid: 42)", "rank 3 ended", False),
        ("exitcode  : -9 (pid: 4)", "rank 3 ended without a word", False),
        (None, "rank 3 ended without a word", False),
    ],
)
def test_how_a_rank_was_lost(
    tmp_path: Path, printed: str | None, message: str, killed: bool
) -> None:
    log = tmp_path / "log"
    if printed is not None:
        log.write_text(f"[0]:\n  {printed}\n")
    job: Any = SimpleNamespace(instance=instance("x"), log=str(log))
    error = torchrun._lost(job, 3, 42, oom_killed=False)
    assert isinstance(error, StepFailed)
    assert isinstance(error, Killed) is killed
    assert message in error.what


def test_the_line_of_torchrun() -> None:
    line = command("job.json", 4, Nodes(count=2, rank=1, host="h", port=77))
    for part in ("--nnodes=2", "--node-rank=1", "--nproc-per-node=4", "--master-port=77"):
        assert part in line
    assert line[-1] == "job.json"
