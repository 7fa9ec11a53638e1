"""Memory and time of sharded training, term by term, of a shape that is reckoned by hand.

The constants that were fitted are the module's; against records they are held in
test_train_plan.py. Here every term has its number, and none of the others'.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.train import costs
from kit.train.costs import (
    ModelShape,
    Setting,
    batch_seconds,
    held,
    moved_seconds,
    pass_seconds,
    passing,
)
from kit.train.errors import TrainingDiverged
from kit.train.plan import Attack, Plan, count

SHAPE = ModelShape(parameters=1_000_000, layers=10, hidden=100, intermediate=300, vocabulary=1000)
FSDP = Setting(4, 2, "fsdp")
ZERO3 = replace(FSDP, engine="zero-3")
LAYER = 2 * (costs._HIDDEN * 100 + costs._WIDE * 300)
"""Bytes a token that a layer keeps."""
SCORE = costs._SCORES * 1000
"""Bytes a token of the scores."""


def test_what_stands_around_the_layers() -> None:
    assert SHAPE.edge == 200_000
    assert SHAPE.products == 900_000


def test_fp32_masters_and_gradients_are_held_and_zero_3_has_bf16_copies_and_a_bucket() -> None:
    assert held(SHAPE, FSDP) == pytest.approx(8 * 250_000 + costs._CONTEXT)
    assert held(SHAPE, replace(FSDP, gpus=1)) == pytest.approx(8e6 + costs._CONTEXT)
    own = 2 * 250_000 + 4 * 1_000_000  # the bucket is no larger than the model
    assert held(SHAPE, ZERO3) == pytest.approx(8 * 250_000 + own + costs._CONTEXT)
    large = replace(SHAPE, parameters=8 * costs._BUCKET)
    extra = held(large, ZERO3) - held(large, FSDP)
    assert extra == pytest.approx(2 * 2 * costs._BUCKET + 4 * costs._BUCKET)


@pytest.mark.parametrize("tokens", [50, 8192])
def test_a_pass_keeps_activations_scores_and_gathered_weights(tokens: int) -> None:
    scores = min(tokens, costs.CHUNK) * SCORE
    kept = 10 * LAYER * tokens
    around = 200_000 + 2 * 80_000  # both matrices and two layers of 80,000
    low = replace(FSDP, communication="bfloat16")
    floor = (2 + 4 / 4 + 1) * 200_000
    assert passing(SHAPE, low, tokens) == pytest.approx(max(2 * around + kept + scores, floor))
    stays = replace(low, weights_stay=True)
    assert passing(SHAPE, stays, tokens) == pytest.approx(2_000_000 + kept + scores)
    again = replace(low, checkpointing=True)
    inputs = tokens * 2 * 10 * 100
    assert passing(SHAPE, again, tokens) == pytest.approx(
        max(2 * around + inputs + LAYER * tokens + scores, floor)
    )
    assert passing(SHAPE, replace(ZERO3), tokens) == pytest.approx(2_000_000 + kept + scores)
    compiled = replace(stays, compiled=True)
    spared = 10 * tokens * 2 * (costs._WIDE - costs._WIDE_COMPILED) * 300
    assert passing(SHAPE, stays, tokens) - passing(SHAPE, compiled, tokens) == spared


def test_zero_3_has_no_more_gathered_than_may_live() -> None:
    large = replace(SHAPE, parameters=8 * costs._LIVE)
    assert passing(large, ZERO3, 0) == 2 * costs._LIVE


@pytest.mark.parametrize(("communication", "each"), [("float32", 4), ("bfloat16", 2)])
def test_a_short_pass_still_reduces_what_stands_around_the_layers(
    communication: str, each: int
) -> None:
    """A whole gradient in the type of the sum, the reduced piece, a bf16 gradient of a matrix."""
    edge_alone = replace(SHAPE, parameters=200_000, vocabulary=1000)
    setting = replace(FSDP, communication=communication)
    gathered = 2 * 200_000
    assert passing(edge_alone, setting, 0) == pytest.approx(
        max(gathered, (each + 4 / 4 + 1) * 200_000)
    )


def test_seconds_of_a_pass_grow_with_layers_and_tokens() -> None:
    layer, speed = costs._SPEED["fsdp", False]
    moved = 2 * 1_000_000 / costs._NVLINK
    assert pass_seconds(SHAPE, FSDP, 0) == pytest.approx(10 * layer + moved)
    stays = replace(FSDP, weights_stay=True)
    assert pass_seconds(SHAPE, stays, 0) == pytest.approx(10 * layer)
    work = 6 * 900_000 * 10**9 / speed
    assert pass_seconds(SHAPE, stays, 10**9) - pass_seconds(SHAPE, stays, 0) == pytest.approx(work)
    again = replace(stays, checkpointing=True)
    assert pass_seconds(SHAPE, again, 10**9) - 10 * layer == pytest.approx(work * 4 / 3)
    quick, fast = costs._SPEED["fsdp", True]
    compiled = pass_seconds(SHAPE, replace(stays, compiled=True), 10**9)
    assert compiled == pytest.approx(10 * quick + 6 * 900_000 * 10**9 / fast)
    whole, slow = costs._SPEED["zero-3", False]  # what was not measured compiled is as it is plain
    for setting in (ZERO3, replace(ZERO3, compiled=True), replace(ZERO3, weights_stay=True)):
        assert pass_seconds(SHAPE, setting, 10**9) == pytest.approx(
            10 * whole + 6 * 900_000 * 10**9 / slow
        )


@pytest.mark.parametrize(
    ("batch", "passes"), [(8, [20]), (16, [20, 20]), (12, [20, 10]), (4, [10]), (9, [20, 10])]
)
def test_a_batch_is_its_passes(batch: int, passes: list[int]) -> None:
    """Rows of four GPUs, two a pass, of ten tokens."""
    seconds = batch_seconds(SHAPE, FSDP, batch, 10)
    assert seconds == pytest.approx(sum(pass_seconds(SHAPE, FSDP, tokens) for tokens in passes))


def test_what_is_moved_takes_the_bus() -> None:
    def seconds(**where: str) -> float:
        return moved_seconds(SHAPE, replace(FSDP, **where), tampers=3, retain=17)  # type: ignore[arg-type]

    both = costs._BUS_BOTH_WAYS
    assert seconds() == 0
    assert seconds(snapshot="cpu") == pytest.approx(2 * 4 * 250_000 / both)
    assert seconds(outer_state="offloaded") == pytest.approx(
        2 * costs.SCHEDULE_FREE * 250_000 / both
    )
    assert seconds(collected="offloaded") == pytest.approx(3 * 2 * 4 * 250_000 / both)
    # 17 rows on 4 GPUs, 2 a pass: 3 passes, each of which reads all of the bf16 model.
    assert seconds(reference="offloaded") == pytest.approx(3 * 2 * 1_000_000 / costs._BUS)
    everything = {"snapshot": "cpu", "outer_state": "offloaded", "collected": "offloaded",
                  "reference": "offloaded"}  # fmt: skip
    assert seconds(**everything) == pytest.approx(
        sum(seconds(**{name: where}) for name, where in everything.items())
    )


def test_an_attack_that_is_measured_holds_the_model_and_the_scores() -> None:
    plain, asked = (count(FSDP, SHAPE, Attack(8, 10, measured=m)) for m in (False, True))
    more = (asked.peak_gib["measuring"] - plain.peak_gib["measuring"]) * costs.GIB
    assert more == pytest.approx(2_000_000 + 4 * costs.SCORES, rel=0.01)
    always = held(SHAPE, FSDP) + costs.ADAM * 250_000
    step = asked.peak_gib["training step"] * costs.GIB
    assert step == pytest.approx(always + passing(SHAPE, FSDP, 20), rel=0.01)
    assert (asked.host_gib, asked.passes) == (0.0, {"training": 1})


def test_a_plan_in_words_says_what_was_chosen() -> None:
    setting = replace(FSDP, compiled=True, checkpointing=True, outer_state="offloaded")
    made = Plan(setting, {"training": 2}, {"a": 1.26, "b": 0.5})
    assert made.highest == 1.26
    assert made.words() == (
        "GPUs: 4, fsdp, compiled; 2 rows a pass; passes for training: 2; layers computed again; "
        "offloaded: outer state; 1.3 GiB a GPU (a)"
    )
    plain = replace(made, setting=FSDP, peak_gib={"a": 1.0, "b": 2.0}).words()
    assert "fsdp; 2 rows" in plain
    assert "nothing computed again; offloaded: nothing; 2.0 GiB a GPU (b)" in plain


@pytest.mark.parametrize(
    ("ids", "shown"), [("", ""), ("abcd", "a, b, c, d"), ("abcde", "a, b, c, d, ...")]
)
@pytest.mark.parametrize(("kept", "words"), [(None, "none"), (0, "step 0")])
def test_a_diverged_training_names_some_examples_and_its_checkpoint(
    ids: str, shown: str, kept: int | None, words: str
) -> None:
    error = TrainingDiverged(7, list(ids), kept, "is odd")
    assert str(error) == f"step 7 is odd (examples {shown}); last good checkpoint: {words}"
    assert (error.step, error.batch_ids, error.last_good_checkpoint) == (7, tuple(ids), kept)
