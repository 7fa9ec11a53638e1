"""What a job asks for: the plan's needs with room to spare, and what the user types."""

from __future__ import annotations

from typing import Any

import pytest

from kit.engine.slurm.options import SlurmOptions, minutes, parse, request, shared_by
from kit.errors import UsageError
from tests.engine.test_local import instance


def asked(*parameters: str, threads: int = 1, **needs: Any) -> dict[str, Any]:
    return request(instance("x", **needs), SlurmOptions(parameters=parameters), threads=threads)


def test_a_cpu_step() -> None:
    made = asked(memory_gb=4, minutes=30, threads=2)
    assert made["mem"] == "5632MB"  # 4 x 1.25 + 0.5 GB
    assert made["time"] == 90
    assert made["cpus_per_task"] == 2
    assert "gpus_per_node" not in made
    assert made["additional_parameters"] == {"requeue": True}
    assert asked(minutes=0.1)["time"] == 15  # Python has to start, too


def test_a_gpu_step() -> None:
    made = asked(gpus=4, memory_gb=100, minutes=600)
    assert made["gpus_per_node"] == 4
    assert made["cpus_per_task"] == 16
    assert (made["nodes"], made["ntasks_per_node"]) == (1, 1)  # torchrun starts the ranks


def test_the_user_wins() -> None:
    made = asked("time=2-00", "mem=8G", "cpus-per-task=3", "partition=long", "exclusive=true")
    assert made["time"] == 2880
    assert made["cpus_per_task"] == "3"
    assert "mem" not in made
    assert made["additional_parameters"] == {
        "requeue": True,
        "partition": "long",
        "exclusive": True,
        "mem": "8G",
    }


def test_groups() -> None:
    parameters = ("partition=any", "gpu.partition=a100", "cpu.qos=low", "gpu.gres=gpu:2")
    assert asked(*parameters)["additional_parameters"] == {
        "requeue": True,
        "partition": "any",
        "qos": "low",
    }
    on_gpu = asked(*parameters, gpus=2)
    assert on_gpu["additional_parameters"]["partition"] == "a100"
    assert "gpus_per_node" not in on_gpu  # the user asks in the cluster's own way
    late = asked("gpu.partition=a100", "partition=any", gpus=1)
    assert late["additional_parameters"]["partition"] == "a100"  # whatever the order


def test_a_short_job_is_not_told_at_its_start() -> None:
    assert asked()["signal_delay_s"] == 90
    assert asked("time=2")["signal_delay_s"] == 30


def test_underscores_and_dashes() -> None:
    assert parse("--cpus_per_task=4") == ("", "cpus-per-task", "4")
    assert "requeue" not in asked("no-requeue=")["additional_parameters"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90), ("90:30", 91), ("04:00:00", 240), ("0:00:30", 1), ("1-00", 1440),
        ("1-02:30", 1590), ("2-00:00:01", 2881),
    ],
)  # fmt: skip
def test_times(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partition", "not of the form"),
        ("=x", "not of the form"),
        ("tpu.partition=x", "not of the form"),
        ("comment=a\n#SBATCH --uid=0", "not of the form"),
        ("array=0-9", "sets array itself"),
        ("gpu.output=x", "sets output itself"),
        ("time=soon", "not a time"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        SlurmOptions(parameters=(text,))
    assert caught.value.next_step


def test_only_equal_requests_share_an_array() -> None:
    assert shared_by(asked(memory_gb=1)) == shared_by(asked(memory_gb=1))
    assert shared_by(asked(memory_gb=1)) != shared_by(asked(memory_gb=2))


def test_what_is_recorded() -> None:
    made = SlurmOptions(parameters=("qos=high",), max_jobs=3)
    assert made.recorded() == {"parameters": ["qos=high"], "max_jobs": 3}
