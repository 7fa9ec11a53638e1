"""A machine with only the tools a test gives it, and engines that write down what they are told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "dirname", "env", "git", "id", "mkdir", "mktemp", "rm", "sed", "tail", "tr")

ENGINE = """#!{python} -IS
import json, os, sys
from pathlib import Path

name, argv, fake = Path(sys.argv[0]).name, sys.argv[1:], json.loads({behaviour!r})
call = {{"engine": name, "argv": argv, "environment": dict(os.environ)}}
for word in argv:
    outside, _, inside = word.partition(":")
    if inside.startswith("/run/secrets/"):
        path = Path(outside)
        call["token"] = path.read_text()
        call["modes"] = [oct(one.stat().st_mode & 0o777) for one in (path.parent, path)]
        call["token_path"] = outside
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")

def fail(status, text):
    print("some other line", text, sep="\\n", file=sys.stderr)
    sys.exit(status)

if argv == ["--version"]:
    print(fake.get("version", name + " version 1"))
    sys.exit()
while argv[0].startswith("--"):  # what the user adds to every call
    argv = argv[2:]
if argv[0] == "info":
    if fake.get("down"):
        fail(1, "Cannot connect to the daemon")
    print("[name=rootless]" if fake.get("rootless") else "[name=seccomp]")
elif argv[:2] == ["image", "inspect"]:
    if fake.get("image") is False:
        fail(1, "no such image")
    print(fake.get("revision", ""))
elif argv[0] == "build":
    sys.exit(fake.get("build", 0))
elif argv[0] == "run" and "nvidia-smi" in argv:
    if fake.get("gpu") is False:
        said = 'Error response from daemon: could not select device driver "" with capabilities: '
        fail(125, f"docker: {{said}}[[gpu]]\\n\\nRun 'docker run --help' for more information")
elif argv[0] == "run":
    part = "fetch" if "fetch" in argv else "run"
    print(name, part)
    sys.exit(fake.get(part, 0))
else:
    out = fake.get("outputs", {{}}).get(argv[0])
    if out is None:
        fail(1, "registry unreachable")
    print(out)
"""


@dataclass
class Box:
    """A folder to work in, a PATH of its own, and what was called from it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def add(self, name: str, **behaviour: Any) -> None:
        """An engine on the PATH."""
        self.script(
            name,
            ENGINE.format(
                python=sys.executable,
                behaviour=json.dumps(behaviour),
                calls=str(self.folder / "calls"),
            ),
        )

    def script(self, name: str, text: str) -> None:
        """Any program on the PATH."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def call(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the repository, from the folder, seeing nothing but the box."""
        return subprocess.run(
            command,
            cwd=self.folder / "work",
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the engines were told, in order."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def runs(self) -> list[list[str]]:
        """The arguments of every started container but the look at the GPU."""
        found = [call["argv"] for call in self.calls]
        return [argv for argv in found if argv[0] == "run" and "nvidia-smi" not in argv]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A machine without any engine."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, f"the tests need {tool}"
        (tmp_path / "bin" / tool).symlink_to(found)
    environment = {
        "PATH": str(tmp_path / "bin"),
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }
    return Box(tmp_path, environment)
