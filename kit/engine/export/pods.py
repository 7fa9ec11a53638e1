"""Kubernetes objects of a plan: pods that call the kit, and the Jobs around them.

The fields and their meaning are those of the API reference (batch/v1 Job, v1 Pod). Every pod runs
as a user without privileges, on a read-only root, and without the cluster's own credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.engine.export.needs import Ask

DATA, PLAN = "/data", "/plan"
PLAN_FILE = "plan.json.gz"
NAME_LABEL, PLAN_LABEL = "app.kubernetes.io/name", "app.kubernetes.io/instance"
STEP_LABEL = "app.kubernetes.io/component"
SHARED_MEMORY_GB = 8
"""/dev/shm of a step on several GPUs: NCCL and data loaders pass tensors through it, and a
container has 64 MB by default. It counts as memory of the pod."""
GRACE_SECONDS = 60
"""Between SIGTERM and SIGKILL; the kit waits 20 s for a step to put its checkpoint away."""
RETRIES = 2
USAGE, INCOMPLETE, INVALID = 2, 3, 4

Object = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """What the plan does not know of the cluster.

    Attributes:
        image: Image whose program is ``kit``.
        claim: PersistentVolumeClaim for store, inputs and runs, shared by all pods.
        storage: Size, when the claim shall be written too.
        storage_class: Class of that claim; the cluster's default otherwise.
        token_secret: Secret with the hub token under the key ``token``.
        uid: User and group of every pod.
        node_selector: Labels of the nodes for GPU steps.
        parallel: Most pods of one Job at once.
    """

    image: str
    claim: str = "safety-repro-kit"
    storage: str | None = None
    storage_class: str | None = None
    token_secret: str | None = None
    uid: int = 1000
    node_selector: dict[str, str] = field(default_factory=dict)
    parallel: int = 32


@dataclass(frozen=True)
class Shared:
    """What all pods of one export share.

    Attributes:
        name: Name of the plan, by which all its objects are called.
        parts: ConfigMaps that the plan file is cut into.
        variables: Environment variables that keys depend on.
    """

    name: str
    parts: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)

    def config_maps(self) -> list[tuple[str, str]]:
        """Name of each ConfigMap, and the file in it."""
        if self.parts == 1:
            return [(self.name, PLAN_FILE)]
        return [(f"{self.name}-plan-{n}", f"{PLAN_FILE}.{n:03}") for n in range(self.parts)]


def labels(plan: str, step: str) -> Object:
    """Labels by which one plan's objects are found."""
    return {NAME_LABEL: "safety-repro-kit", PLAN_LABEL: plan, STEP_LABEL: step}


def claim(cluster: Cluster) -> Object:
    """The claim that all pods share."""
    spec: Object = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": cluster.storage}},
    }
    if cluster.storage_class is not None:
        spec["storageClassName"] = cluster.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": cluster.claim, "labels": {NAME_LABEL: "safety-repro-kit"}},
        "spec": spec,
    }


def pod(cluster: Cluster, shared: Shared, step: str, command: list[str], needs: Ask) -> Object:
    """The pod template of one command.

    Args:
        cluster: What the plan does not know.
        shared: The export that it belongs to.
        step: Name for the label.
        command: Program and arguments; ``$(NAME)`` in it is Kubernetes' own substitution.
        needs: What it asks for.
    """
    memory = needs.mem_mb
    sources = [{"configMap": {"name": name}} for name, _ in shared.config_maps()]
    volumes: list[Object] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": cluster.claim}},
        {"name": "plan", "projected": {"sources": sources}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[Object] = [
        {"name": "data", "mountPath": DATA},
        {"name": "plan", "mountPath": PLAN, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if needs.gpu > 1:
        size = f"{SHARED_MEMORY_GB}Gi"
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
        memory += SHARED_MEMORY_GB * 1024
    limits: Object = {"memory": f"{memory}Mi"}
    if needs.gpu:
        limits["nvidia.com/gpu"] = str(needs.gpu)
    spec: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": needs.runtime * 60,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": cluster.uid,
            "runAsGroup": cluster.uid,
            "fsGroup": cluster.uid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "kit",
                "image": cluster.image,
                "command": command,
                "workingDir": "/tmp",
                "env": _environment(shared.variables),
                "resources": {
                    "requests": {"cpu": str(needs.threads), "memory": f"{memory}Mi"},
                    "limits": limits,
                },
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
        "volumes": volumes,
    }
    if needs.gpu:
        spec["tolerations"] = [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        ]
        if cluster.node_selector:
            spec["nodeSelector"] = dict(cluster.node_selector)
    return {"metadata": {"labels": labels(shared.name, step)}, "spec": spec}


def _environment(variables: Mapping[str, str]) -> list[Object]:
    """Plain variables. A user without an entry in passwd needs a name, or libraries that ask for
    one (torch's compiler cache) fail."""
    values = {"KIT_HOME": f"{DATA}/kit-home", "HOME": "/tmp", "USER": "kit", **variables}
    return [{"name": name, "value": value} for name, value in values.items()]


def with_token(template: Object, secret: str) -> Object:
    """The template with the hub token in its environment, by reference."""
    source = {"secretKeyRef": {"name": secret, "key": "token"}}
    template["spec"]["containers"][0]["env"].append({"name": "HF_TOKEN", "valueFrom": source})
    return template


def _policy(action: str, codes: list[int]) -> Object:
    """Preemption, eviction and drained nodes do not count; what a retry cannot mend is not tried
    again."""
    fatal = {"containerName": "kit", "operator": "In", "values": codes}
    return {
        "rules": [
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
            {"action": action, "onExitCodes": fatal},
        ]
    }


def cells_job(name: str, template: Object, count: int, cluster: Cluster) -> Object:
    """An indexed Job: a pod for each of ``count`` cells, retried each by itself."""
    spec = {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": min(count, cluster.parallel),
        "backoffLimitPerIndex": RETRIES,
        "podFailurePolicy": _policy("FailIndex", [USAGE, INVALID]),
        "template": template,
    }
    return _job(name, spec)


def single_job(name: str, template: Object, fatal: list[int]) -> Object:
    """A Job of one pod."""
    policy = _policy("FailJob", fatal)
    return _job(name, {"backoffLimit": RETRIES, "podFailurePolicy": policy, "template": template})


def _job(name: str, spec: Object) -> Object:
    meta = {"name": name, "labels": dict(spec["template"]["metadata"]["labels"])}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
