"""The process of the next GPU step: when it is started, what it does, and that it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine import hardware, runner
from kit.engine.early import Early, early_work, prepare
from kit.engine.events import Event, read_events
from kit.engine.job import Job, make_job
from kit.engine.local import LocalExecutor
from kit.engine.process import alive
from kit.engine.session import Options, Session
from kit.engine.store import Store
from kit.errors import StepFailed
from kit.results.plan import ModelUse, Plan, StepInstance
from tests.engine import early_toy  # noqa: F401
from tests.engine.conftest import PIN, ToyPins, manifest, plan_of
from tests.engine.test_crash import wait_until
from tests.engine.test_local import executor, instance

SMI = "0, GPU-aaaa, NVIDIA H100 80GB HBM3, 9.0, 81559, 580.1\n"
SLOW = "import os, pathlib, time\n"


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with one GPU, and a folder of modules that workers can import."""
    monkeypatch.setattr(hardware, "_nvidia_smi", lambda: SMI)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("KIT_STEPS_MODULES", "tests.engine.toy,tests.engine.early_toy")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()


def module(tmp_path: Path, name: str, text: str = "") -> str:
    (tmp_path / "modules" / f"{name}.py").write_text(SLOW + text)
    return name


def chain(*settings: dict[str, Any], weights: bool = False, gpu_memory_gb: float = 0) -> Plan:
    """GPU steps a, b, ... each of which reads the one before, and a table of the last."""
    needs = {"gpus": 1, "minutes": 1, "gpu_memory_gb": gpu_memory_gb}
    steps: list[dict[str, Any]] = []
    for number, _ in enumerate(settings):
        step: dict[str, Any] = {"id": "abcd"[number], "kind": "toy/early", "version": 1}
        step["inputs"] = {"after": {"step": "abcd"[number - 1]}} if number else {}
        if weights:
            step["inputs"]["model"] = {"pin": "words"}
        steps.append(step)
    table = {"id": "t", "kind": "toy/table", "version": 1}
    last = steps[-1]["id"]
    steps.append({**table, "inputs": {"numbers": {"step": last}}})
    ids = [step["id"] for step in steps[:-1]]
    profile = {
        "summary": "s",
        "set": {id: own for id, own in zip(ids, settings, strict=True) if own},
        "resources": dict.fromkeys(ids, needs),
    }
    return plan_of(manifest(steps=steps, results="t", profiles={"mini": profile}), pins=[PIN])


def events_of(folder: Path) -> list[Event]:
    return list(read_events(folder / "events.jsonl"))


def said(events: list[Event], name: str, step: str) -> list[Event]:
    return [item for item in events if item["event"] == name and item.get("step") == step]


def seen(events: list[Event], step: str) -> dict[str, Any]:
    """What a step said of its process; what it had made ahead is another question."""
    *_, note = said(events, "note", step)
    values: dict[str, Any] = json.loads(note["text"])
    values.pop("thing")
    return values


def thing(events: list[Event], step: str) -> list[Any]:
    """What a step had of its ``ahead``."""
    *_, note = said(events, "note", step)
    made: list[Any] = json.loads(note["text"])["thing"]
    return made


def test_the_next_step_starts_in_a_process_that_waited(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    one, two = module(tmp_path, "slow_one"), module(tmp_path, "slow_two")
    events = events_of(
        run_toy(chain({"seconds": 1.5}, {"modules": [one], "seconds": 1.5}, {"modules": [two]}))
    )
    order = [(item["event"], item.get("step")) for item in events]
    for step, before, name in (("b", "a", one), ("c", "b", two)):
        (ready,) = said(events, "step-early-ready", step)
        begun = order.index(("step-early", step))
        assert begun < order.index(("step-early-ready", step)) < order.index(("step-done", before))
        assert order.index(("step-done", before)) < order.index(("step-started", step))
        assert ready["pid"] == seen(events, step)["pid"] != seen(events, before)["pid"]
        assert (ready["imported"], ready["gpu_touched"]) == (1, False)
        assert seen(events, step) == {"pid": ready["pid"], "there": [True], "gpus": "0"}
        (said_so,) = said(events, "step-early", step)
        assert name in said_so["reason"]
    # Never two at a time: c's began when b had its job.
    assert order.index(("step-done", "a")) < order.index(("step-early", "c"))
    assert not [name for name, _ in order if name == "step-early-ended"]


def test_results_are_the_same_without_it(
    run_toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = chain({"seconds": 0.5}, {"modules": [module(tmp_path, "slow_one")]})
    with_it = run_toy(plan)
    assert said(events_of(with_it), "step-early", "b")
    (tmp_path / "home").rename(tmp_path / "other-home")
    monkeypatch.setattr(runner, "early_work", lambda *given, **how: None)
    without = run_toy(plan)
    assert not said(events_of(without), "step-early", "b")
    for name in ("results.json", "labels.jsonl", "plan.json"):
        assert (with_it / name).read_bytes() == (without / name).read_bytes()


@pytest.mark.parametrize("text", ["os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_it_dies_while_it_waits(run_toy: Callable[..., Path], tmp_path: Path, text: str) -> None:
    name = module(tmp_path, "deadly", text)
    events = events_of(run_toy(chain({"seconds": 1.5}, {"modules": [name]})))
    (ended,) = said(events, "step-early-ended", "b")
    assert ("3" if "exit" in text else "-9") in ended["reason"]
    assert len(said(events, "step-early", "b")) == 1  # and not again and again
    assert seen(events, "b")["there"] == [False]
    assert said(events, "step-done", "b")


def test_it_dies_when_it_has_its_job_and_has_not_begun(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    """The step starts in a process of its own; that is no second try of the step."""
    flag = tmp_path / "home" / "store"
    name = module(
        tmp_path,
        "late",
        f"store = pathlib.Path({str(flag)!r})\n"
        "while not list(store.rglob('number.json')):\n    time.sleep(0.01)\n"
        "time.sleep(1)\nos.kill(os.getpid(), 9)\n",
    )
    events = events_of(run_toy(chain({"seconds": 0.2}, {"modules": [name]})))
    (ended,) = said(events, "step-early-ended", "b")
    assert "-9" in ended["reason"]
    assert not said(events, "step-repeated", "b")
    assert len(said(events, "step-started", "b")) == 1
    assert said(events, "step-done", "b")


def test_what_cannot_be_imported_is_left_to_the_step(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    names = ["no_such_module", module(tmp_path, "slow_one")]
    events = events_of(run_toy(chain({"seconds": 1.5}, {"modules": names})))
    (ready,) = said(events, "step-early-ready", "b")
    assert ready["imported"] == 1
    assert seen(events, "b") == {"pid": ready["pid"], "there": [False, True], "gpus": "0"}


def test_nothing_is_started_for_a_step_that_is_in_the_store(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    plan = chain({"seconds": 0.5}, {"modules": [module(tmp_path, "slow_one")]})
    run_toy(plan)
    Store(tmp_path / "home").set_aside(plan.by_id["a"].key)
    events = events_of(run_toy(plan))
    assert said(events, "step-done", "a")
    assert said(events, "step-cached", "b")
    assert not said(events, "step-early", "b")


def test_it_ends_with_a_run_that_fails(run_toy: Callable[..., Path], tmp_path: Path) -> None:
    name = module(tmp_path, "slow_one")
    plan = chain({"seconds": 1.5, "fails": True}, {"modules": [name]})
    with pytest.raises(StepFailed):
        run_toy(plan)
    (folder,) = (tmp_path / "runs").iterdir()
    (ready,) = said(events_of(folder), "step-early-ready", "b")
    assert not alive(ready["pid"])


def test_it_is_ended_when_its_step_will_not_come(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    """With --keep-going the run goes on without the failed branch, and says so."""
    plan = chain({"seconds": 1.0, "fails": True}, {"modules": [module(tmp_path, "slow_one")]})
    other = msgspec.structs.replace(
        plan.by_id["a"], id="z", key="0" * 64, params={"seconds": 6.0}, resources=_cpu()
    )
    more = msgspec.structs.replace(plan, instances=[*plan.instances, other])
    with pytest.raises(StepFailed):
        run_toy(more, keep_going=True)
    (folder,) = (tmp_path / "runs").iterdir()
    events = events_of(folder)
    order = [(item["event"], item.get("step")) for item in events]
    assert order.index(("step-failed", "a")) < order.index(("step-early-ended", "b"))
    assert order.index(("step-early-ended", "b")) < order.index(("step-done", "z"))


def _cpu() -> Any:
    return instance("x").resources


RUN = """
import sys
from pathlib import Path
from kit.engine import hardware
from tests.engine.test_early import SMI, driven
hardware._nvidia_smi = lambda: SMI
driven(Path(sys.argv[1]))
"""


def driven(folder: Path) -> None:
    """What the killed run does."""
    plan = chain({"seconds": 60.0}, {"modules": ["slow_one"]})
    pins, options = ToyPins(folder / "pins"), Options(jobs=1, runs_dir=folder / "runs")
    Session(plan, home=folder / "home", pins=pins, options=options, argv=["kit"]).run()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_run_leaves_no_process(tmp_path: Path, number: int, busy: bool) -> None:
    """Whether the waiting process waits, or is still at its imports."""
    module(tmp_path, "slow_one", "time.sleep(60)" if busy else "")
    child = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stderr=subprocess.PIPE)
    awaited = "step-early" if busy else "step-early-ready"

    def events() -> list[Event]:
        return [item for log in tmp_path.glob("runs/*/events.jsonl") for item in read_events(log)]

    try:
        assert wait_until(
            lambda: bool(said(events(), awaited, "b") and said(events(), "note", "a"))
        )
        (early,) = said(events(), "step-early", "b")
        pid = int(early["reason"].split()[1])
        assert alive(pid)
        child.send_signal(number)
        assert wait_until(lambda: child.poll() is not None)
        assert wait_until(lambda: not alive(pid) and not alive(seen(events(), "a")["pid"]))
    finally:
        child.kill()
        child.communicate()


def test_memory_of_what_waits_is_counted(tmp_path: Path) -> None:
    work = Early(modules=("json",))
    runs, large = instance("runs", gpus=1, memory_gb=3), instance("large", gpus=1, memory_gb=6)
    made = executor(tmp_path, runs, memory_gb=8)
    made._busy[0].gpus = ["0"]
    assert made.expect(large, work) == []
    small = instance("small", gpus=1, memory_gb=4)
    (begun,) = made.expect(small, work)
    assert (begun["event"], begun["step"]) == ("step-early", "small")
    assert made.expect(small, work) == []  # it waits already
    made._busy[1] = _believed(instance("more", memory_gb=2), tmp_path)
    (ended,) = made.expect(small, work)
    assert (ended["event"], ended["step"]) == ("step-early-ended", "small")
    assert made.expect(small, work) == []  # and not again, as long as it is so


def _believed(running: StepInstance, tmp_path: Path) -> Any:
    worker = executor(tmp_path, running)._busy[0]
    worker.gpus = []
    return worker


def test_a_waiting_process_goes_to_no_other_step(tmp_path: Path) -> None:
    made = LocalExecutor(jobs=1, memory_gb=8, gpus=["0"], logs=tmp_path)
    try:
        made.expect(instance("b", gpus=1), Early(modules=("json",)))
        (pid,) = [made._waiting.worker.child.pid] if made._waiting else []
        # Another instance with the same work takes it over; one with other work does not.
        assert made.expect(instance("c", gpus=1), Early(modules=("json",))) == []
        assert alive(pid)
        ended, begun = made.expect(instance("d", gpus=1), Early(modules=("csv",)))
        assert (ended["event"], begun["event"]) == ("step-early-ended", "step-early")
        assert not alive(pid)
        (ended,) = made.expect(None, None)
        assert ended["step"] == "d"
    finally:
        made.close()


def test_pinned_weights_are_read_once(run_toy: Callable[..., Path], tmp_path: Path) -> None:
    name, folder = module(tmp_path, "slow_one"), tmp_path / "pins" / "words"
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"model-{number}.safetensors").write_bytes(b"x" * 1000)
    (folder / "other.bin").write_bytes(b"x" * 5000)
    plan = chain({"seconds": 1.5}, {"modules": [name]}, weights=True)
    events = events_of(run_toy(plan))
    (ready,) = said(events, "step-early-ready", "b")
    assert ready["bytes_read"] == 2000
    work = early_work(plan.by_id["b"], ToyPins(tmp_path / "pins"), rehearsal=True)  # type: ignore[arg-type]
    assert work == Early(modules=(name,))


def test_a_job_that_comes_is_not_kept_waiting_for_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    work = Early(modules=("json",), folders=(str(tmp_path),))
    assert prepare(work, lambda: False)[0]["bytes_read"] == 1000
    facts, _ = prepare(work, lambda: True)
    assert (facts["bytes_read"], facts["imported"]) == (0, 0)


def test_what_torchrun_starts_is_not_started_early() -> None:
    plan = chain({}, {"modules": ["json"]})
    pins: Any = ToyPins(Path("nowhere"))
    alone = plan.by_id["b"]
    assert early_work(alone, pins, rehearsal=False) == Early(modules=("json",))
    shared = msgspec.structs.replace(alone, launch="torchrun")
    assert early_work(shared, pins, rehearsal=False) is None
    assert early_work(plan.by_id["a"], pins, rehearsal=False) is None  # it names nothing


def test_what_needs_no_other_step_is_made_where_the_gpu_has_room(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    name = module(tmp_path, "slow_one")
    folder = run_toy(chain({"seconds": 2.0}, {"modules": [name]}, gpu_memory_gb=36))
    events = events_of(folder)
    (begun,), (ready,) = said(events, "step-early", "b"), said(events, "step-early-ready", "b")
    assert "makes on the GPU" in begun["reason"]
    assert ready["ahead_seconds"] >= 0
    how, pid, inputs, scratch = thing(events, "b")
    # In the process of the step, without the steps that it reads, in a folder that went with it.
    assert (how, pid, inputs) == ("ahead", ready["pid"], False)
    assert Path(scratch).parent == (tmp_path / "home" / "tmp").absolute()
    assert not Path(scratch).exists()
    # What it said then is said when the step runs.
    order = [(item["event"], item.get("step")) for item in events]
    assert order.index(("step-started", "b")) < order.index(("note", "b"))
    assert [json.loads(n["text"]).get("ahead") for n in said(events, "note", "b")] == [pid, None]
    assert thing(events, "a")[0] == "now"


def test_nothing_is_made_on_a_gpu_without_room(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    """Twice 37 GiB, and a tenth more, are above the card's 79.6; and what is not planned is not."""
    for gb in (37, 0):
        name = module(tmp_path, f"slow_{gb}")
        folder = run_toy(chain({"seconds": 1.5}, {"modules": [name]}, gpu_memory_gb=gb))
        events = events_of(folder)
        assert "makes on the GPU" not in said(events, "step-early", "b")[0]["reason"]
        assert "ahead_seconds" not in said(events, "step-early-ready", "b")[0]
        assert thing(events, "b")[0] == "now"
        (tmp_path / "home").rename(tmp_path / f"home-{gb}")
        (tmp_path / "runs").rename(tmp_path / f"runs-{gb}")


def test_what_cannot_be_made_ahead_is_left_to_the_step(
    run_toy: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own: another waits for it, which leaves the GPU alone."""
    second = {"modules": [module(tmp_path, "slow_one")], "ahead": "fails"}
    events = events_of(run_toy(chain({"seconds": 2.5}, second, gpu_memory_gb=10)))
    (ended,) = said(events, "step-early-ended", "b")
    assert "status 1" in ended["reason"]
    first, again = said(events, "step-early", "b")
    assert "makes on the GPU" in first["reason"]
    assert "makes on the GPU" not in again["reason"]
    assert thing(events, "b")[0] == "now"
    assert said(events, "step-done", "b")
    assert list((tmp_path / "home" / "tmp").iterdir()) == []


def test_the_gpu_is_given_back_to_a_step_that_comes_first(tmp_path: Path) -> None:
    plan = chain({}, {"modules": ["json"]}, gpu_memory_gb=10)
    pins: Any = ToyPins(tmp_path)
    first, second = plan.by_id["a"], plan.by_id["b"]

    def job_of(wanted: StepInstance) -> Job:
        alone = msgspec.structs.replace(wanted, steps={})
        return make_job(plan, alone, home=tmp_path, logs=tmp_path, pins=pins, digests={})

    work = early_work(second, pins, rehearsal=False, job=lambda: job_of(second))
    assert work is not None
    made = LocalExecutor(
        jobs=1, memory_gb=8, gpus=["0"], gpu_memory_gb={"0": 79.6}, logs=tmp_path / "logs"
    )
    try:
        (begun,) = made.expect(second, work)
        assert "makes on the GPU" in begun["reason"]
        # Another instance would find another's model in it.
        ended, again = made.expect(first, msgspec.structs.replace(work, job=job_of(first)))
        assert (ended["event"], again["event"]) == ("step-early-ended", "step-early")
        waiting = made._waiting
        assert waiting is not None
        made.start(job_of(second))
        assert made._waiting is None
        assert not alive(waiting.worker.child.pid)
        assert made.poll(0)[0]["event"] == "step-early-ended"
    finally:
        made.close()


def test_a_model_that_a_step_makes_is_not_made_ahead() -> None:
    plan, pins = chain({}, {"modules": ["json"]}), ToyPins(Path("nowhere"))
    use = msgspec.convert({"attributes": {}, "folder": "model"}, ModelUse)
    made = msgspec.structs.replace(plan.by_id["b"], models={"model": use})

    def never() -> Job:
        raise AssertionError

    work = early_work(made, pins, rehearsal=False, job=never)  # type: ignore[arg-type]
    assert work == Early(modules=("json",))
