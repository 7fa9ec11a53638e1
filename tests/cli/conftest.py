"""The demo repository, for commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kit.cli.main import run
from tests.demo.fixtures import catalog, hub, registry, repo

__all__ = ["catalog", "hub", "registry", "repo"]


@dataclass
class Called:
    """What a command left behind."""

    code: int
    out: str
    err: str


Kit = Callable[..., Called]


@pytest.fixture
def kit(capsys: pytest.CaptureFixture[str]) -> Kit:
    """Call the command line in this process."""

    def call(*arguments: str) -> Called:
        code = run(arguments)
        captured = capsys.readouterr()
        return Called(code, captured.out, captured.err)

    return call
