"""``python -m tests.mutants.run COUNT SEED RECORD``: plant bugs and see which the tests notice.

A copy of the repository takes one bug at a time. What is run for it: the tests that name its
module, those of its room that name its function, and those of its room's mirror, file by file
until one fails. Each file is run in a process that is forked from this one, where the large
libraries are imported already. The record has an entry a mutant; a bug that is none (no input makes
a difference) is marked in it by hand, with the reason, and kept when the command is run again.

Not a tool such as mutmut or cosmic-ray: what decides the time here is which tests are run for a
mutant, and that they need no new process with torch in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from tests.mutants.plant import Mutant, sample

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS = 60
"""Of a file of tests; a bug is noticed if it ends within it without the bug alone."""
WALL_SECONDS = 900
MOST_FILES = 8


def chosen(mutant: Mutant, root: Path) -> list[str]:
    """Test files for a mutant, the likeliest first."""
    module = mutant.path.removesuffix(".py").removesuffix("/__init__")
    *package, stem = module.split("/")
    dotted, parent = module.replace("/", "."), ".".join(package)
    names = re.compile(rf"{re.escape(dotted)}\b|from {re.escape(parent)} import [^\n]*\b{stem}\b")
    function = mutant.function.split(".")[-1] if mutant.function else ""
    room = f"tests/{package[1]}/" if len(package) > 1 else "tests/test_"
    scored: list[tuple[float, str]] = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(root))
        if "pytestmark = pytest.mark." in text and re.search(r"mark\.(gpu|slurm|image|slow)", text):
            continue
        score = 8.0 * bool(names.search(text)) + 4.0 * (stem.strip("_") in path.stem)
        score += 4.0 * (len(function) > 3 and function.strip("_") in text)
        score += 3.0 * name.startswith(room) + 1.0 * name.startswith(
            "/".join(["tests", *package[1:]])
        )
        if score >= 3:
            scored.append((-score, name))
    return [name for _, name in sorted(scored)[:MOST_FILES]]


def tried(mutant: Mutant, tree: Path) -> dict[str, Any]:
    """What became of one mutant."""
    path = tree / mutant.path
    source, files = path.read_text(encoding="utf-8"), chosen(mutant, tree)
    path.write_text(mutant.planted(source), encoding="utf-8")
    said = tree / "said.txt"
    began, by, seen = time.monotonic(), "", 0
    try:
        for file in files:
            seen += 1
            status = _forked([file], tree, said)
            text = said.read_text(errors="replace")
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
            if status > 0 and not failed:
                raise RuntimeError(f"the tests did not run: {text[-2000:]}")
            if status < 0:
                path.write_text(source, encoding="utf-8")
                if _forked([file], tree, tree / "said-without.txt") < 0:
                    path.write_text(mutant.planted(source), encoding="utf-8")
                    continue
            if status:
                by = failed[0] if failed else f"{file} does not end"
                break
    finally:
        path.write_text(source, encoding="utf-8")
    shown = {k: v for k, v in asdict(mutant).items() if k not in ("start", "end", "text")}
    return shown | {
        "line_text": source.split("\n")[mutant.line - 1].strip(),
        "killed": bool(by),
        "by": by,
        "files": seen,
        "seconds": round(time.monotonic() - began),
    }


def _forked(files: list[str], tree: Path, said: Path) -> int:
    """Exit status of pytest over these files in a fork; negative when its time was over."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        with said.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        _in_child(files, tree)
    deadline = time.monotonic() + WALL_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.2)
    else:
        status = 9
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, 9)  # and what its tests have started
    if not done:
        os.waitpid(pid, 0)
    return -1 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _in_child(files: list[str], tree: Path) -> NoReturn:
    """Run the tests of the copy, whose packages are not the ones that this module came from."""
    code = 3
    try:
        os.chdir(tree)
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        os.environ["PYTHONPATH"] = str(tree)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "kit")]:
            del sys.modules[name]
        import pytest

        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", "-rfE"]
        options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, f"--basetemp={tree / 'tmp'}", *files]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if code == 5 else code)


def rooms(entries: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Killed, survived and none, by room."""
    made: dict[str, Counter[str]] = {}
    for one in entries:
        word = "none" if one.get("equivalent") else "killed" if one["killed"] else "survived"
        made.setdefault(one["path"].split("/")[1], Counter())[word] += 1
    return {room: dict(sorted(counts.items())) for room, counts in sorted(made.items())}


def summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What the record begins with."""
    real = [one for one in entries if not one.get("equivalent")]
    killed = sum(one["killed"] for one in real)
    share = round(killed / len(real), 4) if real else 0.0
    return {"real": len(real), "killed": killed, "share": share, "rooms": rooms(entries)}


def main(count: str, seed: str, record: str, part: str = "0/1") -> None:
    """Try a sample, or every n-th of it; what the record has already is not tried again."""
    import datasets  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    out = Path(record)
    known = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    head = {"seed": int(seed), "count": int(count), "commit": _commit()}
    done = known.get("mutants", []) if known.get("seed") == int(seed) else []
    have = {(one["path"], one["line"], one["what"]) for one in done}
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv*", ".kit", "runs", "__pycache__")
        shutil.copytree(ROOT, tree, ignore=ignored)
        first, parts = map(int, part.split("/"))
        for mutant in sample(tree, int(count), int(seed))[first::parts]:
            if (mutant.path, mutant.line, mutant.what) in have:
                continue
            done.append(tried(mutant, tree))
            made = head | summary(done) | {"mutants": done}
            out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
            one = done[-1]
            word = "killed" if one["killed"] else "SURVIVED"
            print(f"{len(done)} {word} {one['path']}:{one['line']} {one['what']} {one['by']}",
                  flush=True)  # fmt: skip
    print(json.dumps(summary(done)))


def _commit() -> str:
    line = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main(*sys.argv[1:])
