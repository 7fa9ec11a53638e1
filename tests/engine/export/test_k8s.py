"""The manifests: what stands in them, in which order, and that Kubernetes' schema accepts them."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from kit.engine.export.k8s import Group, groups, waves, write_k8s
from kit.engine.export.manifest_yaml import dump
from kit.engine.export.names import plan_name
from kit.engine.export.pods import Cluster
from kit.engine.plan import Plan, read_plan
from kit.errors import UsageError
from kit.manifest.types import Resources
from tests.engine.conftest import manifest, plan_of
from tests.engine.export.tools import tool

IMAGE = Cluster(image="registry.example/kit@sha256:" + "0" * 64)
FULL = Cluster(
    image="kit:gpu",
    claim="shared",
    storage="200Gi",
    storage_class="nfs",
    token_secret="hub",
    uid=4242,
    node_selector={"nvidia.com/gpu.product": "NVIDIA-H100"},
    parallel=2,
)


def with_pin() -> Plan:
    """Three seeds, and a step that reads a remote pin on two GPUs."""
    steps = [
        {"id": "read", "kind": "toy/pinned", "version": 1, "inputs": {"source": {"pin": "words"}}},
        {"id": "make", "kind": "toy/make", "version": 2, "each": ["seed"]},
        {"id": "mix", "kind": "toy/mix", "version": 1, "inputs": {"data": {"step": "read"}}},
        {"id": "t", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "make"}}},
        {"id": "u", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "mix"}}},
    ]
    profile = {
        "summary": "s",
        "matrix": {"seed": [0, 1, 2]},
        "set": {"make": {"seed": "${seed}"}},
        "resources": {"read": {"gpus": 2, "memory_gb": 4, "minutes": 60}},
    }
    made = plan_of(manifest(steps=steps, results="t", profiles={"mini": profile}))
    read = msgspec.structs.replace(made.by_id["read"], environment={"gpu_arch": "sm_90"})
    return msgspec.structs.replace(made, instances=[read, *made.instances[1:]])


def exported(plan: Plan, folder: Path, cluster: Cluster = IMAGE) -> dict[str, list[Any]]:
    """File -> its objects."""
    assert write_k8s(plan, folder, cluster) == folder / "apply.sh"
    yaml = YAML(typ="safe", pure=True)
    return {
        path.name: list(yaml.load_all(path.read_bytes())) for path in sorted(folder.glob("*.yaml"))
    }


def containers(files: dict[str, list[Any]]) -> dict[str, Any]:
    """File -> pod spec of its first Job."""
    return {
        name: objects[0]["spec"]["template"]["spec"]
        for name, objects in files.items()
        if objects[0]["kind"] == "Job"
    }


def test_files_stand_in_waves(tmp_path: Path) -> None:
    files = exported(with_pin(), tmp_path, FULL)
    assert list(files) == [
        "00-plan.yaml",
        "00-storage.yaml",
        "01-fetch.yaml",
        "02-step-make.yaml",
        "02-step-read.yaml",
        "03-step-mix.yaml",
        "03-step-t.yaml",
        "04-step-u.yaml",
        "05-collect.yaml",
    ]
    kinds = [one["kind"] for objects in files.values() for one in objects]
    assert kinds == ["ConfigMap", "PersistentVolumeClaim"] + ["Job"] * 7
    claim = files["00-storage.yaml"][0]["spec"]
    assert claim["resources"]["requests"]["storage"] == "200Gi"
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteMany"], "nfs")


def test_what_is_read_is_in_an_earlier_wave() -> None:
    plan = with_pin()
    found = waves(plan)
    place = {step: number for number, wave in enumerate(found) for step in wave}
    assert set(place) == {one.step for one in plan.instances}
    for one in plan.instances:
        for id in one.upstream():
            assert place[plan.by_id[id].step] < place[one.step]


def test_the_script_waits_for_a_wave_before_the_next(tmp_path: Path) -> None:
    plan = with_pin()
    files = exported(plan, tmp_path, FULL)
    text = (tmp_path / "apply.sh").read_text()
    lines = re.findall(r"^(apply|wait_for) (\S+)$", text, flags=re.MULTILINE)
    assert sorted(name for what, name in lines if what == "apply") == list(files)
    jobs = {o["metadata"]["name"]: f for f, os in files.items() for o in os if o["kind"] == "Job"}
    assert {name for what, name in lines if what == "wait_for"} == set(jobs)
    applied: set[str] = set()
    waited: set[str] = set()
    for what, name in lines:
        if what == "wait_for":
            waited.add(jobs[name])
            continue
        earlier = {f for f in jobs.values() if f[:2] < name[:2]}
        assert earlier <= waited
        applied.add(name)
    assert not re.search("@[A-Z]+@", text)
    assert (tmp_path / "apply.sh").stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(tmp_path / "apply.sh")], check=True)


def test_the_plan_travels_whole(tmp_path: Path) -> None:
    plan = with_pin()
    (config,) = exported(plan, tmp_path)["00-plan.yaml"]
    assert config["immutable"] is True
    (tmp_path / "plan.json.gz").write_bytes(base64.b64decode(config["binaryData"]["plan.json.gz"]))
    assert read_plan(tmp_path / "plan.json.gz") == plan


def test_a_large_plan_travels_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.engine.export.k8s.PART_BYTES", 400)
    plan = with_pin()
    files = exported(plan, tmp_path)
    maps = files["00-plan.yaml"]
    assert 1 < len(maps) < 10
    for pod in containers(files).values():
        (volume,) = (one for one in pod["volumes"] if one["name"] == "plan")
        names = [one["configMap"]["name"] for one in volume["projected"]["sources"]]
        assert names == [one["metadata"]["name"] for one in maps]
    for one in maps:
        ((name, text),) = one["binaryData"].items()
        part = base64.b64decode(text)
        assert len(part) <= 400
        (tmp_path / name).write_bytes(part)
    assert read_plan(tmp_path / "plan.json.gz") == plan


def test_cells_are_an_indexed_job(tmp_path: Path) -> None:
    files = exported(with_pin(), tmp_path, FULL)
    spec = files["02-step-make.yaml"][0]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)
    command = spec["template"]["spec"]["containers"][0]["command"]
    place = ["--index", "$(JOB_COMPLETION_INDEX)"]
    assert command[:6] == ["kit", "step", "/plan/plan.json.gz", "make", *place]


def test_needs_are_the_plans(tmp_path: Path) -> None:
    pods = containers(exported(with_pin(), tmp_path, FULL))
    gpu, cpu = pods["02-step-read.yaml"], pods["02-step-make.yaml"]
    limits = gpu["containers"][0]["resources"]["limits"]
    assert limits == {"memory": f"{4 * 1024 + 256 + 8 * 1024}Mi", "nvidia.com/gpu": "2"}
    assert gpu["activeDeadlineSeconds"] == 60 * (2 * 60 + 10)
    shm = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    assert shm in gpu["volumes"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in gpu["containers"][0]["volumeMounts"]
    assert gpu["nodeSelector"] == FULL.node_selector
    assert gpu["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    assert "nodeSelector" not in cpu
    assert "shm" not in {one["name"] for one in cpu["volumes"]}


def test_nobody_is_root(tmp_path: Path) -> None:
    for pod in containers(exported(with_pin(), tmp_path, FULL)).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 4242
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_only_fetching_sees_the_token_and_only_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "aB3" * 8)
    pods = containers(exported(with_pin(), tmp_path, FULL))
    source = {"secretKeyRef": {"name": "hub", "key": "token"}}
    for name, pod in pods.items():
        tokens = [one for one in pod["containers"][0]["env"] if "TOKEN" in one["name"]]
        wanted = [{"name": "HF_TOKEN", "valueFrom": source}] if "fetch" in name else []
        assert tokens == wanted
    assert not any(b"hf_aB3" in path.read_bytes() for path in tmp_path.iterdir())


def test_preemption_is_no_failure(tmp_path: Path) -> None:
    for objects in exported(with_pin(), tmp_path).values():
        for one in (o for o in objects if o["kind"] == "Job"):
            first, second = one["spec"]["podFailurePolicy"]["rules"]
            assert first == {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
            assert second["onExitCodes"]["containerName"] == "kit"
            indexed = "completions" in one["spec"]
            assert second["action"] == ("FailIndex" if indexed else "FailJob")
            assert ("backoffLimitPerIndex" in one["spec"]) == indexed
            assert one["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_cells_that_ask_for_different_things_are_different_jobs(tmp_path: Path) -> None:
    plan = plan_of()
    large = Resources(memory_gb=8)
    instances = [
        msgspec.structs.replace(one, resources=large) if one.id == "mix[seed=2]" else one
        for one in plan.instances
    ]
    plan = msgspec.structs.replace(plan, instances=instances)
    found = [one for one in groups(plan) if one.step == "mix"]
    assert [(one.first, one.count) for one in found] == [(0, 2), (2, 1)]
    assert found[1] == Group("mix", 2, 1, large)
    two, one = exported(plan, tmp_path)["02-step-mix.yaml"]
    assert two["metadata"]["name"] != one["metadata"]["name"]
    command = one["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--first") + 1] == "2"


def test_batch_invariance_is_passed_on(tmp_path: Path) -> None:
    plan = plan_of()
    plan = msgspec.structs.replace(plan, environment={**plan.environment, "batch_invariant": True})
    (container,) = containers(exported(plan, tmp_path))["01-step-make.yaml"]["containers"]
    assert {"name": "VLLM_BATCH_INVARIANT", "value": "1"} in container["env"]


def test_gpu_steps_without_architecture(tmp_path: Path) -> None:
    plan = plan_of()
    one = msgspec.structs.replace(plan.instances[0], environment={"gpu_arch": "unknown"})
    with pytest.raises(UsageError, match="nobody said for which GPUs"):
        write_k8s(msgspec.structs.replace(plan, instances=[one]), tmp_path, IMAGE)


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_k8s(with_pin(), tmp_path / name, FULL)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert plan_name(with_pin()) in (tmp_path / "a" / "00-plan.yaml").read_text()


@pytest.mark.parametrize("text", ["no", "on", "1e3", "12:30", "0o10", "null", "~", "1_000", "a: b"])
def test_text_stays_text_for_readers_of_yaml_1_1(text: str) -> None:
    assert f'"{text}"'.encode() in dump([{"name": text}])


def test_the_schema_accepts_them(tmp_path: Path) -> None:
    """Against the schemas of the API server's own definitions, strictly: unknown fields fail."""
    validate = tool("kubernetes-validate")
    folder = tmp_path / "k"
    exported(with_pin(), folder, FULL)
    for version in ("1.31", "1.36"):
        done = subprocess.run(
            [
                validate,
                "--strict",
                "--kubernetes-version",
                version,
                *map(str, folder.glob("*.yaml")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("passed") == 9
    job = folder / "02-step-make.yaml"
    for wrong, right in (("backofLimit", "backoffLimitPerIndex"), ('"three"', "completions: 3")):
        bad = tmp_path / "bad.yaml"
        new = wrong if wrong.isalpha() else f"completions: {wrong}"
        bad.write_text(job.read_text().replace(right, new))
        done = subprocess.run([validate, "--strict", str(bad)], capture_output=True, check=False)
        assert done.returncode != 0
