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
from kit.engine.export.pods import Cluster, Object
from kit.engine.plan import Plan
from kit.errors import InvalidInput
from kit.manifest.types import Resources

CONFIG_MAP_BYTES = 1024 * 1024
"""A ConfigMap holds no more (API reference, ConfigMap v1)."""
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
        InvalidInput: The plan is too large for a ConfigMap.
        Preflight: The folder cannot be written to.
    """
    require_architecture(plan)
    name = plan_name(plan)
    files: dict[str, list[Object]] = {"00-plan.yaml": [_config_map(name, plan)]}
    if cluster.storage is not None:
        files["00-storage.yaml"] = [pods.claim(cluster)]
    order: list[list[str]] = [list(files)]
    for number, wave in enumerate(_job_waves(name, plan, cluster), start=1):
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


def _config_map(name: str, plan: Plan) -> Object:
    # No time stamp: the same plan gives the same bytes.
    packed = gzip.compress(plan.to_json(), mtime=0)
    if len(packed) > CONFIG_MAP_BYTES:
        raise InvalidInput(
            f"the plan has {len(packed):,} bytes compressed, "
            f"a ConfigMap holds {CONFIG_MAP_BYTES:,}",
            where=f"{plan.experiment} ({plan.profile}), {len(plan.instances):,} steps",
            next_step="export it in parts: several experiments with a part of the matrix each",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": pods.labels(name, "plan")},
        "immutable": True,
        "binaryData": {pods.PLAN_FILE: base64.b64encode(packed).decode()},
    }


def _job_waves(name: str, plan: Plan, cluster: Cluster) -> Iterator[dict[str, list[Object]]]:
    """File name (without number) -> Jobs, wave by wave."""
    if any(pin.kind != "package" for pin in plan.pins):
        yield {"fetch": [_fetch(name, plan, cluster)]}
    # Part of keys where it counts, so that a step that cannot see it would be refused.
    invariant = bool(plan.environment.get("batch_invariant"))
    variables = {"VLLM_BATCH_INVARIANT": "1"} if invariant else {}
    by_step: dict[str, list[Group]] = {}
    for group in groups(plan):
        by_step.setdefault(group.step, []).append(group)
    for wave in waves(plan):
        yield {
            f"step-{step}": [_cells(name, group, cluster, variables) for group in by_step[step]]
            for step in wave
        }
    yield {"collect": [_collect(name, cluster)]}


def _fetch(name: str, plan: Plan, cluster: Cluster) -> Object:
    command = ["kit", "fetch", plan.experiment, "--profile", plan.profile]
    template = pods.pod(cluster, name, "fetch", command, small())
    template["spec"]["activeDeadlineSeconds"] = FETCH_MINUTES * 60
    if cluster.token_secret is not None:
        pods.with_token(template, cluster.token_secret)
    return pods.single_job(dns_name(name, "fetch"), template, [pods.USAGE])


def _cells(name: str, group: Group, cluster: Cluster, variables: dict[str, str]) -> Object:
    parts = ["step", group.step] + [str(group.first)] * bool(group.first)
    job = dns_name(name, *parts)
    index = "$(JOB_COMPLETION_INDEX)"
    command = ["kit", "step", f"{pods.PLAN}/{pods.PLAN_FILE}", group.step, "--index", index]
    command += ["--first", str(group.first)] * bool(group.first)
    command += ["--events", f"{_events(name)}/{job}/{index}/events.jsonl"]
    label = dns_name(group.step, longest=63)
    template = pods.pod(cluster, name, label, command, ask(group.needs), variables)
    return pods.cells_job(job, template, group.count, cluster)


def _collect(name: str, cluster: Cluster) -> Object:
    command = ["kit", "--progress", "plain", "collect", f"{pods.PLAN}/{pods.PLAN_FILE}"]
    command += ["--events", _events(name), "--runs-dir", f"{pods.DATA}/runs"]
    template = pods.pod(cluster, name, "collect", command, small())
    fatal = [pods.USAGE, pods.INCOMPLETE, pods.INVALID]
    return pods.single_job(dns_name(name, "collect"), template, fatal)


def _events(name: str) -> str:
    return f"{pods.DATA}/events/{name}"


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
