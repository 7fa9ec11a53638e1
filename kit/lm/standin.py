"""Stand-ins for a model: its shape and its token ids, without its weights.

A rehearsal proves that the full-size profile fits and how long it takes. It needs a model of the
true shape and prompts of the true lengths, not a model that means anything: weights are random,
the vocabulary is made up apart from the control tokens. Which shape, the model's pin declares:
by the name of a file in ``shapes/``, or by the values themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kit.lm.architectures import architecture
from kit.lm.files import INDEX_FILE, read_config
from kit.lm.load import default_attention, torch_dtype
from kit.results.plain import read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

# Llama-3's own splitting pattern; its tokenizer, too, takes a whole word that it knows at once.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LINES = ("Ċ", "ĊĊ", ".Ċ", ".ĊĊ", ":Ċ", ":ĊĊ", "Ġ###", "###")


SHAPES = Path(__file__).parent / "shapes"
LARGEST = {"vocab_size": 4_000_000, "hidden_size": 200_000, "num_hidden_layers": 1000}
"""An order of magnitude above any model; more is a slip that would cost memory and minutes."""


@dataclass(frozen=True)
class Shape:
    """What a stand-in takes over from the true model.

    Attributes:
        config: The values of its ``config.json``.
        tokens: Tokens of its tokenizer, control tokens included; the embedding may have more rows.
        control: Control tokens by name, with their ids.
        reserved: Name pattern and first id of the control tokens up to the last token that have no
            other name; their numbers count from 0.
        parameters: How many it has.
        source: Where the values come from.
    """

    config: Mapping[str, Any]
    tokens: int
    control: Mapping[str, int] = field(default_factory=dict)
    reserved: tuple[str, int] | None = None
    parameters: int | None = None
    source: str = ""

    def control_ids(self) -> dict[str, int]:
        """All control tokens, in id order."""
        ids = {token: name for name, token in self.control.items()}
        if self.reserved is not None:
            pattern, first = self.reserved
            free = (
                token for token in range(first, self.tokens) if token not in self.control.values()
            )
            ids |= {token: pattern.format(number) for number, token in enumerate(free)}
        return {ids[token]: token for token in sorted(ids)}


def read_shape(declared: str | Mapping[str, Any]) -> Shape:
    """The shape that a pin declares as its ``architecture``.

    Args:
        declared: The name of a file in ``shapes/``, or the fields of a :class:`Shape`.

    Raises:
        ValueError: An unknown name, which lists the known ones, or fields that make no shape.
    """
    if isinstance(declared, str):
        known = {file.stem: file for file in SHAPES.glob("*.json")}
        if declared not in known:
            raise ValueError(
                f"unknown architecture {declared!r}; known: {', '.join(sorted(known))}; or give "
                "config and tokens themselves"
            )
        declared = read_json(known[declared], dict[str, Any])
    try:
        shape = msgspec.convert(dict(declared), Shape)
        width, rows = int(shape.config["hidden_size"]), int(shape.config["vocab_size"])
        layers = int(shape.config.get("num_hidden_layers", 1))
    except (msgspec.ValidationError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"this is no architecture of a stand-in: {error}") from None
    for name, size in {
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": layers,
    }.items():
        if not 0 < size <= LARGEST[name]:
            raise ValueError(f"{name} is {size:,}; the limits are 1 and {LARGEST[name]:,}")
    if not 0 < shape.tokens <= rows:
        raise ValueError(f"{shape.tokens:,} tokens need as many of the {rows:,} embedding rows")
    try:
        shape.control_ids()
    except (IndexError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"the names of control tokens make no pattern: {error}") from None
    return shape


def make_folder(path: str | Path, shape: Shape, *, words: Sequence[str] = ()) -> Path:
    """Write ``config.json`` and a fast tokenizer; no weights.

    Args:
        path: The folder to make.
        shape: Of the model.
        words: Words that are a single token each, with and without a space in front; everything
            else is spelled in bytes.

    Raises:
        ValueError: The words do not fit beside the control tokens.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(shape.config), indent=1)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    _tokenizer(shape, words).save(str(folder / "tokenizer.json"))
    names = {token: name for name, token in shape.control_ids().items()}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for key in ("bos_token", "eos_token"):
        if shape.config.get(f"{key}_id") in names:
            settings[key] = names[shape.config[f"{key}_id"]]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return folder


def _tokenizer(shape: Shape, words: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *_LINES]
    for word in words:
        pieces += [word, f"Ġ{word}"]
    pieces = list(dict.fromkeys(pieces))
    control = shape.control_ids()
    taken = set(control.values())
    free = [token for token in range(shape.tokens) if token not in taken]
    if len(pieces) > len(free):
        raise ValueError(f"{len(words)} words do not fit into a vocabulary of {len(free)}")
    # Fillers decode to readable text, and text never becomes a filler: digits are split off.
    pieces += [f"Ġx{i}" for i in range(len(pieces), len(free))]
    vocabulary = dict(zip(pieces, free, strict=True)) | control
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in control])
    return tokenizer


def load_random_model(
    path: str | Path,
    *,
    dtype: torch.dtype | str = "bfloat16",
    device: str | torch.device = "cpu",
    attention: str | None = None,
    seed: int = 0,
    trainable: bool = False,
) -> PreTrainedModel:
    """A model of the folder's shape with random weights, made on the device itself.

    Linear and embedding weights are normal with the config's ``initializer_range``, so that scores
    have a spread near 1 and greedy decoding meets no systematic ties. Neither a CPU copy nor a
    32-bit copy exists at any time.

    Args:
        path: A folder with ``config.json``.
        dtype: Of the weights.
        device: Where they are made.
        attention: See :func:`kit.lm.load.load_model`.
        seed: Of the weights; other random streams are left alone.
        trainable: Whether the weights ask for gradients.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    read_config(path)
    kind = torch_dtype(dtype)
    config = AutoConfig.from_pretrained(Path(path), local_files_only=True, trust_remote_code=False)
    target = torch.device(device)
    with torch.random.fork_rng([target] if target.type == "cuda" else []), target:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config,
            dtype=kind,
            attn_implementation=attention or default_attention(config),
            trust_remote_code=False,
        )
    model.requires_grad_(trainable)
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
    """Put an embedding matrix into the folder as the only tensor of a sharded checkpoint."""
    from safetensors.torch import save_file

    folder = Path(path)
    shard = "model-00001-of-00004.safetensors"
    name = architecture(str(read_config(folder).get("model_type"))).embedding[0]
    save_file({name: embeddings.contiguous().cpu()}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard}}
    (folder / INDEX_FILE).write_text(json.dumps(index) + "\n", encoding="utf-8")
