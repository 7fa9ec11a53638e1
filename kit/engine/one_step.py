"""One step of a plan, whose inputs are finished: what ``kit step`` does."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from kit.durable import explain
from kit.engine import hardware
from kit.engine.environment import require_environment, require_gpus, this_machine
from kit.engine.keys import require_own_keys
from kit.engine.launch import Nodes
from kit.engine.process import worker_environment
from kit.engine.registry import load_registry
from kit.engine.session import Options, complain, run_steps
from kit.engine.store import RECORD, Store
from kit.engine.torchrun import join
from kit.errors import InvalidInput, UsageError
from kit.pins.store import PinStore
from kit.plural import plural
from kit.results.plan import Plan, StepInstance


def link_record(store: Store, key: str, link: Path) -> None:
    """Make ``link`` a link to the record of a finished step.

    A flag that another engine looks at: it cannot outlive the step, because it is the step's own
    record.
    """
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(store.path(key) / RECORD)
        temporary.replace(link)
    except OSError as error:
        raise explain(error, where=str(link), path=link.parent) from error


def run_instance(
    plan: Plan,
    step: str,
    *,
    home: Path,
    pins: PinStore,
    options: Options,
    events: Path | None = None,
    nodes: Nodes | None = None,
) -> None:
    """Run an instance; nothing is computed if it is finished already.

    Args:
        plan: The plan.
        step: Instance id.
        home: The kit home.
        pins: The pin store.
        options: How to run it.
        events: File to append events to; many steps may share it. Its folder is made.
        nodes: Which node this is, of a step that runs on several.

    Raises:
        InvalidInput: A step that it reads is not finished, or the plan was edited.
        Preflight: The plan was made for another environment than this, or for more GPUs.
        StepFailed: It failed.
        Interrupted: A signal came.
    """
    instance, store = plan.instance(step), Store(home)
    require_own_keys(plan, step, load_registry())
    digests: dict[str, str] = {}
    for id in instance.upstream():
        look = store.look(plan.by_id[id].key)
        if look.entry is None:
            raise InvalidInput(
                f"it reads {id}, which is not finished" + f": {look.problem}" * bool(look.problem),
                where=step,
                next_step=f"run it first: kit step PLAN {id!r}",
            )
        digests[id] = look.entry.digest
    entry = store.look(instance.key, options.check).entry
    if entry is None or entry.input_digests != instance.input_digests(digests):
        require_environment(instance, this_machine())
    if not plan.rehearsal:
        for use in instance.pins.values():
            pins.require(use.pin)
    if events is not None:
        events.parent.mkdir(parents=True, exist_ok=True)
    if nodes is not None:
        plan = _share(plan, instance, nodes)
        instance = plan.instance(step)
    require_gpus(
        instance,
        len(hardware.gpus()),
        "run it where they are; for several nodes: kit plan EXP --launch slurm STEP",
    )
    if nodes is not None:
        nodes.export()
        if nodes.rank:
            join(
                instance,
                processes=instance.resources.gpus,
                nodes=nodes,
                store=store,
                digests=instance.input_digests(digests),
                environ=worker_environment(
                    os.environ, threads=None, gpus=[gpu.index for gpu in hardware.gpus()]
                ),
            )
            return
    logs = (events.parent if events is not None else home) / "logs"
    outcome = run_steps(
        plan,
        store=store,
        pins=pins,
        options=options,
        logs=logs,
        events=events,
        only={step},
        digests=digests,
    )
    complain(plan, outcome, step)


def _share(plan: Plan, instance: StepInstance, nodes: Nodes) -> Plan:
    """The plan as one node sees it: with its own share of the step's GPUs."""
    gpus, rest = divmod(instance.resources.gpus, nodes.count)
    if instance.launch != "torchrun" or rest or not gpus:
        raise UsageError(
            f"a step of {plural(instance.resources.gpus, 'GPU')} cannot run on "
            + plural(nodes.count, "node"),
            where=instance.id,
            why="every node has the same number of GPUs, and the kind must be one for torchrun",
            next_step="choose nodes that divide its GPUs, or plan for others: kit plan --gpus N",
        )
    needs = msgspec.structs.replace(instance.resources, gpus=gpus)
    own = msgspec.structs.replace(instance, resources=needs)
    return msgspec.structs.replace(
        plan, instances=[own if other.id == own.id else other for other in plan.instances]
    )
