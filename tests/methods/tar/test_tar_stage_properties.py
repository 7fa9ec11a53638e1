"""How texts are divided for TAR, which adversaries there are, what an engine is made with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.methods.tar import stages
from kit.methods.tar.adversaries import AdversaryType
from kit.methods.tar.gather import tabulate
from kit.methods.tar.pairs import with_reference
from kit.methods.tar.presets import preset
from kit.methods.tar.refusal import RefusalData, train_refusal
from kit.methods.tar.refusal_published import published_pairs
from kit.methods.tar.stages import (
    SafeguardPlan,
    divided,
    simulated,
    train_by_terms,
    train_outer_loop,
)
from kit.methods.tar.win_rates import FinishedTraining, tabulate_win_rates
from kit.tampering.watched import FinishedAttack
from kit.train.batching import Example
from kit.train.engine import Precision
from tests.methods.tar.conftest import build_model
from tests.methods.tar.test_tar_gather import ROLES, trajectory
from tests.methods.tar.test_tar_refusal import reference, retained, settings, stored
from tests.methods.tar.test_tar_refusal_published import NO, written
from tests.refused import refused


def texts(number: int, each: int = 1) -> list[Example]:
    return [Example(f"s{i // each}-{i % each}-0", (1, 2, 3), 1) for i in range(number)]


@pytest.mark.parametrize(
    ("number", "share", "adversary"),
    [(4, 0.5, 2), (5, 0.5, 2), (4, 0.24, None), (4, 0.25, 1), (4, 0.99, 3), (4, 1.0, None),
     (10, 0.8, 8), (1, 0.5, None)],
)  # fmt: skip
def test_forget_texts_are_divided_by_their_share(
    number: int, share: float, adversary: int | None
) -> None:
    for by in ("text", "subject"):
        act = lambda by=by: divided(texts(number), share, by=by, seed=0)  # noqa: E731
        refused(act, adversary is None, "leaves a part empty")
        if adversary is not None:
            made = act()
            assert (len(made.adversary), len(made.held_out)) == (adversary, number - adversary)
            assert {e.id for e in (*made.adversary, *made.held_out)} == {
                e.id for e in texts(number)
            }


def test_a_subject_stays_on_one_side_and_the_order_of_the_texts_is_kept() -> None:
    made = divided(texts(12, each=3), 0.5, by="subject", seed=1)
    sides = [{e.id.partition("-")[0] for e in side} for side in (made.adversary, made.held_out)]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [2, 2]
    for given in (texts(12, each=3)[::-1], texts(12, each=3)):  # whatever order they come in
        again = divided(given, 0.5, by="subject", seed=1)
        assert {e.id for e in again.adversary} == {e.id for e in made.adversary}
        assert [e.id for e in again.adversary] == [
            e.id for e in given if e.id in {m.id for m in made.adversary}
        ]
    assert divided(texts(12), 0.5, by="text", seed=1) != divided(texts(12), 0.5, by="text", seed=2)
    with pytest.raises(ValueError, match="'text' or 'subject'"):
        divided(texts(4), 0.5, by="fact", seed=0)


def test_simulated_adversaries_from_plain_values() -> None:
    assert simulated({"width": 0, "every": None, "rates": [1, 2]}, [], []) == {
        "width": None, "rates": (1, 2),
    }  # fmt: skip
    assert simulated({"width": 5}, [], []) == {"width": 5}
    alike = simulated({}, ["retain-then-forget", "forget"], [])["adversaries"]
    assert alike == (
        AdversaryType("retain-then-forget", "forget", first="retain", share=1.0),
        AdversaryType("forget", "forget", share=1.0),
    )
    shared = simulated({}, ["forget", "retain"], [0.25, 3.0])["adversaries"]
    assert [kind.share for kind in shared] == [0.25, 3.0]
    for shares in ([1.0], [1.0, 1.0, 1.0]):
        refused(lambda s=shares: simulated({}, ["forget", "retain"], s), True, "for 2 adversaries")
    with pytest.raises(ValueError, match="unknown adversary 'a'"):
        simulated({}, ["c", "a", "b", "forget"], [])


class Stop(Exception):
    """What a planted engine says instead of training."""


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(None, Precision()), (Precision("bfloat16"), Precision("bfloat16")),
     (Precision("bfloat16", "bfloat16"), Precision("bfloat16", "bfloat16"))],
)  # fmt: skip
def test_a_training_computes_in_the_types_that_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: Any, wanted: Precision
) -> None:
    made: list[Any] = []

    def make(model: Any, spec: Any, precision: Any) -> Any:
        made.append((spec, precision))
        raise Stop

    examples = texts(8)
    monkeypatch.setattr(stages, "text_examples", lambda *_, **__: examples)
    model = build_model(0).float()
    pairs = with_reference(stored(), reference(), rows=5, pad_id=0)
    plan = SafeguardPlan("llmu", 2, 0.01, 4)
    loop = preset("paper", "bio", **simulated({}, ["forget", "retain"], []))
    how: dict[str, Any] = {"make_engine": make, "precision": given}
    for act in (
        lambda: train_refusal(
            model, reference(), RefusalData(pairs, retained()), settings(), seed=0, pad_id=0, **how
        ),
        lambda: train_by_terms(
            model, model, SimpleNamespace(), tmp_path, plan,  # type: ignore[arg-type]
            forget=["f"], retain=["r"], **how,
        ),
        lambda: train_outer_loop(
            model, reference(), SimpleNamespace(), tmp_path, loop,  # type: ignore[arg-type]
            forget=["f"], retain=["r"], adversary_share=0.5, divide_by="text", seed=0, **how,
        ),
    ):  # fmt: skip
        with pytest.raises(Stop):
            act()
    assert [precision for _, precision in made] == [wanted] * 3
    assert made[1][0].weight_decay == 0
    assert made[2][0].learning_rate == loop.outer_learning_rate


def test_of_equal_attacks_the_first_is_named(tmp_path: Path) -> None:
    attacks = [
        FinishedAttack(f"attack-{name}", trajectory(tmp_path, name, [5, 5]), {"seed": seed})
        for seed, name in enumerate("abc")
    ]
    _, outcomes = tabulate(attacks, ROLES, forget="forget")
    ((_, detail, _),) = outcomes.values()
    assert detail.endswith("in attack-a")


def test_only_the_beginning_of_a_conversation_is_read(tmp_path: Path) -> None:
    """A question with its answer, whatever follows; a conversation of one turn has none."""
    files = written(tmp_path)
    first, second = ({"from": who, "value": text} for who, text in (("human", "q"), ("gpt", "a")))
    talks = [[first, second, first], [first, second], [first], [second, first], [first, first]]
    files["magpie"][0].write_text("".join(json.dumps({"conversations": t}) + "\n" for t in talks))
    made = published_pairs(files, NO)["benign"]
    assert [(pair.id, pair.prompt, pair.chosen) for pair in made] == [
        ("benign-000000", "q", "a"), ("benign-000001", "q", "a"),
    ]  # fmt: skip


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_a_training_are_means_of_their_own_steps(tmp_path: Path, parts: int) -> None:
    won = [0.0, 0.5, 1.0, 0.25, 0.75]
    record = {
        "steps": [{"attacks": [{"won": share}]} for share in won],
        "measured": [[0, {"margins": [-0.25, 0.125]}], [5, {"margins": [0.5, -1.0]}]],
        "judged": ["a", "b"],
    }
    path = tmp_path / "training.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    table, largest = tabulate_win_rates([FinishedTraining("t", path, {})], {}, parts=parts)
    assert largest == 0.25
    cells = {cell.id: cell.value for cell in table.cells}
    ends = [len(won) * part // parts for part in range(parts + 1)]
    for part in range(parts):
        own = won[ends[part] : ends[part + 1]]
        value = cells[f"all/win-rate/part-{part + 1}-attacked"]
        assert value == pytest.approx(100 * sum(own) / len(own))
    assert cells["all/win-rate/end-safeguarded"] == 50
    assert cells["all/margin/start"] == pytest.approx(-0.0625)
    assert cells["all/margin/end"] == pytest.approx(-0.25)
    lines = {name: curves[0].points for s in table.series for name, curves in s.lines.items()}
    assert [(p.x, p.value) for p in lines["attacked"]] == [
        (number, 100 * share) for number, share in enumerate(won, start=1)
    ]
    assert [(p.x, p.value, p.k, p.n) for p in lines["safeguarded"]] == [(5, 50.0, 1, 2)]
    with pytest.raises(ValueError, match="5 simulated attacks for 6 parts"):
        tabulate_win_rates([FinishedTraining("t", path, {})], {}, parts=6)
    refused(lambda: tabulate_win_rates([FinishedTraining("t", path, {})], {}, parts=5), wrong=False)
