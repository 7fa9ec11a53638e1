"""Print ``gpu`` or ``cpu``: what a profile of an experiment declares that it needs.

    python3 requirements/target.py EXPERIMENT PROFILE

Standard library only, and nothing of the kit: it decides which environment is made, so there is
none yet. An experiment or profile that it does not find is the kit's to complain about: ``cpu``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def target(experiment: str, profile: str) -> str:
    """From the profile's line ``gpu: true`` in the manifest: a path, or the id of a shipped one."""
    named = Path(experiment)
    files = [named] if named.is_file() else sorted(ROOT.glob(f"manifests/*/{named.name}.yaml"))
    text = files[0].read_text(encoding="utf-8") if files else ""
    profiles = text.partition("\nprofiles:\n")[2]
    block = re.search(rf"(?ms)^  {re.escape(profile)}:\n(.*?)(?=^ {{0,2}}\S|\Z)", profiles)
    return "gpu" if block and re.search(r"(?m)^    gpu: true\s*$", block.group(1)) else "cpu"


if __name__ == "__main__":
    print(target(*sys.argv[1:3]))
