"""Scores as plain data, recomputed from what the evaluation kept."""

from __future__ import annotations

import json

from kit.methods.defensive_tokens.scores import score_table
from tests.methods.defensive_tokens.test_dt_evaluate import ELIGIBLE, evaluate


def test_labels_are_bits_in_the_order_of_the_items():
    evaluation = evaluate()
    table = score_table(evaluation)
    assert table["items"] == [sample.id for sample in ELIGIBLE]
    for name, condition in evaluation.attacks.items():
        assert table["asr"][name] == [int(flag) for flag in condition.injected]
        assert [response.sample_id for response in condition.responses] == table["items"]
    assert table["asr_anywhere"] == table["asr"]
    assert all(set(row) <= {0, 1} for row in table["asr"].values())


def test_every_row_is_as_long_as_the_items():
    table = score_table(evaluate())
    n = len(table["items"])
    for kind in ("asr", "asr_anywhere", "refusal", "accuracy"):
        assert {len(row) for row in table[kind].values()} == {n}
    assert set(table["refusal"]) == {"as-reported", "first-sentence", "six-phrases"}


def test_accuracy_only_where_references_are_right():
    assert set(score_table(evaluate())["accuracy"]) == {
        "ignore",
        "completion",
        "ignore_completion",
        "benign",
    }
    assert score_table(evaluate(references_are_right=False))["accuracy"] == {}


def test_lengths_of_every_condition():
    lengths = score_table(evaluate())["lengths"]
    assert set(lengths) == {"ignore", "completion", "ignore_completion", "benign"}
    assert lengths["benign"]["mean_tokens"] == 1.0
    assert (lengths["benign"]["empty"], lengths["benign"]["truncated"]) == (0, 0)
    assert lengths["ignore"]["distinct"] <= len(ELIGIBLE)


def test_the_table_is_plain_json():
    table = score_table(evaluate())
    assert json.loads(json.dumps(table)) == table
