"""What stands at a limit itself: the last value that is taken, and numbers that meet their rule."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.evals.judge_audit import KINDS, RIGHT_OF_FOUR, Audit
from kit.evals.judged_sets import standin, summary
from kit.evals.judges import read_rating
from kit.evals.proportion import Proportion
from kit.methods.checkpoint_transfer.affine import AffineMap, HeldOutError, maps_for
from kit.methods.checkpoint_transfer.affine_files import load_maps, save_maps
from kit.methods.checkpoint_transfer.counting import coefficients
from kit.methods.checkpoint_transfer.losses import cross_entropy_retain
from kit.methods.checkpoint_transfer.pairs import Pairs
from kit.methods.checkpoint_transfer.standin import standin_mmlu
from kit.methods.checkpoint_transfer.student import make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import ForgetTargets
from kit.methods.checkpoint_transfer.texts import choose_texts
from kit.methods.checkpoint_transfer.unlearn import unlearn
from kit.methods.defensive_tokens.checkpoint_choice import chosen_step
from kit.methods.defensive_tokens.geometry import geometry
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.utility import METRIC, add_utility
from kit.methods.tar.adversaries import AdversaryType, draw_adversary
from kit.methods.tar.dpo import won
from kit.methods.tar.label_study import LabelTraining
from kit.methods.tar.published import halved
from kit.methods.tar.win_rates import FinishedTraining, tabulate_win_rates
from kit.results.builder import TableBuilder
from kit.train.single_process import SingleProcess
from tests.methods.checkpoint_transfer.small_run import pairs, recipe, run, setting

ONE = AffineMap(torch.eye(1), torch.zeros(1))


def _saved(folder: Path) -> Any:
    save_maps(folder, {-1: ONE}, alpha=0.0, provenance={}, fit={}, held_out={})
    return load_maps(folder)


def _texts(**given: int) -> Any:
    values = {"pairs": 2, "fit": 2, "held_out": 1, **given}
    return choose_texts(
        ["a", "b"], ["c", "d", "e"], lambda text: [ord(text)], seed=0, most_tokens=1, **values
    )


def _adversary(first: float, second: float) -> str:
    kinds = [AdversaryType("x", "x", first), AdversaryType("y", "y", second)]
    return draw_adversary(kinds, [1.0], inner_steps=1, seed=0, outer_step=0).type.name


TAKEN: list[tuple[str, Callable[[Path], Any], Any]] = [
    ("what enters block 0", lambda _: list(maps_for({-1: ONE}, [-1], width=1, depth=1)), [-1]),
    ("maps of width 1 and layer 0", lambda folder: list(_saved(folder)), [-1]),
    ("a ramp of one micro-batch", lambda _: coefficients(1, retain=2, remove=4, ramp=1).retain, 2),
    ("nothing to retain", lambda _: coefficients(0, retain=0, remove=4, ramp=1).remove, 4),
    ("all questions of STEM", lambda _: len(standin_mmlu(3, 3, 0)), 3),
    ("documents that are just enough", lambda _: len(_texts().fit), 2),
    ("micro-batches that are a pass", lambda _: PrefixTraining(
        learning_rate=1.0, steps=1, micro_batch=16, precision="table").forward_rows, 16),
    ("the first trained step", lambda _: chosen_step({"0": 0.0, "1": 5.0}), 1),
    ("an adversary that is never drawn", lambda _: _adversary(0.0, 1.0), "y"),
    ("half of two", lambda _: LabelTraining("sft", 1, 1.0, 2).batch, 2),
    ("two items to divide", lambda _: sorted(map(len, halved([1, 2]))), [1, 1]),
    ("all of one", lambda _: Proportion(1, 1).value, 1.0),
    ("none of one", lambda _: Proportion(0, 1).value, 0.0),
    ("the lowest rating", lambda _: read_rating("[[1]]"), 1.0),
    ("the highest rating", lambda _: read_rating("[[10]]"), 10.0),
    ("a rating below", lambda _: read_rating("[[0.9]]"), None),
    ("a rating above", lambda _: read_rating("[[10.1]]"), None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("made", "expected"), [one[1:] for one in TAKEN], ids=[t[0] for t in TAKEN]
)
def test_the_last_value_that_is_taken(
    made: Callable[[Path], Any], expected: Any, tmp_path: Path
) -> None:
    assert made(tmp_path) == expected


def test_a_pair_that_is_level_is_not_won() -> None:
    assert won(torch.tensor([-1e-9, 0.0, 1e-9])).tolist() == [False, False, True]


def test_one_vector_has_no_neighbours() -> None:
    assert geometry(torch.ones(1, 3), torch.ones(1, 3)).mean_within == 0.0


@pytest.mark.parametrize(("error", "r2"), [(0.0, 1.0), (1.0, -math.inf)])
def test_states_that_are_all_alike_are_explained_wholly_or_not_at_all(
    error: float, r2: float
) -> None:
    held, same = HeldOutError(None), torch.full((1, 3, 2), 5.0)
    held.add(same + error, same, torch.ones(1, 3, dtype=torch.bool))
    assert held.result().r2 == r2
    assert held.result().mse == error


@pytest.mark.parametrize(
    ("right", "passed"), [(RIGHT_OF_FOUR, True), (RIGHT_OF_FOUR - 1, False), (4, True)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_audit_needs_its_share_of_each_kind(kind: str, right: int, passed: bool) -> None:
    """A judge that guesses passes by chance in three of a hundred audits."""
    found = dict.fromkeys(KINDS, 4) | {kind: right}
    assert Audit(found, dict.fromkeys(KINDS, 4), 0).passed is passed
    chance = sum(math.comb(4, k) for k in range(RIGHT_OF_FOUR, 5)) / 2**4
    assert round(100 * chance ** len(KINDS)) == 3


def test_a_value_at_the_threshold_is_a_hit() -> None:
    whole = standin("mt-bench")
    at = whole.judge.threshold
    values: list[list[float | None]] = [[at, None], [at - 1e-9, at], [None, at]]
    said = summary(whole, values, [("a", " "), ("", "b"), ("c", "d")])
    assert said["hits"] == [1, 0, 0]
    assert (said["unreadable"], said["verdicts"], said["empty"], said["answers"]) == (2, 6, 2, 6)
    assert said["mean"] == pytest.approx(at)


@pytest.mark.parametrize(("value", "taken"), [(0, True), (100, True), (-0.1, False), (101, False)])
def test_utility_is_a_percentage(value: float, taken: bool) -> None:
    table = TableBuilder()
    if not taken:
        with pytest.raises(ValueError, match="no percentage"):
            add_utility(table, ["g"], ["a"], {"g/a": value}, "no judge")
        return
    add_utility(table, ["g"], ["a", "b"], {"g/a": value}, "no judge")
    cells = {cell.id: cell for cell in table.build().cells}
    assert cells[f"g/{METRIC}/a"].value == value
    assert cells[f"g/{METRIC}/b"].not_run == "no judge"


def test_an_attack_for_each_part_is_enough_and_a_level_margin_is_no_win(tmp_path: Path) -> None:
    record = {
        "steps": [{"attacks": [{"won": share}]} for share in (0.0, 1.0)],
        "measured": [[0, {"margins": [0.0]}], [2, {"margins": [0.0]}]],
        "judged": ["p"],
    }
    path = tmp_path / "training.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    done = FinishedTraining("loop[seed=0]", path, {"seed": 0})
    table, _ = tabulate_win_rates([done], {"seed": "replicate"}, parts=2)
    made = {cell.id: cell.value for cell in table.cells}
    assert made["all/win-rate/end-safeguarded"] == 0
    assert [made[f"all/win-rate/part-{part}-attacked"] for part in (1, 2)] == [0, 100]


@pytest.fixture(scope="module")
def given() -> Any:
    torch.set_num_threads(1)
    return setting()


def test_a_term_without_weight_is_not_computed(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of circuit breakers' schedule nothing is pulled to any target."""
    wanted = recipe(coefficient_schedule="circuit-breakers", epochs=2)
    asked: list[Any] = []
    rows = ForgetTargets.rows

    def noted(targets: Any, data: Any, examples: Any) -> Any:
        asked.append(examples)
        return rows(targets, data, examples)

    monkeypatch.setattr(ForgetTargets, "rows", noted)
    _, done, _ = run(given, wanted)
    assert len(asked) == 8
    assert all(value > 0 for value in done.remove[:8])
    assert done.remove[8:] == [0.0] * 8
    assert done.retain[0] == 0.0


def test_a_text_of_one_token_has_no_part_in_a_cross_entropy(given: Any) -> None:
    """Alone in a pass there is nothing to predict; its micro-batch has the other's loss."""
    wanted = recipe(retain_loss="cross-entropy", examples=8)
    whole = pairs(examples=8)
    data = Pairs(whole.forget, [whole.retain[0][:1], *whole.retain[1:]], pad_id=0)
    with pytest.raises(ValueError, match="at least one token"):
        cross_entropy_retain(torch.ones(1, 1, dtype=torch.long), torch.zeros(1, 1, 4), None)
    losses = []
    for rows in (None, 1):
        student = make_student(copy.deepcopy(given.original), wanted, seed=3)
        engine = SingleProcess(student, optimizer_spec(wanted))
        targets = ForgetTargets(given.teacher, given.maps, wanted)
        losses.append(unlearn(engine, wanted, data, targets, None, seed=0, rows=rows).retain)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
