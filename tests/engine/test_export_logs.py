"""Offline copies of curves."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from kit.engine.export_logs import points, to_tensorboard, to_wandb
from kit.errors import InvalidInput, Preflight
from tests.engine.test_session import Run


class FakeWandb(types.ModuleType):
    """Notes what is logged."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: dict[str, Any] = {}
        self.logged: list[dict[str, float]] = []
        self.defined: list[str] = []

    def init(self, **options: Any) -> FakeWandb:
        self.started = options
        return self

    def __enter__(self) -> FakeWandb:
        return self

    def __exit__(self, *reason: object) -> None:
        self.started["closed"] = True

    def define_metric(self, name: str, step_metric: str) -> None:
        self.defined.append(name)

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)


def test_points_of_a_run(run_toy: Run) -> None:
    found = list(points(run_toy()))
    assert {point.curve for point in found} == {f"make[seed={seed}]/loss" for seed in range(3)}
    assert all(point.value == 1.0 and point.step == 0 and point.time > 1e9 for point in found)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no events\.jsonl"):
        list(points(tmp_path))


@pytest.mark.parametrize("export", [to_tensorboard, to_wandb])
def test_what_is_missing_says_how_to_install(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: Any
) -> None:
    for name in ("wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Preflight, match="not installed") as caught:
        export(run_toy(), tmp_path / "out")
    assert caught.value.next_step in ("pip install tensorboard", "pip install wandb")


def test_wandb_stays_offline(run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert to_wandb(run_toy(), tmp_path / "out") == 3
    assert fake.started["mode"] == "offline"
    assert fake.started["closed"] is True
    assert fake.started["config"]["experiment"] == "toy"
    assert len(fake.logged) == 3
    assert len(fake.defined) == 3
    import os

    assert os.environ["WANDB_MODE"] == "disabled"


def test_tensorboard_gets_every_point(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against stand-ins of the three classes used; they keep what they are given."""
    written: list[Any] = []
    writer = types.SimpleNamespace(
        EventFileWriter=lambda folder: types.SimpleNamespace(
            add_event=written.append, close=lambda: written.append("closed")
        )
    )
    summary = types.SimpleNamespace(Summary=lambda value: value)
    summary.Summary.Value = lambda **fields: fields  # type: ignore[attr-defined]
    event = types.SimpleNamespace(Event=lambda **fields: fields)
    for name, module in (
        ("tensorboard.summary.writer.event_file_writer", writer),
        ("tensorboard.compat.proto.event_pb2", event),
        ("tensorboard.compat.proto.summary_pb2", summary),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    assert to_tensorboard(run_toy(), tmp_path / "out") == 3
    *events, last = written
    assert last == "closed"
    assert {item["summary"][0]["tag"] for item in events} == {
        f"make[seed={seed}]/loss" for seed in range(3)
    }
    assert all(item["step"] == 0 and item["wall_time"] > 1e9 for item in events)
