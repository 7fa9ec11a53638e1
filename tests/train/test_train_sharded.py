"""Sharded over two processes equals one: gradients, inner and outer steps, every way back."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import AVERAGED, TRAINING, Precision
from kit.train.engines import FSDP, ZERO3
from kit.train.fsdp import Fsdp, FsdpSettings
from kit.train.optimizers import AdamW, Muon
from kit.train.shards import Layout
from kit.train.single_process import SingleProcess
from kit.train.zero3 import Zero3, Zero3Settings
from kit.train.zero3_internals import VERSION, checked_deepspeed
from tests.train.sharded import assert_equal_runs, failed_checks, launch, single
from tests.train.tiny import llama
from tests.train.two_processes import OUTER, weights


@pytest.fixture(scope="module", params=[ZERO3, FSDP])
def folder(tmp_path_factory, request):
    return tmp_path_factory.mktemp(request.param)


@pytest.fixture(scope="module")
def ranks(folder):
    return launch(folder, "cpu", 2, ZERO3 if ZERO3 in folder.name else FSDP)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return single(tmp_path_factory.mktemp("alone"), "cpu")


def test_losses_gradients_and_inner_trajectories_equal_one_process(ranks, alone):
    assert_equal_runs(ranks, alone, "run/")


def test_two_outer_steps_of_the_outer_loop_equal_one_process(ranks, alone):
    assert_equal_runs(ranks, alone, "tar/")


def test_attacks_equal_one_process_and_are_watched_alike(ranks, alone):
    assert_equal_runs(ranks, alone, "attack/")


def test_an_attacked_sharded_model_is_saved_whole(ranks, folder):
    for key in ("adamw", "free", "neox"):
        saved = AutoModelForCausalLM.from_pretrained(folder / f"attacked-{key}")
        for name, p in saved.named_parameters():
            assert torch.equal(p, ranks[0][f"attack/{key}/w/{name}"]), name


def test_every_check_of_every_process_held(ranks):
    assert failed_checks(ranks) == []


def test_all_processes_hold_the_same_bits(ranks):
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])


def test_nothing_was_compiled(ranks, folder):
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert "ninja" not in log
    assert "extension module" not in log


def test_a_sharded_checkpoint_goes_on_in_one_process(ranks, folder):
    engine = SingleProcess(llama(1), OUTER)
    assert engine.resume(CheckpointFolder(folder / "checkpoints")).step == 2
    for name, p in weights(engine, AVERAGED).items():
        assert torch.equal(p, ranks[0][f"run/x/{name}"]), name


def test_the_saved_model_is_whole_and_fp32(ranks, folder):
    x, y = (AutoModelForCausalLM.from_pretrained(folder / name) for name in "xy")
    engine = SingleProcess(llama(1), OUTER)
    engine.resume(CheckpointFolder(folder / "again"))
    assert {p.dtype for p in y.parameters()} == {torch.float32}
    names = set(dict(y.named_parameters()))
    assert names == set(weights(engine, TRAINING))
    assert any(not torch.equal(p, q) for p, q in zip(x.parameters(), y.parameters(), strict=True))


def test_pieces_join_to_what_was_cut():
    shapes = {"a": (3, 5), "b": (7,), "c": (1,)}
    whole = {n: torch.randn(s) for n, s in shapes.items()}
    layouts = [Layout(shapes.items(), rank=r, world_size=4) for r in range(4)]
    for name, tensor in whole.items():
        pieces = [layout.cut(name, tensor) for layout in layouts]
        assert {p.ndim for p in pieces} == {tensor.ndim}
        joined = torch.cat([p.reshape(-1) for p in pieces])
        assert torch.equal(joined[: tensor.numel()], tensor.reshape(-1))
        assert not joined[tensor.numel() :].any()
    with pytest.raises(ValueError, match=r"b has shape \(8,\) here"):
        layouts[0].cut("b", torch.zeros(8))
    flat = torch.arange(float(layouts[0].length))
    assert layouts[0].pieces["b"].of(flat).tolist() == [4.0, 5.0]


def test_another_version_of_deepspeed_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(__version__="0.20.0"))
    with pytest.raises(ValueError, match=rf"{VERSION}; 0.20.0 is installed"):
        checked_deepspeed()


@pytest.mark.parametrize("engine", [Zero3, Fsdp])
def test_what_cannot_be_sharded_is_refused(engine):
    with pytest.raises(ValueError, match="Muon needs whole matrices"):
        engine(llama(), Muon(0.01, 0.0), device="cpu")
    with pytest.raises(ValueError, match="sharded masters are float32"):
        engine(llama(), AdamW(0.01, 0.0), Precision("bfloat16", "bfloat16"), device="cpu")
    with pytest.raises(ValueError, match="nothing to train"):
        engine(llama().requires_grad_(False), AdamW(0.01, 0.0), device="cpu")


def test_settings_that_would_mean_something_else_are_refused():
    with pytest.raises(ValueError, match="communication in 'float16'"):
        FsdpSettings(communication="float16")
    with pytest.raises(ValueError, match="outer state 'disk'"):
        Zero3Settings(outer_state="disk")
    with pytest.raises(ValueError, match="gathered as a whole"):
        Zero3Settings(compiled=True)
