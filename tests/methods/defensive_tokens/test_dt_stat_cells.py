"""Statistics of responses as cells."""

from __future__ import annotations

from typing import Any

from kit.methods.defensive_tokens.result_cells import Replicate, collect
from kit.methods.defensive_tokens.stat_cells import over_all, statistics


def scores(empty: int = 0, truncated: int = 0, accuracy: bool = False) -> dict[str, Any]:
    """Four items, one attack; the attack's responses have the faults."""
    clean = {"mean_tokens": 40.5, "empty": 0, "truncated": 1, "distinct": 4}
    attacked = {"mean_tokens": 3.0, "empty": empty, "truncated": truncated, "distinct": 4}
    return {
        "items": ["a", "b", "c", "d"],
        "refusal": {"rule": [0, 1, 0, 0], "other": [1, 1, 1, 1]},
        "accuracy": {"benign": [1, 1, 1, 0]} if accuracy else {},
        "lengths": {"ignore": attacked, "benign": clean},
    }


def replicate(id: str = "r/0", suffix: str = "", **fields: Any) -> Replicate:
    return Replicate("g", id, suffix, "evaluate[pair=r]", {"native": scores(**fields)})


def found(one: Replicate) -> dict[str, tuple[float, str, int, int]]:
    return {
        m.cell: (m.value, m.unit, sum(m.labels), len(m.labels)) for m in statistics(one, "rule")
    }


def test_rates_are_those_of_the_worst_condition() -> None:
    assert found(replicate(empty=3)) == {
        "stats/g/native/empty-rate": (75.0, "percent", 3, 4),
        "stats/g/native/truncated-rate": (25.0, "percent", 1, 4),
        "stats/g/native/refusal-rate": (25.0, "percent", 1, 4),
        "stats/g/native/mean-tokens": (40.5, "number", 0, 0),
    }


def test_known_answers_may_be_short() -> None:
    assert "stats/g/native/mean-tokens" not in found(replicate(accuracy=True))


def test_what_is_varied_stands_with_the_set() -> None:
    assert "stats/g/native@0.1/empty-rate" in found(replicate(suffix="@0.1"))


def test_scores_without_lengths_still_have_refusals() -> None:
    bare = scores()
    del bare["lengths"]
    one = Replicate("g", "r/0", "", "evaluate", {"native": bare})
    assert list(found(one)) == ["stats/g/native/refusal-rate"]


def test_replicates_are_listed_and_labels_are_not() -> None:
    both = [*statistics(replicate("r/0"), "rule"), *statistics(replicate("r/1", empty=2), "rule")]
    cells, labels = collect([*both, *map(over_all, both)])
    by_id = {cell["id"]: cell for cell in cells}
    assert labels == []
    for id in ("stats/g/native/empty-rate", "stats/all/native/empty-rate"):
        assert [seed["k"] for seed in by_id[id]["seeds"]] == [0, 2]
        assert by_id[id]["value"] == 25.0
