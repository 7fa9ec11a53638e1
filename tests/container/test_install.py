"""`requirements/install.py` with a pip that only writes down what it is told."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.container.conftest import ROOT

LOG = """\
2026-01-01T00:00:00,001 Collecting first==1.0 (from -r requirements.txt (line 1))
2026-01-01T00:00:00,002   Downloading first-1.0-py3-none-any.whl (1.5 MB)
2026-01-01T00:00:00,003 Processing /wheels/second-2.0-py3-none-any.whl
2026-01-01T00:00:00,004 Collecting third==3.0
2026-01-01T00:00:00,005   Downloading third-3.0-py3-none-any.whl (500 kB)
2026-01-01T00:00:00,006 Installing collected packages: first, second, third
"""


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
class Finished:
    """A process that has ended after one look."""

    returncode: int
    looks: int = 0

    def poll(self) -> int | None:
        self.looks += 1
        return None if self.looks == 1 else self.returncode


@dataclass
class Pip:
    """Fails the calls whose numbers are in ``failing``."""

    calls: list[Call]
    failing: set[int]

    def __call__(self, command: list[str], **rest: Any) -> Finished:
        text = Path(command[-1]).read_text()
        packages = [line.split("==")[0] for line in text.splitlines() if "==" in line]
        self.calls.append(Call(command[4:-2], packages, text, rest["env"]))
        Path(command[command.index("--log") + 1]).write_text(LOG)
        return Finished(int(len(self.calls) - 1 in self.failing))


@pytest.fixture
def pip(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Pip:
    fake = Pip([], set())
    monkeypatch.setattr(install.subprocess, "Popen", fake)
    monkeypatch.setattr(install.time, "sleep", lambda seconds: None)
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


def test_a_terminal_sees_one_line_that_counts(
    install: ModuleType, pip: Pip, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(install.sys.stdout, "isatty", lambda: True)
    assert install.main("cpu") == 0
    said = capsys.readouterr().out.split("\n")
    assert len(said) == 2  # what will be downloaded; then one line, written again and again
    states = said[1].split("\r\x1b[K")
    assert states[1].startswith("setup: unpacking, 3 of 79 packages, 2 MB downloaded, ")
    assert [state.split(",")[1:3] for state in states[3::2]] == [
        [" 6 of 79 packages", " 4 MB downloaded"],
        [" 9 of 79 packages", " 6 MB downloaded"],
        [" 12 of 79 packages", " 8 MB downloaded"],
    ]
    assert states[-1] == ""  # nothing of it is left


def test_a_file_sees_no_counting(install: ModuleType, pip: Pip, capsys: Any) -> None:
    assert install.main("cpu") == 0
    assert capsys.readouterr().out.splitlines() == [
        "setup: installing 79 packages, 396 MB to download at most"
    ]
