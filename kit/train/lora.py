"""Low-rank adapters, by peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"
"""Every linear layer but the output layer."""


@dataclass(frozen=True)
class Lora:
    """Shape of an adapter.

    Attributes:
        rank: r.
        alpha: The update is scaled by alpha / r, so a sweep of the rank at one alpha changes the
            scale too.
        targets: Names of the linear modules, or ``("all-linear",)``.
        layers: Blocks that get an adapter, counted from 0; all of them when empty.
        dropout: On the adapter's input while training.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = (ALL_LINEAR,)
    layers: tuple[int, ...] = ()
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank


def add_adapter(model: PreTrainedModel, lora: Lora, *, seed: int) -> PeftModel:
    """The model with a fresh adapter, which changes nothing yet; only the adapter is trainable.

    The adapter is fp32 whatever the model is in. The model's own weights are the same tensors as
    before.

    Args:
        model: Gets the adapter in its modules, in place.
        lora: Shape.
        seed: Of the matrices A; B is 0. The generators outside are left as they were.

    Raises:
        ValueError: A target or block that the model does not have.
    """
    from peft import LoraConfig, get_peft_model

    everything = lora.targets == (ALL_LINEAR,)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=ALL_LINEAR if everything else list(lora.targets),
        layers_to_transform=list(lora.layers) or None,
        lora_dropout=lora.dropout,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=_cuda_devices(model)), _without_renaming_warning():
        torch.manual_seed(seed)
        adapted: PeftModel = get_peft_model(model, config)
    _check_targets(adapted, lora)
    return adapted


def merge_adapter(adapted: PeftModel) -> PreTrainedModel:
    """The model with the adapter's update added to its weights; the adapter is gone."""
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def save_adapter(adapted: PeftModel, folder: str | Path) -> None:
    """Write the adapter alone: ``adapter_config.json`` and safetensors."""
    adapted.save_pretrained(str(folder), safe_serialization=True)


def load_adapter(
    model: PreTrainedModel, folder: str | Path, *, trainable: bool = False
) -> PeftModel:
    """The model with a saved adapter.

    Raises:
        ValueError: A folder without an adapter in safetensors.
    """
    from peft import PeftModel

    files = ("adapter_config.json", "adapter_model.safetensors")
    missing = [name for name in files if not (Path(folder) / name).is_file()]
    if missing:
        raise ValueError(f"{folder} holds no adapter: {' and '.join(missing)} missing")
    with _without_renaming_warning():
        adapted: PeftModel = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    return adapted


def adapter_names(model: nn.Module) -> list[str]:
    """Names of the adapter's parameters."""
    return [name for name, _ in model.named_parameters() if "lora_" in name]


def _check_targets(adapted: PeftModel, lora: Lora) -> None:
    """Every target and block has its pair; peft checks only that there is one at all."""
    names = adapter_names(adapted)
    targets: Sequence[str] = () if lora.targets == (ALL_LINEAR,) else lora.targets
    absent = [t for t in targets if not any(f".{t}.lora_" in name for name in names)]
    blocks = [b for b in lora.layers if not any(f".{b}." in name for name in names)]
    if absent or blocks:
        raise ValueError(
            "the model has no "
            + " and no ".join(
                [f"module {t}" for t in absent] + [f"block {b} to adapt" for b in blocks]
            )
        )


@contextmanager
def _without_renaming_warning() -> Iterator[None]:
    """peft reads a property of transformers under the name that it had before version 5."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def _cuda_devices(model: nn.Module) -> list[int]:
    return sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
