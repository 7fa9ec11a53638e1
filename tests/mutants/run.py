"""``python -m tests.mutants.run COUNT SEED RECORD``: plant bugs and see which the tests notice.

First coverage.py measures which tests run which lines (:mod:`tests.mutants.covered`; kept beside
the record as ``.map.gz``: later only files of tests that have changed are measured again). Then
every worker (``--jobs``) takes bugs in the sample's order, in a copy of the repository of its own,
and the record is written as they are decided. What it has already is not tried again, so that a
run that was stopped, by ``--seconds`` or by hand, goes on. ``--again`` tries those that survived
once more, after the tests were mended: what the first pass said stays in the record. What can be no
bug is excluded by rules before the sample is drawn (:mod:`tests.mutants.rules`) and counted; a bug
of the sample that is none all the same (no input makes a difference) is marked in the record by
hand, ``equivalent``, with the reason. ``--named`` tries those of ``named.json`` instead, which once
lived.

Not a tool such as mutmut or cosmic-ray: what decides the time here is which tests are run for a
mutant, and that they need no new process with torch in it (:mod:`tests.mutants.tried`).
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.mutants.covered import Map, joined, keep, kept, measure
from tests.mutants.fork import ROOT, TimeOver
from tests.mutants.plant import Mutant, mutants, sample
from tests.mutants.tried import Bench, files_of_tests, likely

LIBRARIES = ("torch", "transformers", "datasets", "scipy.stats")
FEW_FILES = 10
"""Files of tests that are measured for each bug, where only a few bugs are tried."""
IGNORED = (".git", ".venv*", ".kit", "runs", "__pycache__", ".hypothesis", ".*_cache")
Entry = dict[str, Any]


def rooms(entries: list[Entry]) -> dict[str, dict[str, int]]:
    """Killed, survived and none, by room."""
    made: dict[str, Counter[str]] = {}
    for one in entries:
        word = "none" if one.get("equivalent") else "killed" if one["killed"] else "survived"
        made.setdefault(one["path"].split("/")[1], Counter())[word] += 1
    return {room: dict(sorted(counts.items())) for room, counts in sorted(made.items())}


def summary(entries: list[Entry]) -> dict[str, Any]:
    """What the record begins with: how many are bugs, how many were noticed, and at first."""
    real = [one for one in entries if not one.get("equivalent")]
    killed = [one for one in real if one["killed"]]
    first = [one for one in killed if not one.get("survived_first")]
    shares = [round(len(some) / len(real), 4) if real else 0.0 for some in (first, killed)]
    return {
        "real": len(real), "killed_first": len(first), "share_first": shares[0],
        "killed": len(killed), "share": shares[1], "rooms": rooms(entries),
    }  # fmt: skip


def same(entry: Entry, root: Path) -> Mutant | None:
    """The bug of an entry in today's source, whose lines may have moved."""
    path = root / entry["path"]
    if not path.is_file():
        return None
    source = path.read_text(encoding="utf-8")
    for one in mutants(entry["path"], source):
        column = one.start - (source.rfind("\n", 0, one.start) + 1)
        line = source.split("\n")[one.line - 1].strip()
        is_it = (one.function, one.what, line, column)
        if is_it == (entry["function"], entry["what"], entry["line_text"], entry["column"]):
            return one
    return None


def named(root: Path) -> list[Mutant]:
    """The bugs of ``named.json`` in today's source; those whose line was rewritten are said."""
    made = []
    for one in json.loads((Path(__file__).parent / "named.json").read_text("utf-8")):
        source = (root / one["path"]).read_text("utf-8")
        if source.count(one["old"]) != 1:
            print(f"rewritten, look for its like: {one['path']} {one['about']}")
            continue
        start = source.index(one["old"])
        line = source.count("\n", 0, start) + 1
        around = [
            node.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and node.lineno <= line <= (node.end_lineno or line)
        ]
        end, function = start + len(one["old"]), ".".join(around)
        mutant = Mutant(one["path"], line, function, one["about"], start, end, one["new"])
        made.append(mutant)
    return made


def _work(
    number: int, todo: list[Any], act: Any, taken: Any, results: Any, folder: str, until: float
) -> None:
    tree = Path(folder) / f"tree-{number}"
    if not tree.is_dir():
        shutil.copytree(Path(folder) / "master", tree, symlinks=True)
    while time.monotonic() < until:
        with taken.get_lock():
            at = taken.value
            taken.value += 1
        if at >= len(todo):
            break
        try:
            results.put((at, act(tree, todo[at])))
        except TimeOver:
            break
    results.put((-1, None))


def over(todo: list[Any], act: Any, jobs: int, folder: str, until: float, decided: Any) -> None:
    """``act(tree, item)`` in several processes until all are done or the time is over."""
    several = multiprocessing.get_context("fork")
    taken, results = several.Value("i", 0), several.SimpleQueue()
    workers = [
        several.Process(target=_work, args=(n, todo, act, taken, results, folder, until))
        for n in range(min(jobs, len(todo)))
    ]
    for worker in workers:
        worker.start()
    left = len(workers)
    while left:
        at, entry = results.get()
        if entry is None:
            left -= 1
        else:
            decided(at, entry)
    for worker in workers:
        worker.join()


def measured(names: list[str], jobs: int, folder: str, until: float, keeping: Path) -> Map:
    """What the tests of some files run; what ``keeping`` has already is not measured again."""
    parts = kept(keeping, ROOT)
    known = {part["file"] for part in parts}
    todo = [name for name in names if name not in known]

    def act(tree: Path, file: str) -> Entry:
        return measure(tree, file, tree.parent / f"{tree.name}-lines.json", until)

    def decided(at: int, part: Entry) -> None:
        parts.append(part)
        bad = f"; failed without any bug: {part['failed'][:4]}" if part["failed"] else ""
        spent = sum(part["seconds"].values())
        print(
            f"{len(parts)} {todo[at]}: {len(part['seconds'])} tests, {spent:.0f} s{bad}", flush=True
        )

    over(todo, act, jobs, folder, until, decided)
    if todo:
        keep(parts, keeping, ROOT)
    return joined(parts)


def _prepared(folder: str) -> None:
    """The libraries that forked processes share, and the copy that theirs are made from."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            __import__(name)
    import torch

    torch.set_num_threads(1)
    master = Path(folder) / "master"
    shutil.copytree(ROOT, master, symlinks=True, ignore=shutil.ignore_patterns(*IGNORED))
    compileall.compile_dir(master / "kit", quiet=2, workers=1)


def main() -> None:
    """Try a sample; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("record", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--named", action="store_true")
    asked = parser.parse_args()
    until = time.monotonic() + asked.seconds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    known = json.loads(asked.record.read_text("utf-8")) if asked.record.is_file() else {}
    if known and known.get("named", False) != asked.named:
        parser.error(f"{asked.record} holds other bugs: name another record")
    done: dict[int, Entry] = {}
    if known.get("seed") == asked.seed:
        done = {one["number"]: one for one in known["mutants"]}
    excluded = known.get("excluded_by_rule", {}) if done else {}
    numbers: list[int] = []
    todo: list[Mutant] = []
    if asked.again:
        for number, entry in sorted(done.items()):
            mutant = same(entry, ROOT)
            if not entry["killed"] and not entry.get("equivalent") and mutant:
                numbers, todo = [*numbers, number], [*todo, mutant]
    else:
        drawn = (named(ROOT), {}) if asked.named else sample(ROOT, asked.count, asked.seed)
        every, excluded = drawn
        for number, mutant in enumerate(every):
            if number not in done:
                numbers, todo = [*numbers, number], [*todo, mutant]
    head = {"seed": asked.seed, "count": asked.count, "commit": known.get("commit") or _commit()}
    head |= {"named": True} if asked.named else {"excluded_by_rule": excluded}
    if asked.again:
        head["again"] = _commit()
    few = asked.again or asked.named
    names = sorted({file for mutant in todo for file in likely(mutant, ROOT)[:FEW_FILES]})

    def decided(at: int, entry: Entry) -> None:
        number = numbers[at]
        first = {"survived_first": True} if asked.again else {}
        done[number] = {"number": number} | entry | first
        entries = [done[n] for n in sorted(done)]
        made = head | summary(entries) | {"mutants": entries}
        asked.record.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        word = "killed" if entry["killed"] else "SURVIVED"
        where = f"{entry['path']}:{entry['line']} {entry['what']}"
        print(len(done), number, word, where, entry["by"], entry["seconds"], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        _prepared(folder)
        keeping = asked.record.with_suffix(".map.gz")
        map_ = measured(names if few else files_of_tests(ROOT), asked.jobs, folder, until, keeping)
        benches: dict[Path, Bench] = {}

        def act(tree: Path, mutant: Mutant) -> Entry:
            return benches.setdefault(tree, Bench(tree, map_, until)).tried(mutant)

        over(todo, act, asked.jobs, folder, until, decided)
    if undecided := [n for n in numbers if n not in done]:
        print("not decided in the time, which is likelier for what survives:", *undecided)
    print(json.dumps(summary([done[n] for n in sorted(done)])))


def _commit() -> str:
    """Of the tree; where it came without its history, as KIT_COMMIT says."""
    if given := os.environ.pop("KIT_COMMIT", ""):
        return given
    line = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
