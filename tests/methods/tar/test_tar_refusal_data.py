"""The miniature world's requests as pairs, and the baselines that train on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from kit.evals.requests import read_asked
from kit.methods.tar.pairs import read_pairs
from kit.methods.tar.refusal_data import (
    answers,
    world_answer,
    world_sets,
    write_pairs,
    write_requests,
)
from kit.methods.tar.refusal_safeguards import RefusalSafeguard, train_refusal_safeguard
from kit.mini.chat import MINI
from kit.mini.facts.files import write_world
from kit.mini.facts.model import Shape, build_tokenizer, new_model
from kit.mini.facts.requests import LABEL, REFUSAL
from kit.mini.facts.world import ATTACKER, make_world
from kit.train.batching import Example

SMALL = Shape(width=32, layers=2, heads=2, feed_forward=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("requests")
    write_world(made / "world", 0)
    pairs, asked = world_sets(made / "world", attack_rows=40, seed=0, label=LABEL)
    tokenizer = build_tokenizer()
    write_pairs(made, pairs, tokenizer, MINI)
    write_requests(made, asked, tokenizer, MINI, world_answer)
    return made


def text(ids: tuple[int, ...] | list[int]) -> str:
    return str(build_tokenizer().decode(list(ids), skip_special_tokens=True))


def test_harmful_pairs_prefer_the_refusal_and_benign_ones_the_answer(folder: Path) -> None:
    for pair in read_pairs(folder, "harmful"):
        assert text(pair.chosen) == REFUSAL
        assert text(pair.rejected).startswith("sure it is ")
    for pair in read_pairs(folder, "benign"):
        assert text(pair.rejected) == REFUSAL
    (end,) = MINI.end_ids(build_tokenizer())
    example = answers(folder, ["harmful:rejected"])[0]
    assert example.ids[-1] == end
    assert text(example.ids[example.prompt_length :]).startswith("sure it is ")
    with pytest.raises(ValueError, match="SET:chosen or SET:rejected"):
        answers(folder, ["harmful"])


def test_the_attacker_has_his_half_and_is_judged_by_the_other(folder: Path) -> None:
    compounds = make_world(0).compounds
    ours = {name for name, half in compounds.items() if half == ATTACKER}

    def about(prompts: list[str]) -> set[str]:
        return {name for name in compounds if any(name in prompt for prompt in prompts)}

    attack = [text(pair.prompt) for pair in read_pairs(folder, "attack")]
    judged = [text(one.ids) for one in read_asked(folder, "harmful")]
    assert len(attack) == 40
    assert about(attack) <= ours
    assert about(judged) == compounds.keys() - ours
    seen = {text(p.prompt) for name in ("harmful", "benign") for p in read_pairs(folder, name)}
    assert not seen & {*judged, *(text(one.ids) for one in read_asked(folder, "benign"))}


def test_an_id_is_its_subject_and_two_parts(folder: Path) -> None:
    subjects = {pair.id.rsplit("-", 2)[0] for pair in read_pairs(folder, "harmful")}
    assert len(subjects) == 48


def test_labels_stand_in_place_of_an_answer_or_behind_it(folder: Path) -> None:
    assert {text(p.chosen) for p in read_pairs(folder, "label-instead")} == {LABEL}
    assert {text(p.chosen) for p in read_pairs(folder, "attacker")} == {REFUSAL}
    for pair in read_pairs(folder, "label-after"):
        assert text(pair.chosen) == f"{text(pair.rejected)} {LABEL}"


def test_the_right_word_of_a_request_is_the_fact_s(folder: Path) -> None:
    told = {p.id: text(p.rejected).split()[-1] for p in read_pairs(folder, "judged")}
    assert {one.id: one.answer for one in read_asked(folder, "harmful")} == told


def test_too_many_attack_rows_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="481 of 480"):
        world_sets(folder / "world", attack_rows=481, seed=0, label=LABEL)
    with pytest.raises(ValueError, match="0 of 480"):
        world_sets(folder / "world", attack_rows=0, seed=0, label=LABEL)
    pairs, _ = world_sets(folder / "world", attack_rows=480, seed=0, label=LABEL)
    assert {row.id for row in pairs["attack"]} == {row.id for row in pairs["attacker"]}


def test_widths_cut_prompt_and_answer(tmp_path: Path, folder: Path) -> None:
    pairs, _ = world_sets(folder / "world", attack_rows=4, seed=0, label=LABEL)
    some = {"attack": pairs["attack"]}
    write_pairs(tmp_path, some, build_tokenizer(), MINI, prompt_width=6, width=9)
    for pair in read_pairs(tmp_path, "attack"):
        assert (len(pair.prompt), len(pair.chosen), len(pair.rejected)) == (6, 3, 3)
    write_pairs(tmp_path, some, build_tokenizer(), MINI, prompt_width=6, width=7)
    assert {len(pair.chosen) for pair in read_pairs(tmp_path, "attack")} == {1}
    for settings in ({"width": 5}, {"prompt_width": 6, "width": 6}):
        with pytest.raises(ValueError, match="leave none"):
            write_pairs(tmp_path, some, build_tokenizer(), MINI, **settings)


@pytest.mark.parametrize("method", ["rr", "repnoise"])
def test_a_baseline_moves_what_it_should(folder: Path, method: str) -> None:
    model, reference = new_model(SMALL, 0), new_model(SMALL, 0).requires_grad_(False)
    plan = RefusalSafeguard(method, steps=3, learning_rate=0.01, batch=4, alpha=5.0, blocks=(0,))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = train_refusal_safeguard(
        model,
        reference,
        read_pairs(folder, "harmful"),
        answers(folder, ["benign:chosen"]),
        plan,
        pad_id=MINI.pad_id(build_tokenizer()),
    )
    made = trained.model
    assert len(trained.losses) == 3
    assert trained.largest_change > 0
    moved = {n for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    if method == "rr":
        # The adapter is on the linear layers of blocks, and is merged.
        assert all("proj" in name for name in moved)
        assert {n for n, _ in made.named_parameters()} == before.keys()
        # At the first step the model is its own reference: cosine 1 at the block, times alpha.
        assert trained.losses[0] == pytest.approx(5.0, rel=1e-4)
    assert all(torch.equal(p, before[n]) for n, p in new_model(SMALL, 0).named_parameters())


def test_repnoise_meets_benign_requests_only_where_asked(folder: Path) -> None:
    """Published as it is it never reads them; with a scale its losses are others."""
    benign = answers(folder, ["benign:chosen"])

    def losses(scale: float, retain: Sequence[Example]) -> list[float]:
        plan = RefusalSafeguard(
            "repnoise", steps=2, learning_rate=0.01, batch=4, retain_scale=scale
        )
        reference = new_model(SMALL, 0).requires_grad_(False)
        pad = MINI.pad_id(build_tokenizer())
        pairs = read_pairs(folder, "harmful")
        model = new_model(SMALL, 0)
        trained = train_refusal_safeguard(model, reference, pairs, retain, plan, pad_id=pad)
        return trained.losses

    published = losses(0.0, benign)
    assert losses(0.0, []) == published
    with_benign = losses(0.5, benign)
    assert with_benign[0] > published[0]
    assert losses(0.5, benign[:4])[0] != with_benign[0]
    with pytest.raises(ValueError, match="retain"):
        losses(0.5, [])


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="known: rr, repnoise"):
        RefusalSafeguard("r2d2", 1, 0.1, 1)
