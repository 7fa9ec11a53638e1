"""A run from loaded models to a model to save: what it says moved did, what it keeps is right."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.methods.checkpoint_transfer import whole_run
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.methods.checkpoint_transfer.targets import FORGET, RETAIN, keep_pairs, kept_states
from kit.methods.checkpoint_transfer.whole_run import Unlearned, run_recipe, save, summary
from kit.train.checkpoints import CheckpointFolder
from tests.lm.tiny_world import mini_tokenizer
from tests.methods.checkpoint_transfer.small_run import pairs, recipe, setting


@pytest.fixture(scope="module")
def given() -> Any:
    return setting()


def ran(given: Any, wanted: Recipe, **options: Any) -> Unlearned:
    """On copies; the seed is always the same."""
    student = options.pop("student", None) or copy.deepcopy(given.original)
    teacher = options.pop("teacher", given.teacher)
    maps = given.maps if wanted.affine else None
    return run_recipe(student, teacher, maps, wanted, pairs(), seed=3, **options)


def test_a_teacher_that_is_touched_on_the_way_is_noticed(given: Any) -> None:
    assert ran(given, recipe()).teacher_unchanged
    teacher = copy.deepcopy(given.teacher)

    def touch(step: int) -> None:
        if step == 1:
            next(teacher.parameters()).view(-1)[0] += 1

    assert not ran(given, recipe(), teacher=teacher, on_step=touch).teacher_unchanged


def test_a_weight_under_the_adapters_that_is_touched_is_noticed(given: Any) -> None:
    done = ran(given, recipe())
    assert done.base_moved == 0
    assert done.moved <= done.allowed
    student = copy.deepcopy(given.original)
    norm = student.model.norm.weight

    def touch(step: int) -> None:
        norm.data[0] += 1

    done = ran(given, recipe(), student=student, on_step=touch)
    assert done.base_moved == 1
    assert done.moved - done.allowed == {"model.norm.weight"}


def test_a_single_number_that_is_not_finite_is_noticed(given: Any) -> None:
    student = copy.deepcopy(given.original)

    def touch(step: int) -> None:
        if step == 2:
            student.model.norm.weight.data[0] = torch.inf

    assert not ran(given, recipe(full_rank=True), student=student, on_step=touch).run.finite


@pytest.mark.parametrize("full_rank", [False, True])
def test_what_may_move_and_how_much_is_trained(given: Any, full_rank: bool) -> None:
    wanted = recipe(full_rank=full_rank, epochs=2)
    done = ran(given, wanted)
    named = dict(given.original.named_parameters())
    matrices = {
        name
        for name, p in named.items()
        if p.ndim == 2 and any(f"layers.{block}." in name for block in (0, 1, 2))
    }
    assert done.allowed == (set(named) if full_rank else matrices)
    own = sum(p.numel() for p in named.values())
    rank = wanted.lora_rank
    added = sum(rank * sum(named[name].shape) for name in matrices)
    assert done.trained_share == pytest.approx(1 if full_rank else added / own)
    assert done.base_moved == (len(done.moved) if full_rank else 0)
    assert done.muon == 0
    assert not done.model.training
    after = done.model.state_dict()
    assert done.moved == {name for name, p in named.items() if not torch.equal(p, after[name])}
    assert done.moved


def test_tensors_that_muon_updates_are_counted(given: Any) -> None:
    done = ran(given, recipe(full_rank=True, optimizer="muon"))
    assert done.muon == 4 * 7


@pytest.mark.parametrize("full_rank", [False, True])
def test_no_reference_is_asked_for_where_nothing_is_retained(given: Any, full_rank: bool) -> None:
    """A model whose scores are scaled has none by norm and output layer."""
    student = copy.deepcopy(given.original)
    student.config.final_logit_softcapping = 30.0
    done = ran(given, recipe(full_rank=full_rank, retain_coef=0.0), student=student)
    assert done.run.retain == [0.0] * 8
    student = copy.deepcopy(given.original)
    student.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="no retain reference"):
        ran(given, recipe(full_rank=full_rank), student=student)


@pytest.mark.parametrize("full_rank", [False, True])
def test_the_reference_is_the_model_from_before(given: Any, full_rank: bool) -> None:
    """Where nothing moved yet there is no distance to it; later there is."""
    done = ran(given, recipe(full_rank=full_rank, epochs=2))
    assert done.run.retain[1] == pytest.approx(0, abs=1e-6)
    assert max(done.run.retain) > 1e-4


def test_maps_of_a_recipe_without_them_are_left_out(given: Any) -> None:
    wanted = recipe(affine=False)
    student = copy.deepcopy(given.original)
    with_maps = run_recipe(student, given.teacher, given.maps, wanted, pairs(), seed=3)
    assert with_maps.run == ran(given, wanted).run


def test_the_seed_decides_and_a_run_is_saved_where_that_is_said(given: Any, tmp_path: Path) -> None:
    wanted, said = recipe(lora_dropout=0.1), list[int]()
    folder = CheckpointFolder(tmp_path)
    first = ran(given, wanted, folder=folder, save_every=1, on_step=said.append)
    assert said == [1, 2]
    assert folder.steps()
    assert first.run == ran(given, wanted).run
    student = copy.deepcopy(given.original)
    other = run_recipe(student, given.teacher, given.maps, wanted, pairs(), seed=4)
    assert other.run.remove != first.run.remove


@pytest.mark.parametrize("uses", [1, 2])
@pytest.mark.parametrize("share", [0.4, 0.9, 100.0])
def test_every_pair_of_the_plan_is_kept_and_no_other(
    given: Any, tmp_path: Path, uses: int, share: float
) -> None:
    """Of any budget: the files hold as many of each kind as the plan says, from the first on."""
    data, wanted = pairs(), recipe()
    longest = max(len(text) for text in (*data.forget, *data.retain))
    whole = len(data.forget) * longest * 16 * 4 * 3  # a reference and targets of two blocks
    plan, written = keep_pairs(
        tmp_path, given.teacher, given.original, given.maps, wanted, data,
        width=16, uses=uses, budget=int(share * whole), batch=3, dtype="float32",
    )  # fmt: skip
    assert plan.bytes <= share * whole
    if uses == 1:
        assert (plan.retain, plan.forget, written) == (0, 0, 0)
    elif share > 1:
        assert plan.retain == plan.forget == len(data.forget)
    bytes_kept = 0
    for name, count in ((FORGET, plan.forget), (RETAIN, plan.retain)):
        states = kept_states(tmp_path, name)
        there = [at for at in range(len(data.forget)) if states is not None and at in states]
        assert there == list(range(count))
        bytes_kept += sum(v.nbytes for at in there for v in states.rows(at).values())  # type: ignore[union-attr]
        assert (states is None) is (count == 0)
    assert bytes_kept <= plan.bytes <= share * whole


FIELDS = ("remove", "retain")


def test_a_summary_is_what_was_measured(given: Any) -> None:
    wanted = recipe(epochs=2)
    done = ran(given, wanted)
    said = json.loads(json.dumps(summary(done, wanted)))
    for name, values in (
        ("logged", done.run.logged(wanted)),
        ("last-step", done.run.last_step(wanted)),
    ):
        assert said[name] == dict(zip(FIELDS, values, strict=True))
    assert (said["remove"], said["retain"]) == (done.run.remove, done.run.retain)
    assert said["first_remove"] == done.run.remove[0] != done.run.remove[1]
    assert said["trained_percent"] == pytest.approx(100 * done.trained_share)
    assert (said["micro_batches"], said["optimizer_steps"]) == (16, 4)
    assert (said["finite"], said["diverged_at"]) == (True, None)
    broken = replace(done.run, remove=[float("nan"), *done.run.remove[1:]], diverged_at=0)
    said = summary(replace(done, run=broken), wanted)
    assert said["first_remove"] is said["remove"][0] is None
    assert said["remove"][1:] == done.run.remove[1:]
    assert said["diverged_at"] == 0


@pytest.mark.parametrize("all_reduce", [True, False])
def test_pairs_are_counted_in_whole_numbers(all_reduce: bool) -> None:
    wanted = recipe(world=2, all_reduce=all_reduce)
    assert json.dumps(wanted.effective_batch) == ("8" if all_reduce else "4")


@pytest.mark.parametrize("finite", [True, False])
def test_only_a_model_of_finite_weights_is_saved(given: Any, tmp_path: Path, finite: bool) -> None:
    done = ran(given, recipe())
    done = replace(done, run=replace(done.run, finite=finite, diverged_at=None if finite else 3))
    save(done, mini_tokenizer(), tmp_path / "model")
    assert (tmp_path / "model" / "config.json").is_file() is finite
    assert whole_run.without_weights(tmp_path / "model") is not finite
    assert not whole_run.without_weights(tmp_path)
