"""Write `sizes.json`: how much a set-up from each lock downloads. Run by `make lock`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def measure(lock: Path) -> dict[str, int]:
    """Download every file of a lock once and add up their sizes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
        subprocess.run([*command, "-r", str(lock), "-d", folder], check=True)
        sizes = [path.stat().st_size for path in Path(folder).iterdir()]
    return {"files": len(sizes), "megabytes": round(sum(sizes) / 1e6)}


if __name__ == "__main__":
    result = {name: measure(HERE / f"{name}.txt") for name in ("cpu", "dev")}
    (HERE / "sizes.json").write_text(json.dumps(result, indent=2) + "\n")
