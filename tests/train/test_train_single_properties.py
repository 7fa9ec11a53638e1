"""Small promises of training in one process, each by what would differ if it were not kept."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kit.train import engines, single_process
from kit.train.batching import even_groups
from kit.train.checkpoints import CheckpointFolder
from kit.train.compile_ahead import compiling_ahead
from kit.train.engine import Precision, Progress
from kit.train.errors import TrainingDiverged
from kit.train.loop import FineTuning, finetune
from kit.train.losses import weighted_cross_entropy
from kit.train.optimizers import (
    SGD,
    Adadelta,
    AdamW,
    Muon,
    ScheduleFreeAdamW,
    make_optimizer,
    optimizer_spec,
)  # fmt: skip
from kit.train.randomness import random_state, set_random_state
from kit.train.single_process import SingleProcess
from tests.train.tiny import llama, mean_loss, tokens


class Together:
    """An accelerator of several processes, of which this is the only one that is there."""

    process_index = 0

    def __init__(self, processes=2, others=0.0):
        self.num_processes, self.others = processes, others
        self.said = []

    def prepare_model(self, model):
        return model

    def reduce(self, value, how):
        self.said.append(how)
        return value + self.others

    @contextmanager
    def no_sync(self, model):
        self.said.append("alone")
        yield

    def wait_for_everyone(self):
        self.said.append("wait")


def engine(together=None, spec=None):
    return SingleProcess(llama(), spec or AdamW(0.01, 0.0), accelerator=together)


def test_gradients_are_reduced_in_the_last_micro_batch_alone():
    together = Together(others=0.25)
    made = engine(together)
    made.model.eval()
    total = made.accumulate(mean_loss, [tokens(0), tokens(1), tokens(2)])
    assert made.model.training
    assert together.said == ["alone", "alone", "sum"]
    plain = engine()
    assert float(total) == pytest.approx(0.25 + float(plain.accumulate(
        mean_loss, [tokens(0), tokens(1), tokens(2)])))  # fmt: skip
    assert made.gradient_norm() == pytest.approx(2 * plain.gradient_norm())  # a mean follows


@pytest.mark.parametrize(
    ("others", "flag", "up"), [(0.0, False, False), (0.0, True, True), (1.0, False, True)]
)
def test_a_flag_of_any_process_is_seen_by_all(others, flag, up):
    for together in (Together(others=others), Together(3, others)):
        assert engine(together).any_process(flag) is up
        assert together.said == ["sum"]
    alone = Together(1)
    assert engine(alone).any_process(flag) is flag
    assert alone.said == []


def test_processes_wait_for_what_the_first_writes_and_removes(tmp_path, monkeypatch):
    """And the generators of all of them are in the checkpoint, of one alone its own."""
    gathered = []
    monkeypatch.setattr(
        "accelerate.utils.gather_object", lambda mine: gathered.append(mine) or mine * 2
    )
    for processes in (1, 2):
        together = Together(processes)
        made, folder = engine(together), CheckpointFolder(tmp_path / str(processes))
        for act in (
            lambda made=made, folder=folder: made.save(folder, Progress(1)),
            lambda made=made, folder=folder: made.resume(folder),
            lambda made=made: made.save_model(tmp_path / "m"),
        ):
            act()
            assert together.said == ["wait"]
            together.said.clear()
        assert len(gathered) == processes - 1
        assert len(folder.read(1).values["random"]) == processes


def test_the_largest_change_is_of_the_weight_that_moved_most():
    made = engine()
    kept = made.snapshot()
    with torch.no_grad():
        made.model.model.norm.weight[3] -= 0.5
        made.model.lm_head.weight[1, 2] += 0.25
    assert made.largest_change(kept) == pytest.approx(0.5)


def test_a_snapshot_is_where_it_is_asked_for():
    made = engine()
    assert {t.device.type for t in made.snapshot("meta").tensors.values()} == {"meta"}
    assert {t.device.type for t in made.snapshot().tensors.values()} == {"cpu"}


@pytest.mark.parametrize("processes", [None, "1", "2"])
def test_several_processes_work_on_a_gpu_each_and_reduce_together(monkeypatch, processes):
    set_to, asked = [], []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", set_to.append)
    monkeypatch.setattr(single_process, "data_parallel", lambda device: asked.append(device))
    several = processes == "2"
    engines.use_own_gpu("cpu")
    assert set_to == []
    engines.use_own_gpu("cuda")
    assert set_to == [3] * several
    engines.engine_factory(device="cpu")(llama(), AdamW(0.01, 0.0), Precision())
    assert asked == ["cpu"] * several


def test_the_shares_of_processes_are_reduced_by_accelerate(monkeypatch):
    made = []
    monkeypatch.setattr("accelerate.Accelerator", lambda **settings: made.append(settings))
    for device, unused in (("cpu", False), ("cuda", True)):
        if unused:
            single_process.data_parallel(device, unused_parameters=True)
        else:
            single_process.data_parallel(device)
        settings = made.pop()
        (handler,) = settings["kwargs_handlers"]
        assert (settings["cpu"], handler.find_unused_parameters) == (device == "cpu", unused)


def test_passes_of_even_length_list_their_examples_in_order():
    assert even_groups([1, 2, 3, 4], 2) == [[0, 3], [1, 2]]
    assert even_groups([1, 1, 9], 2) == [[2], [0, 1]]


@pytest.mark.parametrize(
    ("rows", "chunk", "asked"), [(5, 2, [2, 2, 1]), (5, 4, [4, 1]), (5, 5, [5]), (5, 9, [5])]
)
def test_scores_exist_for_a_chunk_at_once_and_are_computed_again_only_where_cut(rows, chunk, asked):
    seen = []

    def head(states):
        seen.append(len(states))
        return states @ torch.ones(4, 3)

    hidden = torch.randn(rows, 4, requires_grad=True)
    loss = weighted_cross_entropy(
        hidden, head, torch.zeros(rows, dtype=torch.long), torch.ones(rows), chunk=chunk
    )
    assert seen == asked
    loss.backward()
    assert sorted(seen[len(asked) :]) == (sorted(asked) if len(asked) > 1 else [])


@pytest.mark.parametrize("sort", [AdamW, SGD, Adadelta, Muon, ScheduleFreeAdamW])
def test_a_rate_may_be_0_and_not_below(sort):
    assert sort(0.0, 0.0).learning_rate == 0
    for rate in (-0.001, float("nan")):
        with pytest.raises(ValueError, match="is below 0"):
            sort(rate, 0.0)


def parameters():
    return {
        "model.layers.0.mlp.up.weight": torch.nn.Parameter(torch.ones(3, 4)),
        "model.layers.0.norm.weight": torch.nn.Parameter(torch.ones(4)),
    }


def test_one_kernel_instead_of_several_where_it_is_asked_for():
    for fused in (False, True):
        for spec in (AdamW(0.1, 0.0), Muon(0.1, 0.0)):
            made = make_optimizer(spec, parameters().items(), fused=fused)
            assert made.parts["adamw"].defaults["fused"] is (fused or None)
        free = make_optimizer(ScheduleFreeAdamW(0.1, 0.0), parameters().items(), fused=fused)
        assert {group["foreach"] for p in free.parts.values() for group in p.param_groups} == {
            not fused
        }
    assert make_optimizer(AdamW(0.1, 0.0), parameters().items()).parts["adamw"].defaults[
        "fused"
    ] is None  # fmt: skip


def stepped(spec):
    weights = parameters()
    made = make_optimizer(spec, weights.items())
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    made.step()
    return made


def test_what_an_optimizer_goes_on_from_is_all_that_it_has():
    made = stepped(AdamW(0.1, 0.0))
    kept = {path: t.clone() for path, t in made.tensors().items()}
    half = {path: t for path, t in kept.items() if "mlp" in path}
    assert 0 < len(half) < len(kept)
    made.load(half, made.values())
    assert made.tensors().keys() == half.keys()


@pytest.mark.parametrize(
    "path", ["sgd/model.layers.0.norm.weight/x", "muon/model.layers.0.norm.weight/x", "muon/w/x"]
)
def test_state_of_a_parameter_elsewhere_is_refused(path):
    made = stepped(Muon(0.1, 0.0))
    assert {name.partition("/")[0] for name in made.tensors()} == {"muon", "adamw"}
    with pytest.raises(ValueError, match="belongs to no parameter of this optimizer"):
        made.load({path: torch.zeros(4)}, made.values())


def test_state_is_loaded_where_its_parameter_is_and_counters_stay_in_memory():
    weights = {"w": torch.nn.Parameter(torch.ones(4, device="meta"))}
    made = make_optimizer(AdamW(0.1, 0.0), weights.items())
    state = {"adamw/w/exp_avg": torch.zeros(4), "adamw/w/step": torch.tensor(3.0)}
    made.load(state, made.values())
    assert {path: t.device.type for path, t in made.tensors().items()} == {
        "adamw/w/exp_avg": "meta",
        "adamw/w/step": "cpu",
    }


def test_names_in_refusals_come_in_order():
    with pytest.raises(ValueError, match="needs learning_rate and weight_decay"):
        optimizer_spec("adamw", {})
    unknown = ["c", "a", "d", "b", "f", "e"]
    with pytest.raises(ValueError, match="no setting a, b, c, d, e, f; it has betas, decay, eps"):
        optimizer_spec("adamw", dict.fromkeys(unknown))


@pytest.mark.parametrize(("kept", "there"), [(True, True), (True, False), (False, True)])
def test_a_gpus_generator_is_set_where_there_is_a_state_and_a_gpu(monkeypatch, kept, there):
    done = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    state = random_state()
    assert "cuda" not in state
    if kept:
        state["cuda"] = bytes([1, 2, 3]).hex()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda tensor: done.append(tensor.tolist()))
    set_random_state(state)
    assert done == ([[1, 2, 3]] if kept and there else [])


def run(losses, plan, norms=None):
    """Losses as given, one a step, whatever the weights are."""
    made, given = engine(), iter(losses)

    def loss(model, batch):
        return next(given) + 0.0 * next(model.parameters()).sum()

    if norms is not None:
        ready = iter(norms)
        made.gradient_norm = made.clip = lambda *_: next(ready)
    batch = SimpleNamespace(item_ids=("x",))
    return finetune(made, loss, lambda step: [batch], plan)


@pytest.mark.parametrize(
    ("losses", "stops"), [((4.0, 7.9), False), ((4.0, 8.0), False), ((4.0, 8.1), True),
                          ((0.1, 0.19), False), ((0.1, 0.21), True)],
)  # fmt: skip
def test_growth_is_a_multiple_of_the_first_loss(losses, stops):
    plan = FineTuning(2, highest_growth=2.0)
    if stops:
        with pytest.raises(TrainingDiverged, match="more than 2 times the first") as caught:
            run(losses, plan)
        assert caught.value.step == 1
    else:
        assert run(losses, plan).losses == pytest.approx(losses)


def test_a_gradient_that_is_not_finite_ends_a_run_whose_loss_is():
    plan = FineTuning(3, clip=1.0, diverged="go-on")
    assert run((4.0, 3.0, 2.0), plan, (1.0, 1.0, 1.0)).diverged_at is None
    result = run((4.0, 3.0, 2.0), plan, (1.0, float("inf"), float("nan")))
    assert result.diverged_at is not None
    assert result.diverged_at[0] == 1
    assert "gradient that is not finite (norm inf)" in result.diverged_at[1]
    again = type(result).from_curves(result.curves())
    assert again.diverged_at == result.diverged_at


def test_a_checkpoint_closes_what_it_opens(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.write(1, {"a": torch.ones(2)})
    before = len(list(Path("/proc/self/fd").iterdir()))
    folder.write(1, {"a": torch.ones(2)})
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    folder.forget(7)  # another process removed it already
    assert folder.damaged == ["state-7.safetensors"]


def test_seconds_of_compiling_ahead_are_those_since_its_start():
    with compiling_ahead() as how:
        time.sleep(0.02)
    assert 0.02 <= how.seconds < 10
    assert 0 <= how.waited <= how.seconds - 0.02
    assert how.failed is None
