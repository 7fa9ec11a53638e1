"""How a sharded training is fitted to GPUs, and what steps say of their time and memory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct

from kit.engine.registry import Cards, ModelInput
from kit.errors import InvalidInput
from kit.steps import common, sharding
from kit.steps.checkpoint_transfer import inputs
from kit.train.costs import ModelShape, Setting
from kit.train.plan import Machine
from tests.steps.contexts import FakeContext


class _Params(Struct, kw_only=True):
    engine: str = "fsdp"
    compiled: bool = True
    checkpointing: bool = False
    communication: str = "bfloat16"
    rows: int = 0
    snapshot: str = "cpu"


def test_what_was_chosen_stays_and_the_rest_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def solve(*given: Any) -> Any:
        asked.append(given)
        setting = Setting(4, 6, "fsdp", checkpointing=True, snapshot="cpu")
        return SimpleNamespace(
            setting=setting, highest=71.5, host_gib=100.0, seconds=90.0, words=lambda: "so"
        )

    monkeypatch.setattr("kit.train.plan.solve", solve)
    monkeypatch.setattr(ModelShape, "declared", lambda declared: f"shape of {declared}")
    cards = Cards(4, 79.0, 500.0, frozenset({"snapshot", "weights_stay"}))
    models = {"model": {"architecture": "llama"}}
    work: Any = "work"
    made = sharding.solved(_Params(), models, cards, work, 40)
    wanted = Setting(4, 1, "fsdp", compiled=True, communication="bfloat16")
    machine = Machine(4, 79.0, 500.0)
    assert asked == [("shape of llama", machine, "work", wanted, {"snapshot": "cpu"})]
    assert made is not None
    assert made.params == {"rows": 6, "checkpointing": True, "snapshot": "cpu"}
    assert made.gpu_memory_gb == 71.5
    # Two minutes of starting, then 40 steps of a minute and a half.
    assert made.minutes == 62.0
    assert made.words == "so; 90 s a step, computed for H100 or H200"
    more = sharding.solved(_Params(), models, Cards(8, 79.0, 500.0), work, 40)
    assert more is not None
    assert 100.0 < made.memory_gb < more.memory_gb
    assert sharding.solved(_Params(), models, Cards(1, 79.0, 500.0), work, 1) is not None


@pytest.mark.parametrize(
    ("engine", "architecture"), [("single-process", "llama"), ("fsdp", None), ("zero-3", None)]
)
def test_nothing_is_solved_where_nothing_is_sharded(engine: str, architecture: Any) -> None:
    models = {"model": {"architecture": architecture}}
    work: Any = None
    assert sharding.solved(_Params(engine=engine), models, Cards(2, 79.0, 9.0), work, 1) is None


@pytest.mark.parametrize("rehearsal", [True, False])
def test_only_a_rehearsal_says_where_its_time_went(tmp_path: Path, rehearsal: bool) -> None:
    said: list[Any] = []
    read: list[int] = []
    context: Any = SimpleNamespace(rehearsal=rehearsal, metric=lambda *given: said.append(given))
    clock: Any = SimpleNamespace(read=lambda: read.append(1) or {"steps": 1.23456, "saving": 0.5})
    sharding.say_seconds(context, clock, 3)
    assert read == [1], "the time until the next call begins in either case"
    assert said == [("seconds of steps", 1.2346, 3), ("seconds of saving", 0.5, 3)] * rehearsal


def test_an_engine_gets_what_its_parameters_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kit.train.engines.engine_factory", lambda name, device, **chosen: (name, device, chosen)
    )
    context: Any = SimpleNamespace(device="cpu")
    assert sharding.make_engine(context, _Params()) == (
        "fsdp", "cpu", {"compiled": True, "checkpointing": False, "communication": "bfloat16"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "parameters", "gib"),
    [("bfloat16", 2**30, 2.0), ("float32", 2**29, 2.0), ("bfloat16", None, None)],
)
def test_the_weights_of_a_served_model_in_gib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, parameters: Any, gib: Any
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(common, "model_folder", lambda *_, **__: tmp_path)
    monkeypatch.setattr("kit.lm.files.read_config", lambda folder: {"vocab_size": 8})
    monkeypatch.setattr(
        "kit.lm.vllm_backend.VllmBackend", lambda *_, **how: given.update(how) or "backend"
    )
    context: Any = FakeContext(tmp_path, tmp_path)
    attributes = {} if parameters is None else {"parameters": parameters}
    model = ModelInput("a", tmp_path, attributes, pinned=True)
    common.vllm_backend(context, model, dtype=dtype, gpu_share=0.5)
    assert given["weights_gb"] == gib
    assert given["prefix_caching"] is False


@pytest.mark.parametrize("rehearsal", [True, False])
def test_only_stand_ins_need_words_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rehearsal: bool
) -> None:
    from kit.methods.checkpoint_transfer.standin import WORDS

    seen: list[Any] = []
    monkeypatch.setattr(common, "tokenizer_of", lambda *_, **how: seen.append(how.get("words")))
    context: Any = FakeContext(tmp_path, tmp_path, rehearsal=rehearsal)
    inputs.tokenizer_of(context, ModelInput("a", tmp_path, {}, pinned=True))
    assert seen == [WORDS if rehearsal else None]


@pytest.mark.parametrize(("tokens", "rows"), [(1, 128), (128 * 128, 128), (129 * 128, 129)])
def test_a_batch_has_room_for_many_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int, rows: int
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(common, "load_model", lambda ctx, model, dtype: f"{model} in {dtype}")
    monkeypatch.setattr(
        "kit.lm.generate.TransformersBackend", lambda *given, **how: seen.append((given, how))
    )
    nothing: Any = None
    model: Any = "model"
    common.transformers_backend(nothing, model, dtype="float32", pad_id=3, batch_tokens=tokens)
    assert seen == [(("model in float32", 3), {"max_batch": rows, "max_tokens": tokens})]


def test_modules_that_register_a_format_are_imported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_format_of_ones_own.py").write_text("known = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(common, "FORMATS", ("a_format_of_ones_own",))
    monkeypatch.setattr(common, "tokenizer_of", lambda *_, **how: how["words"])

    def declared(name: str, tokenizer: Any) -> Any:
        return name, "a_format_of_ones_own" in sys.modules

    monkeypatch.setattr("kit.lm.formats.declared_format", declared)
    context: Any = None
    model = ModelInput("a", tmp_path, {"chat_format": "own"}, pinned=True)
    try:
        made: Any = common.tokenizer_and_format(context, model, words=("x",))
    finally:
        sys.modules.pop("a_format_of_ones_own", None)
    assert made == (("x",), ("own", True))
    bare = ModelInput("a", tmp_path, {}, pinned=True)
    with pytest.raises(InvalidInput, match="declares no chat format"):
        common.tokenizer_and_format(context, bare)
