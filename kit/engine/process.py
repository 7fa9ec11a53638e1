"""What the processes of a run share: their environment, and that none outlives the run.

A worker's standard input is a pipe from the run. When the run dies, also by SIGKILL, the pipe ends,
and the worker kills its whole process group (its own children, such as data loaders, included).
Ranks started by torchrun are in sessions of their own; ``python -m kit.engine.process ARGS`` is
``python ARGS`` that asks the kernel to be killed with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import psutil

import kit
from kit.engine.secrets import child_environment
from kit.manifest.home import kit_home

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
"""Inputs were fetched before; a step that reaches for the network is wrong. The last two fix the
order of sets and the workspace of cuBLAS, both of which could change a number."""

CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "VLLM_CACHE_ROOT": "vllm",
    "CUDA_CACHE_PATH": "cuda",
}
"""Variable -> folder below ``cache`` in the kit's home: what was compiled once serves the next
step and the next run. By default most of it lies in /tmp and is gone after a restart, or in a home
folder that a container has not."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OOM_COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))
"""Of the machine and, in a container with a limit of its own, of the cgroup."""
PR_SET_PDEATHSIG = 1


def worker_environment(
    environ: Mapping[str, str], *, threads: int | None, gpus: list[str]
) -> dict[str, str]:
    """The environment of a worker.

    Args:
        environ: The run's own.
        threads: Threads a CPU step may use; ``None`` leaves it to the libraries (GPU steps).
        gpus: Devices it may see; none hides them all, so that a CPU step cannot use one by chance.
    """
    cache = kit_home().absolute() / "cache"
    caches = {variable: str(cache / folder) for variable, folder in CACHES.items()}
    made = caches | child_environment(environ) | OFFLINE
    made["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    made["PYTHONSAFEPATH"] = "1"  # a random.py in the working directory is nobody's library
    root = Path(kit.__file__).resolve().parents[1]
    if not {"site-packages", "dist-packages"} & set(root.parts):
        # From a checkout: the worker must run the same kit, wherever it is started.
        made["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environ.get("PYTHONPATH")]))
    if threads is not None:
        made.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    return made


def oom_kills() -> int | None:
    """Processes that the kernel killed for want of memory; ``None`` where it does not say.

    A process that it ends gets SIGKILL and can say nothing. Only a difference means something: the
    two counters overlap.
    """
    counts: list[int] = []
    for path in OOM_COUNTERS:
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="ascii", errors="replace").splitlines():
                name, _, number = line.partition(" ")
                counts += [int(number)] if name == "oom_kill" else []
    return sum(counts) if counts else None


def rose(before: int | None) -> bool | None:
    """Whether :func:`oom_kills` has risen since it was ``before``; ``None`` if not known."""
    now = oom_kills()
    return None if before is None or now is None else now > before


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        return bool(psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.Error:
        return False


def lines_or_death(source: BinaryIO) -> queue.Queue[bytes]:
    """Lines of a pipe from the parent; when it ends, this process group is killed.

    The group must be this process's own (the parent starts it with ``process_group=0``).
    """
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in source:
            lines.put(line)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=read, name="parent-watch", daemon=True).start()
    return lines


if __name__ == "__main__":
    # The wish survives exec, and unlike a hook between fork and exec this is safe beside threads.
    die_with_parent()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
