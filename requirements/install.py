"""Install a hashed lock into the running interpreter's environment, saying what it downloads first.

Standard library only: it runs before anything is installed. The locks are made for CPython 3.11 on
Linux x86-64 (`make lock`). Elsewhere the same versions are installed without their hashes, because
a lock lists the hashes of the files it was made with, and this script says so.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCKED_FOR = ("CPython", "3.11", "Linux", "x86_64")


def here() -> tuple[str, str, str, str]:
    """What decides which files pip takes."""
    version = ".".join(platform.python_version_tuple()[:2])
    return platform.python_implementation(), version, platform.system(), platform.machine()


def without_hashes(lock: Path, folder: Path) -> Path:
    """The lock's versions alone, with torch's local build tag dropped."""
    lines = re.findall(r"^([A-Za-z0-9_.-]+==[^\s\\]+)", lock.read_text(), flags=re.MULTILINE)
    target = folder / lock.name
    target.write_text("\n".join(line.split("+")[0] for line in lines) + "\n")
    return target


def main(name: str) -> int:
    """Install `requirements/<name>.txt`; returns pip's exit status."""
    lock = HERE / f"{name}.txt"
    sizes = json.loads((HERE / "sizes.json").read_text())[name]
    print(
        f"setup: installing {sizes['files']} packages, {sizes['megabytes']} MB to download at most"
    )
    with tempfile.TemporaryDirectory() as folder:
        if here() == LOCKED_FOR:
            arguments = ["--require-hashes", "-r", str(lock)]
        else:
            print(
                f"setup: this is {' '.join(here())}, the lock was made for {' '.join(LOCKED_FOR)}:"
                " same versions, hashes not checked; torch comes with whatever your index offers,"
                " which can be several GB of CUDA libraries"
            )
            arguments = ["-r", str(without_hashes(lock, Path(folder)))]
        command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        return subprocess.run([*command, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
