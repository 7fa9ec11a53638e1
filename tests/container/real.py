"""A real engine behind one face: build the image, run a command in it without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.container.conftest import ROOT

IMAGE = "localhost/safety-repro-kit-test"
STRANGER = 4321
"""A user the image has never heard of; only root can hand it a folder."""


def ordinary_user() -> int:
    """The caller, or in root's place the stranger."""
    return STRANGER if os.getuid() == 0 else os.getuid()


def found() -> str | None:
    """The engine that answers: $ENGINE, else docker, podman, buildah."""
    for name in (
        [os.environ["ENGINE"]] if os.environ.get("ENGINE") else ["docker", "podman", "buildah"]
    ):
        command = [name, *os.environ.get(f"{name.upper()}_OPTIONS", "").split(), "info"]
        if shutil.which(name) and subprocess.run(command, capture_output=True).returncode == 0:
            return name
    return None


@dataclass
class Engine:
    """An engine, and the folder where runs and the store of this test are."""

    name: str
    folder: Path
    environment: dict[str, str]
    base: str = ""

    @property
    def owner(self) -> int:
        """Whose results they are to be. Through the runner it is always the caller."""
        return ordinary_user() if self.name == "buildah" else os.getuid()

    @property
    def command(self) -> list[str]:
        options = self.environment.get(f"{self.name.upper()}_OPTIONS", "").split()
        return [self.name, *options]

    def version(self) -> str:
        """As the engine prints it."""
        return subprocess.check_output([self.name, "--version"], text=True).strip()

    def prepare(self) -> None:
        """Without a registry in reach, buildah builds on a Debian of its own."""
        if self.name == "buildah":
            store = f"--root {self.folder}/storage --runroot {self.folder}/state"
            self.environment.setdefault("BUILDAH_OPTIONS", f"--storage-driver vfs {store}")
            if "--isolation" not in self.environment.get("BUILD_ARGS", ""):
                self.environment["BUILD_ARGS"] = (
                    f"--isolation chroot {self.environment.get('BUILD_ARGS', '')}"
                )
            if not self.environment.get("BASE") and shutil.which("debootstrap"):
                self.environment["BASE"] = "localhost/debootstrap:bookworm"
                made = [str(ROOT / "requirements/debootstrap-base.sh"), self.environment["BASE"]]
                subprocess.run(made, env=self.environment, check=True)
        self.base = self.environment.get("BASE") or "the pinned one"

    def build(self) -> None:
        """`make image` for the cpu target."""
        make = ["make", "-s", "image", "TARGET=cpu", f"ENGINE={self.name}", f"IMAGE={IMAGE}"]
        subprocess.run(make, cwd=ROOT, env=self.environment, check=True)

    def kit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A kit command as the runner gives it to the container: no network, somebody's user."""
        if self.name != "buildah":
            settings = {"RUNNER": self.name, "TARGET": "cpu", "PROFILE": "mini", "IMAGE": IMAGE}
            command = [str(ROOT / "requirements/runner.sh"), "kit", *arguments]
            return self._call(command, {**self.environment, **settings})
        return self.shell("kit", *arguments)

    def shell(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Any program of the image, under the same restrictions."""
        user = ordinary_user()
        group = user if user == STRANGER else os.getgid()
        given = ["--user", f"{user}:{group}"]
        for inside in ("runs", ".kit"):
            path = self.folder / "work" / inside
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, user, group)
            given += ["-v", f"{path}:/experiment/{inside}"]
        if self.name != "buildah":
            alone = ["run", "--rm", "--network", "none", "--entrypoint", command[0]]
            return self._call(
                [*self.command, *alone, *given, f"{IMAGE}:cpu", *command[1:]],
                self.environment,
            )
        # Under chroot isolation buildah leaves the network alone; a namespace without any does not.
        container = subprocess.check_output(
            [*self.command, "from", f"{IMAGE}:cpu"], env=self.environment, text=True
        ).strip()
        try:
            run = [*self.command, "run", "--isolation", "chroot", *given, container, "--"]
            return self._call(["unshare", "--net", *run, *command], self.environment)
        finally:
            subprocess.run([*self.command, "rm", container], capture_output=True, check=False)

    def _call(
        self, command: list[str], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return subprocess.run(
            command,
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
