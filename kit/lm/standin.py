"""Stand-ins for a gated model: its shape and its token ids, without its weights.

A rehearsal proves that the full-size profile fits and how long it takes. It needs a model of the
true shape and prompts of the true lengths, not a model that means anything: weights are random,
the vocabulary is made up apart from the control tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.lm.files import INDEX_FILE, read_config

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

# config.json of Meta-Llama-3-8B-Instruct (reference page, section 6, gives sizes; the rest is the
# architecture's published configuration). Llama-3.1 differs in its rope scaling, which costs
# nothing.
LLAMA3_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "initializer_range": 0.02,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": 128009,
    "torch_dtype": "bfloat16",
}
FIRST_CONTROL = 128000
# Names at their ids, counted from 128000; the rest are <|reserved_special_token_N|>.
_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "<|eot_id|>",
}
# Llama-3's own splitting pattern; its tokenizer, too, takes a whole word that it knows at once.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LINES = ("Ċ", "ĊĊ", ".Ċ", ".ĊĊ", ":Ċ", ":ĊĊ", "Ġ###", "###")


def llama3_control_tokens() -> list[str]:
    """The 256 control tokens in id order, from 128000."""
    names = []
    reserved = 0
    for offset in range(256):
        if offset in _NAMED:
            names.append(_NAMED[offset])
        else:
            names.append(f"<|reserved_special_token_{reserved}|>")
            reserved += 1
    return names


def make_folder(
    path: str | Path, *, words: Sequence[str] = (), config: dict[str, Any] | None = None
) -> Path:
    """Write ``config.json`` and a fast tokenizer; no weights.

    Args:
        path: The folder to make.
        words: Words that are one token each, with and without a space in front; everything else is
            spelled in bytes.
        config: Differs from :data:`LLAMA3_8B` in these values; a smaller vocabulary is refused.

    Raises:
        ValueError: The words do not fit below the control tokens.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    values = {**LLAMA3_8B, **(config or {})}
    (folder / "config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    _tokenizer(words).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return folder


def _tokenizer(words: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *_LINES]
    for word in words:
        pieces += [word, f"Ġ{word}"]
    pieces = list(dict.fromkeys(pieces))
    if len(pieces) > FIRST_CONTROL:
        raise ValueError(f"{len(words)} words do not fit into a vocabulary of {FIRST_CONTROL}")
    # Fillers decode to readable text, and text never becomes a filler: digits are split off.
    pieces += [f"Ġx{i}" for i in range(len(pieces), FIRST_CONTROL)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(n, special=True) for n in llama3_control_tokens()])
    return tokenizer


def load_random_model(
    path: str | Path,
    *,
    dtype: torch.dtype | str = "bfloat16",
    device: str | torch.device = "cpu",
    attention: str = "sdpa",
    seed: int = 0,
) -> PreTrainedModel:
    """A frozen model of the folder's shape with random weights, made on the device itself.

    Linear and embedding weights are normal with the config's ``initializer_range``, so that scores
    have a spread near 1 and greedy decoding meets no systematic ties. Neither a CPU copy nor a
    32-bit copy exists at any time.

    Args:
        path: A folder with ``config.json``.
        dtype: Of the weights.
        device: Where they are made.
        attention: A transformers attention implementation.
        seed: Of the weights; other random streams are left alone.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    read_config(path)
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    config = AutoConfig.from_pretrained(Path(path), local_files_only=True, trust_remote_code=False)
    place = torch.device(device)
    with torch.random.fork_rng([place] if place.type == "cuda" else []), place:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=kind, attn_implementation=attention, trust_remote_code=False
        )
    model.requires_grad_(False)
    return model.eval()  # type: ignore[no-any-return]


def random_embeddings(
    path: str | Path,
    seed: int,
    *,
    difference: float = 0.5,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """An input embedding matrix of the folder's shape; those of two seeds resemble each other.

    Args:
        path: A folder with ``config.json``.
        seed: Of the part that is this model's own.
        difference: Size of that part, relative to the part that all seeds share. Related models
            resemble each other, and an alignment of unrelated noise would be badly conditioned.
        device: Where it is made; other devices give other numbers.
        dtype: bfloat16 unless given.

    Returns:
        [V, d], of spread ``initializer_range``.
    """
    import torch

    config = read_config(path)
    shape = (int(config["vocab_size"]), int(config["hidden_size"]))
    kind = torch.bfloat16 if dtype is None else dtype

    def noise(number: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(number)
        return torch.randn(shape, generator=generator, device=device, dtype=kind)

    own = noise(1000 + seed).mul_(difference)
    scale = float(config.get("initializer_range", 0.02)) / (1 + difference**2) ** 0.5
    return noise(999).add_(own).mul_(scale)


def write_embeddings(path: str | Path, embeddings: Tensor) -> None:
    """Put an embedding matrix into the folder as the one tensor of a sharded checkpoint."""
    from safetensors.torch import save_file

    folder = Path(path)
    shard = "model-00001-of-00004.safetensors"
    name = "model.embed_tokens.weight"
    save_file({name: embeddings.contiguous().cpu()}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard}}
    (folder / INDEX_FILE).write_text(json.dumps(index) + "\n", encoding="utf-8")


def released_prefix(path: str | Path, *, n: int = 5, seed: int = 0, norm: float = 83.0) -> Tensor:
    """[n, d] float32 vectors as long as the released ones (83 on average; reference page, 5)."""
    import torch

    width = int(read_config(path)["hidden_size"])
    rows = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1) * norm
