"""Data that cannot be meant are refused in a sentence that names what is wrong, each by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kit.evals.judges import stop_ids
from kit.evals.sets import text_examples
from kit.lm.standin import read_shape
from kit.methods.checkpoint_transfer.affine import AffineMap, FitQuality
from kit.methods.checkpoint_transfer.affine_files import WEIGHTS, load_maps, save_maps
from kit.methods.checkpoint_transfer.answers import patched_answers
from kit.methods.checkpoint_transfer.gather import tabulate
from kit.methods.checkpoint_transfer.questions import read_lettered
from kit.methods.checkpoint_transfer.texts import choose_texts
from kit.methods.defensive_tokens.prefix_training.packed import pack
from kit.methods.tar.batches import counted_batches, pair_batches
from kit.methods.tar.pairs import read_pairs
from kit.methods.tar.published import preferences
from kit.methods.tar.published_sets import question_sets, raw_sets, write_sets
from kit.methods.tar.stages import divided
from kit.tampering.run import require_finite
from kit.train.batching import Example
from kit.train.errors import TrainingDiverged
from kit.train.optimizers import AdamW, make_optimizer

ALONE: Any = SimpleNamespace(rank=0, world_size=1, device=torch.device("cpu"))
TEXT = Example("a-0-0", (1, 2, 3), 1)


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text.strip()]


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


chosen = partial(
    choose_texts, ["a", "b"], ["c", "d", "e", "f"], encode,
    pairs=2, fit=1, held_out=1, seed=0, most_tokens=9,
)  # fmt: skip


def test_texts_of_a_run() -> None:
    made = chosen()
    assert (len(made.forget), len(made.retain), len(made.fit), len(made.held_out)) == (2, 2, 1, 1)
    with pytest.raises(ValueError, match="unknown order 'x'; known: "):
        chosen(forget_order="x")
    assert chosen(pairs=1, fit=2, held_out=2)
    with pytest.raises(ValueError, match="4 retain documents for 5 texts of the fit"):
        chosen(pairs=1, fit=3, held_out=2)
    with pytest.raises(ValueError, match="a forget text has no tokens"):
        choose_texts(["a", " "], ["c", "d", "e", "f"], encode, pairs=2, fit=1, held_out=1, seed=0,
                     most_tokens=9)  # fmt: skip


def test_maps_with_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    maps = {0: AffineMap(torch.eye(2), torch.zeros(2))}
    fit = {0: FitQuality(1, 0.0, 1.0)}
    save_maps(tmp_path, maps, alpha=0.1, provenance={}, fit=fit, held_out=fit)
    kept = load_maps(tmp_path)[0]
    assert torch.equal(kept.weight, torch.eye(2))
    for name in ("layer_1.weight", "layer_1.bias"):
        tensors = load_file(tmp_path / WEIGHTS)
        broken = {key: tensor.clone() for key, tensor in tensors.items()}
        broken[name].view(-1)[-1] = float("nan")
        save_file(broken, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match="layer_1 has numbers that are not finite"):
            load_maps(tmp_path)
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / WEIGHTS)


@pytest.mark.parametrize("maps", [{}, {-1: AffineMap(torch.eye(2), torch.zeros(2))}])
def test_what_enters_the_first_block_cannot_be_patched(maps: Any) -> None:
    nothing: Any = None
    with pytest.raises(ValueError, match="no affine map of a block to patch"):
        patched_answers(nothing, nothing, maps, nothing, [], encode)


def test_losses_that_nobody_logs_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown losses 'x'; known: logged, last-step"):
        tabulate(
            unlearned=[], trainings=[], originals=[], teachers=[], oracles=[], roles={}, losses="x"
        )


def test_no_files_no_questions() -> None:
    with pytest.raises(ValueError, match="no files with questions for mmlu"):
        read_lettered([], "mmlu")


def test_an_example_with_hidden_labels_is_not_packed() -> None:
    assert pack([TEXT], 10).ids.numel() == 2
    with pytest.raises(ValueError, match="example a-0-0 hides labels"):
        pack([replace(TEXT, hidden=frozenset({2}))], 10)


def test_batches_of_nothing_are_refused() -> None:
    (one,) = counted_batches([TEXT], ALONE, rows=1, pad_id=0)
    assert one.tokens == 3
    with pytest.raises(ValueError, match="an empty batch has no loss"):
        counted_batches([], ALONE, rows=1, pad_id=0)
    with pytest.raises(ValueError, match="needs at least one row"):
        pair_batches([], ALONE, rows=0, pad_id=0)


def test_pairs_are_there_and_have_their_own_ids(tmp_path: Path) -> None:
    pair = {"id": "p", "prompt": [1], "chosen": [2], "rejected": [3]}
    with pytest.raises(ValueError, match=r"no a.jsonl in .*; there: none"):
        read_pairs(tmp_path, "a")
    lines(tmp_path / "pairs/b.jsonl", pair)
    with pytest.raises(ValueError, match=r"no a.jsonl in .*; there: b"):
        read_pairs(tmp_path, "a")
    assert [one.id for one in read_pairs(tmp_path, "b")] == ["p"]
    for rows in ([], [pair, pair]):
        lines(tmp_path / "pairs/a.jsonl", *rows)
        with pytest.raises(ValueError, match=f"a.jsonl has {len(rows)} pairs"):
            read_pairs(tmp_path, "a")


def test_a_conversation_without_an_answer_is_refused(tmp_path: Path) -> None:
    good = "\n\nHuman: why\n\nAssistant: so"
    row = {"chosen": good, "rejected": good.replace("so", "no")}
    ((asked, yes, no),) = preferences([lines(tmp_path / "a.jsonl", row)])
    assert (asked, yes, no) == ("why", "so", "no")
    with pytest.raises(ValueError, match="has no answer"):
        preferences([lines(tmp_path / "b.jsonl", {**row, "rejected": "Human: why"})])


def test_published_sets_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown domain 'x'; known: bio, "):
        raw_sets({}, "x")
    with pytest.raises(ValueError, match="no files of pile-bio, which the domain bio trains on"):
        raw_sets({}, "bio")
    with pytest.raises(ValueError, match="no files of wmdp, whose questions are asked"):
        question_sets({}, "bio")
    with pytest.raises(ValueError, match="no files of mmlu, whose questions are asked"):
        question_sets({"wmdp": [tmp_path]}, "bio")

    class Letters:
        added_tokens_decoder: ClassVar[dict[int, str]] = {}

        def __call__(self, text: str, **_: Any) -> Any:
            return SimpleNamespace(input_ids=encode(text))

    some: Any = Letters()
    write_sets(tmp_path, {"s": ["ab", "c"], "s-all": ["d"]}, {}, some, 8)
    assert len((tmp_path / "texts/s.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "texts/s-all.jsonl").exists()
    with pytest.raises(ValueError, match="no text of s has two tokens"):
        write_sets(tmp_path, {"s": ["a", "b"]}, {}, some, 8)


def test_forget_texts_are_divided_by_text_or_subject() -> None:
    texts = [Example(f"s{i % 2}-x-{i}", (1, 2), 1) for i in range(8)]
    apart = divided(texts, 0.5, by="subject", seed=1)
    sides = [{one.id.split("-")[0] for one in side} for side in (apart.adversary, apart.held_out)]
    assert not sides[0] & sides[1]
    assert {len(side) for side in sides} == {1}
    quarter = divided(texts, 0.25, by="text", seed=1)
    assert (len(quarter.adversary), len(quarter.held_out)) == (2, 6)
    assert divided(texts, 0.5, by="text", seed=1) != divided(texts, 0.5, by="text", seed=2)
    with pytest.raises(ValueError, match="by 'text' or 'subject', not 'x'"):
        divided(texts, 0.5, by="x", seed=1)
    for share in (0.1, 1.0):
        with pytest.raises(ValueError, match=f"a share of {share} of 8 leaves a part empty"):
            divided(texts, share, by="text", seed=1)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    def tokenizer(eos: str | None, *words: str) -> Any:
        vocabulary = {word: number for number, word in enumerate(words)}
        return SimpleNamespace(eos_token=eos, get_vocab=lambda: vocabulary)

    assert stop_ids(tokenizer("</s>", "a", "</s>")) == [1]
    assert stop_ids(tokenizer("</s>", "<|eot_id|>", "</s>")) == [0, 1]
    assert stop_ids(tokenizer(None, "a", "<|eot_id|>")) == [1]
    for bare in (tokenizer(None, "a"), tokenizer("</s>", "a")):
        with pytest.raises(ValueError, match="names no token that ends an answer"):
            stop_ids(bare)


def test_a_text_stands_in_a_set_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines(tmp_path / f"texts/{name}.jsonl", {"id": "t", "text": "", "ids": [1, 2]})
    tokenizer: Any = None
    assert [one.id for one in text_examples(tmp_path, ["a"], tokenizer)] == ["t"]
    with pytest.raises(ValueError, match="text t stands twice in the sets a, b"):
        text_examples(tmp_path, ["a", "b"], tokenizer)
    with pytest.raises(ValueError, match=r"no c.jsonl in .*; there: a, b"):
        text_examples(tmp_path, ["c"], tokenizer)


SHAPE = {"config": {"hidden_size": 8, "vocab_size": 10, "num_hidden_layers": 2}, "tokens": 10}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"), ({"vocab_size": 4_000_001}, "vocab_size is 4"),
        ({"hidden_size": 0}, "hidden_size is 0"), ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": 9}, "10 tokens need as many of the 9"),
    ],
)  # fmt: skip
def test_sizes_of_a_stand_in(changed: dict[str, int], why: str) -> None:
    assert read_shape(SHAPE).tokens == 10
    with pytest.raises(ValueError, match=why):
        read_shape({**SHAPE, "config": {**SHAPE["config"], **changed}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="0 tokens need"):
        read_shape({**SHAPE, "tokens": 0})


def test_control_tokens_of_a_stand_in_need_a_pattern() -> None:
    named = read_shape({**SHAPE, "control": {"<s>": 8}, "reserved": ["<r{}>", 7]}).control_ids()
    assert named == {"<r0>": 7, "<s>": 8, "<r1>": 9}
    with pytest.raises(ValueError, match="make no pattern"):
        read_shape({**SHAPE, "reserved": ["<{x}>", 7]})


def test_optimizer_state_belongs_to_its_parameters() -> None:
    parameter = nn.Parameter(torch.ones(2))
    made = make_optimizer(AdamW(1e-3, 0.0), [("w", parameter)])
    parameter.grad = torch.ones(2)
    made.step()
    tensors, values = dict(made.tensors()), made.values()
    made.load(tensors, values)
    path, tensor = next(iter(tensors.items()))
    for stranger in (path.replace("/w/", "/v/"), "other/" + path.partition("/")[2]):
        with pytest.raises(ValueError, match="belongs to no parameter of this optimizer"):
            made.load({stranger: tensor}, values)


@pytest.mark.parametrize(("value", "trained"), [(float("nan"), True), (float("inf"), True),
                                                (float("nan"), False), (1.0, True)])  # fmt: skip
def test_weights_that_are_trained_stay_finite(value: float, trained: bool) -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(trained)
    model.bias.data[1] = value
    if trained and value != 1.0:
        with pytest.raises(TrainingDiverged, match="bias") as raised:
            require_finite(model, 7)
        assert raised.value.step == 6
    else:
        require_finite(model, 7)
