"""Memory, disk, shared memory, hub access: what else a run can fail on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from kit.errors import KitError
from kit.manifest.doctor.core import Check, Needs, fail, ok, warn
from kit.manifest.fetch.problems import hub_page, offline
from kit.manifest.fetch.retry import Transient
from kit.manifest.pin_types import Pin
from kit.manifest.pins import PinStore

SHM_GB = 8.0
"""NCCL and tensor-parallel engines fail obscurely with less when several GPUs work together."""


def memory(total_gb: float, needs: Needs) -> Check:
    """Enough main memory."""
    shown = f"{total_gb:.1f} GB"
    if total_gb < needs.memory_gb:
        return fail(
            "memory", f"{shown}, {needs.memory_gb:g} GB needed", "use a machine with more memory"
        )
    return ok("memory", shown)


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def disk(home: Path, runs: Path, needs: Needs, download: int | None) -> Iterator[Check]:
    """Space for the inputs and outputs, and permission to write them."""
    for what, folder, wanted in (
        ("disk of KIT_HOME", home, needs.disk_gb + (download or 0) / 1e9),
        ("disk of runs", runs, 0.1),
    ):
        place = existing(folder)
        free = shutil.disk_usage(place).free / 1e9
        shown = f"{free:.1f} GB free at {folder}"
        if not os.access(place, os.W_OK):
            yield fail(what, f"{place} cannot be written", "point KIT_HOME to a folder of yours")
        elif free < wanted:
            mend = "free some space, or point KIT_HOME to a larger disk"
            yield fail(what, f"{shown}, about {wanted:.1f} GB needed", mend)
        else:
            more = f", about {wanted:.1f} GB needed" if wanted > 1 else ""
            yield ok(what, shown + more)


def shared_memory(needs: Needs, folder: Path = Path("/dev/shm")) -> Check:
    """/dev/shm is large enough for several GPUs."""
    if not folder.is_dir():
        return (
            ok("shared memory", "there is no /dev/shm here")
            if needs.gpus < 2
            else warn("shared memory", "there is no /dev/shm, which multi-GPU steps use")
        )
    size = shutil.disk_usage(folder).total / 1e9
    if size < SHM_GB and needs.gpus > 1:
        return fail(
            "shared memory",
            f"{size:.1f} GB at {folder}; {SHM_GB:g} GB wanted for {needs.gpus} GPUs",
            "docker run --shm-size=16g (or --ipc=host)",
        )
    return ok("shared memory", f"{size:.1f} GB")


def inputs(store: PinStore, ids: list[str], experiment: str, profile: str) -> Iterator[Check]:
    """Which pins are here and right."""
    command = f"kit fetch {experiment} --profile {profile}"
    for id in ids:
        pin = store.pin(id)
        state = store.state(id)
        if state.ready:
            note = "" if state.status == "ok" else f" (unconfirmed: {pin.unconfirmed})"
            yield ok(f"pin {id}", f"here{', your own' if state.own else ''}{note}")
        elif state.status == "unavailable":
            yield fail(f"pin {id}", str(pin.unavailable), f"{command} --pin {id}=PATH")
        elif state.status == "wrong":
            yield fail(f"pin {id}", "; ".join(state.problems[:2]), command)
        elif pin.kind == "package" or state.own:
            yield fail(f"pin {id}", "; ".join(state.problems[:2]))
        elif offline():
            yield fail(f"pin {id}", "not here, and the network is off", "unset HF_HUB_OFFLINE")
        else:
            yield warn(f"pin {id}", "not fetched yet", command)


def access(
    pins: list[Pin], has_token: Callable[[], bool], ask: Callable[[Pin], None]
) -> Iterator[Check]:
    """Gated repositories open to the configured token. Asked only with a token and online."""
    for pin in pins:
        what = f"access to {pin.repo}"
        page = hub_page(pin)
        if not has_token():
            yield fail(what, "gated, and there is no token", f"accept at {page}; hf auth login")
            continue
        if offline():
            yield warn(what, "a token is there; not asked, the network is off")
            continue
        try:
            ask(pin)
        except Transient as error:
            yield warn(what, f"could not ask: {error}", "check the network")
        except KitError as error:
            yield fail(what, error.what, error.next_step)
        else:
            yield ok(what, "granted")


def gated_missing(store: PinStore, ids: list[str]) -> list[Pin]:
    """Gated pins that still have to be fetched."""
    pins = [store.pin(id) for id in ids]
    return [pin for pin in pins if pin.gated and not store.state(pin.id).ready]


def download_size(store: PinStore, ids: list[str]) -> int | None:
    """Bytes still to fetch; ``None`` when the size of some file is not known."""
    total = 0
    for id in ids:
        if store.pin(id).kind in ("package", "unavailable"):
            continue
        sizes = [file.size for file in store.state(id).missing]
        if None in sizes:
            return None
        total += sum(size or 0 for size in sizes)
    return total
