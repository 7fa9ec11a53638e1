"""Stand-ins: true ids and shapes, reproducible weights, documented lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kit.lm import standin
from kit.lm.files import read_config, read_embeddings
from kit.lm.load import load_tokenizer
from kit.lm.vllm_backend import spare_ids
from kit.methods.defensive_tokens import standin as data
from kit.methods.defensive_tokens import struq
from kit.methods.defensive_tokens.attacks import PAPER, attack_samples
from kit.methods.defensive_tokens.chat import LLAMA3

SMALL = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 512,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = standin.read_shape("llama-3-8b")
    return standin.make_folder(tmp_path_factory.mktemp("standin"), shape, words=data.VOCABULARY)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return standin.make_folder(tmp_path / "small", standin.Shape(SMALL, tokens=512))


def test_control_tokens_have_their_true_ids(tokenizer: Any) -> None:
    assert len(tokenizer) == 128256
    names = {
        "<|begin_of_text|>": 128000,
        "<|end_of_text|>": 128001,
        "<|reserved_special_token_0|>": 128002,
        "<|start_header_id|>": 128006,
        "<|end_header_id|>": 128007,
        "<|reserved_special_token_4|>": 128008,
        "<|eot_id|>": 128009,
        "<|reserved_special_token_250|>": 128255,
    }
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in names} == names
    assert spare_ids(tokenizer, 128256) == (128251, 128252, 128253, 128254, 128255)


def test_text_survives_and_known_words_are_one_token(tokenizer: Any) -> None:
    text = "Amber river, naïve 雪!\n\n### response:\n\nsnow"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer.encode("amber river snow", add_special_tokens=False)) == 3


def test_lengths_are_the_documented_ones(tokenizer: Any) -> None:
    def count(instruction: str, text: str | None) -> int:
        return 5 + len(LLAMA3.prompt_ids(tokenizer, instruction, text))

    samples, texts = data.standin_evaluation(), data.standin_attack_texts()
    assert len(samples) == 208
    assert all(sample.input for sample in samples)
    benign = np.mean([count(s.instruction, s.input) for s in samples])
    assert benign == pytest.approx(80, abs=6)
    for attack, extra in (("ignore", 33), ("completion", 94)):
        attacked = attack_samples(attack, samples, texts, PAPER)
        mean = np.mean(
            [count(s.instruction, a.data) for s, a in zip(samples, attacked, strict=True)]
        )
        assert mean - benign == pytest.approx(extra, abs=8)
    items = struq.as_reported(data.standin_samples(2000, 0), texts, PAPER)
    assert np.mean([count(i.instruction, i.data) for i in items]) == pytest.approx(107, abs=7)
    answers = data.answer_lengths(3200, 0)
    assert np.mean(answers) == pytest.approx(192, abs=5)
    assert 1 <= min(answers) <= max(answers) == 512


def test_a_role_of_a_delimiter_has_six_words_as_struq_has_them() -> None:
    words = data.standin_attack_texts().delimiter_words
    assert {len(of) for of in words.values()} == {6}
    assert all(("{s}" in word) == (name == "mark") for name, of in words.items() for word in of)


def test_samples_depend_on_the_seed_only() -> None:
    assert data.standin_samples(20, 3) == data.standin_samples(20, 3)
    assert data.standin_samples(20, 3) != data.standin_samples(20, 4)
    assert len({sample.id for sample in data.standin_samples(50, 0)}) == 50


def test_random_model_is_frozen_reproducible_and_not_tied(small: Path) -> None:
    state = torch.random.get_rng_state()
    model = standin.load_random_model(small, dtype="float32")
    assert torch.equal(torch.random.get_rng_state(), state)
    again = standin.load_random_model(small, dtype="float32")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    scores = model(torch.arange(100, 140)[None]).logits[0]
    assert bool(torch.isfinite(scores).all())
    best = scores.topk(2).values
    assert float((best[:, 0] - best[:, 1]).min()) > 0
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    assert read_config(small)["rope_theta"] == 500000.0
    assert standin.load_random_model(small).dtype == torch.bfloat16


def test_embeddings_resemble_each_other_and_can_be_read_back(small: Path) -> None:
    first, second = (standin.random_embeddings(small, seed) for seed in (0, 1))
    assert first.shape == (512, 32)
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, standin.random_embeddings(small, 0))
    cosine = torch.cosine_similarity(first.float().ravel(), second.float().ravel(), dim=0)
    assert float(cosine) == pytest.approx(0.8, abs=0.03)
    standin.write_embeddings(small, first)
    assert torch.equal(read_embeddings(small), first)


def test_released_prefix_has_the_documented_norm() -> None:
    prefix = data.released_prefix(32)
    assert prefix.shape == (5, 32)
    assert prefix.norm(dim=1).tolist() == pytest.approx([83.0] * 5)


def test_too_many_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        standin.make_folder(
            tmp_path, standin.read_shape("llama-3-8b"), words=[f"w{i}" for i in range(64000)]
        )


SHAPES = sorted(file.stem for file in standin.SHAPES.glob("*.json"))


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_the_published_number_of_parameters(name: str) -> None:
    """Made on no device: no memory is taken."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = standin.read_shape(name)
    values = {k: v for k, v in shape.config.items() if k != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(shape.config["model_type"], **values)
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.parameters


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_s_control_tokens_have_their_ids_and_text_never_becomes_them(
    name: str, tmp_path: Path
) -> None:
    shape = standin.read_shape(name)
    made = load_tokenizer(standin.make_folder(tmp_path, shape, words=("river",)))
    assert len(made) == shape.tokens <= shape.config["vocab_size"]
    control = shape.control_ids()
    assert {t: made.convert_tokens_to_ids(t) for t in control} == control
    text = "a river, 12 <|endoftext|> x7\n\n"
    ids = made.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert not set(ids) & set(control.values())
    assert made.decode(ids) == text
    assert made.eos_token_id == shape.config["eos_token_id"]


@pytest.mark.parametrize("name", ["gpt_neox", "qwen2"])
def test_a_random_model_of_another_family(name: str, tmp_path: Path) -> None:
    small = {"model_type": name, "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 512}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    folder = standin.make_folder(tmp_path, standin.Shape(small, tokens=400, control={"<e>": 0}))
    model = standin.load_random_model(folder, dtype="float32", trainable=True)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config.model_type == name
    embeddings = standin.random_embeddings(folder, 0)
    standin.write_embeddings(folder, embeddings)
    assert torch.equal(read_embeddings(folder), embeddings)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("llama-4", "unknown architecture 'llama-4'; known: falcon3-7b, gpt-neox-6.9b"),
        ({"config": {}, "tokens": 5}, "no architecture of a stand-in: 'hidden_size'"),
        ({"tokens": 5}, "no architecture of a stand-in"),
        ({"config": {"hidden_size": 8, "vocab_size": 4}, "tokens": 5}, "5 tokens need"),
    ],
)
def test_an_architecture_that_is_none_is_refused(declared: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        standin.read_shape(declared)
