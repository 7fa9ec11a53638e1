"""Claims look at the cells that their sentences are about."""

from __future__ import annotations

import re

import pytest

from kit.manifest.expectation_types import Claim, Expectation
from tests.steps.test_kinds import CATALOG, EXPERIMENTS

PUBLISHED = "published baseline"
STEPS = (25, 50, 100, 150, 200)


def expectation(experiment: str) -> Expectation:
    made = CATALOG.expectation(experiment, "paper")
    assert made is not None
    return made


def claim(experiment: str, id: str) -> Claim:
    return next(one for one in expectation(experiment).claims if one.id == id)


def test_a_quoted_gap_ratio_is_asked_of_the_cell_that_prints_it() -> None:
    # The note prints two ratios of one row: against the published and the measured full tokens.
    asked = []
    for experiment in EXPERIMENTS:
        made = CATALOG.expectation(experiment, "paper")
        printed = {cell.id: cell.value for cell in made.cells} if made is not None else {}
        for one in made.claims if made is not None else []:
            quoted = re.search(r"[Gg]ap-closed ratio (?:of )?(0\.\d+)", one.sentence)
            asked += [(one.id, cell, quoted[1], printed.get(cell)) for cell in one.cells if quoted]
    assert len(asked) >= 2
    for id, cell, ratio, value in asked:
        assert "/gap-closed-published/" in cell, id
        assert value in (None, ratio), id
    assert any(value == ratio for _, _, ratio, value in asked)


def test_needing_100_steps_is_asked_of_the_steps_before() -> None:
    needs = claim("tiny-adapt-random-init", "scratch-needs-100")
    assert needs.side == "at_least"
    assert [cell.rpartition("-")[2] for cell in needs.cells] == ["25", "50"]
    reached = claim("tiny-adapt-random-init", "scratch-below-five-by-100")
    assert (reached.side, reached.value) == ("at_most", needs.value)


def test_never_is_asked_of_every_checkpoint() -> None:
    never = claim("tiny-adapt-random-init", "never-below-two")
    assert never.cells == [f"llama3-to-llama31/asr-max/scratch-{step}" for step in STEPS]


def test_the_pipeline_claim_is_the_notes_own_sentence() -> None:
    assert claim("tiny-adapt", "pipeline-17x").sentence == (
        "Total pipeline including self-labeling is ~55 minutes, still ~17x faster than full DT "
        "training."
    )


def test_the_notes_losses_are_compared_with_what_its_log_prints() -> None:
    manifest, made = CATALOG.manifest("tiny-adapt"), expectation("tiny-adapt")
    settings = manifest.profiles["paper"].set
    losses = {cell.id for cell in made.cells if cell.unit == "loss"}
    assert losses == {f"llama3-to-llama31/loss-{one}-printed/adapt" for one in ("first", "last")}
    assert settings["table"]["loss_divisor"].value == settings["adapt"]["accumulation"].value


@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_no_held_out_claim_looks_at_a_checkpoint_chosen_on_the_test(profile: str) -> None:
    made = CATALOG.expectation("tiny-adapt-heldout", profile)
    assert made is not None
    pairs = [cell for one in made.claims for pair in one.pairs for cell in pair]
    looked_at = pairs + [cell for one in made.claims for cell in one.cells]
    assert looked_at
    assert not [cell for cell in looked_at if "-best" in cell]
