"""What is compiled ahead, how DeepSpeed is set, and which weights a rule routes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.train import compile_ahead
from kit.train.compile_ahead import Ahead
from kit.train.engine import Precision
from kit.train.lora import Lora
from kit.train.optimizers import Muon, make_optimizer
from kit.train.zero3 import Zero3Settings, deepspeed_config
from tests.refused import refused

WANTED = Ahead(Path("m"), Lora(4, 8.0, ("q", "v"), (3, 5), 0.05), 3, 7, False, "float32",
               "bfloat16", "cpu")  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
def test_the_graph_ahead_has_the_shapes_of_the_training(
    monkeypatch: pytest.MonkeyPatch, padded: bool
) -> None:
    """A mask without padding is another graph; the compiled layer is the second of two."""
    seen: dict[str, Any] = {}

    class Engine:
        def __init__(self, model: Any, spec: Any, precision: Any) -> None:
            seen["precision"] = precision

        def accumulate(self, loss: Any, parts: Any) -> None:
            seen["parts"] = parts
            seen["loss"] = float(loss("adapted", *parts))

    def outputs(model: Any, ids: Any, mask: Any, blocks: Any) -> Any:
        seen.update(model=model, ids=ids, mask=mask, blocks=blocks)
        return dict.fromkeys(blocks, torch.full((2, 2), 3.0))

    def adapter(model: Any, lora: Lora, *, seed: int) -> str:
        seen["lora"] = lora
        return "adapted"

    def load(folder: str, **how: Any) -> None:
        seen["config"] = json.loads((Path(folder) / "config.json").read_text())
        seen["how"] = how

    for name, value in (
        ("SingleProcess", Engine), ("block_outputs", outputs), ("add_adapter", adapter),
        ("load_random_model", load),
        ("read_config", lambda folder: {"num_hidden_layers": 40, "hidden_size": 6}),
    ):  # fmt: skip
        monkeypatch.setattr(compile_ahead, name, value)
    monkeypatch.setattr(
        "kit.train.compile_ahead.compiled_layers", lambda model: torch.enable_grad()
    )
    compile_ahead.compile_layer(replace(WANTED, padded=padded))
    assert seen["config"] == {"num_hidden_layers": 2, "hidden_size": 6}
    assert seen["how"] == {"dtype": "float32", "device": "cpu"}
    assert seen["lora"] == replace(WANTED.lora, layers=(0, 1))
    assert seen["precision"] == Precision("bfloat16")
    (ids,) = seen["parts"]
    assert (ids.shape, seen["mask"].shape, seen["mask"].dtype) == ((3, 7), (3, 7), torch.bool)
    assert int((~seen["mask"]).sum()) == padded
    assert seen["blocks"] == [1]
    assert seen["loss"] == 9


def test_a_process_compiles_what_its_argument_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Ahead] = []
    given = json.dumps({**asdict(WANTED), "model": str(WANTED.model)})
    monkeypatch.setattr(sys, "argv", ["compile_ahead", given])
    monkeypatch.setattr(compile_ahead, "compile_layer", made.append)
    compile_ahead.main()
    (what,) = made
    assert (what.model, what.rows, what.lora.targets) == (Path("m"), 3, ("q", "v"))
    assert replace(what, lora=WANTED.lora) == WANTED


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("sums", ["float32", "bfloat16"])
def test_deepspeed_is_told_our_settings(compute: str, sums: str) -> None:
    settings = Zero3Settings(communication=sums, bucket=900, prefetch=70, live=11, reuse=13)
    small = deepspeed_config(Precision(compute), settings, 50)
    large = deepspeed_config(Precision(compute), settings, 10**6)
    assert small["bf16"] == {"enabled": compute == "bfloat16"}
    assert small["communication_data_type"] == {"float32": "fp32", "bfloat16": "bf16"}[sums]
    assert small["data_types"] == {"grad_accum_dtype": "fp32"}
    zero = {name: made["zero_optimization"] for name, made in (("s", small), ("l", large))}
    assert zero["s"]["stage"] == 3
    # No bucket is larger than the model.
    assert [zero[n]["reduce_bucket_size"] for n in "sl"] == [50, 900]
    assert [zero[n]["stage3_prefetch_bucket_size"] for n in "sl"] == [50, 70]
    assert (zero["s"]["stage3_max_live_parameters"], zero["s"]["stage3_max_reuse_distance"]) == (
        11, 13,
    )  # fmt: skip
    # No weight stays gathered, and all are in a group, however large the model.
    assert zero["s"]["stage3_param_persistence_threshold"] == 0
    assert zero["s"]["sub_group_size"] > 10**12
    # An accumulation over micro-batches is ours: DeepSpeed sees each backward pass alone.
    assert small["train_micro_batch_size_per_gpu"] == small["gradient_accumulation_steps"] == 1
    assert small["zero_allow_untested_optimizer"] is True
    assert small["steps_per_print"] > 10**9


@pytest.mark.parametrize(
    ("compiled", "leaf", "wrong"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_a_compiled_layer_is_gathered_as_a_whole(compiled: bool, leaf: bool, wrong: bool) -> None:
    refused(
        lambda: Zero3Settings(compiled=compiled, leaf_layers=leaf), wrong, "gathered as a whole"
    )


@pytest.mark.parametrize(("rows", "chosen"), [(3, None), (4, ["w"]), (5, ["w"])])
def test_a_rule_below_a_number_of_rows_leaves_that_number_out(
    rows: int, chosen: list[str] | None
) -> None:
    weights = {"w": torch.nn.Parameter(torch.ones(3, 6)), "b": torch.nn.Parameter(torch.ones(2))}
    spec = Muon(0.1, 0.0, routing=f"below-{rows}-rows")
    act = lambda: make_optimizer(spec, weights.items())  # noqa: E731
    refused(act, chosen is None, "none of 2 parameters")
    if chosen is not None:
        census = act().census
        assert list(census.names("muon")) == chosen
        assert list(census.names("adamw")) == ["b"]
