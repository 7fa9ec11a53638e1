"""Where a number begins to count: at a limit, on either side of it."""

from __future__ import annotations

import json

import pytest
import torch

from kit.lm import generate, standin
from kit.lm.backend import check_pairs
from kit.lm.decode import banned_tensor
from kit.lm.fingerprint import fingerprints
from kit.lm.generate import TransformersBackend
from kit.lm.hidden import block_outputs
from kit.lm.prefix import embed
from kit.lm.standin import make_folder, read_shape
from kit.lm.vllm_backend import spare_ids
from kit.lm.vocabulary import check_rows
from tests.lm.tiny_world import llama3_tokenizer, tiny_llama
from tests.refused import refused

MODEL = tiny_llama(64, max_position_embeddings=16)


@pytest.mark.parametrize(("id_", "known"), [(-1, False), (0, True), (63, True), (64, False)])
def test_ids_of_the_vocabulary(id_, known):
    refused(lambda: TransformersBackend(MODEL, id_), not known, "padding id")
    refused(lambda: check_pairs([([1], [id_])], 64), not known, "not in the vocabulary")
    banned = banned_tensor([id_], MODEL, torch.device("cpu"))
    assert (None if banned is None else banned.tolist()) == ([id_] if known else None)


@pytest.mark.parametrize("name", ["max_batch", "max_tokens"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_batch_holds_something(name, value):
    refused(lambda: TransformersBackend(MODEL, 0, **{name: value}), value < 1, "at least 1")


@pytest.mark.parametrize(("length", "more"), [(15, 1), (15, 2), (16, 1), (1, 15), (1, 16), (1, 0)])
def test_the_last_position_is_a_position(length, more):
    backend = TransformersBackend(MODEL, 0)

    def run():
        backend.generate([[1], [3] * length], max_new_tokens=more, stop_ids=[])

    match = "at least 1" if not more else r"prompt (0|1) has .* the model takes 16"
    refused(run, length + more > 16 or not more, match)


def test_a_likelihood_may_end_at_the_last_position():
    """The last token of a continuation is predicted and never read."""
    backend = TransformersBackend(MODEL, 0)
    assert backend.loglikelihoods([([1] * 15, [2, 3])])[0].tokens == 2
    with pytest.raises(ValueError, match="the model takes 16"):
        backend.loglikelihoods([([1] * 16, [2, 3])])


@pytest.mark.parametrize(
    ("bounds", "sizes"),
    [
        ({"max_batch": 2}, [2, 2, 1]), ({"max_batch": 5}, [5]), ({"max_batch": 4}, [4, 1]),
        ({"max_tokens": 8}, [2, 2, 1]), ({"max_tokens": 7}, [1] * 5), ({"max_tokens": 1}, [1] * 5),
        ({"max_tokens": 20}, [5]), ({"max_tokens": 19}, [4, 1]),
    ],
)  # fmt: skip
def test_batches_are_full_and_no_fuller(bounds, sizes):
    made = TransformersBackend(MODEL, 0, **bounds)._batches([[1] * 4] * 5, [1] * 5)
    assert [len(batch) for batch in made] == sizes
    assert [i for batch in made for i in batch] == list(range(5))


@pytest.mark.parametrize(
    ("scores", "sizes"), [(6, [2, 2, 1]), (5, [1, 2, 1, 1]), (15, [5]), (1, [1] * 5)]
)
def test_scores_of_a_batch_are_bounded_by_its_longest(monkeypatch, scores, sizes):
    monkeypatch.setattr(generate, "MOST_SCORES", scores * 64)
    made = TransformersBackend(MODEL, 0)._batches([[1] * 4] * 5, [3, 1, 2, 3, 1])
    assert [len(batch) for batch in made] == sizes


@pytest.mark.parametrize(
    ("block", "known"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_blocks_that_there_are(block, known):
    ids = torch.tensor([[1, 2, 3]])
    refused(lambda: block_outputs(MODEL, ids, None, [block]), not known, "with the blocks -1 to 1")


def test_what_enters_the_first_block_is_the_embedding():
    ids = torch.tensor([[1, 2, 3]])
    states = block_outputs(MODEL, ids, None, [-1, 0])
    assert torch.equal(states[-1], MODEL.get_input_embeddings()(ids))
    assert not torch.equal(states[-1], states[0])


def test_the_last_id_is_no_slot_and_the_last_vector_has_one():
    prefix = torch.ones(2, 32)
    rows = embed(MODEL, torch.tensor([[63, 64, 65]]), prefix)
    assert torch.equal(rows[0, 0], MODEL.get_input_embeddings().weight[63])
    assert torch.equal(rows[0, 1:], prefix)
    assert torch.equal(embed(MODEL, torch.tensor([[63]]), None)[0], rows[0, :1])
    with pytest.raises(ValueError, match="slot 2 in the prompt, but only 2 vectors"):
        embed(MODEL, torch.tensor([[66]]), prefix)


def test_as_many_rows_as_tokens_are_enough():
    tokenizer = llama3_tokenizer()
    needed = max(tokenizer.get_vocab().values()) + 1
    check_rows(needed, tokenizer, "w")
    with pytest.raises(ValueError, match=f"w: {needed - 1} embedding rows"):
        check_rows(needed - 1, tokenizer, "w")


def test_unused_ids_stand_behind_the_vocabulary():
    """As many prefixes as fit, at least one; of fewer there is a sentence."""
    tokenizer = llama3_tokenizer()
    own = max(tokenizer.get_vocab().values()) + 1
    for spare, sets, count in ((2, 1, 3), (3, 1, 3), (5, 9, 6), (6, 9, 6), (6, 1, 3)):
        there = spare + 1  # a reserved token beside them
        if there < 3:
            continue
        chosen = spare_ids(tokenizer, own + spare, 3, sets=sets)
        assert len(chosen) == min(count, there // 3 * 3)
        assert chosen[-1] == own + spare - 1
    with pytest.raises(ValueError, match="has 2 unused ids, 3 are needed"):
        spare_ids(tokenizer, own + 1, 3)
    assert spare_ids(tokenizer, own, 0) == ()


SHAPE = {"config": {"vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 1}, "tokens": 300}


@pytest.mark.parametrize("name", sorted(standin.LARGEST))
def test_shapes_are_bounded(name):
    most = standin.LARGEST[name]
    for size, wrong in ((0, True), (-1, True), (most, False), (most + 1, True)):
        declared = {"config": SHAPE["config"] | {name: size}, "tokens": 1}
        refused(lambda d=declared: read_shape(d), wrong, f"{name} is")


@pytest.mark.parametrize(("tokens", "wrong"), [(0, True), (1, False), (300, False), (301, True)])
def test_tokens_need_rows(tokens, wrong):
    refused(lambda: read_shape(SHAPE | {"tokens": tokens}), wrong, "need as many")


def test_words_may_fill_a_vocabulary_and_not_more(tmp_path):
    """A folder in a folder, and once more over itself; its control tokens are in its settings."""
    shape = read_shape(SHAPE | {"control": {"<s>": 0, "</s>": 7}} | {
        "config": SHAPE["config"] | {"bos_token_id": 0, "eos_token_id": 9}})  # fmt: skip
    bytes_and_lines = 256 + 8
    free = 300 - 2 - bytes_and_lines
    words = [f"word{'abcdefghijklmnopqrstuvwxyz'[i]}" for i in range(free // 2 + 1)]
    for _ in range(2):
        folder = make_folder(tmp_path / "deep" / "down", shape, words=words[: free // 2])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["bos_token"] == "<s>"
    assert "eos_token" not in settings  # 9 is no control token
    with pytest.raises(ValueError, match="words do not fit"):
        make_folder(tmp_path / "more", shape, words=words)


@pytest.mark.parametrize("size", [1 << 18, (1 << 18) + 1, 1 << 19])
def test_a_change_is_seen_however_large_the_tensor(size):
    """Below a mebibyte all bytes are hashed, above it sums of them."""
    tensor = torch.arange(size, dtype=torch.int32)
    before = fingerprints({"a": tensor, "b": tensor + 1})
    assert before["a"] != before["b"]
    for place in (0, size - 1):
        changed = tensor.clone()
        changed[place] ^= 1
        assert fingerprints({"a": changed})["a"] != before["a"]
    assert fingerprints({"a": tensor.flip(0)})["a"] != before["a"]
