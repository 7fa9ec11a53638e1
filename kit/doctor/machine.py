"""Memory, disk, shared memory and what old runs left: what else a run can fail on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from kit.doctor import containers
from kit.doctor.core import Check, Needs, fail, ok, warn
from kit.doctor.inputs import Download
from kit.durable import existing
from kit.engine.inventory import ABANDONED_DAYS, checkpoints, removal

SHM_GB = 8.0
"""NCCL and tensor-parallel engines fail obscurely with less when several GPUs work together."""
SHOWN = 5
"""Folders named in one command."""


def memory(total_gb: float, needs: Needs) -> Check:
    """Enough main memory, of the machine or of the container's limit."""
    shown = f"{total_gb:.1f} GB"
    if total_gb < needs.memory_gb:
        return fail(
            "memory",
            f"{shown}, {needs.memory_gb:g} GB needed",
            "use a machine with more, or raise the container's limit (docker run --memory)",
        )
    return ok("memory", shown)


def disk(home: Path, runs: Path, needs: Needs, download: Download) -> Iterator[Check]:
    """Space for the inputs and outputs, and permission to write them."""
    for what, folder, wanted, move in (
        (
            "disk of KIT_HOME",
            home,
            needs.disk_gb + download.size / 1e9,
            "export KIT_HOME=/a/larger/disk/kit",
        ),
        ("disk of runs", runs, 0.1, "--runs-dir /a/larger/disk/runs"),
    ):
        base = existing(folder)
        free = shutil.disk_usage(base).free / 1e9
        shown = f"{free:.1f} GB free at {folder}"
        if not base.is_dir():
            yield fail(what, f"{base} is a file, no folder", move)
        elif not os.access(base, os.W_OK):
            yield fail(what, f"{base} cannot be written", move)
        elif free < wanted:
            mend = f"free some space, or {move}"
            yield fail(what, f"{shown}, about {wanted:.1f} GB needed", mend)
        else:
            more = f", about {wanted:.1f} GB needed" if wanted > 1 else ""
            yield ok(what, shown + more)


def shared_memory(needs: Needs, folder: Path = Path("/dev/shm")) -> Check:
    """/dev/shm is large enough for several GPUs."""
    mend = (
        "docker run --shm-size=16g (or --ipc=host)"
        if containers.inside()
        else f"sudo mount -t tmpfs -o size=16G tmpfs {folder}"
    )
    if not folder.is_dir():
        return (
            ok("shared memory", "there is no /dev/shm here")
            if needs.gpus < 2
            else warn("shared memory", "there is no /dev/shm, which multi-GPU steps use", mend)
        )
    size = shutil.disk_usage(folder).total / 1e9
    if size < SHM_GB and needs.gpus > 1:
        return fail(
            "shared memory",
            f"{size:.1f} GB at {folder}; {SHM_GB:g} GB wanted for {needs.gpus} GPUs",
            mend.replace("mount -t tmpfs -o size=16G tmpfs", "mount -o remount,size=16G"),
        )
    return ok("shared memory", f"{size:.1f} GB")


def abandoned(home: Path) -> Iterator[Check]:
    """Checkpoints that nobody went on from."""
    kept = checkpoints(home)
    old = [checkpoint for checkpoint in kept if checkpoint.abandoned]
    if old:
        size = sum(checkpoint.size for checkpoint in old) / 1e9
        rest = f"; then again for {len(old) - SHOWN} more" if len(old) > SHOWN else ""
        yield warn(
            "abandoned checkpoints",
            f"{len(old)} of steps that never finished, {size:.2g} GB, untouched for "
            f"{ABANDONED_DAYS} days or more",
            f"if no run is to be resumed from them: {removal(old[:SHOWN])}{rest}",
        )
    elif kept:
        size = sum(checkpoint.size for checkpoint in kept) / 1e9
        yield ok("checkpoints", f"{len(kept)} of unfinished steps, {size:.2g} GB, kept to resume")
