"""From labels to cells: ids, counts, label lines, pooling, gaps and curves."""

from __future__ import annotations

import pytest

from kit.methods.defensive_tokens.result_cells import (
    Measurement,
    Replicate,
    any_label,
    best_checkpoints,
    checkpoint_series,
    collect,
    max_label,
    measurements,
    pooled,
)

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


def replicate(group="near", id="p1/7", suffix="", sets=TABLE, **more):
    return Replicate(group=group, id=id, suffix=suffix, step=f"step[{id}]", scores=sets, **more)


def measured(one=None, *, native="native", published=None, rule="as-reported"):
    return list(
        measurements(one or replicate(), native=native, published_full=published, refusal_rule=rule)
    )


def values(found):
    return {m.cell: m.value for m in found}


def test_every_proportion_of_a_set_has_an_id_of_its_own():
    found = measured()
    assert len({m.cell for m in found}) == len(found)
    value = values(found)
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
    cells, lines = collect(measured())
    cell = next(c for c in cells if c["id"] == "near/refusal-differs-first-sentence/adapt-5")
    assert (cell["k"], cell["n"]) == (1, 4)
    line = next(one for one in lines if one["id"] == cell["labels"].partition("#")[2])
    assert dict(zip(line["items"], line["labels"], strict=True)) == {"a": 0, "b": 0, "c": 1, "d": 0}
    assert "near/refusal-differs-as-reported/adapt-5" not in {c["id"] for c in cells}


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
    found = values(measured(replicate(sets=flat), published=50.0))
    assert not [cell for cell in found if "gap-closed" in cell]
    assert "near/asr-max/adapt-5" in found


def test_without_the_undefended_row_or_the_native_one_there_is_no_gap():
    only = {"native": scores(ZERO), "adapt-5": scores(HALF)}
    assert not [c for c in values(measured(replicate(sets=only))) if "gap-closed" in c]
    bare = {"undefended": scores(NONE), "adapt-5": scores(HALF)}
    found = values(measured(replicate(sets=bare), published=0.0))
    assert "near/gap-closed-published/adapt-5" in found
    assert "near/gap-closed/adapt-5" not in found


def test_without_right_answers_there_is_no_accuracy():
    found = values(measured(replicate(sets={"undefended": scores(NONE, accuracy=None)})))
    assert not [cell for cell in found if "/accuracy" in cell]


def test_what_is_varied_follows_every_id():
    one = replicate(suffix="@0.1", numbers={"norm-mean/adapt-5": (2.5, "norm")})
    found = measured(one)
    assert all(m.cell.endswith("@0.1") for m in found)
    number = found[-1]
    assert (number.cell, number.value, number.unit) == ("near/norm-mean/adapt-5@0.1", 2.5, "norm")
    assert (number.items, number.labels) == ((), ())


def test_one_replicate_is_a_plain_cell():
    cells, lines = collect(measured())
    (cell,) = [c for c in cells if c["id"] == "near/asr-ignore/adapt-5"]
    assert cell == {
        "id": "near/asr-ignore/adapt-5",
        "unit": "percent",
        "step": "step[p1/7]",
        "value": 50.0,
        "k": 2,
        "n": 4,
        "labels": "labels.jsonl#near/asr-ignore/adapt-5#p1/7",
    }
    assert {line["id"] for line in lines} >= {"near/asr-ignore/adapt-5#p1/7"}


def test_label_lines_follow_the_items_and_give_every_number_again():
    found = measured() + measured(replicate(id="p2/8", sets={"undefended": scores(ONE)}))
    cells, lines = collect(found)
    by_id = {line["id"]: line for line in lines}
    assert len(by_id) == len(lines)
    counted = 0
    for cell in cells:
        entries = cell.get("seeds", [cell])
        for entry in entries:
            if "labels" not in entry:
                assert cell["unit"] != "percent"
                continue
            line = by_id.pop(entry["labels"].removeprefix("labels.jsonl#"))
            assert line["items"] == list(ITEMS)
            assert (sum(line["labels"]), len(line["labels"])) == (entry["k"], entry["n"])
            assert entry["value"] == 100 * entry["k"] / entry["n"]
            counted += 1
    assert counted
    assert not by_id, "a line that no cell refers to"


def test_several_replicates_are_listed_and_averaged():
    again = replicate(id="p2/8", sets={"undefended": scores(ONE)})
    cells, _ = collect(measured() + measured(again))
    (cell,) = [c for c in cells if c["id"] == "near/asr-max/undefended"]
    assert cell["value"] == 62.5
    assert cell["n"] == 4
    assert "k" not in cell
    assert [(e["seed"], e["value"], e["k"]) for e in cell["seeds"]] == [
        ("p1/7", 100.0, 4),
        ("p2/8", 25.0, 1),
    ]


def test_a_cell_measured_twice_in_one_replicate_is_refused():
    with pytest.raises(ValueError, match=r"cell near/asr-ignore/undefended was measured twice"):
        collect(measured() + measured())


def test_pooled_cells_keep_counts_and_list_no_labels():
    other = replicate(group="far", id="p2/8", sets={"undefended": scores(ONE)})
    found = measured() + measured(other)
    plain_lines = collect(found)[1]
    cells, lines = collect([*found, *map(pooled, found)])
    assert lines == plain_lines
    (cell,) = [c for c in cells if c["id"] == "all/asr-max/undefended"]
    assert [(e["k"], e["n"]) for e in cell["seeds"]] == [(4, 4), (1, 4)]
    assert cell["n"] == 4
    assert not [e for e in cell["seeds"] if "labels" in e]
    (single,) = [c for c in cells if c["id"] == "all/asr-max/native"]
    assert (single["k"], single["n"]) == (0, 4)
    assert "labels" not in single


def test_pooling_changes_nothing_but_group_and_listing():
    one = Measurement("near/asr-max/copy@0.1", "p/1", "s", 50.0, "percent", ("a", "b"), (1, 0))
    whole = pooled(one)
    assert whole.cell == "all/asr-max/copy@0.1"
    assert (one.group, whole.group) == ("near", "all")
    assert (whole.labels, whole.items, whole.value) == (one.labels, one.items, one.value)


def test_curves_are_sorted_by_step_and_apart_by_what_varies():
    cells = [
        {"id": f"{group}/asr-max/{name}", "value": value}
        for group, name, value in [
            ("near", "adapt-100", 3.0),
            ("near", "adapt-5", 1.0),
            ("near", "adapt-25", 2.0),
            ("near", "adapt-5@0.01", 9.0),
            ("near", "norm-rescaled", 7.0),
            ("near", "native", 7.0),
            ("far", "scratch-25", 4.0),
        ]
    ]
    cells.append({"id": "near/asr-ignore/adapt-5", "value": 8.0})
    near, far = checkpoint_series(cells, "asr-max")
    assert near["id"] == "asr-max/near"
    assert near["lines"] == {
        "adapt": [[5.0, 1.0], [25.0, 2.0], [100.0, 3.0]],
        "adapt @ 0.01": [[5.0, 9.0]],
    }
    assert far["lines"] == {"scratch": [[25.0, 4.0]]}
    assert checkpoint_series(cells, "gap-closed") == []


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_not_finite_is_named(value):
    one = Measurement("near/norm-max/adapt-5", "p1/7", "train", value, "norm")
    with pytest.raises(ValueError, match=r"cell near/norm-max/adapt-5 of p1/7 is (inf|nan)"):
        collect([one])


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
    value = values(measured(replicate(sets=sets)))
    assert value["near/asr-max/adapt-best"] == value["near/asr-max/adapt-50"] == 25.0
    assert best_checkpoints({}) == {}
