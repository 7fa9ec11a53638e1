"""`requirements/install.py` with a pip that only writes down what it is told."""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.container.conftest import ROOT


@pytest.fixture
def install() -> ModuleType:
    path = ROOT / "requirements" / "install.py"
    spec = importlib.util.spec_from_file_location("kit_install", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Call:
    options: list[str]
    packages: list[str]
    text: str
    environment: dict[str, str]


@dataclass
class Pip:
    """Fails the calls whose numbers are in ``failing``."""

    calls: list[Call]
    failing: set[int]

    def __call__(self, command: list[str], **rest: Any) -> subprocess.CompletedProcess[str]:
        text = Path(command[-1]).read_text()
        packages = [line.split("==")[0] for line in text.splitlines() if "==" in line]
        self.calls.append(Call(command[4:-2], packages, text, rest["env"]))
        return subprocess.CompletedProcess(command, int(len(self.calls) - 1 in self.failing))


@pytest.fixture
def pip(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Pip:
    fake = Pip([], set())
    monkeypatch.setattr(install.subprocess, "run", fake)
    monkeypatch.setattr(install, "here", lambda: install.LOCKED_FOR)
    return fake


def test_cpu_takes_torch_from_the_configured_index(install: ModuleType, pip: Pip) -> None:
    assert install.main("cpu") == 0
    torch, rest = pip.calls[2:]  # behind setuptools and deepspeed
    assert torch.packages == ["torch"]
    assert "--index-url" not in torch.options
    assert "torch" not in rest.packages
    assert len(rest.packages) > 60
    for call in pip.calls:
        assert {"--require-hashes", "--no-deps"} <= set(call.options)
        assert call.text.count("==") <= call.text.count("--hash=sha256:")


def test_cpu_takes_torch_from_its_own_index_else(install: ModuleType, pip: Pip) -> None:
    pip.failing = {2}
    assert install.main("cpu") == 0
    again = pip.calls[3]
    assert again.packages == ["torch"]
    assert again.options[again.options.index("--index-url") + 1] == install.TORCH_CPU
    assert "--require-hashes" in again.options


def test_a_failure_stops_the_installation(install: ModuleType, pip: Pip) -> None:
    pip.failing = {2, 3}
    assert install.main("cpu") == 1
    assert len(pip.calls) == 4


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_deepspeed_is_built_before_torch_is_there(install: ModuleType, pip: Pip, name: str) -> None:
    assert install.main(name) == 0
    tools, deepspeed, *others = pip.calls
    assert tools.packages == ["setuptools"]
    assert deepspeed.packages == ["deepspeed"]
    assert "--no-build-isolation" in deepspeed.options
    assert deepspeed.environment["DS_BUILD_OPS"] == "0"
    assert {"torch", "transformers"} <= {package for call in others for package in call.packages}


def test_elsewhere_versions_are_kept_and_hashes_are_not(
    install: ModuleType, pip: Pip, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(install, "here", lambda: ("CPython", "3.13", "Darwin", "arm64"))
    pip.failing = {2, 3}
    assert install.main("cpu") == 0
    assert [call.text.strip() for call in pip.calls[2:4]] == ["torch==2.13.0+cpu"] * 2
    assert pip.calls[4].text.strip() == "torch==2.13.0"
    assert "--no-deps" not in pip.calls[5].options
    assert not any(
        "--hash" in call.text or "--require-hashes" in call.options for call in pip.calls
    )
    assert "hashes not checked" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_every_locked_package_is_installed_once(install: ModuleType, pip: Pip, name: str) -> None:
    install.main(name)
    installed = [package for call in pip.calls for package in call.packages]
    wanted = install.requirements(ROOT / "requirements" / f"{name}.txt", hashed=True)
    assert set(installed) == set(wanted)
    assert len(installed) == len(wanted) + 1  # setuptools, asked for twice
