"""What `test_ct_processes.py` runs in this process, and in two that torchrun starts."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch

from kit.methods.checkpoint_transfer.student import make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.methods.checkpoint_transfer.unlearn import unlearn
from kit.train.single_process import SingleProcess, data_parallel
from tests.methods.checkpoint_transfer.small_run import pairs, recipe, setting


class Recording(SingleProcess):
    """Keeps every step's gradient, as it is before clipping."""

    def clip(self, max_norm: float) -> float:
        self.seen = getattr(self, "seen", [])
        self.seen.append({n: g.clone() for n, g in self.gradients().items()})
        return super().clip(max_norm)


def run(accelerator: Any) -> dict[str, torch.Tensor]:
    """Gradients of all steps, and the weights after the last."""
    given, wanted = setting(), recipe(epochs=2, world=2)
    engine = Recording(
        make_student(copy.deepcopy(given.original), wanted, seed=3),
        optimizer_spec(wanted),
        accelerator=accelerator,
    )
    targets = ForgetTargets(given.teacher, given.maps, wanted)
    unlearn(engine, wanted, pairs(), targets, RetainReference(given.original), seed=5)
    result = {f"weight/{n}": p for n, p in engine.snapshot().tensors.items()}
    for step, gradients in enumerate(engine.seen):
        result |= {f"gradient/{step}/{n}": g for n, g in gradients.items()}
    return result


if __name__ == "__main__":
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    accelerator = data_parallel("cpu", unused_parameters=True)
    assert accelerator.num_processes == 2
    save_file(run(accelerator), f"{sys.argv[1]}/rank{accelerator.process_index}.safetensors")
    accelerator.end_training()
