"""Out of memory in the words of torch, vLLM, numpy and the system: real texts, real exceptions."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from kit.engine import process
from kit.engine.failures import shortage_of
from tests.engine.toy import CUDA_TEXT

VLLM_START = (
    "Free memory on device cuda:0 (12.38/79.11 GiB) on startup is less than desired GPU memory "
    "utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by "
    "other processes."
)
VLLM_SAMPLER = (
    "CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try "
    "lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine."
)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def test_torch_on_a_gpu() -> None:
    short = shortage_of(OutOfMemoryError(CUDA_TEXT))
    assert short is not None
    assert short.gpu
    assert (short.asked, short.free, short.total) == ("2.50 GiB", "1.07 GiB", "79.11 GiB")
    assert short.others == ["process 4242 holds 40.00 GiB"]
    assert (
        short.facts() == "1.07 GiB of 79.11 GiB of the GPU was free; process 4242 holds 40.00 GiB"
    )


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        VLLM_SAMPLER,
    ],
)
def test_a_gpu_without_figures(text: str) -> None:
    short = shortage_of(RuntimeError(text))
    assert short is not None
    assert short.gpu
    assert (short.asked, short.facts()) == ("", "")


def test_vllm_that_finds_the_gpu_taken() -> None:
    short = shortage_of(ValueError(VLLM_START))
    assert short is not None
    assert short.gpu
    assert (short.asked, short.free, short.total) == ("71.2 GiB", "12.38 GiB", "79.11 GiB")


def test_the_cause_has_the_figures() -> None:
    """vLLM wraps torch's error in its own."""
    try:
        try:
            raise OutOfMemoryError(CUDA_TEXT)
        except OutOfMemoryError as error:
            raise RuntimeError(VLLM_SAMPLER) from error
    except RuntimeError as error:
        short = shortage_of(error)
    assert short is not None
    assert short.asked == "2.50 GiB"


def test_what_was_suppressed_is_no_cause() -> None:
    error = ValueError("the fallback failed for another reason")
    error.__context__ = MemoryError()
    assert shortage_of(error) is not None
    error.__suppress_context__ = True  # raise ... from None
    assert shortage_of(error) is None


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("a"), ValueError("b")
    one.__cause__, two.__cause__ = two, one
    assert shortage_of(one) is None


def test_torchs_allocator_on_this_machine() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    short = shortage_of(caught.value)
    assert short is not None
    assert not short.gpu
    assert short.asked == "1024 TiB"


def test_numpys_on_this_machine() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 58, dtype=np.uint8)
    short = shortage_of(caught.value)
    assert short is not None
    assert (short.gpu, short.asked) == (False, "256. PiB")


def test_the_systems_own() -> None:
    short = shortage_of(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    assert short is not None
    assert not short.gpu
    assert shortage_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) is None


@pytest.mark.parametrize("text", ["", "memory", "the model is out of its depth", "16 GiB of it"])
def test_other_errors_are_none(text: str) -> None:
    assert shortage_of(ValueError(text)) is None


def test_the_kernels_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, group = tmp_path / "vmstat", tmp_path / "memory.events"
    monkeypatch.setattr(process, "OOM_COUNTERS", (machine, group))
    assert process.oom_kills() is None
    assert process.rose(None) is None
    machine.write_text("pgfault 12\noom_kill 3\n")
    assert process.oom_kills() == 3
    group.write_text("low 0\noom 1\noom_kill 1\noom_group_kill 9\n")
    assert process.oom_kills() == 4
    assert process.rose(3) is True
    assert process.rose(4) is False
    machine.write_bytes(b"\xff\n")
    assert process.oom_kills() == 1
