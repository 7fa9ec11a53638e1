"""A released Python package, brought by pip, which checks its hash before it keeps it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.errors import InvalidInput
from kit.manifest.pin_types import Pin, PinnedFile
from kit.pins.retry import Transient


def download(pin: Pin, file: PinnedFile, folder: Path, timeout: float) -> Path:
    """Bring the wheel of a pin, from wherever this machine's pip is set to look.

    Args:
        pin: Of kind ``wheel``.
        file: Its file, whose hash must be known.
        folder: Where to.
        timeout: Seconds without an answer before a try is given up.

    Raises:
        Transient: pip could not reach the index, or found no such file there.
        InvalidInput: No hash; what the index has under this name and version is something else.
    """
    if file.sha256 is None:
        raise InvalidInput(
            f"pin {pin.id!r}: a wheel is brought by its hash, and {file.path} has none",
            next_step=f"pip hash {file.path}, and write it as its sha256",
        )
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{pin.origin} --hash=sha256:{file.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=0"]
    options += ["--require-hashes", f"--timeout={timeout:g}", f"--dest={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", *options, "-r", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0 and (folder / file.path).is_file():
        return folder / file.path
    brought = ", ".join(path.name for path in folder.glob("*.whl"))
    said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    if brought or "DO NOT MATCH" in done.stderr:
        raise InvalidInput(
            f"pin {pin.id!r}: {pin.origin} is not {file.path} with this hash",
            why=f"the index gave {brought}" if brought else said,
        )
    raise Transient(f"pip: {said}")
