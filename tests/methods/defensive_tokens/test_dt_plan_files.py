"""Plans on disk: only what is consumed, renumbered, and with the same meaning."""

from __future__ import annotations

import json

import pytest

from kit.methods.defensive_tokens import attacks
from kit.methods.defensive_tokens.plan_files import FILES, count_kinds, load_plan, save_plan
from kit.methods.defensive_tokens.recipe import Plan, plan_mixture
from kit.methods.defensive_tokens.samples import Sample
from kit.methods.defensive_tokens.schedule import Schedule
from kit.methods.defensive_tokens.struq import TrainingItem
from tests.lm.tiny_world import TEXTS, samples

POOL = samples(60, every_empty=4)


def plan_of(mixture="proper", steps=5, batch=4, seed=3, pool=POOL):
    return plan_mixture(
        pool, TEXTS, attacks.MINI, mixture=mixture, steps=steps, batch=batch, seed=seed
    )


def consumed(plan):
    """What training sees, step by step: everything but the numbers of the items."""
    return [
        [(plan.items[i], plan.samples[plan.items[i].sample_id]) for i in plan.schedule.step(s)]
        for s in range(plan.schedule.steps)
    ]


@pytest.mark.parametrize("mixture", ["proper", "as-reported"])
@pytest.mark.parametrize("steps", [1, 5, 40])
def test_the_schedule_means_the_same_after_renumbering(tmp_path, mixture, steps):
    plan = plan_of(mixture, steps)
    save_plan(tmp_path, plan)
    loaded = load_plan(tmp_path)
    assert consumed(loaded) == consumed(plan)
    assert loaded.samples == plan.samples
    assert count_kinds(loaded) == count_kinds(plan)
    assert (loaded.schedule.steps, loaded.schedule.batch) == (steps, 4)


def test_only_consumed_items_are_kept_in_the_order_of_first_use(tmp_path):
    plan = plan_of(steps=3)
    save_plan(tmp_path, plan)
    loaded = load_plan(tmp_path)
    assert len(loaded.items) == 12 < len(plan.items)
    assert loaded.schedule.order == tuple(range(12))
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_labels_follow_their_sample_through_the_shuffling(tmp_path):
    """A label is looked up by sample id: every item finds the answer of its own question."""
    plan = plan_of(steps=40)
    save_plan(tmp_path, plan)
    loaded = load_plan(tmp_path)
    originals = {sample.id: sample for sample in POOL}
    labels = {id: f"answer to {sample.output}" for id, sample in loaded.samples.items()}
    assert loaded.schedule.order != tuple(sorted(loaded.schedule.order))
    for index in loaded.schedule.order:
        item = loaded.items[index]
        assert item.id.startswith(item.sample_id + "/")
        assert item.instruction.startswith(originals[item.sample_id].instruction)
        assert labels[item.sample_id] == f"answer to {originals[item.sample_id].output}"


def test_saving_what_was_loaded_changes_no_byte(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    save_plan(first, plan_of())
    save_plan(second, load_plan(first))
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\u2028 and \x85", "\u00e9\U0001f600", '"\\'])
def test_texts_survive_line_ends_and_other_alphabets(tmp_path, text):
    sample = Sample("s", text, text, text)
    item = TrainingItem("s/clean", "s", "none", text, None, None, text)
    plan = Plan((item,), Schedule((0, 0), 1, 2), {"s": sample})
    save_plan(tmp_path, plan)
    assert load_plan(tmp_path) == plan


def test_kinds_are_counted_as_often_as_they_are_consumed():
    plan = plan_of(steps=40)
    counts = count_kinds(plan)
    assert sum(counts.values()) == 160
    kinds = [plan.items[i].kind for i in plan.schedule.order]
    assert counts == {kind: kinds.count(kind) for kind in set(kinds)}


def test_a_mixture_is_made_by_its_seed_alone():
    assert plan_of() == plan_of()
    assert plan_of(seed=4).schedule != plan_of().schedule


def test_repeated_sample_ids_are_refused():
    with pytest.raises(ValueError, match="not unique"):
        plan_of(pool=[*POOL, POOL[0]])


def test_files_are_plain_lines(tmp_path):
    save_plan(tmp_path, plan_of(steps=2))
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert set(rows[0]) >= {"id", "sample_id", "kind", "instruction", "data"}
    assert json.loads((tmp_path / "schedule.json").read_text())["batch"] == 4
