"""Write `sizes.json`: how much a set-up from each lock downloads. Run by `make lock`.

The cpu and dev locks are downloaded once and weighed. The gpu lock is several GB: its sizes are
asked of the index, file by file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).resolve().parent
PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_31"
"""What the gpu lock is made for, in uv's words: glibc 2.31 or newer. Debian 12 has 2.36."""


def weighed(lock: Path) -> list[int]:
    """Download every file of a lock; the sizes in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
        subprocess.run([*command, "-r", str(lock), "-d", folder], check=True)
        return [path.stat().st_size for path in Path(folder).iterdir()]


def asked(lock: Path) -> list[int]:
    """What the index says of the files that pip would take; the sizes in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "pylock.toml"
        uv = [sys.executable, "-m", "uv", "pip", "compile", "--no-config", "-q", "--no-deps"]
        machine = ["--python-version", PYTHON, "--python-platform", PLATFORM]
        subprocess.run(
            [*uv, *machine, "--format", "pylock.toml", "-o", str(target), str(lock)], check=True
        )
        packages = tomllib.loads(target.read_text())["packages"]
    ranks = {tag: rank for rank, tag in enumerate(supported())}
    return [size(chosen(package, ranks)) for package in packages]


def supported() -> list[Tag]:
    """Wheel tags of the machine the gpu lock is for, best first."""
    newest = int(PLATFORM.rsplit("_", 1)[1])
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(newest, 4, -1)]
    platforms += [f"manylinux{year}_x86_64" for year in (2014, 2010, 1)] + ["linux_x86_64"]
    version = tuple(int(part) for part in PYTHON.split("."))
    return [
        *cpython_tags(version, platforms=platforms),
        *compatible_tags(version, interpreter=f"cp{version[0]}{version[1]}", platforms=platforms),
    ]


def chosen(package: dict[str, Any], ranks: dict[Tag, int]) -> dict[str, Any]:
    """The wheel of a locked package that fits best, else its source."""
    best: list[tuple[int, dict[str, Any]]] = []
    for wheel in package.get("wheels", []):
        tags = parse_wheel_filename(wheel["url"].rsplit("/", 1)[1].replace("%2B", "+"))[3]
        fitting = [ranks[tag] for tag in tags if tag in ranks]
        if fitting:
            best.append((min(fitting), wheel))
    found: dict[str, Any] = min(best, key=lambda pair: pair[0])[1] if best else package["sdist"]
    return found


def size(file: dict[str, Any]) -> int:
    """Bytes of a file: as the index lists it, else as its server announces it."""
    if "size" in file:
        return int(file["size"])
    request = urllib.request.Request(file["url"], method="HEAD")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.headers["Content-Length"])


if __name__ == "__main__":
    found = {"cpu": weighed, "dev": weighed, "gpu": asked}
    result = {
        name: {"files": len(sizes), "megabytes": round(sum(sizes) / 1e6)}
        for name, how in found.items()
        for sizes in [how(HERE / f"{name}.txt")]
    }
    (HERE / "sizes.json").write_text(json.dumps(result, indent=2) + "\n")
