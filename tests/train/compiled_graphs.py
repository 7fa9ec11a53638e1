"""How many graphs the layers of a sharded model are compiled to; called as a module, alone."""

from __future__ import annotations

import json
import os
import socket

import torch
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

from kit.train.batches import micro_batches
from kit.train.batching import Example
from kit.train.engine import Precision
from kit.train.engines import engine_factory
from kit.train.losses import language_model_loss
from kit.train.optimizers import AdamW

LAYERS = 12
"""More than dynamo compiles one function for (8), so that a graph a layer would show."""


def graphs(engine_name: str) -> dict[str, int]:
    """Of four steps at one shape."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    make = engine_factory(engine_name, "cpu", compiled=True)
    engine = make(LlamaForCausalLM(config), AdamW(1e-3, 0.0), Precision("bfloat16"))
    texts = [Example(str(i), tuple(range(i, i + 16)), 1) for i in range(2)]
    batch = micro_batches(texts, engine, rows=2, pad_id=63)
    for _ in range(4):
        # Without its use_cache=False every layer would have a graph of its own.
        engine.accumulate(language_model_loss, batch)
        engine.step()
    breaks = sum(counters["graph_break"].values())
    return {"graphs": counters["stats"]["unique_graphs"], "breaks": breaks}


def main() -> None:
    """Print what both engines need."""
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "DS_ACCELERATOR": "cpu"}
    real = torch.compile
    torch.compile = lambda function: real(function, backend="aot_eager")
    print(json.dumps({name: graphs(name) for name in ("zero-3", "fsdp")}))


if __name__ == "__main__":
    main()
