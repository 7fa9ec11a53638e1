"""What a user can change when a DefensiveTokens step runs out of memory or diverges."""

from __future__ import annotations

from kit.engine.registry import Remedy
from kit.steps.defensive_tokens.params import Evaluate, Gcg, PublishedTexts, SelfLabel, TrainPrefix

LEAST_GPU_SHARE = 0.5
"""Below half of an 80 GB GPU vLLM has no room beside the weights of an 8B model in bf16."""
LEAST_BATCH_TOKENS = 1024


def _low_memory(params: TrainPrefix) -> bool | None:
    return True if params.forward == "packed" and not params.low_memory else None


def _fewer_rows(params: TrainPrefix) -> int | None:
    return params.forward_rows // 2 if params.forward_rows > 1 else None


def _fewer_texts(params: Gcg) -> int | None:
    return params.rows // 2 if params.rows > 1 else None


def _lower_rate(params: TrainPrefix) -> float:
    return float(f"{params.lr / 3:.1g}")


def _smaller_batches(params: SelfLabel | Evaluate | PublishedTexts) -> int | None:
    fits = params.backend == "transformers" and params.batch_tokens > LEAST_BATCH_TOKENS
    return max(params.batch_tokens // 4, LEAST_BATCH_TOKENS) if fits else None


def _smaller_share(params: SelfLabel | Evaluate | PublishedTexts) -> float | None:
    fits = params.backend == "vllm" and params.gpu_share > LEAST_GPU_SHARE
    return round(max(params.gpu_share - 0.1, LEAST_GPU_SHARE), 2) if fits else None


TRAINING_MEMORY = (
    Remedy("low_memory", _low_memory, "slower; the same loss but for rounding"),
    Remedy("forward_rows", _fewer_rows, "slower; the same loss but for rounding"),
)
TRAINING_STEADIER = (
    Remedy("lr", _lower_rate, "lower the learning rate: another experiment, its numbers differ"),
)
GENERATION_MEMORY = (
    Remedy("gpu_share", _smaller_share, "vLLM takes less of the GPU; near ties may fall otherwise"),
    Remedy(
        "batch_tokens", _smaller_batches, "smaller batches: slower; near ties may fall otherwise"
    ),
)
SEARCH_MEMORY = (
    Remedy("rows", _fewer_texts, "smaller batches: slower; near ties may fall otherwise"),
)
