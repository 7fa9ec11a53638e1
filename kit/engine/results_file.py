"""From the results step to the run directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from kit import jsonfile
from kit.durable import write_atomic
from kit.engine.runner import Outcome
from kit.engine.store import Store
from kit.errors import InvalidInput, StepFailed
from kit.results.files import LABELS, RESULTS
from kit.results.plan import Plan
from kit.results.types import Canary, Results


def publish(plan: Plan, outcome: Outcome, store: Store, folder: Path) -> Path:
    """Write ``results.json`` (and ``labels.jsonl`` where there is one) into the run directory.

    The engine, not the results step, says which experiment at which profile this is, because
    equal steps are shared between experiments; and it adds every step's canaries. A canary that
    passed must not hide one of the same name that failed, so both stay.

    Raises:
        StepFailed: The results step wrote something else than results.
    """
    instance = plan.by_id[plan.results]
    source = store.path(instance.key)
    if not (source / RESULTS).is_file():
        raise StepFailed(
            f"the results step left no {RESULTS}",
            where=instance.id,
            next_step=f"its kind {instance.kind} must write the file and promise it as an output",
        )
    try:
        results = jsonfile.read(source / RESULTS, Results)
    except InvalidInput as error:
        raise StepFailed(
            f"{RESULTS} is not what it must be: it {error.what}", where=instance.id, why=error.why
        ) from None
    heard = [*_all_canaries(plan, outcome), *results.canaries]
    canaries = {(one.step, one.id, one.passed, one.detail): one for one in heard}
    stamped = msgspec.structs.replace(
        results,
        experiment=plan.experiment,
        version=plan.version,
        profile=plan.profile,
        canaries=list(canaries.values()),
    )
    write_atomic(folder / RESULTS, msgspec.json.format(msgspec.json.encode(stamped)) + b"\n")
    if (source / LABELS).is_file():
        shutil.copyfile(source / LABELS, folder / LABELS)
    return folder / RESULTS


def _all_canaries(plan: Plan, outcome: Outcome) -> list[Canary]:
    """Canaries of all steps, under the names that the instances have in this plan."""
    return [
        msgspec.structs.replace(canary, step=instance.id)
        for instance in plan.instances
        if instance.id in outcome.entries
        for canary in outcome.entries[instance.id].canaries
    ]
