"""Compiling beside other work: a later process finds the graph, and a failure costs time only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kit.lm.hidden import block_outputs
from kit.lm.standin import load_random_model, make_folder, read_shape
from kit.train.compile_ahead import Ahead, compile_layer, compiling_ahead
from kit.train.compiling import compiled_layers
from kit.train.lora import Lora, add_adapter

MODULES = ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value")
CONFIG = {
    "model_type": "gpt_neox",
    "vocab_size": 400,
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}


@pytest.fixture
def wanted(tmp_path: Path) -> Ahead:
    folder = make_folder(tmp_path / "shape", read_shape({"config": CONFIG, "tokens": 400}))
    lora = Lora(4, 4.0, MODULES, (0, 1, 2), 0.05)
    return Ahead(folder, lora, 2, 8, False, "float32", "float32", "cpu")


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_the_training_asks_for_no_graph_that_was_not_made_ahead(
    wanted: Ahead, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a single process: of five layers with adapters on three, and of the two of ahead."""
    from torch._dynamo.utils import counters

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda layer: real(layer, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    compile_layer(replace(wanted, padded=padded))
    assert counters["stats"]["unique_graphs"] == 1
    adapted = add_adapter(load_random_model(wanted.model, dtype="float32"), wanted.lora, seed=0)
    adapted.train()
    ids = torch.randint(0, 400, (2, 8))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 5:] = not padded
    with compiled_layers(adapted):
        sum(s.mean() for s in block_outputs(adapted, ids, mask, [1, 2]).values()).backward()
    assert counters["stats"]["unique_graphs"] == 1


def test_a_process_that_fails_is_reported_and_stops_nothing(wanted: Ahead, tmp_path: Path) -> None:
    with compiling_ahead(replace(wanted, model=tmp_path / "nothing")) as how:
        done = True
    assert done
    assert "nothing" in str(how.failed)


def test_a_failure_of_the_work_beside_ends_the_process(wanted: Ahead) -> None:
    with (
        pytest.raises(RuntimeError, match="beside"),
        compiling_ahead(wanted) as how,
    ):
        raise RuntimeError("beside")
    assert how.seconds == 0.0


@pytest.mark.slow
def test_another_process_finds_it_on_disk(
    wanted: Ahead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with compiling_ahead(wanted) as first:
        pass
    made = set((tmp_path / "cache").rglob("*.py"))
    with compiling_ahead(wanted) as second:
        pass
    assert first.failed is second.failed is None
    assert made
    assert made == set((tmp_path / "cache").rglob("*.py"))
    assert second.seconds < first.seconds


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_no_layer_is_made_that_nothing_runs(wanted: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only layers behind another are compiled, each once."""
    compiled, ran = [], set()

    def load(folder: Path, **how: object) -> object:
        model = load_random_model(folder, **how)  # type: ignore[arg-type]
        for number, layer in enumerate(model.gpt_neox.layers):
            layer.register_forward_pre_hook(lambda *_, number=number: ran.add(number))
        layers.append(len(model.gpt_neox.layers))
        return model

    layers: list[int] = []
    monkeypatch.setattr("kit.train.compile_ahead.load_random_model", load)
    monkeypatch.setattr(torch, "compile", lambda layer: compiled.append(layer) or layer)
    compile_layer(wanted)
    assert ran == set(range(layers[0]))
    assert len(compiled) == 1
