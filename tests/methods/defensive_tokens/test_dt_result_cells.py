"""The scores of one evaluated model as cells: ids, rules, gaps, statistics."""

from __future__ import annotations

import pytest

from kit.methods.defensive_tokens.result_cells import (
    add_scores,
    add_statistics,
    any_label,
    best_checkpoints,
    max_label,
)
from kit.results.axes import Origin
from kit.results.builder import TableBuilder

ITEMS = ("a", "b", "c", "d")
NONE, HALF, ONE = [1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0]
ZERO = [0, 0, 0, 0]


def scores(ignore, completion=ZERO, *, accuracy=NONE):
    return {
        "items": list(ITEMS),
        "asr": {"ignore": ignore, "completion": completion, "naive": NONE},
        "asr_anywhere": {"ignore": ignore, "completion": HALF, "naive": NONE},
        "refusal": {"as-reported": ONE, "first-sentence": ZERO},
        "accuracy": {"benign": accuracy, "ignore_completion": HALF} if accuracy else {},
    }


TABLE = {"undefended": scores(NONE), "native": scores(ZERO), "adapt-5": scores(HALF, ONE)}


NEAR = Origin("near", "p1/7", (), "evaluate")


def measured(sets=TABLE, origin=NEAR, *, native="native", published=None, rule="as-reported"):
    table = TableBuilder()
    add_scores(table.at(origin), sets, native=native, published_full=published, refusal_rule=rule)
    return table.build()


def values(table):
    return {cell.id: cell.value for cell in table.cells}


def test_every_proportion_of_a_set_has_an_id_of_its_own():
    value = values(measured())
    assert value["near/asr-ignore/adapt-5"] == 50.0
    assert value["near/asr-completion/adapt-5"] == 25.0
    assert value["near/refusal/adapt-5"] == 25.0
    assert value["near/refusal-first-sentence/adapt-5"] == 0.0
    assert value["near/accuracy/adapt-5"] == 100.0
    assert value["near/accuracy-ignore-completion/adapt-5"] == 50.0


def test_the_in_response_rule_stands_beside_the_published_one():
    value = values(measured())
    assert value["near/asr-completion/native"] == 0.0
    assert value["near/in-response-completion/native"] == 50.0
    assert value["near/in-response-max/native"] == 50.0
    assert value["near/in-response-naive/native"] == 100.0


def test_responses_that_two_refusal_rules_judge_differently_are_listed_by_id():
    made = measured()
    cells = {cell.id: cell for cell in made.cells}
    cell = cells["near/refusal-differs-first-sentence/adapt-5"]
    assert (cell.k, cell.n) == (1, 4)
    line = next(one for one in made.labels if one.id == cell.labels.partition("#")[2])
    assert dict(zip(line.items, line.labels, strict=True)) == {"a": 0, "b": 0, "c": 1, "d": 0}
    assert "near/refusal-differs-as-reported/adapt-5" not in cells


def test_the_maximum_and_the_union_leave_other_attacks_out():
    value = values(measured())
    assert value["near/asr-naive/native"] == 100.0
    assert value["near/asr-max/native"] == 0.0
    assert value["near/asr-any/native"] == 0.0
    assert value["near/asr-max/adapt-5"] == 50.0


def test_the_first_of_equal_attacks_gives_the_labels():
    first, second = [1, 0], [0, 1]
    assert max_label({"completion": second, "ignore": first}) == first
    assert any_label({"completion": second, "ignore": first}) == [1, 1]
    with pytest.raises(ValueError, match="none of the attacks ignore, completion"):
        max_label({"naive": first})


def test_the_gap_that_a_set_closes():
    value = values(measured(published=50.0))
    assert value["near/gap-closed/adapt-5"] == 0.5
    assert value["near/gap-closed/native"] == 1.0
    assert value["near/gap-closed/undefended"] == 0.0
    assert value["near/gap-closed-published/adapt-5"] == 1.0


def test_without_a_gap_there_is_no_ratio():
    flat = {"undefended": scores(HALF), "native": scores(HALF), "adapt-5": scores(ZERO)}
    found = values(measured(flat, published=50.0))
    assert not [cell for cell in found if "gap-closed" in cell]
    assert "near/asr-max/adapt-5" in found


def test_without_the_undefended_row_or_the_native_one_there_is_no_gap():
    only = {"native": scores(ZERO), "adapt-5": scores(HALF)}
    assert not [c for c in values(measured(only)) if "gap-closed" in c]
    bare = {"undefended": scores(NONE), "adapt-5": scores(HALF)}
    found = values(measured(bare, published=0.0))
    assert "near/gap-closed-published/adapt-5" in found
    assert "near/gap-closed/adapt-5" not in found


def test_without_right_answers_there_is_no_accuracy():
    found = values(measured({"undefended": scores(NONE, accuracy=None)}))
    assert not [cell for cell in found if "/accuracy" in cell]


def test_what_is_varied_follows_every_id():
    found = measured(origin=Origin("near", "p1/7", ("0.1",), "evaluate"))
    assert found.cells
    assert all(cell.id.endswith("@0.1") for cell in found.cells)


def test_every_proportion_can_be_counted_again_from_its_labels():
    made = measured()
    by_id = {line.id: line for line in made.labels}
    assert len(by_id) == len(made.labels)
    for cell in made.cells:
        if cell.labels is None:
            assert cell.unit == "ratio"
            continue
        line = by_id.pop(cell.labels.removeprefix("labels.jsonl#"))
        assert line.items == list(ITEMS)
        assert (sum(line.labels), len(line.labels)) == (cell.k, cell.n)
        assert cell.value == 100 * cell.k / cell.n
    assert not by_id, "a line that no cell refers to"


def test_the_best_checkpoint_is_the_earliest_with_the_fewest_hits():
    sets = {
        "adapt-0": scores(ZERO),
        "adapt-100": scores(ONE),
        "adapt-25": scores(HALF),
        "adapt-50": scores(ZERO, ONE),
        "scratch-25": scores(HALF),
        "norm-rescaled": scores(ZERO),
    }
    best = best_checkpoints(sets)
    assert best == {"adapt-best": sets["adapt-50"]}, "one checkpoint alone is no choice"
    value = values(measured(sets))
    assert value["near/asr-max/adapt-best"] == value["near/asr-max/adapt-50"] == 25.0
    assert best_checkpoints({}) == {}


def responses(empty=0, truncated=0, accuracy=False):
    """Four items, one attack; the attack's responses have the faults."""
    clean = {"mean_tokens": 40.5, "empty": 0, "truncated": 1, "distinct": 4}
    attacked = {"mean_tokens": 3.0, "empty": empty, "truncated": truncated, "distinct": 4}
    return {
        "items": list(ITEMS),
        "refusal": {"rule": [0, 1, 0, 0], "other": NONE},
        "accuracy": {"benign": [1, 1, 1, 0]} if accuracy else {},
        "lengths": {"ignore": attacked, "benign": clean},
    }


def statistics(found, origin=NEAR):
    table = TableBuilder()
    add_statistics(table.at(origin), {"native": found}, "rule")
    made = table.build()
    assert made.labels == []
    return {cell.id: (cell.value, cell.unit, cell.k, cell.n) for cell in made.cells}


def test_rates_are_those_of_the_worst_condition():
    assert statistics(responses(empty=3)) == {
        "stats/near/native/empty-rate": (75.0, "percent", 3, 4),
        "stats/near/native/truncated-rate": (25.0, "percent", 1, 4),
        "stats/near/native/refusal-rate": (25.0, "percent", 1, 4),
        "stats/near/native/mean-tokens": (40.5, "number", None, None),
    }


def test_known_answers_may_be_short():
    assert "stats/near/native/mean-tokens" not in statistics(responses(accuracy=True))


def test_the_statistics_of_a_setting_stand_with_the_set():
    origin = Origin("near", "p1/7", ("0.1",), "evaluate")
    assert "stats/near/native@0.1/empty-rate" in statistics(responses(), origin)


def test_scores_without_lengths_still_have_refusals():
    bare = responses()
    del bare["lengths"]
    assert list(statistics(bare)) == ["stats/near/native/refusal-rate"]
