"""``kit export k8s``: Jobs in waves, and a script that applies one wave after the other.

Kubernetes has no order between Jobs. So steps that read nothing make the first wave, those that
read the first the second, and a script waits for a wave before it applies the next. Nothing depends
on the script: a Job that starts too early is refused by ``kit step``, since what it reads is not in
the store.
"""

from __future__ import annotations

import base64
import gzip
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kit.engine.durable import explain, write_atomic
from kit.engine.export import pods
from kit.engine.export.manifest_yaml import dump
from kit.engine.export.names import dns_name, plan_name
from kit.engine.export.needs import ask, require_architecture, small
from kit.engine.export.pods import Cluster, Object, Shared
from kit.engine.plan import Plan
from kit.manifest.types import Resources

PART_BYTES = 768 * 1024
"""A ConfigMap holds 1 MiB (API reference, ConfigMap v1), and a request of etcd 1.5 MiB in base64;
a larger plan is cut into several, which a pod sees side by side."""
FETCH_MINUTES = 24 * 60
"""Tens of gigabytes over a slow line; fetching goes on where it stopped."""
SCRIPT = "apply.sh"


@dataclass(frozen=True)
class Group:
    """Instances of one step that stand together in the plan and ask for the same.

    Attributes:
        step: The step.
        first: Place of the first of them among the step's instances.
        count: How many.
        needs: Each one's resources.
    """

    step: str
    first: int
    count: int
    needs: Resources


def waves(plan: Plan) -> list[list[str]]:
    """Steps in waves: each step stands in the first wave after everything that it reads."""
    level: dict[str, int] = {}
    for one in plan.instances:
        after = max((level[plan.by_id[id].step] + 1 for id in one.upstream()), default=0)
        level[one.step] = max(after, level.get(one.step, 0))
    return [[step for step in level if level[step] == n] for n in sorted(set(level.values()))]


def groups(plan: Plan) -> Iterator[Group]:
    """All instances, in plan order, as few groups as possible."""
    for step, instances in itertools.groupby(plan.instances, key=lambda one: one.step):
        first = 0
        for needs, alike in itertools.groupby(instances, key=lambda one: one.resources):
            count = len(list(alike))
            yield Group(step, first, count, needs)
            first += count


def write_k8s(plan: Plan, folder: Path, cluster: Cluster) -> Path:
    """Write manifests and script.

    Args:
        plan: What to export, made by the kit of ``cluster.image``.
        folder: Where to; made if it is not there.
        cluster: What the plan does not know.

    Returns:
        The script.

    Raises:
        UsageError: GPU steps without an architecture.
        Preflight: The folder cannot be written to.
    """
    require_architecture(plan)
    packed = gzip.compress(plan.to_json(), mtime=0)  # the same plan gives the same bytes
    # Part of keys where it counts, so that a step that cannot see it would be refused.
    invariant = bool(plan.environment.get("batch_invariant"))
    shared = Shared(
        plan_name(plan),
        parts=-(-len(packed) // PART_BYTES),
        variables={"VLLM_BATCH_INVARIANT": "1"} if invariant else {},
    )
    files: dict[str, list[Object]] = {"00-plan.yaml": list(_config_maps(shared, packed))}
    if cluster.storage is not None:
        files["00-storage.yaml"] = [pods.claim(cluster)]
    order: list[list[str]] = [list(files)]
    for number, wave in enumerate(_job_waves(shared, plan, cluster), start=1):
        made = {f"{number:02}-{file}.yaml": jobs for file, jobs in wave.items()}
        order.append(list(made))
        files |= made
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, objects in files.items():
            write_atomic(folder / file, dump(objects))
        script = folder / SCRIPT
        write_atomic(script, _script(order, files).encode())
        script.chmod(0o755)
    except OSError as error:
        raise explain(error, where=str(folder), path=folder) from error
    return script


def _config_maps(shared: Shared, packed: bytes) -> Iterator[Object]:
    for number, (name, file) in enumerate(shared.config_maps()):
        part = packed[number * PART_BYTES : (number + 1) * PART_BYTES]
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": pods.labels(shared.name, "plan")},
            "immutable": True,
            "binaryData": {file: base64.b64encode(part).decode()},
        }


def _job_waves(shared: Shared, plan: Plan, cluster: Cluster) -> Iterator[dict[str, list[Object]]]:
    """File name (without number) -> Jobs, wave by wave."""
    if any(pin.kind != "package" for pin in plan.pins):
        yield {"fetch": [_fetch(shared, plan, cluster)]}
    by_step: dict[str, list[Group]] = {}
    for group in groups(plan):
        by_step.setdefault(group.step, []).append(group)
    for wave in waves(plan):
        yield {
            f"step-{step}": [_cells(shared, group, cluster) for group in by_step[step]]
            for step in wave
        }
    yield {"collect": [_collect(shared, cluster)]}


def _fetch(shared: Shared, plan: Plan, cluster: Cluster) -> Object:
    command = ["kit", "fetch", plan.experiment, "--profile", plan.profile]
    template = pods.pod(cluster, shared, "fetch", command, small())
    template["spec"]["activeDeadlineSeconds"] = FETCH_MINUTES * 60
    if cluster.token_secret is not None:
        pods.with_token(template, cluster.token_secret)
    return pods.single_job(dns_name(shared.name, "fetch"), template, [pods.USAGE])


def _cells(shared: Shared, group: Group, cluster: Cluster) -> Object:
    parts = ["step", group.step] + [str(group.first)] * bool(group.first)
    job = dns_name(shared.name, *parts)
    index = "$(JOB_COMPLETION_INDEX)"
    command = ["kit", "step", f"{pods.PLAN}/{pods.PLAN_FILE}", group.step, "--index", index]
    if group.first:
        command += ["--first", str(group.first)]
    command += ["--events", f"{_events(shared)}/{job}/{index}/events.jsonl"]
    label = dns_name(group.step, longest=63)
    template = pods.pod(cluster, shared, label, command, ask(group.needs))
    return pods.cells_job(job, template, group.count, cluster)


def _collect(shared: Shared, cluster: Cluster) -> Object:
    command = ["kit", "--progress", "plain", "collect", f"{pods.PLAN}/{pods.PLAN_FILE}"]
    command += ["--events", _events(shared), "--runs-dir", f"{pods.DATA}/runs"]
    template = pods.pod(cluster, shared, "collect", command, small())
    fatal = [pods.USAGE, pods.INCOMPLETE, pods.INVALID]
    return pods.single_job(dns_name(shared.name, "collect"), template, fatal)


def _events(shared: Shared) -> str:
    return f"{pods.DATA}/events/{shared.name}"


def _script(order: list[list[str]], files: dict[str, list[Object]]) -> str:
    """The template with a line a file and a wait a wave."""
    lines: list[str] = []
    for wave in order:
        lines += [f"apply {file}" for file in wave]
        jobs = [one["metadata"]["name"] for file in wave for one in files[file]]
        lines += [f"wait_for {job}" for job in jobs if files[wave[0]][0]["kind"] == "Job"]
        lines.append("")
    last = files[order[-1][0]][0]["metadata"]["name"]
    template = (resources.files(__package__) / "templates" / SCRIPT).read_text(encoding="utf-8")
    return template.replace("@WAVES@\n", "\n".join(lines).lstrip("\n")).replace("@LAST@", last)
