"""The vLLM backend against a stand-in engine that runs the same tiny model with transformers."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from kit.lm.generate import TransformersBackend
from kit.lm.vllm_backend import ENVIRONMENT, VllmBackend, spare_ids
from tests.lm.tiny_world import llama3_tokenizer, tiny_llama

ROWS = (60, 61, 62)
STOP = (2, 17)
CONFIG = {"vocab_size": 64, "model_type": "llama", "tie_word_embeddings": False}


class FakeEngine:
    """What the backend uses of ``vllm.LLM``."""

    model: LlamaForCausalLM

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.cleared = 0
        self.seen: list[Any] = []
        self.fail = False
        self.clears = True

    def apply_model(self, work: Callable[[Any], Any]) -> list[Any]:
        return [work(self.model)]

    def reset_prefix_cache(self) -> bool:
        self.cleared += 1
        return self.clears

    def generate(self, prompts: list[Any], parameters: list[Any], use_tqdm: bool) -> list[Any]:
        self.seen += zip(prompts, parameters, strict=True)
        if self.fail:
            raise RuntimeError("engine died")
        if getattr(parameters[0], "prompt_logprobs", None) is not None:
            return [self.score(prompt["prompt_token_ids"]) for prompt in prompts]
        backend = TransformersBackend(self.model, pad_id=0)
        outputs = []
        for prompt, p in zip(prompts, parameters, strict=True):
            assert p.temperature == 0.0
            assert p.ignore_eos
            assert not p.detokenize
            (done,) = backend.generate(
                [prompt["prompt_token_ids"]],
                prefix=None,
                max_new_tokens=p.max_tokens,
                stop_ids=p.stop_token_ids,
                banned_ids=[i for i, bias in (p.logit_bias or {}).items() if bias < -1e20],
            )
            ids = [*done.ids, p.stop_token_ids[0]] if done.finish_reason == "stop" else done.ids
            outputs.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids)]))
        return outputs

    def score(self, ids: list[int]) -> Any:
        """As vLLM does with ``prompt_logprobs=0``: nothing for the first token, then its own."""
        logs = self.model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        entries: list[Any] = [None]
        for at, token in zip(logs[:-1], ids[1:], strict=True):
            rank = int((at >= at[token]).sum())
            entries.append({token: SimpleNamespace(logprob=float(at[token]), rank=rank)})
        return SimpleNamespace(prompt_logprobs=entries, outputs=[])


class FakeRegistry:
    """Names of classes that are loaded when they are needed."""

    def __init__(self) -> None:
        self.models = {"LlamaForCausalLM": SimpleNamespace(load_model_cls=lambda: "the class")}
        self.registered: dict[str, Any] = {}

    def register_model(self, name: str, given: Any) -> None:
        self.registered[name] = given


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> VllmBackend:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "unset")
    FakeEngine.model = tiny_llama()
    module = ModuleType("vllm")
    module.LLM = FakeEngine  # type: ignore[attr-defined]
    module.SamplingParams = lambda **values: SimpleNamespace(**values)  # type: ignore[attr-defined]
    module.ModelRegistry = FakeRegistry()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return VllmBackend(tmp_path, ROWS, prefix_caching=True)


def test_the_class_is_looked_at_in_this_process(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ["LlamaForCausalLM", "NobodyKnows"]
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"architectures": names}))
    VllmBackend(tmp_path, ROWS)
    registered = sys.modules["vllm"].ModelRegistry.registered
    assert registered == {"LlamaForCausalLM": "the class"}


def test_what_an_engine_imports_is_imported_under_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """vLLM reads some of them when it is imported, so that later is too late."""
    asked = []

    def note(name: str) -> None:
        asked.append((name, os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"]))

    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(importlib, "import_module", note)
    monkeypatch.delitem(sys.modules, "kit.lm.vllm_modules", raising=False)
    __import__("kit.lm.vllm_modules")
    assert asked[0] == ("vllm", "0")
    assert len(asked) == len(sys.modules["kit.lm.vllm_modules"].NAMES)
    del sys.modules["kit.lm.vllm_modules"]


PROMPTS = [[1, 5, 6], [64, 65, 66, 1, 9, 8, 7, 3], [1, 64, 65, 66, 1, 20]]


def test_agrees_with_transformers_with_and_without_a_prefix(backend: VllmBackend) -> None:
    plain = TransformersBackend(tiny_llama(), pad_id=0)
    torch.manual_seed(1)
    for prefix in (torch.randn(3, 32), torch.randn(3, 32)):
        settings: dict[str, Any] = {"max_new_tokens": 12, "stop_ids": STOP}
        wanted = plain.generate(PROMPTS, prefix=prefix, banned_ids=(*ROWS, 5, 99), **settings)
        assert backend.generate(PROMPTS, prefix=prefix, banned_ids=(5, 99), **settings) == wanted
        wanted = plain.generate(PROMPTS[:1], prefix=None, banned_ids=ROWS, **settings)
        assert backend.generate(PROMPTS[:1], prefix=None, **settings) == wanted


PAIRS = [([1, 5, 6], [7, 8]), ([1], [30]), ([64, 65, 66, 1, 9], [4, 4, 4])]


def test_log_likelihoods_agree_with_transformers(backend: VllmBackend) -> None:
    plain = TransformersBackend(tiny_llama(), pad_id=0)
    greedy = plain.generate([[1, 5]], max_new_tokens=3, stop_ids=[], banned_ids=ROWS)[0].ids
    pairs = [*PAIRS, ([1, 5], list(greedy))]
    for prefix in (torch.randn(3, 32), torch.randn(3, 32)):
        wanted = plain.loglikelihoods(pairs, prefix=prefix)
        got = backend.loglikelihoods(pairs, prefix=prefix)
        assert [g.total for g in got] == pytest.approx([w.total for w in wanted], abs=1e-5)
        assert [g.tokens for g in got] == [2, 1, 3, 3]
        assert [g.greedy for g in got] == [w.greedy for w in wanted]
        assert {g.greedy for g in got} == {True, False}
    assert all(p.max_tokens == 1 and p.prompt_logprobs == 0 for _, p in backend.engine.seen)


def test_a_prefix_is_not_scored_among_tied_embeddings(backend: VllmBackend) -> None:
    (backend.path / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True}))
    with pytest.raises(ValueError, match="ties input and output embeddings"):
        backend.loglikelihoods(PAIRS, prefix=torch.zeros(3, 32))
    assert len(backend.loglikelihoods(PAIRS[:2])) == 2


def test_an_engine_without_slot_rows_serves_no_prefix(backend: VllmBackend) -> None:
    plain = VllmBackend(backend.path)
    assert len(plain.generate(PROMPTS[:1], max_new_tokens=2, stop_ids=STOP)) == 1
    with pytest.raises(ValueError, match="3 prefix vectors for 0 slot rows"):
        plain.generate(PROMPTS, max_new_tokens=2, stop_ids=STOP, prefix=torch.zeros(3, 32))


def test_rows_come_back_bit_for_bit_and_the_cache_is_cleared(backend: VllmBackend) -> None:
    before = backend.engine.model.model.embed_tokens.weight.clone()
    backend.generate(PROMPTS, prefix=torch.randn(3, 32), max_new_tokens=2, stop_ids=STOP)
    assert torch.equal(backend.engine.model.model.embed_tokens.weight, before)
    assert backend.engine.cleared == 2
    backend.engine.fail = True
    with pytest.raises(RuntimeError, match="engine died"):
        backend.generate(PROMPTS, prefix=torch.randn(3, 32), max_new_tokens=2, stop_ids=STOP)
    assert torch.equal(backend.engine.model.model.embed_tokens.weight, before)


def test_a_cache_that_is_not_cleared_stops_everything(backend: VllmBackend) -> None:
    """The same ids mean something else now: what was kept of them would be used in silence."""
    backend.engine.clears = False
    with pytest.raises(RuntimeError, match="could not clear its prefix cache"):
        backend.generate(PROMPTS, prefix=torch.randn(3, 32), max_new_tokens=2, stop_ids=STOP)


def test_engine_receives_ids_and_explicit_settings(backend: VllmBackend) -> None:
    settings = backend.engine.settings
    assert settings["generation_config"] == "vllm"
    assert settings["skip_tokenizer_init"] is True
    assert settings["trust_remote_code"] is False
    assert settings["load_format"] == "safetensors"
    assert settings["dtype"] == "bfloat16"
    assert all(os.environ[name] == value for name, value in ENVIRONMENT.items())
    backend.generate(PROMPTS, prefix=torch.randn(3, 32), max_new_tokens=[1, 2, 3], stop_ids=STOP)
    assert [p["prompt_token_ids"] for p, _ in backend.engine.seen] == [
        [1, 5, 6],
        [60, 61, 62, 1, 9, 8, 7, 3],
        [1, 60, 61, 62, 1, 20],
    ]
    assert [p.max_tokens for _, p in backend.engine.seen] == [1, 2, 3]
    assert all(set(ROWS) <= set(p.logit_bias) for _, p in backend.engine.seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": [[]]}, "empty prompt"),
        ({"prompts": [[1, 60]]}, "stands for a prefix slot"),
        ({"prompts": [[64, 1]], "prefix": None}, "only 0 vectors"),
        ({"prompts": [[67, 1]]}, "slot 3 in the prompt, but only 3"),
        ({"prefix": torch.zeros(4, 32)}, "4 prefix vectors for 3 slot rows"),
        ({"prefix": torch.zeros(3, 31)}, "does not fit a model of width 32"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"max_new_tokens": [1]}, "1 limits for 3 prompts"),
    ],
)
def test_wrong_input_is_refused(backend: VllmBackend, change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "prompts": PROMPTS,
        "prefix": torch.zeros(3, 32),
        "max_new_tokens": 4,
        "stop_ids": STOP,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        backend.generate(values.pop("prompts"), **values)
    assert not backend.engine.seen


def test_prefixes_side_by_side_agree_with_each_alone(backend: VllmBackend) -> None:
    """Three sets in one batch, each prefix in rows of its own, and the rows come back."""
    rows = (57, 58, 59, *ROWS)
    several = VllmBackend(backend.path, rows)
    assert (several.sets_at_once(3), several.sets_at_once(4), backend.sets_at_once(5)) == (2, 1, 1)
    plain, before = TransformersBackend(tiny_llama(), pad_id=0), weights()
    torch.manual_seed(2)
    sets: list[tuple[Any, Any]] = [
        (PROMPTS, torch.randn(3, 32)),
        (PROMPTS[:1], None),
        (PROMPTS[1:], torch.randn(3, 32)),
    ]
    how: dict[str, Any] = {"max_new_tokens": 12, "stop_ids": STOP}
    wanted = [
        plain.generate(prompts, prefix=prefix, banned_ids=rows, **how) for prompts, prefix in sets
    ]
    assert wanted[0][1:] != wanted[2]  # the two prefixes do something else
    plainly, batches = several.engine.generate, list[int]()

    def counted(asked: list[Any], *rest: Any, **more: Any) -> Any:
        batches.append(len(asked))
        return plainly(asked, *rest, **more)

    several.engine.generate = counted  # type: ignore[method-assign]
    assert several.generate_sets(sets, **how) == wanted
    assert batches == [6]
    assert torch.equal(weights(), before)
    with pytest.raises(ValueError, match="9 prefix vectors for 6 slot rows"):
        several.generate_sets([*sets, sets[0]], **how)


def weights() -> torch.Tensor:
    return FakeEngine.model.get_input_embeddings().weight.detach().clone()


def test_slot_rows_must_be_distinct_ids(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for rows in ((1, 1), (64,), (-1,)):
        with pytest.raises(ValueError, match="not distinct ids"):
            VllmBackend(tmp_path, rows)


def test_memory_and_execution_reach_the_engine(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)

    def settings(**given: Any) -> dict[str, Any]:
        made: dict[str, Any] = VllmBackend(tmp_path, ROWS, **given).engine.settings
        return made

    assert settings()["gpu_memory_utilization"] == 0.9
    assert settings(gpu_memory_gb=20)["gpu_memory_utilization"] == 0.25
    assert settings(gpu_memory_gb=79)["gpu_memory_utilization"] == 0.9
    assert settings()["compilation_config"]["mode"] == 0
    # vLLM serves 1,024 requests at once; prompts begin beside them. Few tokens wait for padding.
    for execution, mode, most in (
        ("graphs", "FULL", 2 * 1024),
        ("decode-graphs", "FULL_DECODE_ONLY", 1024 // 2),
    ):
        recorded = settings(execution=execution)["compilation_config"]
        sizes = recorded["cudagraph_capture_sizes"]
        assert (sizes[0], sizes[-1]) == (1, most)
        assert all(b - a <= max(8, a / 4) for a, b in pairwise(sizes))
        assert (recorded["mode"], recorded["cudagraph_mode"]) == (0, mode)
    assert settings() == settings(execution="graphs")
    assert "compilation_config" not in settings(execution="compiled")
    assert settings(execution="eager")["enforce_eager"] is True
    with pytest.raises(ValueError, match="unknown execution 'fast'; known: graphs"):
        settings(execution="fast")


def test_keys_and_values_get_what_the_plan_leaves(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the weights' size is known; else vLLM measures, as it does when nothing is left."""
    card = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)

    def left(**given: Any) -> float | None:
        made = VllmBackend(tmp_path, ROWS, **given).engine.settings.get("kv_cache_memory_bytes")
        return None if made is None else made / 2**30

    assert left(gpu_memory_gb=40, weights_gb=16) == pytest.approx(40 * 0.9 - 16)
    assert left(gpu_memory_gb=100, weights_gb=16, gpu_share=0.5) == pytest.approx(40 * 0.9 - 16)
    # A small model's working space does not shrink with it.
    assert left(gpu_memory_gb=6, weights_gb=1) == pytest.approx(6 - 2.5 - 1)
    assert left(gpu_memory_gb=24, weights_gb=1) == pytest.approx(24 - 2.5 - 1)
    assert left(gpu_memory_gb=26, weights_gb=1) == pytest.approx(26 * 0.9 - 1)
    assert left(gpu_memory_gb=40) is None
    assert left(weights_gb=16) is None
    assert left(gpu_memory_gb=17, weights_gb=16) is None


def test_spare_ids() -> None:
    tokenizer = llama3_tokenizer()
    last = max(tokenizer.get_vocab().values())
    reserved = tokenizer.get_vocab()["<|reserved_special_token_0|>"]
    assert spare_ids(tokenizer, last + 1, 1) == (reserved,)
    assert spare_ids(tokenizer, last + 9, 5) == tuple(range(last + 4, last + 9))
    assert spare_ids(tokenizer, last + 14, 5, sets=2) == tuple(range(last + 4, last + 14))
    assert len(spare_ids(tokenizer, last + 14, 5, sets=3)) == 10  # there are no more
    with pytest.raises(ValueError, match="has 1 unused ids, 5 are needed"):
        spare_ids(tokenizer, last + 1, 5)


@pytest.mark.parametrize(
    ("words", "explained"),
    [
        ("No available memory for the cache blocks. Try increasing `gpu_memory_util...`", True),
        ("To serve at least one request, 0.5 GiB KV cache is needed, which is larger", True),
        ("Free memory on device cuda:0 (12/79 GiB) on startup is less than desired", False),
    ],
)
def test_a_start_without_room_says_which_way_to_turn(
    backend: VllmBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    explained: bool,
) -> None:
    def refuse(self: FakeEngine, **settings: Any) -> None:
        raise ValueError(words)

    monkeypatch.setattr(FakeEngine, "__init__", refuse)
    with pytest.raises(ValueError, match=r"larger share \(gpu_share\)" if explained else "^Free"):
        VllmBackend(tmp_path, ROWS, max_model_len=99, gpu_share=0.4)


def test_any_id_of_the_vocabulary_may_be_a_slot_row(backend: VllmBackend, tmp_path: Path) -> None:
    """The first and the last too."""
    rows = (0, backend.vocabulary - 1)
    assert VllmBackend(tmp_path, rows).slot_rows == rows
