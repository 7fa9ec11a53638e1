"""Hashes of the expectations that the kit ships, so that an edited one is said.

``shipped.sha256`` lies in the package and not beside the expectations; `kit docs` writes it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from kit.durable import sha256_file

SUMS = Path(__file__).with_name("shipped.sha256")
FOLDER = "expected_results"


def files(root: Path) -> dict[Path, str]:
    """The file of hashes, as ``sha256sum`` writes it, for `kit docs`."""
    folder = root / FOLDER
    shipped = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.jsonl")])
    lines = [f"{sha256_file(path)}  {path.relative_to(root).as_posix()}\n" for path in shipped]
    return {root / "kit" / "manifest" / SUMS.name: "".join(lines)}


def edited(path: Path, root: Path) -> bool:
    """Whether a file is one that the kit ships, and not as it ships it."""
    resolved, base = path.resolve(), root.resolve()
    if not resolved.is_relative_to(base) or not path.is_file():
        return False
    said = _shipped().get(resolved.relative_to(base).as_posix())
    return said is not None and said != sha256_file(path)


@cache
def _shipped() -> dict[str, str]:
    lines = SUMS.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
