"""Everything that sharded training has to show on the GPUs of one host, in one call.

    python -m benchmarks.sharded_on_a_host OUT [--seconds 560] [--only PHASE ...] [--tiny]

Exactness, a killed process and the memory of a small setting; passes of plain ZeRO-3; passes, the
steps of an attack and whole outer steps of our fastest setting, on the same machine in one go. Each
phase has a time limit and records; a phase that fails leaves the others alone, and one that no
longer fits into the time is left out and named. At the end a table.

Where a GPU has less than 120 GiB, two of them do not hold ZeRO-3's whole state of the model: there
the variants are compared with half the layers, and the outer step runs with all of them by
offloading and checkpointing (:data:`SMALL`). Four hold it. Where four have more, the setting for
80 GB is measured too, and two and four of them make two outer steps of 16 inner steps from the
same weights, whose losses are to be equal to bf16 noise. With :data:`FEW` layers two GPUs hold as
much state each as four GPUs do of the whole model: 2.05 billion weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LARGE = ["--layers", "32", "--rows", "16"]
HALF = ["--layers", "16", "--rows", "16"]
AWAY = [word for what in ("collected", "reference") for word in (f"--{what}", "offloaded")]
SMALL = ["--layers", "32", "--rows", "8", "--checkpointing", *AWAY]
FEW = ["--layers", "14", "--rows", "8", "--checkpointing", *AWAY]
TINY = ["--tiny", "--device", "cpu", "--layers", "2", "--rows", "4"]
TINY += ["--inner-rows", "8", "--global-rows", "16"]


@dataclass(frozen=True)
class Phase:
    """What is started together, and how long it may take.

    Attributes:
        name: For ``--only`` and the table.
        commands: Arguments of python by the name of the record.
        expected: Seconds, as far as known; no phase starts that has less left.
        limit: Seconds after which it is ended.
    """

    name: str
    commands: dict[str, list[str]]
    expected: float
    limit: float


def phases(out: Path, *, gpus: int, gib: float, tiny: bool) -> list[Phase]:
    """In the order of their weight."""
    away = [*LARGE, "--reference", "offloaded"]
    few, whole = (HALF, SMALL) if gib < 120 else (LARGE, away)
    if gpus >= 4:
        few, whole = LARGE, away if gib < 120 else LARGE
    small = FEW
    if tiny:
        few, whole, small = TINY, [*TINY, *AWAY], [*TINY, "--checkpointing", *AWAY]
    passes = ["--passes", "2" if tiny else "20", "--retain-passes", "2" if tiny else "5"]

    def measured(
        name: str, variant: str, *more: str, processes: int = gpus
    ) -> dict[str, list[str]]:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        called = ["-m", "benchmarks.measure_sharded", str(out / f"{name}.json")]
        return {name: [*start, *called, "--variant", variant, *more]}

    def exact(engine: str) -> list[str]:
        if tiny:
            return [
                "-m",
                "pytest",
                "-q",
                "-n",
                "0",
                "tests/train/test_train_sharded.py",
                "-k",
                engine,
            ]
        tests = [f"test_gpus_equal_one[{gpus}-{engine}]", "test_a_process_loads_onto_its_own_gpu"]
        named = [f"tests/gpu/test_sharded_gpu.py::{test}" for test in tests]
        return ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *named]

    def killed(engine: str) -> list[str]:
        where = [] if tiny else ["--gpus"]
        record = str(out / f"killed-{engine}.json")
        return ["-m", "tests.steps.killed_rank", record, "--engine", engine, *where]

    fits80 = "fsdp compiled, bf16 sums"
    fastest = "fsdp compiled, weights stay, bf16 sums"
    if gib < 120:
        fastest = fits80 if gpus >= 4 else "fsdp compiled"
    once = ["--passes", "2", "--retain-passes", "1", "--beside"]
    attack = ["--attack-steps", "2" if tiny else "50", "--outer-steps", "2" if tiny else "5"]
    again = ["--passes", "5", "--retain-passes", "1", "--outer-steps", "2"]
    card = [Phase("80gb", measured("outer-step-80gb", fits80, *away, *again), 100, 200)]
    first = ["--passes", "0", "--inner-steps", "16", "--outer-steps", "2"]
    same = [
        Phase(name, measured(name, fastest, *LARGE, *first, *more, processes=count), 70, 220)
        for name, count, more in (
            ("losses-2", 2, ["--reference", "offloaded"]),
            (f"losses-{gpus}", gpus, []),
        )
    ]
    half = [Phase("half", measured("half", fastest, *few, *passes), 60, 130)] if few == HALF else []
    return [
        Phase(
            "exact",
            {
                "exact-zero-3": exact("zero-3"),
                "exact-fsdp": exact("fsdp"),
                "killed-fsdp": killed("fsdp"),
                **measured("small", "fsdp", *small, *once),
            },
            70,
            600 if tiny else 150,
        ),
        Phase("plain", measured("zero-3-plain", "zero-3 plain", *few, *passes), 90, 150),
        *half,
        Phase("own", measured("outer-step", fastest, *whole, *passes, *attack), 120, 330),
        *([*same, *card] if gpus >= 4 and gib >= 120 else []),
    ]


def environment(*, tiny: bool) -> dict[str, str]:
    """As in the container: no compiler for GPUs is found; one cache of compiled layers."""
    made = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
    folders = [Path(d) for d in made["PATH"].split(os.pathsep)]
    # The host's compiler stays: Triton starts kernels through a stub that it builds.
    kept = [d for d in folders if not (d / "nvcc").exists() or (d / "gcc").exists()]
    made["PATH"] = os.pathsep.join(map(str, kept))
    made |= {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), made.get("PYTHONPATH")])),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1" if tiny else "8",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "HF_HUB_OFFLINE": "1",
    }
    return made | ({"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"} if tiny else {})


def run(phase: Phase, out: Path, environ: dict[str, str], limit: float) -> dict[str, Any]:
    """Start a phase's commands together and wait for them; how each ended."""
    started = time.monotonic()
    children = {}
    for name, arguments in phase.commands.items():
        with (out / f"{name}.log").open("w", encoding="utf-8") as log:
            children[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    ends = {}
    for name, child in children.items():
        try:
            code: int | str = child.wait(max(1.0, limit - (time.monotonic() - started)))
        except subprocess.TimeoutExpired:
            code = f"ended after {limit:.0f} s"
        ends[name] = {"exit": code, "seconds": round(time.monotonic() - started, 1)}
    for child in children.values():
        end(child)
    return ends


def descendants(root: int) -> list[int]:
    """Processes below a process. Torchrun's ranks have sessions of their own: no group has them."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Behind the name, which is in brackets and may hold anything: state, parent.
            parent = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            below.setdefault(parent, []).append(int(path.parent.name))
    known = [root]
    for pid in known:
        known += below.get(pid, [])
    return known[1:]


def end(child: subprocess.Popen[bytes], patience: float = 8.0) -> None:
    """Ask a process to end, wait, and kill what is left of it and of all that it started."""
    if child.poll() is not None:
        return
    started = descendants(child.pid)
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(patience)
    for pid in {*started, *descendants(child.pid), child.pid}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    child.wait()


def wait_for_memory(patience: float = 30.0, most: int = 2000) -> str:
    """Wait until no phase's memory is on a GPU any more; what is, in MiB, where it stays."""
    begun = time.monotonic()
    while True:
        asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        used = [int(line) for line in done.stdout.split()]
        if max(used) < most:
            return ""
        if time.monotonic() - begun > patience:
            return f"memory is still in use: {used} MiB"
        time.sleep(0.5)


def table(out: Path, ends: dict[str, dict[str, Any]]) -> list[str]:
    """A line a record: how it ended and what it measured."""
    lines = []
    for name, end in ends.items():
        path = out / f"{name}.json"
        lines.append(f"{name}: exit {end['exit']}, {end['seconds']} s")
        if not path.exists():
            tail = (out / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            lines += [f"    {line}" for line in tail.splitlines()[-(2 if not end["exit"] else 8) :]]
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        for key, value in record.items():
            if isinstance(value, dict) and "median" in value:
                speed = f"{value['tflops_a_gpu']} TFLOP/s a GPU, peak {value['peak_gib']} GiB"
                count = len(value["seconds"])
                lines.append(f"    {key}: median {value['median']} s of {count}, {speed}")
            elif key == "outer steps":
                lines += [f"    outer step: {s['seconds']} s, peak {s['peak_gib']}" for s in value]
            elif key.startswith(("kernels", "outer", "64 +", "seconds")):
                lines.append(f"    {key}: {value}")
        if "message" in record:
            lines.append(f"    {json.dumps(record)}")
    return lines


def main() -> None:
    """Run the phases, then print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--tiny", action="store_true", help="a narrow model on two CPU processes")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    environ = environment(tiny=chosen.tiny)
    gpus, gib, about = (2, 0.0, "no GPU") if chosen.tiny else _gpus()
    print(f"{gpus} processes; {about}; nvcc: {shutil.which('nvcc', path=environ['PATH'])}")
    begun = time.monotonic()
    ends: dict[str, dict[str, Any]] = {}
    for phase in phases(chosen.out, gpus=gpus, gib=gib, tiny=chosen.tiny):
        left = chosen.seconds - (time.monotonic() - begun)
        if chosen.only and phase.name not in chosen.only:
            continue
        if left < phase.expected:
            print(f"left out: {phase.name}, {left:.0f} s are left", flush=True)
            continue
        done = run(phase, chosen.out, environ, min(phase.limit, left))
        ends |= done
        if not chosen.tiny and (trouble := wait_for_memory()):
            print(trouble)
        print("\n".join(table(chosen.out, done)), flush=True)
    (chosen.out / "ends.json").write_text(json.dumps(ends, indent=1) + "\n", encoding="utf-8")
    print(f"in all {time.monotonic() - begun:.0f} s")


def _gpus() -> tuple[int, float, str]:
    """How many, GiB of each, and what they are."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    return len(lines), float(lines[0].split(",")[1].split()[0]) / 1024, lines[0]


if __name__ == "__main__":
    main()
