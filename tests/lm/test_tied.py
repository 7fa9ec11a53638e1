"""Weights that are one tensor under two names are told by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kit.errors import InvalidInput
from kit.lm.load import save_model, tied_weights
from kit.steps import common


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_noted_when_a_step_loads_a_model(tied: bool, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(LlamaForCausalLM(config), None, tmp_path)
    notes: list[str] = []
    context: Any = SimpleNamespace(rehearsal=False, device="cpu", note=notes.append)
    given: Any = SimpleNamespace(id="tiny", path=tmp_path, pinned=True, attributes={})
    model = common.load_model(context, given, "float32")
    names = ["lm_head.weight", "model.embed_tokens.weight"]
    assert tied_weights(model) == ([names] if tied else [])
    assert len(notes) == int(tied)
    assert all(name in note for note in notes for name in names)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="the model tiny cannot be used"):
        common.load_model(context, given, "float32")
