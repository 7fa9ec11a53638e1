"""Steps of several processes: torchrun starts, reports, fails and dies as one step."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import psutil
import pytest

from kit.engine import torchrun
from kit.engine.failures import Carried
from kit.engine.job import make_job
from kit.engine.launch import Nodes
from kit.engine.registry import REGISTRY, Registry
from kit.engine.store import Store
from kit.engine.worker import output_to, perform
from kit.errors import StepFailed
from tests.engine.conftest import ToyPins, manifest, plan_of

pytest.importorskip("torch")

PROGRAM = """
import sys
from pathlib import Path
from kit.engine.worker import perform
from kit.engine.registry import REGISTRY, Registry
from tests.engine.test_torchrun import job_of
perform(job_of(Path(sys.argv[1]), "sleep"), REGISTRY, lambda item: None)
"""


def job_of(tmp_path: Path, how: str = "ok") -> Any:
    """A job of two ranks."""
    profile = {
        "summary": "s",
        "set": {"r": {"how": how}},
        "resources": {"r": {"gpus": 2}},
    }
    steps = [{"id": "r", "kind": "toy/rank", "version": 1}]
    plan = plan_of(manifest(steps=steps, results="r", profiles={"mini": profile}))
    return make_job(
        plan,
        plan.instances[0],
        home=tmp_path / "home",
        logs=tmp_path / "logs",
        pins=ToyPins(tmp_path),
        digests={},
    )


def test_world_size_enters_the_key(tmp_path: Path) -> None:
    assert job_of(tmp_path).instance.environment["world"] == "2x1x1"


def test_command_names_its_port() -> None:
    line = torchrun.command("job.json", 4, Nodes(count=2, rank=1, host="n0", port=1234))
    assert "--nproc-per-node=4" in line
    assert "--master-port=1234" in line
    assert "--master-addr=n0" in line
    assert "--nnodes=2" in line
    assert "--node-rank=1" in line
    assert line[line.index("torch.distributed.run") - 1] == "-m"
    assert 1024 <= torchrun.free_port() < 65536


def test_two_ranks_make_one_step(tmp_path: Path) -> None:
    job, events = job_of(tmp_path), []
    entry = perform(job, REGISTRY, events.append)
    store = Store(tmp_path / "home")
    assert (store.path(job.instance.key) / "number.json").read_text() == '{"number": 2}'
    names = [item["event"] for item in events]
    assert names == ["step-started", "progress", "canary", "step-done"]  # rank 0 alone speaks
    assert [canary.id for canary in entry.canaries] == ["world"]
    assert entry.peak_memory_gb > 0


def test_a_failing_rank_fails_the_step(tmp_path: Path) -> None:
    job = job_of(tmp_path, "value")
    with pytest.raises(Carried, match="rank 1 does not like this") as caught:
        perform(job, REGISTRY, lambda item: None)
    assert caught.value.failure.type == "ValueError"
    assert Store(tmp_path / "home").look(job.instance.key).entry is None
    assert not list((tmp_path / "home" / "tmp").iterdir())


def test_no_rank_survives_its_run(tmp_path: Path) -> None:
    """SIGKILL of the process that holds the step takes torchrun and all ranks with it."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.DEVNULL,
    )
    scratch = Store(tmp_path / "home").scratch(job_of(tmp_path, "sleep").instance.key)
    deadline = time.monotonic() + 60
    while len(list(scratch.glob("pid-*"))) < 2:
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.1)
    time.sleep(0.2)
    ranks = [int(path.read_text()) for path in scratch.glob("pid-*")]
    below = [process.pid for process in psutil.Process(child.pid).children(recursive=True)]
    assert set(ranks) <= set(below)
    child.send_signal(signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in below):
        assert time.monotonic() < deadline, "a rank outlived its run"
        time.sleep(0.05)


# Who was first.


@pytest.mark.parametrize("again", range(3))
def test_the_first_cause_in_time_is_reported_and_not_its_echo(tmp_path: Path, again: int) -> None:
    """Rank 0, whose file is read first, complains of the connection that rank 1 has closed."""
    with pytest.raises(Carried, match="rank 1 does not like this") as caught:
        perform(job_of(tmp_path, "echo"), REGISTRY, lambda item: None)
    assert caught.value.failure.type == "ValueError"


def performed(job: Any, registry: Registry = REGISTRY) -> list[Any]:
    """The events of a job whose torchrun prints into its log, as under a worker."""
    events: list[Any] = []
    Path(job.log).parent.mkdir(parents=True)
    with output_to(Path(job.log)):
        perform(job, registry, events.append)
    return events


def test_a_rank_that_is_killed_is_the_cause_and_not_whoever_misses_it(tmp_path: Path) -> None:
    """And a second time in a row it is the step's end."""
    with pytest.raises(StepFailed) as caught:
        performed(job_of(tmp_path, "killed"))
    assert "rank 1 was killed by SIGKILL" in caught.value.what
    assert "it was tried twice" in caught.value.why
    assert "connection closed" not in str(caught.value)


def test_a_step_of_which_a_rank_was_killed_is_tried_once_more(tmp_path: Path) -> None:
    """What it leaves is what an undisturbed step leaves, and the second try is said."""
    job = job_of(tmp_path, "killed once")
    events = performed(job)
    names = [item["event"] for item in events]
    assert names == ["step-started", "step-repeated", "progress", "canary", "step-done"]
    assert events[1]["reason"].startswith("rank 1 was killed by SIGKILL")
    assert events[1]["reason"].endswith("it is tried once more")
    entry = Store(tmp_path / "home").look(job.instance.key).entry
    assert entry is not None
    assert set(entry.files) == {"number.json", "canaries.json"}
    assert [canary.id for canary in entry.canaries] == ["world"]


@pytest.mark.parametrize("why", ["not repeatable", "two nodes"])
def test_a_killed_rank_ends_a_step_that_cannot_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Acting twice is not allowed, or the ranks of another node are gone too."""
    calls: list[str] = []

    def attempt(*_: Any) -> NoReturn:
        calls.append("attempt")
        raise torchrun.Killed("rank 1 was killed by SIGKILL", where="r")

    monkeypatch.setattr(torchrun, "_attempt", attempt)
    kind = REGISTRY.get("toy/rank")
    if why == "two nodes":
        monkeypatch.setenv("KIT_LAUNCH", msgspec.json.encode(Nodes(count=2)).decode())
    else:
        kind = dataclasses.replace(kind, repeatable=False)
    with pytest.raises(torchrun.Killed) as caught:
        torchrun.launch(job_of(tmp_path), kind, tmp_path, tmp_path, lambda item: None)
    assert calls == ["attempt"]
    assert "twice" not in caught.value.why


def test_a_rank_that_hangs_does_not_keep_the_failure_back(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Carried, match="rank 0 does not like this"):
        perform(job_of(tmp_path, "stuck"), REGISTRY, lambda item: None)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_gpu_memory_grows_in_segments_unless_somebody_chose_otherwise(
    tmp_path: Path, name: str
) -> None:
    given = {"HOME": "h"} | ({name: "max_split_size_mb:64"} if name else {})
    made = torchrun._patient(job_of(tmp_path).instance, given)
    assert given.items() <= made.items()
    grows = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert made.keys() - given.keys() == {
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", *({} if name else grows),
    }  # fmt: skip
    assert name or made.items() >= grows.items()
