"""Install a hashed lock into the running interpreter's environment, saying what it downloads first.

Standard library only: it runs before anything is installed. The locks are made for CPython 3.11 on
Linux x86-64 (`make lock`). Elsewhere the same versions are installed without their hashes, because
a lock lists the hashes of the files it was made with, and this script says so.

Two packages go first, each for its own reason: deepspeed has no wheel and is built as pure Python,
before torch is there, because with torch it would look for a CUDA compiler; and torch's CPU build
is not on PyPI, so it may have to come from PyTorch's own index.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCKED_FOR = ("CPython", "3.11", "Linux", "x86_64")
MEGABYTES = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}
TORCH_CPU = os.environ.get("TORCH_CPU_INDEX") or "https://download.pytorch.org/whl/cpu"


def here() -> tuple[str, str, str, str]:
    """What decides which files pip takes."""
    version = ".".join(platform.python_version_tuple()[:2])
    return platform.python_implementation(), version, platform.system(), platform.machine()


def requirements(lock: Path, *, hashed: bool) -> dict[str, str]:
    """Package -> its lines of the lock; its version alone without hashes."""
    entries = re.findall(
        r"^([A-Za-z0-9_.-]+)(==\S+)((?: \\\n +--hash=\S+)*)", lock.read_text(), re.M
    )
    return {name: name + version + hashes * hashed for name, version, hashes in entries}


def pip(lines: list[str], *options: str, hashed: bool, quiet: bool = False) -> int:
    """Install what the lines say; returns pip's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(lines) + "\n")
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        command += ["--progress-bar", "off", "--log", str(log)]
        command += ["--require-hashes"] * hashed
        process = subprocess.Popen(
            [*command, *options, "-r", str(file)],
            env={**os.environ, "DS_BUILD_OPS": "0"},
            stderr=subprocess.DEVNULL if quiet else None,
        )
        while process.poll() is None:
            PROGRESS.show(log)
            time.sleep(0.2)
        PROGRESS.finished(log, kept=process.returncode == 0)
        return process.returncode


class Progress:
    """One line that counts packages, megabytes and seconds while pip works; only on a terminal."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.packages = 0
        self.total = 0
        self.megabytes = 0.0

    def show(self, log: Path) -> None:
        """Write the line anew, from what the running pip has logged until now."""
        if not sys.stdout.isatty():
            return
        packages, megabytes, unpacking = logged(log)
        packages, megabytes = self.packages + packages, self.megabytes + megabytes
        doing = "unpacking" if unpacking else "fetching"
        line = (
            f"setup: {doing}, {packages} of {self.total} packages, {megabytes:.0f} MB downloaded,"
            f" {time.monotonic() - self.began:.0f} s"
        )
        sys.stdout.write(f"\r\x1b[K{line}")
        sys.stdout.flush()

    def finished(self, log: Path, *, kept: bool) -> None:
        """Count what this pip brought, and leave no half line behind."""
        packages, megabytes, _ = logged(log)
        self.packages += packages * kept
        self.megabytes += megabytes
        if sys.stdout.isatty():
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()


PROGRESS = Progress()


def logged(log: Path) -> tuple[int, float, bool]:
    """Of a log of pip: packages taken up, megabytes downloaded, and whether it unpacks by now."""
    text = log.read_text(errors="replace") if log.exists() else ""
    sizes = re.findall(r"Downloading \S+ \(([\d.]+) ([kMG]B)\)", text)
    return (
        len(re.findall(r"^\S+ (?:Collecting|Processing) ", text, re.M)),
        sum(float(size) * MEGABYTES[unit] for size, unit in sizes),
        "Installing collected packages" in text,
    )


def torch_cpu(line: str, *, hashed: bool) -> int:
    """The CPU build: from the configured indexes, else PyTorch's; unhashed, else any build."""
    alone = {"hashed": hashed, "quiet": True}
    if pip([line], "--no-deps", **alone) == 0:
        return 0
    if hashed:
        return pip([line], "--no-deps", "--index-url", TORCH_CPU, hashed=True)
    if pip([line], "--no-deps", "--index-url", TORCH_CPU, **alone) == 0:
        return 0
    print("setup: no CPU build of torch for this machine; your index may send GBs of CUDA with it")
    return pip([line.split("+")[0]], hashed=False)


def main(name: str) -> int:
    """Install `requirements/<name>.txt`; returns pip's exit status."""
    sizes = json.loads((HERE / "sizes.json").read_text())[name]
    print(
        f"setup: installing {sizes['files']} packages, {sizes['megabytes']} MB to download at most",
        flush=True,
    )
    hashed = here() == LOCKED_FOR
    if not hashed:
        print(
            f"setup: this is {' '.join(here())}, the lock was made for {' '.join(LOCKED_FOR)}:"
            " same versions, hashes not checked",
            flush=True,
        )
    wanted = requirements(HERE / f"{name}.txt", hashed=hashed)
    PROGRESS.total = len(wanted)
    status = 0
    if "deepspeed" in wanted:
        built = wanted.pop("deepspeed")
        status = pip([wanted["setuptools"]], "--no-deps", hashed=hashed)
        status = status or pip([built], "--no-deps", "--no-build-isolation", hashed=hashed)
    if not status and "+cpu" in wanted.get("torch", ""):
        status = torch_cpu(wanted.pop("torch"), hashed=hashed)
    # The lock is complete for its own machine; another one may need a package more.
    return status or pip(list(wanted.values()), *["--no-deps"] * hashed, hashed=hashed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
