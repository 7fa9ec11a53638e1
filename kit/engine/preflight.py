"""What is finished already, and what cannot work here: asked before anything starts."""

from __future__ import annotations

from kit.engine.batch import solve
from kit.engine.environment import UNKNOWN_ARCH, require_gpus
from kit.engine.store import Level, Store
from kit.errors import KitError, Preflight, raise_all
from kit.pins.store import PinStore
from kit.results.plan import Plan, StepInstance


def finished(plan: Plan, store: Store, level: Level = "sizes") -> set[str]:
    """Ids of the instances that the store has, together with everything they were made from."""
    have: set[str] = set()
    digests: dict[str, str] = {}
    for instance in plan.instances:
        if not all(id in have for id in instance.upstream()):
            continue
        entry = store.look(instance.key, level).entry
        if entry is not None and entry.input_digests == instance.input_digests(digests):
            have.add(instance.id)
            digests[instance.id] = entry.digest
    return have


def preflight(plan: Plan, store: Store, pins: PinStore, gpus: int | None) -> None:
    """Refuse before anything starts what cannot work here.

    Args:
        plan: What is to be run.
        store: What is finished already.
        pins: The inputs.
        gpus: GPUs of this machine; ``None`` when steps run on a cluster.

    Raises:
        KitError: Too few GPUs, or inputs that are not there; all of them at once.
    """
    have = finished(plan, store)
    rest = [instance for instance in plan.instances if instance.id not in have]
    most = max(rest, key=lambda instance: instance.resources.gpus, default=None)
    if gpus is None:
        _ready_for_slurm(most)
    elif most is not None:
        elsewhere = "run it on a machine that has them, or try --profile mini, which needs none"
        require_gpus(most, gpus, _other_split(most, gpus) + elsewhere)
    if plan.rehearsal:
        return  # stand-ins take the place of the inputs
    problems: list[KitError] = []
    for id in sorted({use.pin for instance in rest for use in instance.pins.values()}):
        try:
            pins.require(id)
        except KitError as error:
            error.next_step = (error.next_step or "kit fetch EXPERIMENT").replace(
                "EXPERIMENT", f"{plan.name} --profile {plan.profile}"
            )
            problems.append(error)
    raise_all(problems)


def _other_split(step: StepInstance, gpus: int) -> str:
    """How the step's batch could be shared by the GPUs that there are."""
    batch, micro = step.params.get("global_batch"), step.params.get("micro_batch")
    if step.launch != "torchrun" or gpus < 1 or not (batch and micro) or batch % gpus:
        return ""
    split = solve(batch, world=gpus, largest_micro=micro)
    return f"--gpus {gpus} shares its batch otherwise, {split.words()}; "


def _ready_for_slurm(most: StepInstance | None) -> None:
    from kit.engine.slurm.cluster import require

    require()
    if most is not None and most.environment.get("gpu_arch") == UNKNOWN_ARCH:
        raise Preflight(
            "this machine has no GPU, so the plan does not know which GPUs the jobs will have",
            where=most.id,
            why="their architecture is part of a step's key",
            next_step="say it, for example KIT_GPU_ARCH=sm_90 kit run ...; the jobs check it",
        )
