"""Fixtures: a small repository of manifests and pins, its step kinds, and a hub that serves it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.registry import Registry, StepKind
from kit.manifest.catalog import Catalog
from tests.demo.hub_server import FakeHub, serve

DATA = Path(__file__).parent / "data"


class TrainParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of the demo training step."""

    learning_rate: float
    steps: int
    seed: int
    name: str = ""


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None."""


def _run(context: Any, params: Any) -> None:
    raise AssertionError("lint must not run steps")


@pytest.fixture
def registry() -> Registry:
    """The kinds that the demo manifests use."""
    registry = Registry()
    registry.add(
        StepKind(
            "demo/train", 2, TrainParams, _run, {"model": "model", "data": "pin"}, ("tokens.json",)
        )
    )
    registry.add(
        StepKind(
            "demo/evaluate",
            1,
            NoParams,
            _run,
            {"tokens": "step", "model": "model"},
            ("labels.json",),
        )
    )
    registry.add(StepKind("demo/table", 1, NoParams, _run, {"cells": "steps"}, ("results.json",)))
    return registry


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private copy of the demo repository, with the kit's home beside it."""
    root = tmp_path / "repo"
    shutil.copytree(DATA / "repo", root)
    monkeypatch.setenv("KIT_ROOT", str(root))
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def catalog(repo: Path) -> Catalog:
    """The demo repository's catalog."""
    return Catalog(repo)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A running fake hub that the environment points to, without a token."""
    fake = FakeHub()
    server = serve(fake)
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "")
    for name in ("HF_HUB_OFFLINE", "KIT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    yield fake
    server.shutdown()
    server.server_close()


def sha(data: bytes) -> str:
    """sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()
