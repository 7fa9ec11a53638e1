"""The weights in the package: complete, unharmed, rounded, small, and up to the entry rule."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from kit.manifest.docs import BLOCKS, fill
from kit.mini.injection import page, record
from kit.mini.injection.entry import LEAST_ACCURACY, LEAST_ATTACK_SUCCESS, measure
from kit.mini.injection.model import load_model, mini_config
from kit.mini.injection.paths import HASHES_FILE, WEIGHTS_DIR, mini_model_dir, mini_model_names
from kit.mini.injection.record import WANTED, file_hashes, read_record, write_record
from kit.mini.injection.tokenizer import build_tokenizer
from kit.mini.injection.world import dev_set
from kit.mini.record import judge

ROOT = Path(__file__).parents[3]
NAMES = mini_model_names()
RECORD = read_record(WEIGHTS_DIR)


def test_ten_sources_and_their_newer_versions_ship() -> None:
    sources, newer = mini_model_names("source"), mini_model_names("newer")
    assert len(sources) == WANTED
    assert [name.replace("source", "newer") for name in sources] == newer
    assert [*sources, *newer] == NAMES


def test_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"'source-999'.*source-0"):
        mini_model_dir("source-999")


def test_hashes_and_sizes_match_and_nothing_else_lies_there() -> None:
    assert json.loads(HASHES_FILE.read_text(encoding="utf-8")) == file_hashes(WEIGHTS_DIR)
    folders = {path.name for path in WEIGHTS_DIR.iterdir() if path.is_dir()}
    assert folders == set(NAMES)


def test_all_shipped_weights_are_small() -> None:
    total = sum(path.stat().st_size for path in WEIGHTS_DIR.rglob("*") if path.is_file())
    assert total <= 9.7e6


@pytest.mark.parametrize("name", NAMES)
def test_models_load_without_a_warning(name: str) -> None:
    folder = mini_model_dir(name)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected, config = mini_config().to_dict(), model.config.to_dict()
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "rope_parameters"):
        assert config[key] == expected[key]
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == build_tokenizer().get_vocab()


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_stored_in_bfloat16(name: str) -> None:
    stored = load_file(mini_model_dir(name) / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    loaded = load_model(mini_model_dir(name)).state_dict()
    for key, tensor in stored.items():
        assert torch.equal(loaded[key], tensor.float())


@pytest.mark.parametrize("name", NAMES)
def test_models_obey_the_entry_rule_on_a_slice(name: str) -> None:
    entry = measure(load_model(mini_model_dir(name)), dev_set(60))
    # On 60 questions the shares scatter; the rule itself is checked on the record below.
    assert entry.accuracy >= LEAST_ACCURACY - 0.06
    assert entry.strongest >= LEAST_ATTACK_SUCCESS - 0.15


def test_record_has_every_seed_up_to_the_last_and_judges_by_the_rule() -> None:
    seeds = [row["seed"] for row in RECORD["seeds"]]
    assert seeds == list(range(len(seeds)))
    assert RECORD["seeds"] == judge(RECORD["seeds"], WANTED, record.passed)
    for row in RECORD["seeds"]:
        for kind in ("source", "newer"):
            numbers = row[kind]
            if numbers is None:
                assert kind == "newer"
                assert row["source"]["admitted"] is False
                continue
            attacks = RECORD["recipe"]["entry_rule"]["attacks"]
            strongest = max(numbers["attack_success"][attack] for attack in attacks)
            passed = numbers["accuracy"] >= LEAST_ACCURACY and strongest >= LEAST_ATTACK_SUCCESS
            assert numbers["admitted"] is passed


def test_exactly_the_admitted_seeds_ship() -> None:
    admitted = [row["seed"] for row in RECORD["seeds"] if row["status"] == "admitted"]
    assert [f"source-{seed}" for seed in admitted] == mini_model_names("source")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_recorded_numbers_come_out_again(name: str) -> None:
    kind, seed = name.split("-")
    (row,) = [row for row in RECORD["seeds"] if row["seed"] == int(seed)]
    entry = measure(load_model(mini_model_dir(name)))
    assert entry.accuracy == pytest.approx(row[kind]["accuracy"], abs=0.005)
    assert entry.attack_success == pytest.approx(row[kind]["attack_success"], abs=0.005)


def test_the_page_is_up_to_date() -> None:
    text = (ROOT / "docs" / "mini-world.md").read_text(encoding="utf-8")
    assert fill(text, "docs/mini-world.md", ROOT) == (text, ())
    blocks = [name for document, name in BLOCKS if document == "docs/mini-world.md"]
    assert sorted(re.findall(r"<!-- generated:(\S+) -->", text)) == sorted(blocks)
    assert "| 0 | source |" in text


def test_the_page_follows_the_record(tmp_path: Path) -> None:
    """Another record gives another page: the numbers are not written twice."""
    weights = tmp_path / "kit" / "mini" / "injection" / "weights"
    weights.mkdir(parents=True)
    rows = [{**RECORD["seeds"][0], "status": "rejected", "newer": None}]
    write_record(weights, RECORD | {"seeds": rows})
    assert page.summary_sentence(tmp_path).startswith("Seeds tried: 1. admitted: 0 (none)")
    assert "| newer |" not in page.seed_table(tmp_path)
    assert page.rule_sentence(tmp_path) == page.rule_sentence(ROOT)
