"""``--executor slurm`` and its companions on the command line, and what is refused before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.cli import planning
from kit.cli.main import run as kit
from kit.engine.environment import Machine
from kit.engine.preflight import preflight
from kit.engine.session import Options
from kit.engine.slurm import cluster
from kit.engine.slurm.options import MAX_JOBS, SlurmOptions
from kit.engine.store import Store
from kit.errors import EXIT_INVALID, EXIT_USAGE, Preflight
from tests.engine.conftest import ToyPins
from tests.engine.test_batch import shared

Seen = list[Options]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Seen:
    """What ``kit run`` hands on; nothing is run."""
    found: Seen = []

    class Kept:
        def __init__(self, options: Options) -> None:
            found.append(options)

        def run(self) -> Path:
            return tmp_path

    monkeypatch.setattr(planning.Prepared, "session", lambda _, options: Kept(options))
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    return found


def test_options_become_one_value(seen: Seen) -> None:
    line = ["run", "tiny-adapt", "--executor", "slurm", "--max-jobs", "7"]
    assert kit([*line, "--slurm", "partition=short", "--slurm", "gpu.qos=high"]) == 0
    assert seen[0].slurm == SlurmOptions(parameters=("partition=short", "gpu.qos=high"), max_jobs=7)
    assert kit(["run", "tiny-adapt", "--executor", "slurm"]) == 0
    assert seen[1].slurm.max_jobs == MAX_JOBS
    assert kit(["run", "tiny-adapt", "--jobs", "2"]) == 0
    assert seen[2].slurm is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--slurm", "partition=x"], "--executor slurm"),
        (["--max-jobs", "3"], "--jobs N"),
        (["--executor", "slurm", "--jobs", "3"], "--max-jobs N"),
        (["--executor", "slurm", "--slurm", "array=1"], "array"),
        (["--executor", "slurm", "--slurm", "nonsense"], "KEY=VALUE"),
    ],
)
def test_what_does_not_go_together(
    seen: Seen, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert kit(["run", "tiny-adapt", *options]) == EXIT_USAGE
    assert words in capsys.readouterr().err
    assert seen == []


def test_a_machine_without_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before there is a run directory."""
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    runs = ["--runs-dir", str(tmp_path / "runs")]
    assert kit(["run", "tiny-adapt", "--executor", "slurm", *runs]) == EXIT_INVALID
    told = capsys.readouterr().err
    assert "sbatch" in told or "submitit" in told
    assert "next:" in told
    assert not (tmp_path / "runs").exists()


def test_a_login_node_has_to_say_which_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "require", lambda: None)
    store, pins = Store(tmp_path), ToyPins(tmp_path)
    with pytest.raises(Preflight, match="does not know which GPUs") as caught:
        preflight(shared(), store, pins, None)
    assert "KIT_GPU_ARCH=sm_90" in caught.value.next_step
    from kit.engine.hardware import Gpu

    planned = Machine(gpus=[Gpu(index="", name="planned", arch="sm_90", memory_gb=0)])
    preflight(shared(machine=planned), store, pins, None)  # eight GPUs, none of them here


def test_the_launch_lines_are_for_steps_on_many_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    assert kit(["plan", "tiny-adapt", "--launch", "slurm", "table"]) == EXIT_USAGE
    assert "not a step for many GPUs" in capsys.readouterr().err
    assert kit(["plan", "tiny-adapt", "--launch", "slurm", "nothing"]) == EXIT_USAGE
    assert "the plan has no step 'nothing'" in capsys.readouterr().err
