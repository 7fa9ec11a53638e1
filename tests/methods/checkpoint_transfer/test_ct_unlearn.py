"""The loop: what moves and what does not, what is compared with what, and when it stops."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kit.lm.fingerprint import fingerprint
from kit.lm.hidden import block_outputs
from kit.methods.checkpoint_transfer.counting import coefficients
from kit.methods.checkpoint_transfer.losses import kl_retain, mapped_targets, remove_loss
from kit.methods.checkpoint_transfer.pairs import batches
from kit.methods.checkpoint_transfer.student import make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.methods.checkpoint_transfer.unlearn import unlearn
from kit.train.checkpoints import CheckpointFolder
from kit.train.errors import TrainingDiverged
from kit.train.lora import merge_adapter
from kit.train.single_process import SingleProcess
from tests.methods.checkpoint_transfer.small_run import pairs, recipe, run, setting
from tests.methods.checkpoint_transfer.tiny import batch


@pytest.fixture(scope="module")
def given():
    return setting()


@pytest.mark.parametrize("full_rank", [True, False])
def test_losses_fall_and_the_frozen_models_stay(given, full_rank) -> None:
    """Teacher and original bit for bit; the remove loss falls by a third in 32 steps."""
    before = fingerprint(given.teacher), fingerprint(given.original)
    wanted = recipe(full_rank=full_rank, epochs=16)
    _, done, _ = run(given, wanted)
    assert (fingerprint(given.teacher), fingerprint(given.original)) == before
    assert done.last_step(wanted)[0] < 2 / 3 * sum(done.remove[:4]) / 4
    assert done.diverged_at is None
    assert done.finite


def test_the_loop_equals_a_plain_torch_loop(given) -> None:
    """Full rank, written out again with transformers' hidden states, torch.optim and its clip."""
    wanted = recipe(full_rank=True)
    student, done, _ = run(given, wanted)
    plain = copy.deepcopy(given.original).requires_grad_(True)
    matrices = [p for p in plain.parameters() if p.ndim >= 2]
    others = [p for p in plain.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    data = pairs()
    for step, micro_batches in enumerate(batches(wanted, 5)):
        optimizer.zero_grad()
        for micro in micro_batches:
            now = coefficients(micro.number, retain=2.0, remove=5.0, ramp=8)
            ids, mask = data.batch("forget", micro.examples)
            # Layer l is entry l of transformers: what enters block l.
            theirs = given.teacher(ids, attention_mask=mask, output_hidden_states=True)
            ours = plain(ids, attention_mask=mask, output_hidden_states=True)
            teacher = {layer - 1: theirs.hidden_states[layer] for layer in (1, 2)}
            aims = mapped_targets(teacher, given.maps, mask)
            states = {layer - 1: ours.hidden_states[layer] for layer in (1, 2)}
            remove = remove_loss(states, aims, mask)
            ids, mask = data.batch("retain", micro.examples)
            reference = given.original(ids, attention_mask=mask).logits[mask]
            retain = kl_retain(reference, plain(ids, attention_mask=mask).logits, mask)
            ((now.remove * remove + now.retain * retain) / len(micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 2)
        optimizer.step()
    for (name, mine), other in zip(student.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)
    assert len(done.remove) == 8


def test_kl_is_zero_at_lora_start_and_its_gradient_is_the_adapters(given) -> None:
    wanted = recipe()
    student, done, _ = run(given, wanted)
    # The first micro-batch has coefficient 0 and is not computed; the second is, before any step.
    assert done.retain[0] == 0.0
    assert done.retain[1] == pytest.approx(0.0, abs=1e-6)
    assert max(done.retain[4:]) > 1e-6
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_blocks_behind_the_deepest_layer_are_bit_identical(given) -> None:
    """Layers 1 and 2 give adapters to blocks 0 to 2; block 3, norm and vocabulary stay."""
    student, _, _ = run(given, recipe(epochs=4))
    merged = merge_adapter(student)
    untouched = {
        name
        for name, p in given.original.named_parameters()
        if torch.equal(p, merged.get_parameter(name))
    }
    matrices = {
        name
        for name, p in given.original.named_parameters()
        if any(f"layers.{block}." in name for block in (0, 1, 2)) and p.ndim == 2
    }
    assert untouched == {name for name, _ in given.original.named_parameters()} - matrices


def test_deepest_adapter_gets_no_gradient_without_retain_in_the_first_version(given) -> None:
    """What enters block 2 is pulled, so block 2 moves by the KL term only; v2 pulls it."""
    moved = {}
    for name, preset, retain in (("v1", "v1", 0.0), ("kl", "v1", 2.0), ("v2", "v2", 0.0)):
        student, _, _ = run(given, recipe(preset, retain_coef=retain))
        deepest = [p for n, p in student.named_parameters() if "layers.2." in n and "lora_B" in n]
        moved[name] = any(bool((p != 0).any()) for p in deepest)
    assert moved == {"v1": False, "kl": True, "v2": True}


def test_merged_logits_are_the_adapters(given) -> None:
    student, _, _ = run(given, recipe(epochs=4))
    ids, mask = batch(3)
    student.eval()
    with torch.no_grad():
        adapted = student(input_ids=ids, attention_mask=mask).logits
        merged = merge_adapter(student)(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        base = given.original(ids, attention_mask=mask).logits
    assert not torch.allclose(merged, base, atol=1e-2)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_reference_with_the_adapter_off_is_the_model_before(kind) -> None:
    """Trained for a while, the adapter switched off still gives the original's scores."""
    given = setting(kind)
    student, _, _ = run(given, recipe(epochs=2, lora_dropout=0.1))
    off, frozen = RetainReference(student, adapter_off=True), RetainReference(given.original)
    student.train()
    found, expected = (r.logits(pairs(), [0, 3, 5]) for r in (off, frozen))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert student.training
    assert all(p.requires_grad for n, p in student.named_parameters() if "lora_" in n)
    ids, mask = pairs().batch("retain", [0, 3, 5])
    torch.testing.assert_close(expected, given.original(ids, attention_mask=mask).logits[mask])


def test_full_rank_without_a_frozen_reference_is_refused(given) -> None:
    wanted = recipe(full_rank=True)
    student = make_student(copy.deepcopy(given.original), wanted, seed=0)
    engine = SingleProcess(student, optimizer_spec(wanted))
    targets = ForgetTargets(given.teacher, given.maps, wanted)
    with pytest.raises(ValueError, match="compares the model with itself"):
        RetainReference(student)
    with pytest.raises(ValueError, match="no adapter to switch off"):
        RetainReference(student, adapter_off=True)
    with pytest.raises(ValueError, match="needs the model from before"):
        unlearn(engine, wanted, pairs(), targets, None, seed=0)
    before = recipe(full_rank=True, retain_coef=0.0)
    assert unlearn(engine, before, pairs(), targets, None, seed=0).retain == [0.0] * 8


def test_a_copy_that_shares_weights_is_no_reference(given) -> None:
    wanted = recipe(full_rank=True)
    student = copy.deepcopy(given.original)
    shared = copy.copy(student)
    reference = RetainReference(shared)
    engine = SingleProcess(make_student(student, wanted, seed=0), optimizer_spec(wanted))
    targets = ForgetTargets(given.teacher, given.maps, wanted)
    with pytest.raises(ValueError, match="its own weights"):
        unlearn(engine, wanted, pairs(), targets, reference, seed=0)


@pytest.mark.parametrize("loss", ["cross-entropy", "hidden-states"])
def test_other_retain_losses_run(given, loss) -> None:
    wanted = recipe(full_rank=True, retain_loss=loss, epochs=4)
    _, done, _ = run(given, wanted)
    assert all(value > 0 for value in done.retain[4:])
    if loss == "hidden-states":
        assert done.retain[1] == pytest.approx(0, abs=1e-9)


def test_muon_updates_block_matrices_only(given) -> None:
    wanted = recipe(full_rank=True, optimizer="muon", retain_coef=0.0, epochs=8)
    _, done, engine = run(given, wanted)
    assert engine.optimizer.census.counts == {"muon": 4 * 7, "adamw": 4 * 2 + 3}
    assert done.last_step(wanted)[0] < 2 / 3 * sum(done.remove[:4]) / 4


def test_embeddings_can_stay(given) -> None:
    student, _, _ = run(given, recipe(full_rank=True, train_embeddings=False, epochs=2))
    for get in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(student, get)().weight, getattr(given.original, get)().weight)


def test_corrected_stops_on_divergence_and_reported_goes_on(given) -> None:
    wild = {"full_rank": True, "retain_coef": 0.0, "learning_rate": 3.0, "epochs": 4}
    with pytest.raises(TrainingDiverged, match=r"has a loss of .*, more than 10 times the first"):
        run(given, recipe(**wild))
    wanted = recipe("v1", **wild)
    _, done, _ = run(given, wanted)
    assert done.diverged_at is not None
    assert len(done.gradient_norms) == wanted.steps.optimizer_steps
    assert done.finite


def test_weights_that_are_not_finite_are_noticed(given) -> None:
    _, done, _ = run(given, recipe("v1", full_rank=True, learning_rate=1e35, epochs=2))
    assert not done.finite


def _kill_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Fail in the middle of a step, when the micro-batch's targets are asked for."""
    asked = []
    rows = ForgetTargets.rows

    def failing(self, data, examples):
        asked.append(examples)
        if len(asked) > number:
            raise RuntimeError("killed")
        return rows(self, data, examples)

    patch.setattr(ForgetTargets, "rows", failing)


def test_a_resumed_run_is_the_uninterrupted_one(given, tmp_path: Path) -> None:
    wanted = recipe(epochs=3, lora_dropout=0.1)
    whole, expected, _ = run(given, wanted)

    folder = CheckpointFolder(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        _kill_at(patch, 17)
        with pytest.raises(RuntimeError, match="killed"):
            run(given, wanted, folder=folder, save_every=2)
    assert folder.steps() == [2, 4]
    again, done, _ = run(given, wanted, folder=CheckpointFolder(tmp_path))
    assert done == expected
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_kept_targets_and_reference_give_the_same_run(given) -> None:
    from kit.methods.checkpoint_transfer.states import MemoryStates
    from kit.methods.checkpoint_transfer.targets import keep

    wanted, data = recipe(), pairs()
    targets = ForgetTargets(given.teacher, given.maps, wanted)
    reference = RetainReference(given.original)
    groups = [range(start, start + 4) for start in range(0, 16, 4)]
    targets.kept = MemoryStates(keep(targets.compute, data, "forget", groups))
    reference.kept = MemoryStates(keep(reference.compute, data, "retain", groups))
    plain, expected, _ = run(given, wanted)
    student, done, _ = run(given, wanted, targets=targets, reference=reference)
    assert done.remove == pytest.approx(expected.remove, rel=1e-5)
    assert done.retain == pytest.approx(expected.retain, rel=1e-3, abs=1e-7)
    for a, b in zip(student.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_logged_losses_are_those_of_one_micro_batch(given) -> None:
    wanted = recipe(epochs=5)
    assert wanted.steps.last_logged == 32
    _, done, _ = run(given, wanted)
    assert done.logged(wanted) == (done.remove[32], done.retain[32])
    mean = sum(done.remove[-4:]) / 4
    assert done.last_step(wanted)[0] == pytest.approx(mean)


def test_what_does_not_fit_is_refused(given) -> None:
    wanted = recipe()
    engine = run(given, wanted)[2]
    targets = ForgetTargets(given.teacher, given.maps, wanted)
    with pytest.raises(ValueError, match="4 pairs for a recipe of 16"):
        unlearn(engine, wanted, pairs(examples=4), targets, None, seed=0)
    with pytest.raises(ValueError, match=r"an optimizer at 0\.01 for a recipe of 0\.02"):
        unlearn(engine, recipe(learning_rate=0.02), pairs(), targets, None, seed=0)
    alone = recipe("epoch-sweep", micro_batch=1, affine=False)
    several = SimpleNamespace(optimizer=engine.optimizer, world_size=2)
    with pytest.raises(ValueError, match="only the first process counts"):
        unlearn(several, alone, pairs(), SimpleNamespace(blocks=alone.blocks), None, seed=0)
    other = recipe(layers=(1, 3))
    with pytest.raises(ValueError, match="targets of blocks"):
        unlearn(engine, other, pairs(), targets, None, seed=0)
    with pytest.raises(ValueError, match="layer 4 of a model with layers 0 to 3"):
        make_student(copy.deepcopy(given.original), recipe(layers=(4,)), seed=0)
    with pytest.raises(ValueError, match="no affine map for block 0"):
        ForgetTargets(given.teacher, {1: given.maps[1]}, wanted)
    with pytest.raises(ValueError, match="affine=True; maps are given: False"):
        ForgetTargets(given.teacher, None, wanted)
    with pytest.raises(ValueError, match="the teacher must be frozen"):
        ForgetTargets(copy.deepcopy(given.teacher).train(), given.maps, wanted)


def test_block_states_of_the_recipe_are_those_it_names(given) -> None:
    """Published layer 2 is entry 2 of transformers' hidden states."""
    ids, mask = batch(1)
    states = block_outputs(given.teacher, ids, mask, recipe().blocks)
    entries = given.teacher(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for block, layer in zip(recipe().blocks, (1, 2), strict=True):
        torch.testing.assert_close(states[block][mask], entries[layer][mask])


@pytest.mark.parametrize("retain_loss", ["kl", "cross-entropy", "hidden-states"])
def test_rows_bound_memory_and_change_no_loss(given, retain_loss) -> None:
    """Micro-batches of four texts of uneven length, whole and in parts of three and one."""
    wanted = recipe(retain_loss=retain_loss, micro_batch=4)
    # Another model than the student's start, from which its distance would be rounding alone.
    whole, measured, _ = run(given, wanted, reference=RetainReference(given.teacher))
    for rows in (3, 1):
        seen: list[int] = []
        parts, sliced, _ = run(given, wanted, rows=rows, reference=_Counting(given.teacher, seen))
        assert max(seen, default=rows) <= rows
        torch.testing.assert_close(sliced.remove, measured.remove, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(sliced.retain, measured.retain, rtol=1e-3, atol=1e-6)
        for (name, mine), other in zip(parts.named_parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4, msg=name)


class _Counting(RetainReference):
    """A reference that notes how many texts it is asked for at a time."""

    def __init__(self, model, seen: list[int]) -> None:
        super().__init__(model)
        self._seen = seen

    def states(self, ids, mask, blocks):
        self._seen.append(len(ids))
        return super().states(ids, mask, blocks)
