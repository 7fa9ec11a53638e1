"""The environment class: what may change a number without anyone deciding so.

It enters every key, so a step measured under other circumstances is another step. Library versions
come from package metadata; importing torch to learn its version would cost seconds on every plan.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import metadata
from typing import Any

from msgspec import Struct

from kit.engine.hardware import Gpu, gpus
from kit.engine.registry import StepKind
from kit.errors import InvalidInput, Preflight
from kit.manifest.types import Resources
from kit.plural import plural
from kit.results.plan import StepInstance

LIBRARIES = (
    "accelerate",
    "deepspeed",
    "flash-attn",
    "numpy",
    "peft",
    "safetensors",
    "schedulefree",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "vllm",
)
UNKNOWN_ARCH = "unknown"
"""Stands for the architecture when GPU steps are planned on a machine without one."""


class Machine(Struct, frozen=True, kw_only=True):
    """What a plan has to know of the machine it is for."""

    gpus: list[Gpu] = []
    versions: dict[str, str | None] = {}
    """Library -> installed version; ``None`` when absent."""
    batch_invariant: bool = False
    """Whether vLLM is told to make outputs independent of batching."""

    @property
    def gpu_arch(self) -> str:
        """Architecture of the GPUs; several different ones are named together."""
        return "+".join(sorted({gpu.arch for gpu in self.gpus})) or UNKNOWN_ARCH


@lru_cache(maxsize=64)
def library_version(name: str) -> str | None:
    """Installed version of a distribution, or ``None``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def this_machine(gpu_arch: str | None = None) -> Machine:
    """Look at the machine.

    Args:
        gpu_arch: Plan for GPUs of this architecture (``sm_90``), for instance on a login node that
            has none itself. ``KIT_GPU_ARCH`` does the same.
    """
    wanted = gpu_arch or os.environ.get("KIT_GPU_ARCH")
    present = gpus()
    if wanted and not present:
        present = [Gpu(index="", name="planned", arch=wanted, memory_gb=0.0)]
    return Machine(
        gpus=present,
        versions={name: library_version(name) for name in LIBRARIES},
        batch_invariant=os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
    )


def environment_class(
    kind: StepKind,
    params: dict[str, Any],
    resources: Resources,
    machine: Machine,
    *,
    rehearsal: bool = False,
) -> dict[str, Any]:
    """The part of the environment class that the kind says its outputs depend on.

    A step on a GPU always carries the GPU's architecture: no kind can promise that kernels of two
    architectures round alike.

    Raises:
        InvalidInput: The kind names a field that does not exist.
    """
    on_gpu = resources.gpus > 0
    world = resources.world if kind.launch == "torchrun" else max(1, resources.gpus)
    split = (world, params.get("micro_batch", 1), params.get("accumulation", 1))
    known = {
        "device": "cuda" if on_gpu else "cpu",
        "gpu_arch": machine.gpu_arch if on_gpu else None,
        "dtype": params.get("dtype"),
        "world": "x".join(map(str, split)),
        "batch_invariant": machine.batch_invariant,
        **{name: machine.versions.get(name) for name in LIBRARIES},
    }
    wanted = dict.fromkeys(kind.environment)
    if on_gpu and "device" in wanted:
        wanted["gpu_arch"] = None
    for name in wanted:
        if name not in known:
            raise InvalidInput(
                f"step kind {kind.name!r} depends on {name!r}, which is no environment field",
                next_step=f"known fields: {', '.join(known)}",
            )
    chosen = {name: known[name] for name in wanted}
    if rehearsal:
        chosen["rehearsal"] = True  # stand-in outputs must never be taken for measured ones
    return chosen


def require_gpus(instance: StepInstance, present: int, next_step: str) -> None:
    """Refuse a step that wants more GPUs than there are.

    Raises:
        Preflight: It does.
    """
    if instance.resources.gpus > present:
        raise Preflight(
            f"the step needs {plural(instance.resources.gpus, 'GPU')}, this machine has {present}",
            where=instance.id,
            next_step=next_step,
        )


def require_environment(
    instance: StepInstance,
    machine: Machine,
    next_step: str = "make the plan where it runs: kit plan or kit export, in the same image",
) -> None:
    """Refuse to compute under a key that says something else of the machine.

    A plan file travels: made on a laptop, run in an image. What its keys say of library versions
    and of the GPU must then be true where the step runs.

    Raises:
        Preflight: A version, or the GPU's architecture, is another one here.
    """
    here: dict[str, object] = {name: machine.versions.get(name) for name in LIBRARIES}
    here |= {"gpu_arch": machine.gpu_arch, "batch_invariant": machine.batch_invariant}
    other = [
        f"{name} {value or 'absent'} (here {here[name] or 'absent'})"
        for name, value in instance.environment.items()
        if name in here and value != here[name] and (name != "gpu_arch" or value is not None)
    ]
    if other:
        raise Preflight(
            f"the plan was made for {', '.join(other)}",
            where=instance.id,
            why="outputs would be stored under a key that does not tell how they were made",
            next_step=next_step,
        )
