"""What a step function is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine import context as module
from kit.engine.context import HiddenAxes, StepContext, Stop, Stopped
from kit.engine.events import Event
from kit.engine.job import Job, PinFolder, Upstream, log_path
from kit.engine.registry import NoParams, Registry, StepKind
from kit.engine.store import Store
from kit.manifest.types import Resources
from kit.results.plan import ModelUse
from tests.engine.conftest import plan_of

INPUTS = {"model": "pin", "data": "step", "all": "steps"}


def context(tmp_path: Path, *, reads_axes: bool = False) -> tuple[StepContext, list[Event]]:
    """A context with one input of every kind."""
    kind = StepKind(
        "toy/x",
        1,
        NoParams,
        lambda c, p: None,
        INPUTS,  # type: ignore[arg-type]
        (),
        reads_axes=reads_axes,
    )
    ups = [
        Upstream(instance=f"up[n={n}]", key=str(n) * 64, axes={"n": n}, params={"p": n})
        for n in (1, 2)
    ]
    job = Job(
        instance=plan_of().by_id["make[seed=1]"],
        home=str(tmp_path),
        log=str(tmp_path / "log"),
        steps={"data": ups[:1], "all": ups},
        pins={"model": PinFolder(id="llama", path="/pins/llama", attributes={"width": 64})},
    )
    events: list[Event] = []
    made = StepContext(
        job,
        kind,
        store=Store(tmp_path),
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        emit=events.append,
    )
    return made, events


def test_roles_of_readable_axes(run_toy: Callable[..., Path], tmp_path: Path) -> None:
    run_toy(plan_of())
    folder = Store(tmp_path / "home").path(plan_of().by_id["table"].key)
    assert json.loads((folder / "roles.json").read_text()) == {"seed": "replicate"}


def test_it_is_a_step_context(tmp_path: Path) -> None:
    made: StepContext = context(tmp_path)[0]
    assert made.instance == "make[seed=1]"
    assert made.device == "cpu"
    assert made.rehearsal is False


def test_inputs(tmp_path: Path) -> None:
    made, _ = context(tmp_path)
    assert made.pin("model").path == Path("/pins/llama")
    assert made.pin("model").attributes == {"width": 64}
    assert made.step("data").path == Store(tmp_path).path("1" * 64)
    assert made.step("data").params == {"p": 1}
    assert [one.axes for one in made.steps("all")] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.pin("data"),
        lambda c: c.step("all"),
        lambda c: c.steps("data"),
        lambda c: c.step("other"),
    ],
)
def test_inputs_are_asked_for_as_declared(
    tmp_path: Path, ask: Callable[[StepContext], Any]
) -> None:
    with pytest.raises(ValueError, match=r"its inputs: model \(pin\), data \(step\), all"):
        ask(context(tmp_path)[0])


@pytest.mark.parametrize(
    "look",
    [
        lambda axes: axes["n"],
        lambda axes: axes.get("n"),
        lambda axes: "n" in axes,
        list,
        lambda axes: list(axes.keys()),
        lambda axes: list(axes.values()),
        lambda axes: list(axes.items()),
    ],
)
def test_axes_that_are_not_in_the_key_cannot_be_read(look: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="reads_axes=True"):
        look(HiddenAxes("toy/x"))


def test_axes_of_kinds_that_declare_it(tmp_path: Path) -> None:
    hidden, _ = context(tmp_path)
    with pytest.raises(ValueError, match="'toy/x' reads axes"):
        hidden.axes["seed"]
    with pytest.raises(ValueError, match="'toy/x' reads axes"):
        hidden.step("data").axes["n"]
    shown, _ = context(tmp_path, reads_axes=True)
    assert shown.axes == {"seed": 1}
    assert shown.step("data").axes == {"n": 1}


def test_progress_is_cheap_but_the_end_is_told(tmp_path: Path) -> None:
    made, events = context(tmp_path)
    for done in range(1, 1001):
        made.progress(done, 1000, "steps")
    assert len(events) < 20
    assert events[-1]["done"] == 1000


def test_metrics_survive_what_json_cannot_say(tmp_path: Path) -> None:
    made, events = context(tmp_path)
    made.metric("loss", 0.5, 1)
    made.metric("loss", float("nan"), 2)
    made.metric("loss", float("inf"), 3)
    assert [item["value"] for item in events] == [0.5, "nan", "inf"]
    assert [float(item["value"]) for item in events][2] == float("inf")


def test_canaries_and_notes(tmp_path: Path) -> None:
    made, events = context(tmp_path)
    made.canary("moved", False, "0 of 3 weights", ["asr."])
    made.note("with hf_" + "aB3" * 10)
    assert made.canaries[0].cells == ["asr."]
    assert made.canaries[0].step == "make[seed=1]"
    assert [item["event"] for item in events] == ["canary", "note"]
    assert events[1]["text"] == "with [redacted]"


def test_log_names_stay_inside_the_folder(tmp_path: Path) -> None:
    assert log_path(tmp_path, "a[b=../../x]").parent == tmp_path
    assert log_path(tmp_path, "a[b=" + "x" * 300 + "]").name.endswith(".log")


def test_registry() -> None:
    registry = Registry()
    kind = StepKind("toy/x", 1, NoParams, lambda c, p: None, {}, ())
    registry.add(kind)
    assert registry.get("toy/x") is kind
    assert registry.names() == ["toy/x"]
    with pytest.raises(ValueError, match="registered twice"):
        registry.add(kind)


def reading(tmp_path: Path, *, pinned: bool) -> StepContext:
    """A context whose model is a pin, or what a step left in a folder of its outputs."""
    kind = StepKind("toy/x", 1, NoParams, lambda c, p: None, {"model": "model"}, ())
    use = ModelUse(attributes={"chat_format": "f"}, folder="" if pinned else "weights/final")
    instance = msgspec.structs.replace(plan_of().by_id["make[seed=1]"], models={"model": use})
    made = Upstream(instance="train[n=1]", key="1" * 64, axes={}, params={})
    pin = PinFolder(id="llama", path="/pins/llama", attributes={"other": "x"})
    job = Job(
        instance=instance,
        home=str(tmp_path),
        log="",
        steps={} if pinned else {"model": [made]},
        pins={"model": pin} if pinned else {},
    )
    return StepContext(
        job, kind, store=Store(tmp_path), out=tmp_path, scratch=tmp_path, emit=lambda item: None
    )


def test_a_model_is_a_folder_wherever_it_comes_from(tmp_path: Path) -> None:
    pin = reading(tmp_path, pinned=True).model("model")
    assert (pin.id, pin.path, pin.pinned) == ("llama", Path("/pins/llama"), True)
    made = reading(tmp_path, pinned=False).model("model")
    folder = Store(tmp_path).path("1" * 64) / "weights" / "final"
    assert (made.id, made.path, made.pinned) == ("train[n=1]", folder, False)
    assert pin.attributes == made.attributes == {"chat_format": "f"}


# When to save.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that the test moves, and a Stop of its own."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "STOP", Stop())
    return now


@pytest.mark.parametrize("minutes", [0.5, 3.0])
def test_state_is_due_when_the_interval_is_over_and_not_before(
    tmp_path: Path, clock: list[float], minutes: float
) -> None:
    made, _ = context(tmp_path)
    object.__setattr__(made, "resources", Resources(save_minutes=minutes))
    for _ in range(2):
        clock[0] += 60 * minutes - 0.5
        assert not made.due()
        clock[0] += 0.5
        assert made.due()
        assert made.due()  # until it is saved
        made.saved()
        assert not made.due()


def test_a_step_that_is_asked_to_stop_saves_and_does_not_go_on(
    tmp_path: Path, clock: list[float]
) -> None:
    made, _ = context(tmp_path)
    assert not made.due()
    module.STOP.ask()
    assert made.due()
    with pytest.raises(Stopped):
        made.saved()


@pytest.mark.parametrize("world", ["1", "2"])
def test_what_is_due_is_the_largest_wish_of_all_processes(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch, world: str
) -> None:
    """The other process wants to save; who asks before there is a group is refused."""
    distributed = pytest.importorskip("torch").distributed
    asked: list[Any] = []

    def reduce(mine: Any, operation: Any) -> None:
        asked.append(operation)
        mine.fill_(max(int(mine), module._LATE))

    monkeypatch.setenv("WORLD_SIZE", world)
    made, _ = context(tmp_path)
    if world == "2":
        with pytest.raises(ValueError, match="after init_process_group"):
            made.due()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(distributed, "all_reduce", reduce)
    assert made.due() is (world == "2")
    assert asked == [distributed.ReduceOp.MAX] * (world == "2")
    made.saved()  # nobody is to stop
    module.STOP.waits = True
    module.STOP.ask()
    assert made.due()
    with pytest.raises(Stopped):
        made.saved()
