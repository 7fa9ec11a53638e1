"""GPUs: how many, how large, driver, and who else is on them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

from kit.engine.hardware import Gpu
from kit.manifest.doctor.core import Check, Needs, fail, ok, warn
from kit.manifest.doctor.software import Version, installed

DRIVER_FOR_CUDA = {12: 525, 13: 580}
"""CUDA runtime major -> the oldest driver branch that runs it."""

MEMORY_SLACK = 0.97
"""A "24 GB" card reports a little less; this much of what is asked for is enough."""


def processes() -> list[tuple[str, str]]:
    """(pid, memory) of compute processes on the GPUs, other than this one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 1]
    found = [(pid.strip(), memory.strip()) for pid, memory in rows]
    return [(pid, memory) for pid, memory in found if pid != str(os.getpid())]


def cuda_major(version: Version = installed) -> int | None:
    """Major version of the CUDA runtime that the installed torch carries."""
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12"):
        found = version(name)
        if found is not None:
            return int(found.split(".")[0])
    built = re.search(r"\+cu(\d\d)", version("torch") or "")
    return int(built.group(1)) if built else None


def check_gpus(
    found: list[Gpu],
    needs: Needs,
    *,
    busy: Callable[[], list[tuple[str, str]]] = processes,
    version: Version = installed,
) -> Iterator[Check]:
    """Enough GPUs, each large enough, with a driver that fits, and free."""
    if not found:
        yield _none(needs)
        return
    names = ", ".join(f"{gpu.name} {gpu.memory_gb:g} GB" for gpu in found)
    enough = [gpu for gpu in found if gpu.memory_gb >= needs.gpu_memory_gb * MEMORY_SLACK]
    if len(found) < needs.gpus:
        yield fail(
            "gpus",
            f"{len(found)} visible ({names}), {needs.gpus} needed",
            "use a machine with more, or unset CUDA_VISIBLE_DEVICES",
        )
    elif needs.gpus and len(enough) < needs.gpus:
        yield fail(
            "gpus",
            f"{needs.gpus} of {needs.gpu_memory_gb:g} GB needed; here: {names}",
            "use larger GPUs, or the mini profile",
        )
    else:
        yield ok("gpus", names)
    yield _driver(found, version)
    others = busy()
    if others and needs.gpus:
        shown = ", ".join(f"pid {pid} ({memory})" for pid, memory in others[:5])
        yield warn(
            "gpu processes",
            f"others are on the GPUs: {shown}",
            "wait for them, or choose free ones with CUDA_VISIBLE_DEVICES",
        )


def _none(needs: Needs) -> Check:
    if not needs.gpus:
        return ok("gpus", "none, and none needed")
    program = shutil.which("nvidia-smi")
    mend = "run on a GPU machine, or use --profile mini"
    if program is None:
        return fail("gpus", f"{needs.gpus} needed, and there is no nvidia-smi here", mend)
    return fail(
        "gpus",
        f"{needs.gpus} needed, none visible",
        f"{mend}; in a container: --gpus all; look at CUDA_VISIBLE_DEVICES",
    )


def _driver(found: list[Gpu], version: Version) -> Check:
    driver = found[0].driver
    cuda = cuda_major(version)
    wanted = DRIVER_FOR_CUDA.get(cuda or 13, DRIVER_FOR_CUDA[13])
    which = f"CUDA {cuda}" if cuda is not None else "CUDA 13 (no CUDA build of torch is installed)"
    major = driver.split(".")[0]
    if not major.isdigit():
        return warn("driver", f"version unknown; {which} needs R{wanted} or newer")
    if int(major) < wanted:
        level = fail if cuda is not None else warn
        return level(
            "driver",
            f"{driver}; {which} needs R{wanted} or newer",
            "update the driver, or use the image for an older CUDA",
        )
    return ok("driver", f"{driver} ({which})")
