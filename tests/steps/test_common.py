"""Model inputs as the steps of every family use them: pinned, made by a step, or stood in for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
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
from tests.steps.contexts import FakeContext, Loose, giving

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


@pytest.mark.parametrize("tied", [[], [("embed", "head")]])
def test_weights_that_are_a_single_matrix_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: list[tuple[str, str]]
) -> None:
    made = Loose(tmp_path)
    monkeypatch.setattr("kit.lm.load.load_model", giving("loaded"))
    monkeypatch.setattr("kit.lm.load.tied_weights", giving(tied))
    ctx: Any = made
    assert common.load_model(ctx, pinned(tmp_path), "float32") == "loaded"
    assert made.notes == ["model a-pin: embed and head are a single matrix, stored once"] * len(
        tied
    )


@pytest.mark.parametrize(("tokens", "rows"), [(100, 128), (128 * 128, 128), (128 * 200, 200)])
def test_a_batch_has_room_for_many_prompts(
    context: Any, monkeypatch: pytest.MonkeyPatch, tokens: int, rows: int
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(common, "load_model", giving(None))
    monkeypatch.setattr("kit.lm.generate.TransformersBackend", lambda *_, **how: given.update(how))
    common.transformers_backend(context, pinned(), dtype="float32", pad_id=0, batch_tokens=tokens)
    assert repr(given["max_batch"]) == str(rows)
    assert given["max_tokens"] == tokens


@pytest.mark.parametrize("broken", ["load", "tokenizer", "embeddings"])
def test_a_folder_that_is_no_model_is_wrong_input(
    context: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def refuse(*given: Any, **named: Any) -> Any:
        raise ValueError("no weights here")

    for name in ("load.load_model", "load.load_tokenizer", "files.read_embeddings"):
        monkeypatch.setattr(f"kit.lm.{name}", refuse)
    use = {
        "load": lambda: common.load_model(context, pinned(), "float32"),
        "tokenizer": lambda: common.tokenizer_of(context, pinned()),
        "embeddings": lambda: common.input_embeddings(context, pinned()),
    }[broken]
    with pytest.raises(InvalidInput, match="model a-pin cannot be used: no weights here"):
        use()


@pytest.mark.parametrize("rehearsal", [True, False])
@pytest.mark.parametrize("prefixes", [True, False])
def test_a_served_model_has_its_share_and_rows_for_prefixes(
    context: Any, monkeypatch: pytest.MonkeyPatch, prefixes: bool, rehearsal: bool
) -> None:
    given: dict[str, Any] = {}
    context.rehearsal = rehearsal
    monkeypatch.setattr(common, "model_folder", giving(Path("folder")))
    monkeypatch.setattr("kit.lm.files.read_config", giving({"vocab_size": "12"}))
    monkeypatch.setattr(
        "kit.lm.vllm_backend.VllmBackend",
        lambda folder, spare, **how: given.update(how, folder=folder, spare=spare),
    )
    monkeypatch.setattr(
        "kit.lm.vllm_backend.spare_ids", lambda tokenizer, rows, *, sets: (tokenizer, rows, sets)
    )
    tokenizer: Any = "tokenizer" if prefixes else None
    common.vllm_backend(
        context, pinned(), dtype="bfloat16", gpu_share=0.5, prefix_of=tokenizer, sets=3
    )
    wanted = {
        "folder": Path("folder"),
        "spare": ("tokenizer", 12, 3) if prefixes else (),
        "dtype": "bfloat16",
        "random_weights": rehearsal,
        "gpu_memory_gb": context.resources.gpu_memory_gb,
        "gpu_share": 0.5,
    }
    assert {name: given[name] for name in wanted} == wanted


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(("parameters", "planned"), [(3 * 2**30, 10.0), (None, 10.0), (1, None)])
def test_an_engine_leaves_room_for_a_model_beside_it(
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    parameters: int | None,
    planned: float | None,
    beside: bool,
) -> None:
    given: dict[str, Any] = {}
    context.resources = SimpleNamespace(gpu_memory_gb=planned)
    monkeypatch.setattr(common, "model_folder", giving(Path("folder")))
    monkeypatch.setattr("kit.lm.files.read_config", giving({"vocab_size": "12"}))
    monkeypatch.setattr("kit.lm.vllm_backend.VllmBackend", lambda *_, **how: given.update(how))
    model = pinned(**({} if parameters is None else {"parameters": parameters}))
    how: dict[str, Any] = {"dtype": "bfloat16", "gpu_share": 0.5, "model_beside": beside}
    common.vllm_backend(context, model, **how)
    weights = 6.0 if parameters == 3 * 2**30 else None
    assert given["gpu_memory_gb"] == (4.0 if beside and weights else planned)


@pytest.mark.parametrize(
    ("params", "compiles", "vllm"),
    [
        ({}, False, False),
        ({"compile": True}, True, False),
        ({"compiled": True}, True, False),
        ({"backend": "vllm", "compile": True}, False, True),
        ({"backend": "transformers", "compile": False}, False, False),
    ],
)
def test_what_is_imported_early_is_what_will_be_used(
    params: dict[str, Any], compiles: bool, vllm: bool
) -> None:
    names = common.model_imports(SimpleNamespace(**params))
    assert any("inductor" in name for name in names) is compiles
    assert any("vllm" in name for name in names) is vllm
    assert ("torch" in names) is not vllm
