"""vLLM and transformers continue alike, except where the two best scores are nearly equal.

In fp32: the scores of a small random model in bf16 are mostly rounding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.lm.generate import TransformersBackend
from kit.lm.prefix import embed
from kit.lm.vllm_backend import VllmBackend
from tests.lm.tiny_world import tiny_llama

pytest.importorskip("vllm")
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]
VOCABULARY, WIDTH = 1024, 512
ROWS = (1019, 1020, 1021, 1022, 1023)
STOP = (2, 40, 41, 42, 43, 44)
# Scores have a spread of about 1; vLLM's fp32 attention multiplies with 10-bit mantissas.
NEARLY_EQUAL = 0.03
# Of scores up to 4, bf16 has steps of 0.016; a few of them meet on the way.
NEARLY_EQUAL_IN_BF16 = 0.15


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama(
        VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        initializer_range=0.04,
    )


@pytest.fixture(scope="module")
def backend(model: Any, tmp_path_factory: pytest.TempPathFactory) -> VllmBackend:
    folder: Path = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return VllmBackend(
        folder,
        ROWS,
        max_model_len=512,
        dtype="float32",
        execution="eager",
        gpu_memory_gb=24,
        prefix_caching=True,
    )


def prompts(slots: bool) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(48):
        body = torch.randint(50, 1000, (5 + 3 * i,), generator=generator).tolist()
        made.append([*(range(VOCABULARY, VOCABULARY + 5) if slots else ()), 1, *body])
    return made


def scores(model: Any, ids: Sequence[int], prefix: torch.Tensor | None) -> torch.Tensor:
    row = torch.tensor([list(ids)], device="cuda")
    with torch.no_grad():
        embeds = embed(model, row, prefix)
        return model(inputs_embeds=embeds, use_cache=False).logits[0, -1].float()  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_agreement(backend: VllmBackend, model: Any, seed: int | None) -> None:
    prefix = None
    if seed is not None:
        prefix = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(seed))
    on_gpu = model.to("cuda")
    batch = prompts(prefix is not None)
    settings: dict[str, Any] = {"max_new_tokens": 24, "stop_ids": STOP}
    put = None if prefix is None else prefix.cuda()
    ours = backend.generate(batch, prefix=prefix, **settings)
    plain = TransformersBackend(on_gpu, pad_id=0)
    theirs = plain.generate(batch, prefix=put, banned_ids=ROWS, **settings)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    for prompt, one, other in zip(batch, ours, theirs, strict=True):
        if one == other:
            continue
        left, right = ([*g.ids, -1] for g in (one, other))
        at = next(i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
        exact = scores(on_gpu, [*prompt, *left[:at]], put)
        exact[list(ROWS)] = float("-inf")
        # Where one stopped, any stop token may be the one that it met.
        a, b = (
            float(exact[i]) if i >= 0 else float(exact[list(STOP)].max())
            for i in (left[at], right[at])
        )
        assert abs(a - b) < NEARLY_EQUAL
        assert float(exact.max()) - max(a, b) < NEARLY_EQUAL
    print(json.dumps({"prefix": seed, "identical": same, "of": len(batch)}))
    assert same >= len(batch) * 3 // 4


def test_recorded_steps_say_what_the_host_says(model: Any, tmp_path: Path) -> None:
    """In bf16, as models are served: 32 requests at once of 192, so that prompts begin beside
    answers of others that go on, in one recorded step."""
    model.save_pretrained(tmp_path)
    batch = [*prompts(True)] * 4
    limits = [1 + (7 * i) % 40 for i in range(len(batch))]
    prefix = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(3))
    said = []
    for execution in ("eager", "graphs"):
        served = VllmBackend(
            tmp_path,
            ROWS,
            max_model_len=512,
            dtype="bfloat16",
            execution=execution,
            gpu_memory_gb=16,
            max_num_seqs=32,
            prefix_caching=True,
        )
        said.append(served.generate(batch, prefix=prefix, max_new_tokens=limits, stop_ids=(2,)))
        del served
    on_gpu, put = model.to("cuda"), prefix.cuda()
    same = sum(a == b for a, b in zip(*said, strict=True))
    for prompt, one, other in zip(batch, *said, strict=True):
        at = next(
            (i for i, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)) if a != b), None
        )
        if at is not None:
            exact = scores(on_gpu, [*prompt, *one.ids[:at]], put)
            assert abs(float(exact[one.ids[at]] - exact[other.ids[at]])) < NEARLY_EQUAL_IN_BF16
    print(json.dumps({"identical": same, "of": len(batch)}))
    assert same >= len(batch) // 2


def test_prefix_changes_answers_and_leaves_no_trace(backend: VllmBackend) -> None:
    def rows() -> torch.Tensor:
        kept: torch.Tensor = backend._on_embeddings(lambda matrix: matrix[list(ROWS)].clone())
        return kept

    settings: dict[str, Any] = {"max_new_tokens": 16, "stop_ids": STOP}
    before = rows()
    plain = backend.generate(prompts(False), prefix=None, **settings)
    defended = [
        backend.generate(prompts(True), prefix=torch.randn(5, WIDTH) * (i + 1), **settings)
        for i in range(2)
    ]
    assert defended[0] != defended[1]
    assert torch.equal(rows(), before)
    assert backend.generate(prompts(False), prefix=None, **settings) == plain


def test_banned_and_slot_ids_are_never_produced(backend: VllmBackend) -> None:
    settings: dict[str, Any] = {"prefix": None, "stop_ids": STOP}
    first = backend.generate(prompts(False), max_new_tokens=1, **settings)
    favourites = {i for g in first for i in g.ids}
    limits = [1 + i % 5 for i in range(48)]
    second = backend.generate(
        prompts(False), max_new_tokens=limits, banned_ids=sorted(favourites), **settings
    )
    assert not favourites & {i for g in second for i in g.ids}
    assert all(len(g.ids) <= limit for g, limit in zip(second, limits, strict=True))


@pytest.mark.parametrize("seed", [None, 0])
def test_log_likelihoods_agree(backend: VllmBackend, model: Any, seed: int | None) -> None:
    """To what vLLM's attention leaves: a continuation of n tokens differs n times as much."""
    prefix = None
    if seed is not None:
        prefix = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(seed))
    pairs = [(prompt[:-4], prompt[-4:]) for prompt in prompts(prefix is not None)]
    plain = TransformersBackend(model.to("cuda"), pad_id=0)
    put = None if prefix is None else prefix.cuda()
    best = plain.generate([c for c, _ in pairs], max_new_tokens=4, stop_ids=[], prefix=put)
    pairs += [(c, list(g.ids)) for (c, _), g in zip(pairs, best, strict=True)]
    pairs = [(c, t) for c, t in pairs if not set(ROWS) & {*c, *t}]
    theirs = plain.loglikelihoods(pairs, prefix=put)
    ours = backend.loglikelihoods(pairs, prefix=prefix)
    apart = max(abs(a.total - b.total) for a, b in zip(ours, theirs, strict=True))
    same = sum(a.greedy == b.greedy for a, b in zip(ours, theirs, strict=True))
    print(json.dumps({"prefix": seed, "apart": apart, "greedy alike": same, "of": len(pairs)}))
    assert [a.tokens for a in ours] == [b.tokens for b in theirs]
    assert apart < 4 * NEARLY_EQUAL
    assert any(a.greedy for a in theirs)
    assert same >= len(pairs) * 9 // 10
