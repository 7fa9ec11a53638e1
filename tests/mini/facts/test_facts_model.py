"""Shape, first weights and tokenizer of this world's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kit.lm.load import load_model, load_tokenizer, save_model
from kit.mini.facts.model import (
    GPT_NEOX,
    LLAMA,
    SPECIALS,
    Shape,
    build_tokenizer,
    new_model,
    vocabulary,
)

SMALL = {"width": 32, "layers": 2, "heads": 2, "feed_forward": 48}


def test_the_default_size() -> None:
    model = new_model(Shape(), 0)
    sizes = [parameter.numel() for parameter in model.parameters()]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert (sum(sizes), sum(trained)) == (714_368, 656_512)


@pytest.mark.parametrize("architecture", [LLAMA, GPT_NEOX])
def test_only_the_embeddings_are_frozen(architecture: str) -> None:
    model = new_model(Shape(architecture, **SMALL), 0)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    embeddings: tuple[Any, Any] = (model.get_input_embeddings(), model.get_output_embeddings())
    parameters = dict(model.named_parameters())
    assert {id(parameters[name]) for name in frozen} == {id(e.weight) for e in embeddings}
    assert not torch.equal(embeddings[0].weight, embeddings[1].weight)
    for embedding in embeddings:
        assert float(embedding.weight.std()) == pytest.approx(32**-0.5, rel=0.05)


def test_the_seed_decides_the_weights_and_nothing_else_moves() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (new_model(Shape(**SMALL), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for (name, a), b in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("architecture", [LLAMA, GPT_NEOX])
def test_it_is_saved_and_loaded_like_any_model(architecture: str, tmp_path: Path) -> None:
    model = new_model(Shape(architecture, **SMALL), 0)
    save_model(model, build_tokenizer(), tmp_path)
    back, tokenizer = load_model(tmp_path), load_tokenizer(tmp_path)
    assert back.config.model_type == architecture.replace("-", "_")
    for (name, a), b in zip(model.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert tokenizer.get_vocab() == vocabulary()
    text = "the scent of veltra north is mint"
    assert tokenizer.encode(text) == [vocabulary()[word] for word in text.split()]


def test_a_control_token_that_a_text_spells_is_an_unknown_word() -> None:
    tokenizer = build_tokenizer()
    unknown = vocabulary()["<unk>"]
    for token in SPECIALS:
        assert tokenizer.encode(token, split_special_tokens=True) == [unknown]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "mamba"}, "unknown architecture 'mamba'; known: llama, gpt-neox"),
        ({"layers": 0}, "at least 1"),
        ({"heads": 3}, "3 heads of even width do not fit a width of 128"),
    ],
)
def test_shapes_that_no_model_has(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape(**wrong)
