"""GPUs: how many, how large, driver, build of torch, and who else is on them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

from msgspec import Struct

from kit.doctor.core import Check, Needs, fail, ok, warn
from kit.doctor.software import Version
from kit.engine.environment import library_version
from kit.engine.hardware import Gpu

DRIVER_FOR_CUDA = {12: 525, 13: 580}
"""CUDA runtime major -> the oldest driver branch that runs it (CUDA release notes, table 3)."""

MEMORY_SLACK = 0.97
"""A "24 GB" card reports a little less; this much of what is asked for is enough."""

Ask = Callable[..., tuple[int, str]]


class Load(Struct, frozen=True, kw_only=True):
    """What is left of a GPU, and who is on it."""

    index: str
    uuid: str
    free_gb: float
    processes: list[str] = []
    """``pid 123 (60000 MiB)``."""


def nvidia_smi(*arguments: str) -> tuple[int, str]:
    """Status and output of ``nvidia-smi``; 127 where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 127, ""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"nvidia-smi: {type(error).__name__}"
    return done.returncode, done.stdout + done.stderr


def loads(ask: Ask = nvidia_smi) -> list[Load]:
    """Free memory and processes of every GPU; the processes of other containers do not show."""
    form = "--format=csv,noheader,nounits"
    status, memory = ask("--query-gpu=index,uuid,memory.free", form)
    if status:
        return []
    _, apps = ask("--query-compute-apps=gpu_uuid,pid,used_memory", form)
    on: dict[str, list[str]] = {}
    for uuid, pid, used in _rows(apps, 3):
        if pid != str(os.getpid()):
            shown = f" ({used} MiB)" if used.isdigit() else ""
            on.setdefault(uuid, []).append(f"pid {pid}{shown}")
    return [
        Load(index=index, uuid=uuid, free_gb=float(free) / 1024, processes=on.get(uuid, []))
        for index, uuid, free in _rows(memory, 3)
        if free.isdigit()
    ]


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == columns]


def cuda_major(version: Version = library_version) -> int | None:
    """Major version of the CUDA runtime that the installed torch carries."""
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12"):
        installed = version(name)
        if installed is not None:
            return int(installed.split(".")[0])
    built = re.search(r"\+cu(\d\d)", version("torch") or "")
    return int(built.group(1)) if built else None


def check_gpus(
    gpus: list[Gpu], needs: Needs, *, ask: Ask = nvidia_smi, version: Version = library_version
) -> Iterator[Check]:
    """Enough GPUs, each large enough, with a driver and a torch that fit, and free."""
    yield from (ok("shared by GPUs", words) for words in needs.shared)
    if not gpus:
        yield _none(needs, ask)
        return
    names = ", ".join(f"{gpu.name} {gpu.memory_gb:g} GB" for gpu in gpus)
    enough = [gpu for gpu in gpus if gpu.memory_gb >= needs.gpu_memory_gb * MEMORY_SLACK]
    if len(gpus) < needs.gpus:
        hidden = len(loads(ask)) - len(gpus)
        yield fail(
            "gpus",
            f"{len(gpus)} visible ({names}), {needs.gpus} needed",
            f"unset CUDA_VISIBLE_DEVICES, which hides {hidden} more"
            if hidden > 0
            else needs.instead or f"use a machine with {needs.gpus} GPUs",
        )
    elif needs.gpus and len(enough) < needs.gpus:
        yield fail(
            "gpus",
            f"{needs.gpus} of {needs.gpu_memory_gb:g} GB needed; here: {names}",
            needs.instead or "use larger GPUs, or --profile mini",
        )
    else:
        yield ok("gpus", names)
    yield _driver(gpus, version)
    if needs.gpus and "+cpu" in (version("torch") or ""):
        yield fail(
            "torch",
            f"{version('torch')} is a build without CUDA",
            "make setup-gpu, which makes an environment of its own",
        )
    if needs.gpus:
        yield from _occupied(gpus, needs, loads(ask))


def _occupied(gpus: list[Gpu], needs: Needs, every: list[Load]) -> Iterator[Check]:
    """Others on the GPUs that a run would take: the first visible ones."""
    visible = [
        load
        for gpu in gpus
        for load in every
        if load.index == gpu.index or (gpu.index and load.uuid.startswith(gpu.index))
    ]
    taken = visible[: needs.gpus]
    others = [text for load in taken for text in load.processes]
    who = f": {', '.join(others[:5])}" if others else ""
    short = [load for load in taken if load.free_gb < needs.gpu_memory_gb * MEMORY_SLACK]
    if not short:
        if others:
            yield warn(
                "gpu processes",
                f"others are on the GPUs{who}; vLLM takes a fixed share and does not ask them",
                "wait for them, or choose free ones with CUDA_VISIBLE_DEVICES",
            )
        return
    free = [load for load in visible if load.free_gb >= needs.gpu_memory_gb * MEMORY_SLACK]
    left = ", ".join(f"GPU {load.index} has {load.free_gb:.1f} GB free" for load in short)
    if len(free) >= needs.gpus:
        mend = "export CUDA_VISIBLE_DEVICES=" + ",".join(load.index for load in free[: needs.gpus])
    elif others:
        pids = ",".join(re.findall(r"pid (\d+)", who))
        mend = f"wait for them, or end them if they are yours; who they are: ps -fp {pids}"
    else:
        mend = "wait, or look outside of this container: nvidia-smi shows no process here"
    yield fail("gpu processes", f"{left}, {needs.gpu_memory_gb:g} GB of each GPU needed{who}", mend)


def _none(needs: Needs, ask: Ask) -> Check:
    if not needs.gpus:
        return ok("gpus", "none, and none needed")
    wanted = f"{needs.gpus} of {needs.gpu_memory_gb:g} GB needed"
    mend = "run on a GPU machine, or use --profile mini"
    status, said = ask()
    if status == 127:
        return fail("gpus", f"{wanted}; there is no nvidia-smi here, so no driver", mend)
    if status:
        words = next((line.strip() for line in said.splitlines() if line.strip()), "no word of why")
        reload = "sudo modprobe nvidia, or restart the machine (after an update of the driver too)"
        return fail("gpus", f"{wanted}; nvidia-smi fails: {words[:200]}", reload)
    if loads(ask):
        return fail(
            "gpus",
            f"{wanted}; CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')!r} "
            f"hides all {len(loads(ask))}",
            "unset CUDA_VISIBLE_DEVICES",
        )
    return fail("gpus", f"{wanted}, none visible", f"{mend}; in a container: docker run --gpus all")


def _driver(gpus: list[Gpu], version: Version) -> Check:
    driver = gpus[0].driver
    cuda = cuda_major(version)
    wanted = DRIVER_FOR_CUDA.get(cuda or 13, DRIVER_FOR_CUDA[13])
    which = f"CUDA {cuda}" if cuda is not None else "CUDA 13 (no CUDA build of torch is installed)"
    major = driver.split(".")[0]
    if not major.isdigit():
        return warn("driver", f"version unknown; {which} needs R{wanted} or newer", "nvidia-smi")
    if int(major) < wanted:
        level = fail if cuda is not None else warn
        return level(
            "driver",
            f"{driver}; {which} needs R{wanted} or newer",
            f"on the host: sudo apt-get install nvidia-driver-{wanted} (or the package of your "
            "system), then restart; a container cannot bring a driver",
        )
    return ok("driver", f"{driver} ({which})")
