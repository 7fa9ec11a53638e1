"""The doctor on GPUs, through a made-up nvidia-smi: a program on PATH, or its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.doctor import gpus
from kit.doctor.core import Check, Needs
from kit.engine import hardware
from kit.engine.hardware import Gpu

BIG = Needs(gpus=2, gpu_memory_gb=70, memory_gb=64, disk_gb=10, extra="gpu")
ONE = Needs(gpus=1, gpu_memory_gb=70, extra="gpu")


def gpu(memory: float = 80.0, driver: str = "580.65.06", index: str = "0") -> Gpu:
    return Gpu(index=index, name="H100", arch="sm_90", memory_gb=memory, driver=driver)


def versions(**known: str) -> Callable[[str], str | None]:
    return lambda name: known.get(name.replace("-", "_"))


def smi(memory: str = "", apps: str = "", plain: tuple[int, str] = (0, "")) -> gpus.Ask:
    """nvidia-smi with these answers; without memory it fails, as without a driver."""

    def ask(*arguments: str) -> tuple[int, str]:
        if not arguments:
            return plain
        if arguments[0].startswith("--query-gpu"):
            return (0, memory) if memory else (9, "no")
        return 0, apps

    return ask


CUDA13 = versions(nvidia_cuda_runtime="13.0.96", torch="2.11.0")
FREE = smi("0, GPU-aa, 80000\n1, GPU-bb, 80000\n")


def check(
    found: list[Gpu],
    needs: Needs,
    ask: gpus.Ask = FREE,
    version: Callable[[str], str | None] = CUDA13,
) -> dict[str, Check]:
    return {one.what: one for one in gpus.check_gpus(found, needs, ask=ask, version=version)}


def test_no_gpu_is_fine_when_none_is_needed() -> None:
    assert check([], Needs())["gpus"].level == "OK"


@pytest.mark.parametrize(
    ("ask", "said", "mend"),
    [
        (smi(plain=(127, "")), "2 of 70 GB needed; there is no nvidia-smi", "--profile mini"),
        (
            smi(plain=(9, "\nNVIDIA-SMI has failed because it couldn't communicate with ...\n")),
            "nvidia-smi fails: NVIDIA-SMI has failed because",
            "sudo modprobe nvidia",
        ),
        (smi(plain=(1, "")), "nvidia-smi fails: no word of why", "restart the machine"),
        (FREE, "hides all 2", "unset CUDA_VISIBLE_DEVICES"),
        (smi(), "none visible", "docker run --gpus all"),
    ],
)
def test_no_gpu_where_some_are_needed(ask: gpus.Ask, said: str, mend: str) -> None:
    found = check([], BIG, ask)["gpus"]
    assert found.level == "FAIL"
    assert said in found.detail
    assert mend in found.mend


@pytest.mark.parametrize(
    ("found", "level", "said", "mend"),
    [
        ([gpu(), gpu(index="1")], "OK", "H100 80 GB, H100 80 GB", ""),
        (
            [gpu()],
            "FAIL",
            "1 visible (H100 80 GB), 2 needed",
            "CUDA_VISIBLE_DEVICES, which hides 1",
        ),
        ([gpu(), gpu(40)], "FAIL", "2 of 70 GB needed", "larger GPUs"),
        ([gpu(68.5), gpu(68.5)], "OK", "68.5", ""),
    ],
)
def test_enough_gpus_for_the_world_size(found: list[Gpu], level: str, said: str, mend: str) -> None:
    told = check(found, BIG)["gpus"]
    assert told.level == level
    assert said in told.detail
    assert mend in told.mend


def test_a_machine_that_has_too_few() -> None:
    told = check([gpu()], BIG, smi("0, GPU-aa, 80000\n"))["gpus"]
    assert told.mend == "use a machine with 2 GPUs"


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
    found = check([gpu(driver=driver)], Needs(), version=version)["driver"]
    assert found.level == level
    assert bool(found.mend) == (level != "OK")
    if level == "FAIL":
        assert "sudo apt-get install nvidia-driver-5" in found.mend


def test_torch_without_cuda_on_a_machine_with_gpus() -> None:
    cpu = versions(torch="2.13.0+cpu")
    assert check([gpu()], ONE, version=cpu)["torch"].level == "FAIL"
    assert "torch" not in check([gpu()], Needs(), version=cpu)
    assert "torch" not in check([gpu()], ONE)


TAKEN = "0, GPU-aa, 20000\n1, GPU-bb, 80000\n"


@pytest.mark.parametrize(
    ("needs", "memory", "apps", "level", "said", "mend"),
    [
        pytest.param(
            ONE,
            TAKEN,
            "GPU-aa, 123, 60000\n",
            "FAIL",
            "GPU 0 has 19.5 GB free",
            "export CUDA_VISIBLE_DEVICES=1",
            id="another one is free",
        ),
        pytest.param(
            BIG,
            TAKEN,
            "GPU-aa, 123, 60000\nGPU-aa, 7, [N/A]\n",
            "FAIL",
            "pid 123 (60000 MiB), pid 7",
            "ps -fp 123,7",
            id="both are wanted",
        ),
        pytest.param(
            BIG,
            TAKEN,
            "",
            "FAIL",
            "GPU 0 has 19.5 GB free, 70 GB of each",
            "outside of this container",
            id="the others do not show",
        ),
        pytest.param(
            ONE,
            "0, GPU-aa, 75000\n",
            "GPU-aa, 123, 5000\n",
            "WARN",
            "pid 123 (5000 MiB)",
            "CUDA_VISIBLE_DEVICES",
            id="enough is left, but vLLM takes a share of the whole",
        ),
    ],
)
def test_others_on_the_gpus(
    needs: Needs, memory: str, apps: str, level: str, said: str, mend: str
) -> None:
    found = check([gpu(), gpu(index="1")], needs, smi(memory, apps))["gpu processes"]
    assert found.level == level
    assert said in found.detail
    assert mend in found.mend


def test_gpus_that_nobody_else_uses() -> None:
    assert "gpu processes" not in check([gpu(), gpu(index="1")], BIG)
    # Somebody on a GPU that this run would not take is no concern of it.
    other = smi("0, GPU-aa, 80000\n1, GPU-bb, 100\n", "GPU-bb, 5, 79000\n")
    assert "gpu processes" not in check([gpu(), gpu(index="1")], ONE, other)
    # Chosen by uuid.
    chosen = check([gpu(index="GPU-bb")], ONE, other)["gpu processes"]
    assert chosen.level == "FAIL"


FAKE_SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*uuid,memory.free) echo "0, GPU-1, 30000";;
  --query-gpu=*) echo "0, GPU-1, H100, 9.0, 81559, 580.65.06";;
  --query-compute-apps=*) echo "GPU-1, 4242, 51000"; echo "GPU-1, $PPID, 1";;
  *) exit 1;;
esac
"""


@pytest.fixture
def fake_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program of that name on PATH."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(FAKE_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    hardware._nvidia_smi.cache_clear()
    yield tool
    hardware._nvidia_smi.cache_clear()


def test_against_a_made_up_nvidia_smi(fake_smi: Path) -> None:
    (found,) = hardware.gpus()
    assert found.memory_gb == pytest.approx(79.6, abs=0.1)
    (load,) = gpus.loads()
    assert load.free_gb == pytest.approx(29.3, abs=0.1)
    assert load.processes == ["pid 4242 (51000 MiB)"], "this process is no other"
    told = {one.what: one for one in gpus.check_gpus([found], ONE, version=CUDA13)}
    assert told["gpu processes"].level == "FAIL"


def test_a_program_that_cannot_be_started(fake_smi: Path) -> None:
    fake_smi.write_text("no program")
    status, said = gpus.nvidia_smi()
    assert (status, said) == (1, "nvidia-smi: OSError")
    assert gpus.loads() == []


def test_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)
    assert gpus.nvidia_smi() == (127, "")
    assert gpus.loads() == []
