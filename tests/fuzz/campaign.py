"""The coverage-guided campaign: ``FINDINGS=folder python -m tests.fuzz.campaign CORPUS [options]``.

Needs atheris, which is no dependency of the kit; the options are libFuzzer's. A quarter of the
mutations are libFuzzer's own, the others come from :mod:`tests.fuzz.mutate`. A finding does not
stop the campaign: the first document of each kind is kept in FINDINGS with its traceback. What was
run and what came out stands in ``tests/fuzz/README.md``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from hashlib import sha256
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kit.manifest", "kit.verify", "kit.engine"]):
    from tests.fuzz import target
    from tests.fuzz.mutate import mutate
    from tests.fuzz.watch import Watch

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
FINDINGS = Path(os.environ["FINDINGS"]).resolve()
WATCH = Watch(target.ROOT)
KNOWN: set[str] = set()


def one(data: bytes) -> None:
    """One execution."""
    try:
        with WATCH.over(FOLDER):
            target.check(data, FOLDER)
    except Exception as error:
        places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        words = str(error)[:40] if isinstance(error, AssertionError) else ""
        name = sha256(f"{type(error).__name__} {places[-3:]} {words}".encode()).hexdigest()[:12]
        if name not in KNOWN:
            KNOWN.add(name)
            (FINDINGS / name).write_bytes(data)
            (FINDINGS / f"{name}.txt").write_text(traceback.format_exc())


def other(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's mutation, or one that knows what the documents are made of."""
    changed = atheris.Mutate(data, most) if seed % 4 == 0 else mutate(data, seed)
    return changed[:most]


def main() -> None:
    """Fuzz until libFuzzer's options say to stop."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    os.environ["FINDINGS"] = str(FINDINGS)  # libFuzzer starts itself again to minimise a corpus
    arguments = [sys.argv[0], *(str(Path(a).resolve()) if a[0] != "-" else a for a in sys.argv[1:])]
    os.chdir(FOLDER)
    for seed in Path(arguments[1]).iterdir():  # lazy imports happen before anybody listens
        one(seed.read_bytes())
    atheris.Setup(arguments, one, custom_mutator=other)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
