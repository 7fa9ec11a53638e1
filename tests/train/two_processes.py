"""What `test_train_processes.py` runs in this process, and in two that torchrun starts.

A global batch of 8 rows, some of them shorter; outer and inner steps, a gradient kept for later.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import AVERAGED, TRAINING, Progress
from kit.train.optimizers import AdamW, ScheduleFreeAdamW
from kit.train.single_process import SingleProcess, data_parallel
from tests.train.tiny import llama, tokens

ROWS = 8


def loss(model, batch):
    """Sum of cross-entropies over tokens x their weight in the global batch."""
    ids, lengths, weight = batch
    columns = torch.arange(ids.shape[1], device=ids.device)
    labels = ids.masked_fill(columns >= lengths[:, None], -100)
    mask = (labels != -100).long()
    logits = model(input_ids=ids, attention_mask=mask).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    return losses * weight


def share(engine, step, rows=2):
    """This process's micro-batches of the global batch of a step."""
    ids = tokens(step, ROWS, 9)
    lengths = torch.tensor([9, 3, 4, 9, 2, 9, 9, 5])
    weight = 1.0 / int((lengths - 1).sum())
    mine = slice(
        engine.rank * ROWS // engine.world_size, (engine.rank + 1) * ROWS // engine.world_size
    )
    return [
        (part.to(engine.device), size.to(engine.device), weight)
        for part, size in zip(ids[mine].split(rows), lengths[mine].split(rows), strict=True)
    ]


# Where gradients are near eps, Adam moves a weight by little more than their sign, and rounding
# (1e-8 of a sum that cancels) would decide by how much. Equality to 1e-6 needs an eps far above it.
INNER = AdamW(0.003, 0.01, eps=1e-3)
OUTER = ScheduleFreeAdamW(0.01, 0.0, warmup_steps=2, eps=1e-3)


def weights(engine, which):
    with engine.evaluating(which) as model:
        return {n: p.detach().clone() for n, p in model.named_parameters()}


def run(engine, folder):
    """Two outer steps with four inner ones each; losses, gradient and weights."""
    losses, result = [], {}
    for outer in range(2):
        kept = engine.snapshot()
        with engine.inner(INNER):
            for inner in range(4):
                losses.append(engine.accumulate(loss, share(engine, 10 * outer + inner)))
                engine.clip(1.0)
                engine.step()
                losses.append(engine.accumulate(loss, share(engine, 99), scale=-0.5))
                engine.collect("tr")
            result |= {f"attacked{outer}/{n}": p for n, p in weights(engine, TRAINING).items()}
        engine.restore(kept)
        losses.append(engine.accumulate(loss, share(engine, 50 + outer)))
        engine.add_collected("tr")
        result |= {f"gradient{outer}/{n}": g.clone() for n, g in engine.gradients().items()}
        engine.step()
    engine.save(CheckpointFolder(Path(folder)), Progress(2))
    result |= {f"x/{n}": p for n, p in weights(engine, AVERAGED).items()}
    return {n: t.contiguous() for n, t in result.items()} | {"losses": torch.stack(losses)}


if __name__ == "__main__":
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    accelerator = data_parallel("cpu")
    assert accelerator.num_processes == 2
    engine = SingleProcess(llama(), OUTER, accelerator=accelerator)
    result = run(engine, Path(sys.argv[1]) / "checkpoints")
    save_file(result, f"{sys.argv[1]}/rank{accelerator.process_index}.safetensors")
    accelerator.end_training()
