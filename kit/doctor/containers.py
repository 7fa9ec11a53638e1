"""Container engines: not needed, but `make reproduce-...` takes one where it has the image."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from kit.doctor.core import Check, Needs, ok, warn

ENGINES = ("docker", "podman")
INSIDE = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that docker and podman put into every container."""
CDI = (Path("/etc/cdi/nvidia.yaml"), Path("/var/run/cdi/nvidia.yaml"))
"""Where ``nvidia-ctk cdi generate`` describes the GPUs to podman."""

Say = Callable[[str], tuple[int, str] | None]


def info(engine: str) -> tuple[int, str] | None:
    """Status and output of ``<engine> info``; ``None`` where it is not installed."""
    program = shutil.which(engine)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "info"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, type(error).__name__
    return done.returncode, done.stdout + done.stderr


def inside() -> bool:
    """Whether this process runs in a container itself."""
    return any(path.exists() for path in INSIDE)


def check_engines(needs: Needs, *, say: Say = info, cdi: tuple[Path, ...] = CDI) -> Iterator[Check]:
    """Engines that answer, and whether they can hand GPUs on. Nothing is asked in a container."""
    if inside():
        yield ok("containers", "this is one")
        return
    there = {engine: said for engine in ENGINES if (said := say(engine)) is not None}
    if not there:
        yield ok("containers", "no docker or podman, and none needed: RUNNER=local")
        return
    for engine, (status, text) in there.items():
        if status:
            lines = text.strip().splitlines() or ["no word of why"]
            # docker 20 ends with "errors pretty printing info".
            why = next((line for line in lines if "error" in line.lower()), lines[-1])[:200]
            start = "sudo systemctl start docker" if engine == "docker" else "podman info"
            yield warn(
                engine, f"installed, but it does not answer: {why}", f"{start}, or RUNNER=local"
            )
        elif needs.gpus and not _hands_on_gpus(engine, text, cdi):
            yield warn(
                engine, "answers, but cannot hand GPUs on", f"{_toolkit(engine)}; or RUNNER=local"
            )
        else:
            yield ok(engine, "answers")


def _hands_on_gpus(engine: str, text: str, cdi: tuple[Path, ...]) -> bool:
    described = any(path.exists() for path in cdi)
    return described or (engine == "docker" and "nvidia" in text)


def _toolkit(engine: str) -> str:
    install = "sudo apt-get install nvidia-container-toolkit"
    if engine == "docker":
        return (
            f"{install} && sudo nvidia-ctk runtime configure --runtime=docker && "
            "sudo systemctl restart docker"
        )
    return f"{install} && sudo nvidia-ctk cdi generate --output={CDI[0]}"
