"""A model on disk, from weights that were gathered one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_gathered(model: nn.Module, trained: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model in Hugging Face layout, its trained weights in the type that is given.

    Args:
        model: Whole, in the type that it computes in.
        trained: Trained parameters by name, from the masters; all others are the model's own.
        folder: Where to.
    """
    names = {id(p): n for n, p in model.named_parameters()}
    state: dict[str, Tensor] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        name = names.get(id(tensor), key)
        state[key] = trained.get(name, tensor.detach())
    cast("Any", model).save_pretrained(str(folder), state_dict=state)
    config = folder / "config.json"
    if config.exists() and trained:
        # transformers writes the type that the model computes in, and would round when loading.
        values = json.loads(config.read_text(encoding="utf-8"))
        values["dtype"] = str(next(iter(trained.values())).dtype).removeprefix("torch.")
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
