"""Behaviours that no test asked for until bugs were planted there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.engine.code import changed
from kit.engine.registry import Registry
from kit.engine.slurm.executor import SlurmExecutor
from kit.errors import InvalidInput
from kit.lm.load import MOST_NAMED, _some
from kit.methods.defensive_tokens.prefix_training.packed_model import _parts
from kit.methods.defensive_tokens.standin import standin_attack_texts
from kit.mini.facts.runs import find_checkpoint
from kit.results.run import decode_results

KIT = Path(__file__).resolve().parents[1] / "kit"


def test_no_model_or_tokenizer_may_bring_its_own_code() -> None:
    """Nor does a line of the kit load weights that are code."""
    said = [re.findall(r"trust_remote_code\s*=\s*(\w+)", file.read_text("utf-8"))
            for file in KIT.rglob("*.py")]  # fmt: skip
    values = [value for of in said for value in of]
    assert len(values) >= 4
    assert set(values) == {"False"}


def test_checkpoints_that_were_kept_are_listed_in_their_order(tmp_path: Path) -> None:
    for step in (100, 20, 3, 1000, 7):
        (tmp_path / f"step-{step}").mkdir()
    with pytest.raises(ValueError, match=r"step 8; kept: 3, 7, 20, 100, 1000$"):
        find_checkpoint(tmp_path, 8)
    assert find_checkpoint(tmp_path, 7) == tmp_path / "step-7"


@pytest.mark.parametrize(("count", "end"), [(MOST_NAMED, ""), (MOST_NAMED + 1, " and 1 more")])
def test_names_in_a_message_are_the_first_in_order(count: int, end: str) -> None:
    names = [f"n{i}" for i in range(count)]
    assert _some(reversed(names)) == ", ".join(names[:MOST_NAMED]) + end


@pytest.mark.parametrize("first", [True, False])
def test_a_table_of_the_first_release_is_called_that(first: bool) -> None:
    """One cell with its curves is enough, whatever the others hold."""
    cells: list[dict[str, Any]] = [{"id": "t/a", "unit": "percent"}, {"id": "t/b"}]
    cells[1] |= {"series": [1.0]} if first else {"other": 1}
    content = json.dumps({"schema_version": 1, "cells": cells}).encode()
    with pytest.raises(InvalidInput) as raised:
        decode_results(content, "results.json")
    assert ("written by kit 0.1.0" in str(raised.value)) == first


def test_a_layer_is_compiled_by_its_mlp_and_norms() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: Any = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "vocab_size": 8,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    names = [type(part).__name__ for part in _parts(model)]
    assert sorted(names) == ["LlamaMLP"] * 2 + ["LlamaRMSNorm"] * 4


def test_stand_in_delimiters_are_in_disjoint_sets() -> None:
    made = standin_attack_texts()
    assert len(made.fake_delimiters_test) == 10
    train = set(made.fake_delimiters_train)
    assert not train & set(made.fake_delimiters_test)


@pytest.mark.parametrize(("refresh", "seconds"), [(0.2, 0.2), (30.0, 1.0)])
def test_a_cluster_that_stops_is_asked_every_second_or_oftener(
    refresh: float, seconds: float
) -> None:
    here: Any = SimpleNamespace(options=SimpleNamespace(refresh=refresh), _stopping=True)
    assert SlurmExecutor._ask_every(here, 0.0) == seconds


@pytest.mark.parametrize("entry", [None, SimpleNamespace(code="")])
def test_of_a_step_whose_code_nobody_recorded_nothing_is_said(entry: Any) -> None:
    assert changed(entry, Registry()) is False
