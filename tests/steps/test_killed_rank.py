"""A sharded step of which one process is killed: said at once, and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.steps.killed_rank import OUTER_STEPS, kill_a_rank

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["fsdp", "zero-3"])
def test_a_killed_rank_is_named_and_its_step_goes_on(tmp_path: Path, engine: str) -> None:
    record = kill_a_rank(tmp_path, engine, gpus=False)
    assert record["message"] == "rank 1 was killed by SIGKILL; it is tried once more"
    assert record["seconds from the kill to the message"] < 60
    assert 51 <= record["went on with outer step"] < OUTER_STEPS
    assert record["ended with outer step"] == OUTER_STEPS
