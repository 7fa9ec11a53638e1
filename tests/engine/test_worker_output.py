"""What a worker is started with, what it prints, and inputs that are gone when a step begins."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine import worker
from kit.engine.early import Early
from kit.engine.job import Upstream
from kit.engine.registry import REGISTRY
from kit.errors import StepFailed
from tests.engine.test_worker import job_of


@pytest.mark.parametrize("early", [None, Early(modules=("json",), folders=("/weights",))])
def test_a_worker_is_told_what_to_do_early(
    monkeypatch: pytest.MonkeyPatch, early: Early | None
) -> None:
    called: list[Any] = []
    for name in ("heed_signals", "close_if_blind"):
        monkeypatch.setattr(worker, name, lambda: None)
    monkeypatch.setattr(worker, "serve", lambda events, given: called.append(given))
    monkeypatch.setattr(os, "_exit", called.append)
    argument = [] if early is None else [msgspec.json.encode(early).decode()]
    monkeypatch.setattr(sys, "argv", ["worker", *argument])
    saved = os.dup(1)
    try:
        worker.main()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert called == [early, 0]


@pytest.mark.parametrize(("name", "number"), [("stdout", 1), ("stderr", 2)])
def test_what_is_printed_last_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """Streams keep what they are given; the log is closed after they have written it."""
    log = tmp_path / "log"
    with worker.output_to(log):
        monkeypatch.setattr(sys, name, os.fdopen(number, "w", buffering=4096, closefd=False))
        getattr(sys, name).write("the last words")
        assert log.read_text() == ""
    assert log.read_text() == "the last words"


def test_a_step_whose_input_is_gone_does_not_begin(tmp_path: Path) -> None:
    up = {"u": [Upstream(instance="up", key="1" * 64, axes={}, params={})]}
    job = msgspec.structs.replace(job_of(tmp_path), steps=up)
    events: list[Any] = []
    with pytest.raises(StepFailed, match="what up made is not in the store any more"):
        worker.perform(job, REGISTRY, events.append)
    assert events == []
