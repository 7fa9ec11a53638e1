"""What steps that share a model would do with other GPUs than a profile declares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from kit.doctor.core import Needs, estimate
from kit.engine.environment import Machine, this_machine
from kit.engine.planner import make_plan
from kit.engine.registry import load_registry
from kit.errors import KitError, Preflight, UsageError
from kit.manifest.catalog import Catalog
from kit.pins.store import PinStore
from kit.results.plan import Plan

USUAL = ((2, 79.0), (4, 79.0), (8, 79.0), (2, 139.0), (4, 139.0))
"""GPUs and GiB of each: cards of 80 and 141 GB, as they report themselves."""


def needs_of(
    catalog: Catalog,
    experiment: str,
    profile: str,
    store: PinStore,
    *,
    gpus: int | None = None,
    gpu_gb: float | None = None,
) -> Needs:
    """What a profile needs: as declared, or where its sharing steps do with the GPUs named.

    Args:
        catalog: The experiments.
        experiment: Id, or path of a manifest.
        profile: Profile name.
        store: Pins of the experiment; none of them is read.
        gpus: How many GPUs; as many as declared if not given.
        gpu_gb: GiB of each; this machine's, or 79, if not given.

    Raises:
        Preflight: They do not do; the sentence says what is missing.
        UsageError: No step shares its work.
    """
    manifest = catalog.manifest(experiment)
    declared, written = estimate(manifest, profile), len(manifest.notes)
    planned = partial(
        make_plan,
        manifest,
        profile,
        pins=store.pins,
        digests=store,
        registry=load_registry(),
        rehearsal=True,
    )
    if gpus is not None or gpu_gb is not None:
        plan = planned(machine=this_machine(), gpus=gpus, gpu_gb=gpu_gb)
        if len(plan.notes) == written:
            raise UsageError(
                f"no step of {experiment} ({profile}) shares its work among GPUs: other GPUs "
                "would change nothing",
                next_step="leave --gpus and --gpu-memory out",
            )
        needs = [instance.resources for instance in plan.instances]
        return replace(
            declared,
            gpus=max(need.gpus for need in needs),
            gpu_memory_gb=max(need.gpu_memory_gb for need in needs),
            memory_gb=max(need.memory_gb for need in needs),
            shared=tuple(plan.notes[written:]),
        )
    if not declared.gpus:
        return declared
    again = partial(needs_of, catalog, experiment, profile, store)
    command = f"kit doctor {experiment} --profile {profile}"
    return replace(
        declared,
        shared=_choices(planned, written),
        instead=here_instead(again, declared, command),
    )


def here_instead(fitted: Callable[..., Needs], needs: Needs, command: str) -> str:
    """What to type where this machine's GPUs are not those declared but would do; or why not."""
    present = [gpu for gpu in this_machine().gpus if gpu.memory_gb]
    enough = [gpu for gpu in present if gpu.memory_gb >= needs.gpu_memory_gb]
    if not present or len(enough) >= needs.gpus:
        return ""
    count = len(present)
    try:
        other = fitted(gpus=count)
    except Preflight as error:
        return f"use a machine with {needs.gpus} GPUs of {needs.gpu_memory_gb:g} GB: {error.what}"
    except KitError:
        return ""
    return (
        f"add --gpus {count} to kit run: these do, with {other.gpu_memory_gb:g} GB each and "
        f"{other.memory_gb:g} GB of the machine's memory ({command} --gpus {count})"
    )


def _choices(planned: Callable[..., Plan], written: int) -> tuple[str, ...]:
    """On which usual GPUs steps that share their work would do: one sentence, or none."""
    said = []
    for gpus, gpu_gb in USUAL:
        try:
            plan = planned(machine=Machine(), gpus=gpus, gpu_gb=gpu_gb)
        except Preflight:
            said.append(f"{gpus} x {gpu_gb:g} GB do not do")
            continue
        except KitError:
            return ()
        if len(plan.notes) == written:
            return ()
        most = max(instance.resources.gpu_memory_gb for instance in plan.instances)
        hours = plan.totals(set(), set()).gpu_hours
        said.append(f"{gpus} x {gpu_gb:g} GB do ({most:g} GB used, {hours:.0f} GPU hours)")
    return (f"{'; '.join(said)}; computed for H100 and H200, chosen by --gpus",)
