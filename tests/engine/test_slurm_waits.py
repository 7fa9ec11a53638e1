"""How long the SLURM executor waits in a look, and whose last words it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.engine.slurm import executor as module
from kit.engine.slurm.cluster import Seen
from tests.engine.test_slurm_executor import Table


@pytest.mark.parametrize(("seconds", "refresh", "slept"), [(0.25, 1.0, 0.25), (5.0, 1.0, 1.0)])
def test_a_look_waits_only_where_nothing_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, refresh: float, slept: float
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    table = Table(tmp_path, refresh=refresh, gather=0.0)
    assert table.executor.poll(seconds) == []
    assert waits == [slept]
    table.start("a")
    assert table.executor.poll(seconds) != []
    assert waits == [slept]


def test_the_last_words_are_those_of_the_first_task(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.start("a")
    table.poll()
    for number in (7, 3, 9, 1, 5, 8, 2, 6, 4):
        (table.executor.folder / f"1_{number}_log.err").write_text(f"words of {number}\n")
    (table.executor.folder / "1_0_log.err").write_text("\n")  # it said nothing
    table.cluster.states["1"] = Seen("FAILED")
    for _ in range(10):
        table.poll(30.0)
    (failed,) = [item for item in table.events if item["event"] == "step-failed"]
    assert failed["failure"]["why"].endswith("its last output: words of 1")


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED"])
def test_a_requeued_job_is_said_once(tmp_path: Path, state: str) -> None:
    table = Table(tmp_path)
    table.start("a")
    table.poll()
    table.tell(1, "step-stopped", "a")
    table.cluster.states["1"] = Seen("RUNNING")
    table.poll()
    assert table.named("step-requeued") == []  # it may still end
    table.cluster.states["1"] = Seen(state)
    for _ in range(5):
        table.poll(20.0)
    assert table.named("step-requeued") == ["a"]
    assert table.named("step-failed") == []
