"""Greedy generation and log-likelihoods with vLLM: an engine serves a model and every prefix.

Prompts are token ids, never strings: given strings, vLLM puts a second beginning-of-text token in
front (defensive_tokens.md, P1). A prefix is written over a few unused rows of the running engine's
embedding matrix and its slots (ids from V on) are renamed to those rows' ids: no 16 GB model is
written for a prefix, and the engine is started once. The rows come back bit for bit.

vLLM's greedy results depend on how requests share batches (defensive_tokens.md, P16): in bf16 two
runs may part where the two best scores are nearly equal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.lm.architectures import architecture
from kit.lm.backend import Generation, LogLikelihood, check_pairs
from kit.lm.files import read_config, tied_embeddings

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

# In the calling process, so that `apply_model` can take a function; nothing is reported to anyone.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Whoever wants to see where a start spends its time asks for INFO.
    "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
}
GRAPHS = "graphs"
SIZES = (1, 2, 4, *range(8, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
"""Requests of a decoding step for which a graph is recorded, and up to which a step is filled. vLLM
records 51 such sizes up to 512, at 0.05 to 0.09 s each on a GPU host; steps of few requests are
bound by reading the weights, and those of many are padded by 6 % on average."""
MIXED_SIZES = (*SIZES, *range(640, 2049, 128))
"""Tokens of a step in which prompts begin beside answers that go on. While requests wait nearly
every step of a thousand is one, and takes a slow host longer to start, kernel by kernel, than the
GPU to run."""


def _recorded(mode: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    # Mode 0 is vLLM's number for "no torch.compile".
    how = {"mode": 0, "cudagraph_mode": mode, "cudagraph_capture_sizes": list(sizes)}
    return {"compilation_config": how}


EXECUTIONS: dict[str, dict[str, Any]] = {
    GRAPHS: _recorded("FULL", MIXED_SIZES),
    "decode-graphs": _recorded("FULL_DECODE_ONLY", SIZES),
    "compiled": {},
    "eager": {"enforce_eager": True},
}
WORKING = 0.1
"""Of the memory that an engine may take: left beside weights, keys and values for its working
space and its graphs, which at 8B and 16,384 tokens a step take 3 to 5 GiB."""
LEAST_WORKING = 2.5
"""GiB left so at least: with half a billion parameters and 151,936 words they took 2.0 GiB of the
7.4 that torch held."""
MOST = 0.9
"""Of a GPU's memory; vLLM's own default, which leaves room for what is not counted."""
RESERVED = ("<|reserved_special_token_", ">>UNUSED_")
"""How Llama 3 and Falcon 3 call tokens that mean nothing."""
# vLLM adds this to a banned id's score. Finite, so that no NaN can come of it.
BAN = -1e30


def spare_ids(
    tokenizer: PreTrainedTokenizerBase, rows: int, n: int = 5, *, sets: int = 1
) -> tuple[int, ...]:
    """Ids whose embedding rows no prompt needs: behind the tokenizer's vocabulary, else reserved.

    Args:
        tokenizer: Of the model.
        rows: Of the embedding matrix.
        n: How many a prefix needs.
        sets: Of how many prefixes; fewer if there are no more.

    Raises:
        ValueError: There are fewer than ``n``.
    """
    vocabulary = tokenizer.get_vocab()
    behind = range(max(int(i) for i in vocabulary.values()) + 1, rows)
    reserved = sorted(int(i) for token, i in vocabulary.items() if token.startswith(RESERVED))
    # The last reserved tokens: the first ones have been given meanings by later models.
    spare = (*reserved, *behind)
    count = n * min(sets, max(1, len(spare) // n)) if n else 0
    chosen = spare[-count:] if count else ()
    if len(chosen) < n:
        raise ValueError(
            f"the vocabulary has {len(chosen)} unused ids, {n} are needed for a prefix; "
            "use the transformers backend"
        )
    return chosen


class VllmBackend:
    """See :class:`kit.lm.generate.Backend`."""

    def __init__(
        self,
        path: str | Path,
        slot_rows: Sequence[int] = (),
        *,
        max_model_len: int = 4096,
        dtype: str = "bfloat16",
        seed: int = 0,
        random_weights: bool = False,
        gpu_memory_gb: float | None = None,
        gpu_share: float = MOST,
        weights_gb: float | None = None,
        max_num_seqs: int | None = None,
        execution: str = GRAPHS,
        prefix_caching: bool = False,
    ) -> None:
        """Start the engine.

        Args:
            path: A model folder; nothing is read from elsewhere.
            slot_rows: Unused ids, from :func:`spare_ids`; at most so many prefix vectors can be
                served. They are never produced, with or without a prefix. None serve no prefix.
            max_model_len: Most tokens of a prompt and its continuation. The longest evaluation
                prompt has 2,053 tokens (defensive_tokens.md, 2.1), to which come 512.
            dtype: Of weights and arithmetic; never "auto" (defensive_tokens.md, P12).
            seed: Of the engine.
            random_weights: Make weights up instead of reading them; for rehearsals.
            gpu_memory_gb: Memory in GiB that the engine takes: weights, working space and, with
                the rest, keys and values. ``None`` takes what ``gpu_share`` allows.
            gpu_share: Most of the GPU's memory that the engine takes, as a share.
            weights_gb: Size of the weights in GiB, where it is known: keys and values then get what
                the plan leaves. Else vLLM measures what is free, and takes what another process
                allocates meanwhile for its own.
            max_num_seqs: Most requests at a time; vLLM's default if ``None``.
            execution: ``graphs`` replays steps of up to 2,048 tokens as CUDA graphs, those in which
                prompts begin too (where the attention kernels of a GPU cannot, vLLM says so and
                does as ``decode-graphs``); ``decode-graphs`` only decoding steps, of up to 512
                requests; ``compiled`` also compiles the layers, which takes 15 s at the start
                (35 s the first time) and made an 8B model no faster; ``eager`` does neither.
            prefix_caching: Keep the keys and values of common beginnings. Cleared at every change
                of prefix; off by default because results then depend on what ran before.

        Raises:
            ValueError: Not a model folder, rows that are not distinct ids of the vocabulary, or an
                unknown execution.
        """
        config = read_config(path)
        self.vocabulary = int(config["vocab_size"])
        self.path = Path(path)
        self.model_type = str(config.get("model_type"))
        self.slot_rows = tuple(int(row) for row in slot_rows)
        if len(set(self.slot_rows)) != len(self.slot_rows) or not all(
            0 <= row < self.vocabulary for row in self.slot_rows
        ):
            raise ValueError(f"slot rows {self.slot_rows} are not distinct ids of the vocabulary")
        if execution not in EXECUTIONS:
            raise ValueError(f"unknown execution {execution!r}; known: {', '.join(EXECUTIONS)}")
        os.environ.update(ENVIRONMENT)
        from vllm import LLM

        self.prefix_caching = prefix_caching
        optional: dict[str, Any] = {} if max_num_seqs is None else {"max_num_seqs": max_num_seqs}
        share = _share(gpu_memory_gb, gpu_share)
        if gpu_memory_gb is not None and weights_gb is not None:
            optional |= _cache(share, weights_gb)
        _look_at_class(config.get("architectures") or ())
        with _explained(share, max_model_len):
            self.engine = LLM(
                model=str(path),
                skip_tokenizer_init=True,
                trust_remote_code=False,
                generation_config="vllm",
                load_format="dummy" if random_weights else "safetensors",
                dtype=dtype,
                seed=seed,
                max_model_len=max_model_len,
                gpu_memory_utilization=share,
                enable_prefix_caching=prefix_caching,
                **EXECUTIONS[execution],
                **optional,
            )

    @property
    def vocabulary_size(self) -> int:
        """Rows of the model's own embedding matrix; prefix slots are the ids from here on."""
        return self.vocabulary

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | Sequence[int],
        stop_ids: Sequence[int],
        banned_ids: Sequence[int] = (),
        prefix: Tensor | None = None,
    ) -> list[Generation]:
        """See :meth:`kit.lm.generate.Backend.generate`.

        Args:
            prompts: As there.
            max_new_tokens: As there, or a limit for each prompt.
            stop_ids: As there.
            banned_ids: As there; the slot rows always are banned too.
            prefix: As there.

        Raises:
            ValueError: An empty prompt, a slot without a vector, a prompt that uses a slot row, a
                limit below 1, or a prefix that does not fit.
        """
        limits = [_limits(max_new_tokens, len(prompts))]
        how: dict[str, Any] = {"stop_ids": stop_ids, "banned_ids": banned_ids}
        return self.generate_sets([(prompts, prefix)], max_new_tokens=limits, **how)[0]

    def sets_at_once(self, vectors: int) -> int:
        """See :meth:`kit.lm.backend.ServesSets.sets_at_once`."""
        return max(1, len(self.slot_rows) // max(1, vectors))

    def generate_sets(
        self,
        sets: Sequence[tuple[Sequence[Sequence[int]], Tensor | None]],
        *,
        max_new_tokens: int | Sequence[Sequence[int]],
        stop_ids: Sequence[int],
        banned_ids: Sequence[int] = (),
    ) -> list[list[Generation]]:
        """See :meth:`kit.lm.backend.ServesSets.generate_sets`: one batch, each prefix in own rows.

        Args:
            sets: Prompts and their prefix, or ``None``.
            max_new_tokens: As there, or the limits of each set's prompts.
            stop_ids: As there.
            banned_ids: As :meth:`generate`.

        Raises:
            ValueError: As :meth:`generate`; more vectors than there are slot rows.
        """
        from vllm import SamplingParams

        if isinstance(max_new_tokens, int):
            max_new_tokens = [_limits(max_new_tokens, len(prompts)) for prompts, _ in sets]
        banned = {i for i in banned_ids if 0 <= i < self.vocabulary} | set(self.slot_rows)

        def parameters(limit: int) -> Any:
            return SamplingParams(
                temperature=0.0,
                max_tokens=limit,
                stop_token_ids=sorted(stop_ids),
                ignore_eos=True,
                detokenize=False,
                logit_bias=dict.fromkeys(sorted(banned), BAN) or None,
            )

        renamed: list[list[int]] = []
        first = 0
        for prompts, prefix in sets:
            renamed += self._renamed(prompts, prefix, first)
            first += 0 if prefix is None else prefix.shape[0]
        with self._prefixes([prefix for _, prefix in sets if prefix is not None]):
            outputs = self.engine.generate(
                [{"prompt_token_ids": ids} for ids in renamed],
                [parameters(limit) for limits in max_new_tokens for limit in limits],
                use_tqdm=False,
            )
        made = iter([_generation(output.outputs[0], set(stop_ids)) for output in outputs])
        return [list(islice(made, len(prompts))) for prompts, _ in sets]

    def loglikelihoods(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        prefix: Tensor | None = None,
    ) -> list[LogLikelihood]:
        """See :meth:`kit.lm.backend.Backend.loglikelihoods`.

        Raises:
            ValueError: As :meth:`generate`; an empty context or continuation; a prefix for a model
                with tied embeddings, where its vectors would be scored as tokens.
        """
        from vllm import SamplingParams

        check_pairs(pairs, self.vocabulary)
        if prefix is not None and tied_embeddings(self.path):
            raise ValueError(
                f"{self.path} ties input and output embeddings: written into them, a prefix would "
                "count among the tokens that are scored; use the transformers backend"
            )
        renamed = self._renamed([[*context, *tokens] for context, tokens in pairs], prefix)
        # 0 asks for the log-probability of the prompt's own tokens and no other's.
        parameters = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False
        )
        with self._prefixes([] if prefix is None else [prefix]):
            outputs = self.engine.generate(
                [{"prompt_token_ids": ids} for ids in renamed],
                [parameters] * len(renamed),
                use_tqdm=False,
            )
        return [
            _likelihood(output.prompt_logprobs, ids, len(tokens))
            for output, ids, (_, tokens) in zip(outputs, renamed, pairs, strict=True)
        ]

    def _renamed(
        self, prompts: Sequence[Sequence[int]], prefix: Tensor | None, first: int = 0
    ) -> list[list[int]]:
        """Prompts with slot rows from ``first`` on in the place of slots."""
        available = 0 if prefix is None else prefix.shape[0]
        rows = self.slot_rows[first : first + available]
        if len(rows) < available:
            raise ValueError(
                f"{first + available} prefix vectors for {len(self.slot_rows)} slot rows"
            )
        return [self._rename(prompt, rows) for prompt in prompts]

    def _rename(self, prompt: Sequence[int], rows: Sequence[int]) -> list[int]:
        if not prompt:
            raise ValueError("an empty prompt cannot be continued")
        ids = []
        for token in prompt:
            slot = token - self.vocabulary
            if slot >= len(rows):
                raise ValueError(f"slot {slot} in the prompt, but only {len(rows)} vectors")
            if slot < 0 and token in self.slot_rows:
                raise ValueError(f"id {token} stands for a prefix slot; it cannot be in a prompt")
            ids.append(rows[slot] if slot >= 0 else token)
        return ids

    @contextmanager
    def _prefixes(self, prefixes: Sequence[Tensor]) -> Iterator[None]:
        """Put prefixes into the running engine, and what was there back afterwards."""
        import torch

        if not prefixes:
            yield
            return
        rows = list(self.slot_rows[: sum(prefix.shape[0] for prefix in prefixes)])
        kept: torch.Tensor = self._on_embeddings(lambda matrix: matrix[rows].clone())
        for prefix in prefixes:
            if prefix.shape[1:] != kept.shape[1:]:
                raise ValueError(
                    f"a prefix of shape {tuple(prefix.shape)} does not fit a model of width "
                    f"{kept.shape[1]}"
                )
        self._write(rows, torch.cat([prefix.detach() for prefix in prefixes]))
        try:
            yield
        finally:
            self._write(rows, kept)

    def _write(self, rows: list[int], values: Tensor) -> None:
        def write(matrix: Tensor) -> None:
            matrix[rows] = values.detach().to(matrix.device, matrix.dtype)

        self._on_embeddings(write)
        # The same ids now mean something else: keys and values made from the old rows must go.
        if self.prefix_caching and not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM could not clear its prefix cache: requests are still running")

    def _on_embeddings(self, work: Callable[[Tensor], Any]) -> Any:
        import torch

        path = architecture(self.model_type).embedding[0]

        def run(model: torch.nn.Module) -> Any:
            with torch.inference_mode():
                result = work(model.get_parameter(path))
                torch.cuda.synchronize()
            return result

        return self.engine.apply_model(run)[0]


def _look_at_class(names: Sequence[str]) -> None:
    """Let vLLM take the model's class from this process.

    It would start another process, which imports torch and vLLM anew, to look at the class, so that
    CUDA does not start here; it starts here in any case. A name that it does not know it refuses
    itself, in its own words.
    """
    from vllm import ModelRegistry

    for name in names:
        if (known := ModelRegistry.models.get(name)) is not None:
            ModelRegistry.register_model(name, known.load_model_cls())


def _share(gigabytes: float | None, most: float) -> float:
    """Of the memory of the GPU that the engine will take."""
    import torch

    if gigabytes is None:
        return most
    there = torch.cuda.get_device_properties(0).total_memory / 2**30
    return min(most, gigabytes / there)


def _cache(share: float, weights_gb: float) -> dict[str, int]:
    """Bytes for keys and values; empty where the plan leaves none, and vLLM says so itself."""
    import torch

    whole = share * torch.cuda.get_device_properties(0).total_memory
    left = int(whole - max(WORKING * whole, LEAST_WORKING * 2**30) - weights_gb * 2**30)
    return {"kv_cache_memory_bytes": left} if left > 0 else {}


@contextmanager
def _explained(share: float, longest: int) -> Iterator[None]:
    """Say of a start without room for keys and values what it is: the share too small.

    Out of memory proper keeps its own words, which name what was asked for and what was free.

    Args:
        share: Of the GPU's memory.
        longest: Most tokens of one request.

    Raises:
        ValueError: The share leaves no room for a single request beside the weights.
    """
    try:
        yield
    except ValueError as error:
        words = str(error)
        if "cache blocks" not in words and "KV cache" not in words:
            raise
        raise ValueError(
            f"vLLM has no room for the keys and values of one request of {longest} tokens: the "
            f"weights leave too little of the {share:.0%} of the GPU that it may take. Give it a "
            f"larger share (gpu_share), or a larger GPU. vLLM says: {words[:300]}"
        ) from error


def _limits(most: int | Sequence[int], count: int) -> list[int]:
    limits = [most] * count if isinstance(most, int) else [int(limit) for limit in most]
    if len(limits) != count:
        raise ValueError(f"{len(limits)} limits for {count} prompts")
    if any(limit < 1 for limit in limits):
        raise ValueError("max_new_tokens must be at least 1")
    return limits


def _generation(output: Any, stop: set[int]) -> Generation:
    ids = tuple(int(token) for token in output.token_ids)
    if ids and ids[-1] in stop:
        return Generation(ids[:-1], "stop")
    return Generation(ids, "length")


def _likelihood(prompt: Any, ids: Sequence[int], count: int) -> LogLikelihood:
    """Of the last ``count`` tokens of a prompt.

    Args:
        prompt: What vLLM says of each token: its id -> log-probability and rank, 1 the best.
        ids: The prompt.
        count: Tokens of the continuation.
    """
    own = [at[token] for at, token in zip(prompt[-count:], ids[-count:], strict=True)]
    total = sum(float(entry.logprob) for entry in own)
    return LogLikelihood(total, count, all(entry.rank == 1 for entry in own))
