"""Machines and environment classes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.engine import hardware, worker
from kit.engine.environment import (
    UNKNOWN_ARCH,
    Machine,
    environment_class,
    library_version,
    this_machine,
)
from kit.engine.hardware import Gpu, memory_gb, parse_gpus
from kit.engine.registry import NoParams, StepKind
from kit.errors import InvalidInput
from kit.manifest.types import Resources

SMI = """\
0, GPU-aaaa, NVIDIA H100 80GB HBM3, 9.0, 81559, 580.1
1, GPU-bbbb, NVIDIA A100-SXM4-80GB, 8.0, 81920, 580.1
"""
H100 = Gpu(index="0", name="NVIDIA H100 80GB HBM3", arch="sm_90", memory_gb=79.6, driver="580.1")
MACHINE = Machine(gpus=[H100], versions={"torch": "2.13.0", "vllm": None}, batch_invariant=True)


def kind(*fields: str) -> StepKind:
    return StepKind("toy/x", 1, NoParams, lambda c, p: None, {}, (), environment=fields)


def class_of(
    *fields: str, gpus: int = 0, params: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    return environment_class(
        kind(*fields),
        params or {},
        Resources(gpus=gpus),
        options.pop("machine", MACHINE),
        **options,
    )


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, ["0", "1"]),
        ("", []),
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        ("GPU-bb", ["GPU-bb"]),
        ("0,9,1", ["0"]),
        ("-1", []),
    ],
)
def test_visible_gpus(visible: str | None, indices: list[str]) -> None:
    assert [gpu.index for gpu in parse_gpus(SMI, visible)] == indices


def test_gpu_facts() -> None:
    assert parse_gpus(SMI, None)[0] == H100
    assert parse_gpus("No devices were found\n", None) == []


def test_a_gpu_that_shares_the_machine_s_memory() -> None:
    """GB10 and Jetson: nvidia-smi has no figure, and a CPU run on such a machine needs none."""
    (gpu,) = parse_gpus("0, GPU-cccc, NVIDIA GB10, 12.1, [N/A], 580.95\n", None)
    assert gpu.memory_gb == memory_gb()


def test_a_cpu_step() -> None:
    assert class_of("device", "dtype", "torch", params={"dtype": "float32"}) == {
        "device": "cpu",
        "dtype": "float32",
        "torch": "2.13.0",
    }


def test_a_gpu_step_always_names_the_architecture() -> None:
    assert class_of("device", gpus=1) == {"device": "cuda", "gpu_arch": "sm_90"}
    assert class_of("device", "gpu_arch") == {"device": "cpu", "gpu_arch": None}


def test_world_size_micro_batch_accumulation() -> None:
    params = {"micro_batch": 2, "accumulation": 8}
    assert class_of("world", gpus=4, params=params) == {"world": "4x2x8"}
    assert class_of("world") == {"world": "1x1x1"}


def test_engines_and_batch_invariance() -> None:
    assert class_of("vllm", "batch_invariant") == {"vllm": None, "batch_invariant": True}


def test_rehearsal_is_its_own_class() -> None:
    assert class_of("device", rehearsal=True) == {"device": "cpu", "rehearsal": True}


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'pytorch'") as caught:
        class_of("pytorch")
    assert "torch" in caught.value.next_step


def test_planning_for_gpus_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.engine.environment.gpus", list)
    assert this_machine().gpu_arch == UNKNOWN_ARCH
    assert this_machine("sm_90").gpu_arch == "sm_90"
    monkeypatch.setenv("KIT_GPU_ARCH", "sm_80")
    assert this_machine().gpu_arch == "sm_80"


def test_batch_invariance_comes_from_vllms_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    assert this_machine().batch_invariant


def test_versions_come_from_metadata() -> None:
    assert library_version("msgspec")
    assert library_version("no-such-library") is None


def test_limits_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/sys/fs/cgroup/memory.max": str(2 * 1024**3),
        "/sys/fs/cgroup/cpu.max": "100000 100000",
        "/proc/cpuinfo": "processor: 0\nmodel name\t: Some CPU\n",
    }
    monkeypatch.setattr(hardware, "_read", lambda path: files.get(path, ""))
    assert hardware.memory_gb() == 2.0
    assert hardware.cpu_count() == 1
    assert hardware.cpu_model() == "Some CPU"
    files["/sys/fs/cgroup/memory.max"] = files["/sys/fs/cgroup/cpu.max"] = "max"
    assert hardware.memory_gb() > 0
    assert hardware.cpu_count() >= 1


def test_no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware._nvidia_smi.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.gpus() == []
    hardware._nvidia_smi.cache_clear()


def test_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware._nvidia_smi.cache_clear()
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'X'\n{SMI}X\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.arch for gpu in hardware.gpus()] == ["sm_90", "sm_80"]
    assert Machine(gpus=hardware.gpus()).gpu_arch == "sm_80+sm_90"
    hardware._nvidia_smi.cache_clear()


def test_peak_memory_is_of_the_step_and_not_of_the_process() -> None:
    worker._reset_peaks()
    before = worker.peak_memory_gb()
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    high = worker.peak_memory_gb()
    del block
    worker._reset_peaks()
    assert high > before + 0.15
    assert worker.peak_memory_gb() < high - 0.1
    assert worker._peak_gpu_memory_gb() == 0.0


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("", 8), ("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1),
        ("1600000 100000", 8), ("200000", 8),
    ],
)  # fmt: skip
def test_cores_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: quota)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert hardware.cpu_count() == cores


@pytest.mark.parametrize(("known", "cores"), [(6, 6), (None, 1)])
def test_cores_where_there_is_no_affinity(
    monkeypatch: pytest.MonkeyPatch, known: int | None, cores: int
) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: "")
    monkeypatch.delattr(hardware.os, "sched_getaffinity")
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: known)
    assert hardware.cpu_count() == cores


@pytest.mark.parametrize(("limit", "gib"), [("max", 64.0), (str(2**34), 16.0), (str(2**40), 64.0)])
def test_memory_is_what_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, limit: str, gib: float
) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: f"{limit}\n")
    machine = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(total=2**36))
    monkeypatch.setattr(hardware, "psutil", machine)
    assert memory_gb() == gib


@pytest.mark.parametrize(
    ("text", "names", "model"),
    [
        ("processor: 0\nmodel name\t: Fast One\nmodel name: Other\n", ("p", "m"), "Fast One"),
        ("", ("p", "m"), "p"),
        ("", ("", "m"), "m"),
    ],
)
def test_the_processors_name(
    monkeypatch: pytest.MonkeyPatch, text: str, names: tuple[str, str], model: str
) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: text)
    for name, value in zip(("processor", "machine"), names, strict=True):
        monkeypatch.setattr(hardware.platform, name, lambda value=value: value)
    assert hardware.cpu_model() == model
