"""What this machine has, read without importing torch.

Containers lie: the host's memory and core count are visible inside a cgroup that allows a fraction
of them. The limits of the cgroup win here, because the scheduler packs steps by these figures.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

GIB = 1024**3


class Gpu(Struct, frozen=True, kw_only=True):
    """One visible GPU."""

    index: str
    """What ``CUDA_VISIBLE_DEVICES`` must contain to select it."""
    name: str
    arch: str
    """Compute capability as ``sm_90``."""
    memory_gb: float
    driver: str = ""


def parse_gpus(text: str, visible: str | None) -> list[Gpu]:
    """GPUs from ``nvidia-smi`` CSV, limited to those ``CUDA_VISIBLE_DEVICES`` names."""
    every: list[tuple[str, Gpu]] = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 6:
            continue
        index, uuid, name, capability, memory_mib, driver = parts
        arch = "sm_" + capability.replace(".", "")
        try:
            memory = round(float(memory_mib) / 1024, 1)
        except ValueError:  # "[N/A]" where GPU and processor share one memory (GB10, Jetson)
            memory = memory_gb()
        every.append(
            (uuid, Gpu(index=index, name=name, arch=arch, memory_gb=memory, driver=driver))
        )
    if visible is None:
        return [gpu for _, gpu in every]
    chosen: list[Gpu] = []
    for wanted in (part.strip() for part in visible.split(",")):
        for uuid, gpu in every:
            if wanted == gpu.index or (wanted and uuid.startswith(wanted)):
                chosen.append(msgspec.structs.replace(gpu, index=wanted))
                break
        else:
            break  # CUDA itself stops at the first name it does not know
    return chosen


@lru_cache(maxsize=1)
def _nvidia_smi() -> str:
    """The machine's GPUs as CSV; asked once a process, because each call takes about 50 ms."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = "--query-gpu=index,uuid,name,compute_cap,memory.total,driver_version"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def gpus() -> list[Gpu]:
    """The GPUs this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return parse_gpus(_nvidia_smi(), visible)


def cpu_count() -> int:
    """Cores this process may use: affinity, then the cgroup's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def memory_gb() -> float:
    """Memory this process may use: the machine's, or the cgroup's where that is less."""
    total = int(psutil.virtual_memory().total)
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit():
        total = min(total, int(limit))
    return round(total / GIB, 1)


def cpu_model() -> str:
    """The processor's name as the kernel prints it."""
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
