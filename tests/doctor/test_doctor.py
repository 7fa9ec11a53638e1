"""The doctor: every finding with the command that mends it, on machines that are made up."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.doctor import containers, examine, machine, software
from kit.doctor.core import Check, Needs, estimate
from kit.doctor.inputs import Download
from kit.doctor.overview import Runnable, lines, overview
from kit.engine import hardware
from kit.engine.registry import Registry, StepKind
from kit.manifest.catalog import Catalog
from kit.manifest.types import Resources
from kit.pins.store import PinStore

ROOT = Path(__file__).parents[2]
BIG = Needs(gpus=2, gpu_memory_gb=70, memory_gb=64, disk_gb=10, extra="gpu")


def versions(**known: str) -> Callable[[str], str | None]:
    return lambda name: known.get(name.replace("-", "_"))


def levels(checks: object) -> dict[str, str]:
    return {check.what: check.level for check in checks}  # type: ignore[attr-defined]


def test_python() -> None:
    assert software.python_version((3, 11, 7)).level == "OK"
    old = software.python_version((3, 10, 0))
    assert old.level == "FAIL"
    assert "3.10.0; 3.11 or newer" in old.detail
    assert "make setup PYTHON=python3.11" in old.mend


def test_packages_of_this_checkout() -> None:
    found = levels(software.packages(ROOT, Needs(extra="cpu")))
    assert found["core packages"] == "OK"


def test_packages_that_are_missing_or_other() -> None:
    have = versions(torch="2.12.0", transformers="5.18.0", datasets="4.9", accelerate="1.15")
    core, extra, report = software.packages(ROOT, Needs(extra="cpu"), have)
    assert core.level == "FAIL"
    assert "click is missing" in core.detail
    assert extra.level == "FAIL"
    assert "torch is 2.12.0, wanted ==2.13.0" in extra.detail
    assert "safetensors is missing" in extra.detail
    assert extra.mend == "make setup"  # by hash
    # A run without the report's packages still gives its numbers.
    assert (report.level, report.mend) == ("WARN", "make setup")


REST = {"deepspeed": "0.19.8", "peft": "0.21.2", "pyarrow": "21.0.0", "schedulefree": "1.4.1"}
"""What both sets hold besides."""


def test_the_gpu_set_does_for_the_miniatures_too() -> None:
    """It holds another torch than the cpu set; half of it would be neither."""
    have = {
        **REST,
        "vllm": "0.26.0",
        "lm-eval": "0.4.13",
        "torch": "2.11.0",
        "transformers": "5.17.0",
        "datasets": "4.8.0",
        "accelerate": "1.15.0",
        "safetensors": "0.5.0",
    }
    _, extra, _ = software.packages(ROOT, Needs(extra="cpu"), have.get)
    assert (extra.level, extra.detail) == (
        "OK",
        "not needed: the gpu set is here, with torch 2.11.0",
    )
    del have["vllm"]
    _, extra, _ = software.packages(ROOT, Needs(extra="cpu"), have.get)
    assert extra.level == "FAIL"
    assert "torch is 2.11.0, wanted ==2.13.0" in extra.detail


def test_an_engine_that_no_step_names_may_be_missing() -> None:
    small, paper = (estimate(Catalog(ROOT).manifest("tiny-adapt"), p) for p in ("small", "paper"))
    assert (small.without, paper.without) == ({"vllm"}, set())
    have = {**REST, "lm-eval": "0.4.13", "transformers": "5.17.0", "datasets": "4.8.0"}
    have |= {"accelerate": "1.15.0", "safetensors": "0.5.0"}
    levels = [list(software.packages(ROOT, one, have.get))[1].level for one in (small, paper)]
    assert levels == ["OK", "FAIL"]


def test_a_local_build_is_the_same_version() -> None:
    have = versions(
        torch="2.13.0+cpu",
        transformers="5.18",
        datasets="4.9",
        accelerate="1.15",
        safetensors="0.6",
        **REST,
    )
    assert list(software.packages(ROOT, Needs(extra="cpu"), have))[1].level == "OK"


def test_requirements_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(name: str) -> list[str]:
        return [
            "click>=8",
            "torch==2.13.0; extra == 'cpu'",
            "vllm==0.26; extra == 'gpu'",
            "safetensors; extra == 'gpu' or extra == 'cpu'",
            "tomli; python_version < '3'",
            "???",
        ]

    monkeypatch.setattr(software.metadata, "requires", listed)
    found = software.requirements(tmp_path)
    assert [r.name for r in found[""]] == ["click"]
    assert [r.name for r in found["gpu"]] == ["vllm", "safetensors"]
    assert [r.name for r in found["cpu"]] == ["torch", "safetensors"]
    monkeypatch.undo()
    monkeypatch.setattr(software, "DISTRIBUTION", "no-such-distribution-here")
    (core, _) = software.packages(tmp_path, Needs(), versions())
    assert core.level == "WARN"
    for extra in ("cpu", "gpu"):
        mends = [
            check.mend for check in software.packages(tmp_path, Needs(extra=extra), versions())
        ]
        assert mends == [f'pip install "no-such-distribution-here[{extra}]"'] * 2


def test_a_clone_is_set_up_by_make(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "cpu.txt").touch()
    listed = 'dependencies = ["click"]\n[project.optional-dependencies]\n'
    listed += 'cpu = ["x"]\ngpu = ["y"]\nreport = ["z"]\n'
    (tmp_path / "pyproject.toml").write_text(f"[project]\n{listed}")
    for extra, mend in (("cpu", "make setup"), ("gpu", "make setup-gpu")):
        found = list(software.packages(tmp_path, Needs(extra=extra), versions()))
        assert [check.level for check in found] == ["FAIL", "FAIL", "WARN"]
        assert [check.mend for check in found] == [mend, mend, "make setup"]


def test_memory() -> None:
    assert machine.memory(100.0, BIG).level == "OK"
    assert machine.memory(32.0, BIG).level == "FAIL"
    assert machine.memory(64.0, BIG).level == "OK", "what is asked for is enough"


def usage(free: float, total: float = 1e12) -> Callable[[Path], object]:
    return lambda folder: shutil._ntuple_diskusage(int(total), 0, int(free))  # type: ignore[attr-defined]


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, coming = tmp_path / "not" / "yet", Download(size=16_000_000_000, unknown=2)
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(50e9))
    enough = list(machine.disk(home, tmp_path, BIG, coming))
    assert [check.level for check in enough] == ["OK", "OK"]
    assert enough[0].detail.endswith("about 26.0 GB needed")
    assert "needed" not in enough[1].detail
    for disk_gb, said in ((1.0, False), (1.5, True)):
        first = next(machine.disk(home, tmp_path, Needs(disk_gb=disk_gb), Download()))
        assert ("needed" in first.detail) == said
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(26e9))
    assert next(machine.disk(home, tmp_path, BIG, coming)).level == "OK"
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(20e9))
    first = next(iter(machine.disk(home, tmp_path, BIG, coming)))
    assert first.level == "FAIL"
    assert "about 26.0 GB needed" in first.detail
    assert "export KIT_HOME=" in first.mend
    for left, level in ((0.2e9, "OK"), (0.05e9, "FAIL")):
        monkeypatch.setattr(machine.shutil, "disk_usage", usage(left))
        small = levels(machine.disk(home, tmp_path, Needs(), Download()))
        assert small["disk of runs"] == level, "a run without weights leaves little"
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    first, second = machine.disk(home, tmp_path, BIG, Download())
    assert "cannot be written" in first.detail
    assert "export KIT_HOME=" in first.mend
    assert "--runs-dir" in second.mend


def test_a_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    first, _ = machine.disk(tmp_path / "file" / "kit", tmp_path, Needs(), Download())
    assert (first.level, first.mend) == ("FAIL", "export KIT_HOME=/a/larger/disk/kit")


@pytest.mark.parametrize(
    ("inside", "words"),
    [(True, "docker run --shm-size=16g"), (False, "sudo mount -o remount,size=16G /")],
)
def test_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, words: str
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(1e6, 64e6))
    monkeypatch.setattr(containers, "INSIDE", (tmp_path,) if inside else ())
    assert machine.shared_memory(Needs(), tmp_path).level == "OK"
    small = machine.shared_memory(BIG, tmp_path)
    assert small.level == "FAIL"
    assert small.mend.startswith(words)
    none = machine.shared_memory(BIG, tmp_path / "none")
    assert none.level == "WARN"
    assert none.mend.startswith("docker" if inside else "sudo mount -t tmpfs")
    assert machine.shared_memory(Needs(), tmp_path / "none").level == "OK"
    two, one = Needs(gpus=2), Needs(gpus=1)
    assert [machine.shared_memory(n, tmp_path).level for n in (one, two)] == ["OK", "FAIL"]
    assert [machine.shared_memory(n, tmp_path / "none").level for n in (one, two)] == ["OK", "WARN"]
    for total, level in ((machine.SHM_GB * 1e9, "OK"), (machine.SHM_GB * 1e9 - 1e6, "FAIL")):
        monkeypatch.setattr(machine.shutil, "disk_usage", usage(1e6, total))
        assert machine.shared_memory(BIG, tmp_path).level == level


def kept(home: Path, key: str, days: float, size: int = 1000) -> Path:
    folder = home / "scratch" / key
    folder.mkdir(parents=True)
    with (folder / "state").open("wb") as file:
        file.truncate(size)  # a hole: no byte of it is written
    for path in (folder / "state", folder):
        os.utime(path, (time.time() - days * 86400,) * 2)
    return folder


def test_abandoned_checkpoints(tmp_path: Path) -> None:
    assert list(machine.abandoned(tmp_path)) == []
    kept(tmp_path, "young", 1)
    (fine,) = machine.abandoned(tmp_path)
    assert (fine.level, fine.what) == ("OK", "checkpoints")
    kept(tmp_path, "large", 1, 3_000_000_000)
    assert "2 of unfinished steps, 3 GB" in next(machine.abandoned(tmp_path)).detail
    old = [kept(tmp_path, f"old-{i}", 10 + i, 2_000_000_000 if i == 0 else 1) for i in range(7)]
    (check,) = machine.abandoned(tmp_path)
    assert check.level == "WARN"
    assert "7 of steps that never finished, 2 GB" in check.detail
    assert "then again for 2 more" in check.mend
    assert check.mend.startswith("if no run is to be resumed from them: ")
    # The command as printed takes five old ones and leaves the young one alone.
    command = check.mend.partition(": ")[2].partition(";")[0]
    subprocess.run(command, shell=True, check=True)
    assert [path.exists() for path in old] == [True, True, False, False, False, False, False]
    assert (tmp_path / "scratch" / "young").is_dir()


def engines(**answers: tuple[int, str]) -> Callable[[str], tuple[int, str] | None]:
    return answers.get


GPU = Needs(gpus=1)


@pytest.mark.parametrize(
    ("answers", "needs", "cdi", "found"),
    [
        ({}, Needs(), False, {"containers": "OK"}),
        ({"docker": (0, "Runtimes: runc")}, Needs(), False, {"docker": "OK"}),
        ({"docker": (1, "x\nCannot connect to the Docker daemon")}, GPU, False, {"docker": "WARN"}),
        (
            {"docker": (1, "Client:\nERROR: Cannot connect to it\nerrors pretty printing info")},
            GPU,
            False,
            {"docker": "WARN"},
        ),
        ({"docker": (0, "Runtimes: runc")}, GPU, False, {"docker": "WARN"}),
        ({"docker": (0, "Runtimes: nvidia runc")}, GPU, False, {"docker": "OK"}),
        ({"podman": (0, "")}, GPU, False, {"podman": "WARN"}),
        ({"podman": (0, ""), "docker": (0, "")}, GPU, True, {"docker": "OK", "podman": "OK"}),
    ],
)
def test_container_engines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, tuple[int, str]],
    needs: Needs,
    cdi: bool,
    found: dict[str, str],
) -> None:
    monkeypatch.setattr(containers, "INSIDE", ())
    places = (tmp_path,) if cdi else (tmp_path / "none",)
    checks = list(containers.check_engines(needs, say=engines(**answers), cdi=places))
    assert levels(checks) == found
    for check in checks:
        if check.level == "WARN":
            assert "RUNNER=local" in check.mend
            assert "Cannot connect" in check.detail or "nvidia-container-toolkit" in check.mend
            # Each engine is told of GPUs in a way of its own.
            assert ("--runtime=docker" in check.mend) <= (check.what == "docker")
            assert ("cdi generate" in check.mend) <= (check.what == "podman")


@pytest.mark.parametrize(
    ("engine", "text", "why", "start"),
    [
        ("docker", "", "no word of why", "sudo systemctl start docker, or RUNNER=local"),
        ("podman", "x\nlast", "last", "podman info, or RUNNER=local"),
        ("docker", "a\nan Error here\nb", "an Error here", "sudo systemctl start docker"),
    ],
)
def test_an_engine_that_does_not_answer_says_why(
    monkeypatch: pytest.MonkeyPatch, engine: str, text: str, why: str, start: str
) -> None:
    monkeypatch.setattr(containers, "INSIDE", ())
    (found,) = containers.check_engines(Needs(), say=engines(**{engine: (1, text)}), cdi=())
    assert found.detail == f"installed, but it does not answer: {why}"
    assert found.mend.startswith(start)


def test_a_real_engine_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "docker"
    tool.write_text("#!/bin/sh\necho no daemon >&2; exit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert containers.info("docker") == (1, "no daemon\n")
    assert containers.info("podman-that-is-not-there") is None
    tool.write_text("not a program")
    assert containers.info("docker") == (1, "OSError")


def test_in_a_container_no_engine_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(engine: str) -> tuple[int, str]:
        raise AssertionError(engine)

    monkeypatch.setattr(containers, "INSIDE", (tmp_path,))
    assert levels(containers.check_engines(GPU, say=never)) == {"containers": "OK"}


def test_needs_from_figures_and_from_kinds(catalog: Catalog, registry: Registry) -> None:
    manifest = catalog.manifest("demo")
    mini = estimate(manifest, "mini", registry)
    assert (mini.gpus, mini.memory_gb, mini.extra) == (0, 2.0, "cpu")
    paper = estimate(manifest, "paper", registry)
    assert (paper.gpus, paper.gpu_memory_gb, paper.extra) == (1, 24.0, "gpu")

    def hungry(params: object, gpu: bool) -> Resources:
        return Resources(memory_gb=1.0 if gpu else 99.0)

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
    assert "inputs" not in levels(alone)
    whole = examine(root=ROOT, store=store, needs=Needs(), experiment="demo", ids=["tiny-new"])
    assert levels(whole)["inputs"] == "OK"
    assert (
        Check(level="FAIL", what="a", detail="b", mend="c").render() == "FAIL  a: b\n      mend: c"
    )


def test_what_can_run_here_at_all(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: [])
    monkeypatch.setattr(hardware, "memory_gb", lambda: 16.0)
    found = {(one.experiment, one.profile): one for one in overview(catalog, tmp_path / "home")}
    assert found["demo", "mini"].runs
    paper = found["demo", "paper"]
    assert not paper.runs
    assert any(reason.startswith("gpus: 1 of 24 GB needed") for reason in paper.reasons)
    said = [(check.level, check.what, check.mend) for check in lines(list(found.values()))]
    assert ("OK", "profile mini", "") in said
    assert ("WARN", "profile paper", "kit doctor demo-corrected --profile paper") in said
    (only, other) = overview(catalog, tmp_path / "home", only="demo")
    assert {only.experiment, other.experiment} == {"demo"}


def test_experiments_with_equal_reasons_share_a_line() -> None:
    def one(name: str, *reasons: str) -> Runnable:
        return Runnable(experiment=name, profile="paper", runs=not reasons, reasons=list(reasons))

    many = [one("a", "no GPU"), one("b", "no GPU"), one("c", "no disk", "no GPU"), one("d")]
    details = [check.detail for check in lines(many)]
    assert details == [
        "can run here: d",
        "cannot run here: a, b (no GPU)",
        "cannot run here: c (no disk; no GPU)",
    ]


def test_a_manifest_that_cannot_be_read_hides_no_other(catalog: Catalog, tmp_path: Path) -> None:
    catalog.files()["demo"].write_text("{")
    assert {one.experiment for one in overview(catalog, tmp_path)} == {"demo-corrected"}
