"""Model inputs as the steps of every family use them: pinned, made by a step, or stood in for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from kit.engine.registry import ModelInput
from kit.errors import InvalidInput
from kit.lm.chat import Special
from kit.lm.load import save_model
from kit.manifest.pin_types import Pin
from kit.mini.injection.paths import mini_model_dir
from kit.steps import common
from tests.lm.families import tiny
from tests.lm.tiny_world import mini_tokenizer
from tests.steps.contexts import FakeContext

torch.set_num_threads(1)
NEOX = {
    "config": {
        "model_type": "gpt_neox",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 512,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "tokens": 400,
    "control": {"<|endoftext|>": 0, "<|padding|>": 1},
}
LINES = {
    "instruction": ["Task: {content}\n"],
    "data": ["Data: {content}\n"],
    "generate": ["Answer:"],
    "response": [" {content}"],
    "end": [{"token": "<|endoftext|>"}],
    "stop": ["<|endoftext|>"],
    "pad": "<|padding|>",
}


@pytest.fixture
def context(tmp_path: Path) -> Any:
    (tmp_path / "scratch").mkdir()
    return FakeContext(tmp_path / "out", tmp_path / "scratch")


def pinned(path: Path = Path("/nowhere"), **attributes: Any) -> ModelInput:
    return ModelInput("a-pin", path, attributes, pinned=True)


def test_a_pinned_model_is_loaded_frozen_or_trainable(context: Any) -> None:
    model = pinned(mini_model_dir("source-6"), chat_format="mini")
    tokenizer, chat = common.tokenizer_and_format(context, model)
    assert (len(tokenizer), chat.name) == (302, "mini")
    frozen = common.load_model(context, model, "bfloat16")
    assert {(p.dtype, p.requires_grad) for p in frozen.parameters()} == {(torch.bfloat16, False)}
    trainable = common.load_model(context, model, "float32", trainable=True)
    assert all(p.requires_grad for p in trainable.parameters())
    assert torch.equal(
        common.input_embeddings(context, model).float(), trainable.get_input_embeddings().weight
    )
    backend = common.transformers_backend(
        context, model, dtype="float32", pad_id=chat.pad_id(tokenizer), batch_tokens=100
    )
    ids = chat.prompt_ids(tokenizer, "copy the words", "blue map")
    (answer,) = backend.generate([ids], max_new_tokens=4, stop_ids=chat.stop_ids(tokenizer))
    assert tokenizer.decode(answer.ids) == "blue map"


def test_a_rehearsal_stands_in_for_a_pin_in_the_shape_and_format_that_it_declares(
    context: Any,
) -> None:
    context.rehearsal = True
    model = pinned(architecture=NEOX, chat_format=LINES)
    tokenizer, chat = common.tokenizer_and_format(context, model, words=("river",))
    assert len(tokenizer) == 400
    ids = chat.prompt_ids(tokenizer, "river", None)
    assert tokenizer.decode(ids) == "Task: river\nAnswer:"
    assert chat.end == (Special("<|endoftext|>"),)
    made = common.load_model(context, model, "float32", trainable=True)
    assert made.config.model_type == "gpt_neox"
    assert made.get_input_embeddings().weight.shape == (512, 32)
    assert all(p.requires_grad for p in made.parameters())
    assert common.input_embeddings(context, model).shape == (512, 32)
    folders = {common.model_folder(context, model, words=w) for w in ((), (), ("river",))}
    assert len(folders) == 2, "a stand-in is made once for each set of words"


def test_a_model_that_the_rehearsal_made_is_loaded_like_any_other(
    context: Any, tmp_path: Path
) -> None:
    context.rehearsal = True
    whole = tiny("gpt_neox")
    save_model(whole, mini_tokenizer(), tmp_path / "trained")
    model = ModelInput("train", tmp_path / "trained", {"chat_format": "mini"}, pinned=False)
    assert common.model_folder(context, model) == tmp_path / "trained"
    loaded = common.load_model(context, model, "float32")
    ids = torch.arange(9)[None]
    assert torch.equal(loaded(ids).logits, whole(ids).logits)
    assert common.tokenizer_and_format(context, model)[1].name == "mini"


def test_what_a_pin_must_declare_is_named(context: Any) -> None:
    with pytest.raises(InvalidInput, match="a-pin declares no chat format"):
        common.tokenizer_and_format(context, pinned(mini_model_dir("source-6")))
    context.rehearsal = True
    with pytest.raises(InvalidInput, match="a-pin declares no architecture"):
        common.model_folder(context, pinned(chat_format="mini"))
    with pytest.raises(ValueError, match="unknown architecture 'llama-9'"):
        common.model_folder(context, pinned(architecture="llama-9"))


def test_a_pin_holds_a_format_and_an_architecture_as_plain_values() -> None:
    values = {
        "id": "own",
        "kind": "hf-model",
        "title": "Own",
        "licence": "MIT",
        "attributes": {"chat_format": LINES, "architecture": "gpt-neox-6.9b", "layers": 32},
    }
    pin = msgspec.convert(values, Pin)
    assert pin.attributes == values["attributes"]
