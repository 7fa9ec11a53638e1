"""Make the hashed locks (cpu, dev, gpu, exports) again. Run by `make lock`; needs pip-tools, uv.

cpu and dev are compiled by pip-compile in the running interpreter, so that what CI installs is
what was resolved. The gpu set is resolved by uv from the index's metadata for Linux x86-64 under
the same Python: its wheels are several GB, which nobody has to download to lock them. Versions
already in a lock stay unless pyproject.toml no longer allows them (delete the file to start
afresh). torch's CPU build is not on PyPI; where your index lacks it:
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make lock
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from measure import PLATFORM, PYTHON

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {
    "cpu": ("cpu", "report"),
    "dev": ("cpu", "report", "dev"),
    "gpu": ("gpu", "report"),
}
TOOLS = "exports"
"""The lock of `make test-exports`: programs in an environment of their own, without the kit."""
FROM_SOURCE = ("deepspeed", "rouge-score", "sqlitedict", "word2number")
"""Packages of the gpu lock without a wheel, pure Python all. Nothing else may need a compiler."""


def command(name: str) -> list[str]:
    """The compiler's command line for one lock."""
    extras = [part for extra in EXTRAS.get(name, ()) for part in ("--extra", extra)]
    source = f"requirements/{TOOLS}.in" if name == TOOLS else "pyproject.toml"
    common = ["-q", "--generate-hashes", "--strip-extras", "--no-emit-index-url"]
    target = ["-o", f"requirements/{name}.txt", source]
    if name != "gpu":
        unseen = ["--allow-unsafe", "--no-emit-find-links", "--no-emit-trusted-host"]
        return [sys.executable, "-m", "piptools", "compile", *common, *unseen, *extras, *target]
    machine = ["--python-version", PYTHON, "--python-platform", PLATFORM]
    built = [part for package in FROM_SOURCE for part in ("--no-binary", package)]
    held = ["-c", "requirements/gpu-tried.in", "--only-binary", ":all:", *built]
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--no-config"]
    return [*uv, *common, *machine, *held, *extras, *target]


def main() -> int:
    """Compile every lock, then measure what a set-up from each downloads."""
    absent = [name for name in ("piptools", "uv") if importlib.util.find_spec(name) is None]
    if absent:
        print("error: the locks are made with pip-tools and uv, which are not installed here")
        print(f"  next: {sys.executable} -m pip install pip-tools uv")
        return 4
    told = {"CUSTOM_COMPILE_COMMAND": "make lock", "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
    for name in (*EXTRAS, TOOLS):
        done = subprocess.run(command(name), cwd=ROOT, env={**os.environ, **told}, check=False)
        if done.returncode:
            return done.returncode
    measure = [sys.executable, str(Path(__file__).with_name("measure.py"))]
    return subprocess.run(measure, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
