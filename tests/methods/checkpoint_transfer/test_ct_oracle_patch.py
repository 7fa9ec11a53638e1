"""Patching a block: exact where the answer is known, and gone afterwards."""

from __future__ import annotations

import pytest
import torch

from kit.lm.generate import TransformersBackend
from kit.lm.hidden import block_outputs
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.oracle_patch import oracle_patch
from tests.methods.checkpoint_transfer.tiny import DEPTH, WIDTH, batch, model


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
@pytest.mark.parametrize("block", range(DEPTH))
def test_a_model_patched_with_itself_is_itself(kind: str, block: int) -> None:
    one, (ids, mask) = model(0, kind), batch(1)
    plain = one(ids, attention_mask=mask).logits
    with oracle_patch(one, model(0, kind), AffineMap(torch.eye(WIDTH), torch.zeros(WIDTH)), block):
        patched = one(ids, attention_mask=mask).logits
    torch.testing.assert_close(patched[mask], plain[mask])


def test_the_last_block_patched_is_the_teachers_state_read_by_the_students_head() -> None:
    student, teacher, (ids, mask) = model(0), model(1), batch(1)
    affine = AffineMap(torch.randn(WIDTH, WIDTH), torch.randn(WIDTH))
    with oracle_patch(student, teacher, affine, DEPTH - 1):
        patched = student(input_ids=ids, attention_mask=mask).logits
    raw = block_outputs(teacher, ids, mask, [DEPTH - 1])[DEPTH - 1]
    expected = student.lm_head(student.model.norm(affine(raw)))
    torch.testing.assert_close(patched[mask], expected[mask])


def test_an_early_patch_runs_the_students_later_blocks() -> None:
    """Patched at block 0 and read at block 0, the states are the teacher's; later ones are not."""
    student, teacher, (ids, mask) = model(0), model(1), batch(1)
    with oracle_patch(student, teacher, None, 0):
        states = student.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    raw = block_outputs(teacher, ids, mask, [0, 2])
    torch.testing.assert_close(states[1][mask], raw[0][mask])
    assert not torch.allclose(states[3][mask], raw[2][mask], atol=1e-3)


def test_the_patch_is_gone_afterwards() -> None:
    student, (ids, mask) = model(0), batch(1)
    plain = student(ids, attention_mask=mask).logits
    with oracle_patch(student, model(1), None, 1):
        assert not torch.equal(student(ids, attention_mask=mask).logits, plain)
    assert torch.equal(student(ids, attention_mask=mask).logits, plain)


def test_what_the_teacher_cannot_follow_is_refused() -> None:
    student, (ids, mask) = model(0), batch(1)
    cache = student(ids, attention_mask=mask, use_cache=True).past_key_values
    with oracle_patch(student, model(1), None, 1):
        with pytest.raises(ValueError, match="without a cache"):
            student(ids[:, :1], past_key_values=cache)
        with pytest.raises(ValueError, match="whole sequences of ids"):
            student(inputs_embeds=torch.zeros(1, 2, WIDTH))
    with (
        pytest.raises(ValueError, match="block 9 of a model"),
        oracle_patch(student, student, None, 9),
    ):
        pass


def test_the_kits_scorer_works_inside() -> None:
    """Log-likelihoods patched at the last block are the teacher's state read by the student."""
    student, teacher = model(0), model(1)
    pairs = [([3, 4, 5], [6]), ([7, 8], [9, 10])]
    with oracle_patch(student, teacher, None, DEPTH - 1):
        patched = TransformersBackend(student, 0).loglikelihoods(pairs)
    for (context, continuation), found in zip(pairs, patched, strict=True):
        ids = torch.tensor([[*context, *continuation]])
        raw = block_outputs(teacher, ids, None, [DEPTH - 1])[DEPTH - 1]
        scores = student.lm_head(student.model.norm(raw)).log_softmax(-1)[0]
        expected = sum(
            float(scores[len(context) + at - 1, token]) for at, token in enumerate(continuation)
        )
        assert found.total == pytest.approx(expected, rel=1e-5)


def test_a_block_may_return_more_than_its_state() -> None:
    """As the layers of older models do: only the state is another, in the student's type."""
    student, teacher, (ids, mask) = model(0), model(1), batch(1)
    layer = student.model.layers[1]
    handles = [
        layer.register_forward_hook(lambda _module, _given, output: (output.double(), "rest"))
    ]
    with oracle_patch(student, teacher, None, 1):
        seen: list[object] = []
        handles.append(
            layer.register_forward_hook(lambda _module, _given, output: seen.append(output))
        )
        handles.append(layer.register_forward_hook(lambda _m, _g, output: output[0].float()))
        student(ids, attention_mask=mask)
    for handle in handles:
        handle.remove()
    ((state, rest),) = seen  # type: ignore[misc]
    assert rest == "rest"
    assert state.dtype == torch.float64
    raw = block_outputs(teacher, ids, mask, [1])[1]
    torch.testing.assert_close(state[mask].float(), raw[mask])
