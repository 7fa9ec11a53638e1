"""The doctor: every finding with the command that mends it, on machines that are made up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.engine import hardware
from kit.engine.hardware import Gpu
from kit.engine.registry import Registry, StepKind
from kit.errors import InvalidInput
from kit.manifest.catalog import Catalog
from kit.manifest.doctor import examine, gpus, machine, software
from kit.manifest.doctor.core import Check, Needs
from kit.manifest.fetch.retry import Transient
from kit.manifest.needs import estimate
from kit.manifest.pin_types import Pin
from kit.manifest.pins import PinStore
from kit.manifest.types import Resources

ROOT = Path(__file__).parents[2]
BIG = Needs(gpus=2, gpu_memory_gb=70, memory_gb=64, disk_gb=10, extra="gpu")


def gpu(memory: float = 80.0, driver: str = "580.65.06", index: str = "0") -> Gpu:
    return Gpu(index=index, name="H100", arch="sm_90", memory_gb=memory, driver=driver)


def versions(**known: str) -> Callable[[str], str | None]:
    return lambda name: known.get(name.replace("-", "_"))


CUDA13 = versions(nvidia_cuda_runtime="13.0.96")
FREE: Callable[[], list[tuple[str, str]]] = lambda: []  # noqa: E731


def levels(checks: object) -> dict[str, str]:
    return {check.what: check.level for check in checks}  # type: ignore[attr-defined]


def test_python() -> None:
    assert software.python_version((3, 11, 7)).level == "OK"
    old = software.python_version((3, 10, 0))
    assert (old.level, old.mend) == ("FAIL", "install python 3.11")


def test_packages_of_this_checkout() -> None:
    found = levels(software.packages(ROOT, Needs(extra="cpu")))
    assert found["core packages"] == "OK"


def test_packages_that_are_missing_or_other() -> None:
    have = versions(torch="2.12.0", transformers="5.18.0", datasets="4.9", accelerate="1.15")
    core, extra = software.packages(ROOT, Needs(extra="cpu"), have)
    assert core.level == "FAIL"
    assert "click is missing" in core.detail
    assert extra.level == "FAIL"
    assert "torch is 2.12.0, wanted ==2.13.0" in extra.detail
    assert "safetensors is missing" in extra.detail
    assert extra.mend == 'pip install -e ".[cpu]"'


def test_a_local_build_is_the_same_version() -> None:
    have = versions(
        torch="2.13.0+cpu",
        transformers="5.18",
        datasets="4.9",
        accelerate="1.15",
        safetensors="0.6",
    )
    assert list(software.packages(ROOT, Needs(extra="cpu"), have))[1].level == "OK"


def test_requirements_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(name: str) -> list[str]:
        return ["click>=8", "torch==2.13.0; extra == 'cpu'", "vllm==0.26; extra == 'gpu'", "???"]

    monkeypatch.setattr(software.metadata, "requires", listed)
    found = software.requirements(tmp_path)
    assert [r.name for r in found[""]] == ["click"]
    assert [r.name for r in found["gpu"]] == ["vllm"]
    monkeypatch.setattr(software, "DISTRIBUTION", "no-such-distribution-here")
    monkeypatch.undo()
    monkeypatch.setattr(software, "DISTRIBUTION", "no-such-distribution-here")
    (core, _) = software.packages(tmp_path, Needs(), versions())
    assert core.level == "WARN"


def test_no_gpu_is_fine_when_none_is_needed() -> None:
    (check,) = gpus.check_gpus([], Needs(), busy=FREE)
    assert check.level == "OK"


@pytest.mark.parametrize(("tool", "said"), [(None, "no nvidia-smi here"), ("/x", "none visible")])
def test_no_gpu_where_some_are_needed(
    monkeypatch: pytest.MonkeyPatch, tool: str | None, said: str
) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: tool)
    (check,) = gpus.check_gpus([], BIG, busy=FREE)
    assert check.level == "FAIL"
    assert said in check.detail
    assert "--profile mini" in check.mend


@pytest.mark.parametrize(
    ("found", "level", "said"),
    [
        ([gpu(), gpu()], "OK", "H100 80 GB, H100 80 GB"),
        ([gpu()], "FAIL", "1 visible (H100 80 GB), 2 needed"),
        ([gpu(), gpu(40)], "FAIL", "2 of 70 GB needed"),
        ([gpu(68.5), gpu(68.5)], "OK", "68.5"),
    ],
)
def test_enough_gpus(found: list[Gpu], level: str, said: str) -> None:
    check = next(iter(gpus.check_gpus(found, BIG, busy=FREE, version=CUDA13)))
    assert check.level == level
    assert said in check.detail


@pytest.mark.parametrize(
    ("driver", "version", "level"),
    [
        ("580.65.06", CUDA13, "OK"),
        ("575.10", CUDA13, "FAIL"),
        ("550.54", versions(nvidia_cuda_runtime_cu12="12.8"), "OK"),
        ("515.1", versions(torch="2.10.0+cu128"), "FAIL"),
        ("550.54", versions(torch="2.13.0+cpu"), "WARN"),
        ("", CUDA13, "WARN"),
    ],
)
def test_the_driver_fits_the_cuda_runtime(
    driver: str, version: Callable[[str], str | None], level: str
) -> None:
    found = levels(gpus.check_gpus([gpu(driver=driver)], Needs(), busy=FREE, version=version))
    assert found["driver"] == level


def test_others_on_the_gpus() -> None:
    def busy() -> list[tuple[str, str]]:
        return [("123", "60000 MiB")]

    found = list(gpus.check_gpus([gpu(), gpu()], BIG, busy=busy, version=CUDA13))
    assert "pid 123 (60000 MiB)" in found[-1].detail
    assert "CUDA_VISIBLE_DEVICES" in found[-1].mend


FAKE_SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) echo "0, GPU-1, H100, 9.0, 81559, 580.65.06";;
  --query-compute-apps=*) echo "4242, 1000 MiB";;
  *) exit 1;;
esac
"""


def test_against_a_made_up_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(FAKE_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    hardware._nvidia_smi.cache_clear()
    try:
        (found,) = hardware.gpus()
        assert found.memory_gb == pytest.approx(79.6, abs=0.1)
        assert gpus.processes() == [("4242", "1000 MiB")]
    finally:
        hardware._nvidia_smi.cache_clear()


def test_without_nvidia_smi_there_are_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)
    assert gpus.processes() == []


def test_memory() -> None:
    assert machine.memory(100.0, BIG).level == "OK"
    assert machine.memory(32.0, BIG).level == "FAIL"


def usage(free: float, total: float = 1e12) -> Callable[[Path], object]:
    return lambda folder: shutil._ntuple_diskusage(int(total), 0, int(free))  # type: ignore[attr-defined]


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "not" / "yet"
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(50e9))
    assert set(levels(machine.disk(home, tmp_path, BIG, 16_000_000_000)).values()) == {"OK"}
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(20e9))
    first = next(iter(machine.disk(home, tmp_path, BIG, 16_000_000_000)))
    assert first.level == "FAIL"
    assert "about 26.0 GB needed" in first.detail
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    first = next(iter(machine.disk(home, tmp_path, BIG, None)))
    assert "cannot be written" in first.detail


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(1e6, 64e6))
    assert machine.shared_memory(Needs(), tmp_path).level == "OK"
    small = machine.shared_memory(BIG, tmp_path)
    assert (small.level, small.mend) == ("FAIL", "docker run --shm-size=16g (or --ipc=host)")
    assert machine.shared_memory(BIG, tmp_path / "none").level == "WARN"
    assert machine.shared_memory(Needs(), tmp_path / "none").level == "OK"


def test_inputs(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PinStore(tmp_path / "home", catalog.pins())
    ids = ["tiny-new", "tiny-old", "tiny-data", "big-old"]
    found = {check.what: check for check in machine.inputs(store, ids, "demo", "mini")}
    assert found["pin tiny-new"].level == "OK"
    assert found["pin tiny-old"].level == "FAIL"
    assert found["pin tiny-old"].mend == "kit fetch demo --profile mini --pin tiny-old=PATH"
    assert found["pin tiny-data"].level == "WARN"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (check,) = machine.inputs(store, ["tiny-data"], "demo", "mini")
    assert (check.level, check.mend) == ("FAIL", "unset HF_HUB_OFFLINE")
    place = store.path("tiny-data")
    place.parent.mkdir(parents=True)
    place.write_text("wrong")
    (check,) = machine.inputs(store, ["tiny-data"], "demo", "mini")
    assert "has sha256" in check.detail
    place.write_text("")
    (check,) = machine.inputs(store, ["tiny-data"], "demo", "mini")
    assert check.level == "OK"


def test_access_to_gated_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    pin = Pin(id="p", kind="hf-model", title="t", licence="l", repo="a/b", gated=True)

    def refuse(pin: Pin) -> None:
        raise InvalidInput("refused", next_step="ask")

    def unreachable(pin: Pin) -> None:
        raise Transient("HTTP 503")

    def check(token: bool, ask: Callable[[Pin], None]) -> Check:
        (found,) = machine.access([pin], lambda: token, ask)
        return found

    assert check(False, lambda pin: None).level == "FAIL"
    assert "https://huggingface.co/a/b" in check(False, refuse).mend
    assert check(True, lambda pin: None).level == "OK"
    assert check(True, refuse).mend == "ask"
    assert check(True, unreachable).level == "WARN"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not asked" in check(True, refuse).detail


def test_sizes_still_to_fetch(catalog: Catalog, tmp_path: Path) -> None:
    store = PinStore(tmp_path, catalog.pins())
    assert machine.download_size(store, ["tiny-data", "big-new", "tiny-new"]) == 2
    assert machine.download_size(store, ["big-old"]) is None
    assert [pin.id for pin in machine.gated_missing(store, ["big-old", "big-new"])] == ["big-old"]


def test_needs_from_figures_and_from_kinds(catalog: Catalog, registry: Registry) -> None:
    manifest = catalog.manifest("demo")
    mini = estimate(manifest, "mini", registry)
    assert (mini.gpus, mini.memory_gb, mini.extra) == (0, 2.0, "cpu")
    paper = estimate(manifest, "paper", registry)
    assert (paper.gpus, paper.gpu_memory_gb, paper.extra) == (1, 24.0, "gpu")

    def hungry(params: object, profile: str) -> Resources:
        return Resources(memory_gb=99.0 if profile == "mini" else 1.0)

    kind = registry.get("demo/evaluate")
    other = Registry()
    for name in registry.names():
        old = registry.get(name)
        new = StepKind(
            old.name, old.version, old.params, old.run, old.inputs, old.outputs, resources=hungry
        )
        other.add(new if name == kind.name else old)
    assert estimate(manifest, "mini", other).memory_gb == 99.0
    assert estimate(manifest, "mini", Registry()).memory_gb == 2.0


def test_everything_together(catalog: Catalog, tmp_path: Path) -> None:
    store = PinStore(tmp_path / "home", catalog.pins())
    alone = list(examine(root=ROOT, store=store, needs=Needs()))
    assert "pin tiny-new" not in levels(alone)
    whole = examine(root=ROOT, store=store, needs=Needs(), experiment="demo", ids=["tiny-new"])
    assert levels(whole)["pin tiny-new"] == "OK"
    assert (
        Check(level="FAIL", what="a", detail="b", mend="c").render() == "FAIL  a: b\n      mend: c"
    )
