"""A campaign: garbage for every reader of JSON and changed documents, in several processes.

``python -m tests.fuzz.hour FINDINGS RECORD --jobs N --seconds S`` writes what was executed into
RECORD; the first document of each kind of failure is kept in FINDINGS with its traceback. What
counts is processor time: an hour of it is four minutes of fifteen idle cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.fuzz import readers, target
from tests.fuzz.mutate import mutate

SEEDS = Path(__file__).parent / "corpus" / "seeds"
APART = 10_000_000
"""Numbers between the first documents of two processes."""


def campaign(findings: Path, seconds: float, first: int) -> dict[str, Any]:
    """One process: a document for each reader in turn, and a changed seed, until the time is over.

    Returns:
        Time, documents, crashes by their kind, and how each reader ended: ``read``, ``refused``,
        ``broken``.
    """
    documents = sorted(SEEDS.iterdir())
    ends: dict[str, Counter[str]] = {name: Counter() for name in (*readers.READERS, "documents")}
    crashes: dict[str, str] = {}
    started, used, number = time.monotonic(), time.process_time(), first
    while time.monotonic() - started < seconds:
        tries = [(name, readers.garbage(of, number)) for name, of in readers.READERS.items()]
        document = documents[number % len(documents)]
        most = 1 + number // len(documents) % 4  # a single change gets further into the kit
        tries.append((document.name, mutate(document.read_bytes(), number, most)))
        for name, data in tries:
            here = name if name in readers.READERS else "documents"
            try:
                ends[here][ended(name, data)] += 1
            except Exception as error:
                ends[here]["broken"] += 1
                last = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{name}-{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"
                crashes.setdefault(kind, f"number {number}: {error}")
                if not (findings / kind).exists():
                    findings.mkdir(parents=True, exist_ok=True)
                    (findings / kind).write_bytes(data)
                    (findings / f"{kind}.txt").write_text(traceback.format_exc())
        number += 1
    return {
        "seconds": round(time.monotonic() - started),
        "processor_seconds": round(time.process_time() - used),
        "numbers": [[first, number - 1]],
        "documents": sum(of.total() for of in ends.values()),
        "crashes": crashes,
        "by_reader": {name: dict(sorted(of.items())) for name, of in ends.items()},
    }


def ended(name: str, data: bytes) -> str:
    """How a reader, or the kit with a changed seed, ended: ``read`` or ``refused``."""
    with tempfile.TemporaryDirectory() as folder:
        if name in readers.READERS:
            return readers.check(name, data, Path(folder))
        came = target.check(data, Path(folder))
        return "refused" if came in ("unreadable", "refused") else "read"


def together(legs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several processes did, as one."""
    by_reader = {
        name: dict(sum((Counter(leg["by_reader"][name]) for leg in legs), Counter()))
        for name in legs[0]["by_reader"]
    }
    return {
        "processes": len(legs),
        "seconds": max(leg["seconds"] for leg in legs),
        "processor_seconds": sum(leg["processor_seconds"] for leg in legs),
        "numbers": [numbers for leg in legs for numbers in leg["numbers"]],
        "documents": sum(leg["documents"] for leg in legs),
        "crashes": {kind: said for leg in legs for kind, said in leg["crashes"].items()},
        "by_reader": by_reader,
    }


def main() -> None:
    """Run it; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("findings", type=Path)
    parser.add_argument("record", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--first", type=int, default=0, help="number of the first document")
    asked = parser.parse_args()
    starts = [asked.first + APART * job for job in range(asked.jobs)]
    with multiprocessing.get_context("fork").Pool(asked.jobs) as pool:
        legs = pool.map(partial(campaign, asked.findings, asked.seconds), starts, chunksize=1)
    made = {"commit": os.environ.get("KIT_COMMIT", "")} | together(legs)
    asked.record.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print({key: made[key] for key in ("processor_seconds", "documents", "crashes")})


if __name__ == "__main__":
    main()
