"""One unlearning from loaded models to a model that can be saved, and what it shows of itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from kit.lm.fingerprint import fingerprint
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.methods.checkpoint_transfer.student import make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.methods.checkpoint_transfer.unlearn import UnlearnRun, unlearn
from kit.train.engine import Precision
from kit.train.lora import merge_adapter
from kit.train.single_process import SingleProcess

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from kit.methods.checkpoint_transfer.pairs import Pairs
    from kit.train.checkpoints import CheckpointFolder


@dataclass(frozen=True)
class Unlearned:
    """A finished run.

    Attributes:
        model: Adapters merged.
        run: What was measured.
        teacher_unchanged: Whether the teacher's weights are those it was loaded with.
        moved: Names of tensors of the model that differ from before, adapters merged.
        allowed: Names of tensors that the recipe may change.
    """

    model: PreTrainedModel
    run: UnlearnRun
    teacher_unchanged: bool
    moved: frozenset[str]
    allowed: frozenset[str]


def run_recipe(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    maps: Mapping[int, AffineMap] | None,
    recipe: Recipe,
    pairs: Pairs,
    *,
    seed: int,
    precision: Precision | None = None,
    folder: CheckpointFolder | None = None,
    save_every: int = 0,
) -> Unlearned:
    """Unlearn by a recipe, in one process.

    Args:
        student: The final model, frozen; becomes the unlearned one.
        teacher: The early checkpoint, frozen.
        maps: Block -> map; ignored where the recipe has none.
        recipe: Everything that decides the run.
        pairs: As many as the recipe's examples.
        seed: Of adapter, order and dropout.
        precision: Types; fp32 if not given.
        folder: Of checkpoints.
        save_every: Optimizer steps between two checkpoints.

    Raises:
        ValueError: Inputs that do not fit the recipe.
        TrainingDiverged: The recipe says stop.
    """
    before = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    kept = fingerprint(teacher)
    reference = None
    if recipe.retain_coef > 0 and recipe.full_rank:
        reference = RetainReference(copy.deepcopy(student))
    torch.manual_seed(seed)
    trained = make_student(student, recipe, seed=seed)
    if recipe.retain_coef > 0 and not recipe.full_rank:
        reference = RetainReference(cast("PreTrainedModel", trained), adapter_off=True)
    targets = ForgetTargets(teacher, maps if recipe.affine else None, recipe)
    engine = SingleProcess(trained, optimizer_spec(recipe), precision)
    run = unlearn(
        engine, recipe, pairs, targets, reference, seed=seed, folder=folder, save_every=save_every
    )
    allowed = _allowed(trained)
    model = trained if recipe.full_rank else merge_adapter(cast("PeftModel", trained))
    merged = cast("PreTrainedModel", model).eval()  # type: ignore[no-untyped-call]
    after = merged.state_dict()
    moved = frozenset(n for n in before if not torch.equal(before[n], after[n].to(before[n])))
    return Unlearned(merged, run, fingerprint(teacher) == kept, moved, allowed)


def summary(run: UnlearnRun, recipe: Recipe) -> dict[str, Any]:
    """What a run measured, as plain values; a number that is not finite is ``None``."""
    steps = recipe.steps
    losses = {"logged": run.logged(recipe), "last-step": run.last_step(recipe)}
    return {
        **{
            name: {"remove": _finite(remove), "retain": _finite(retain)}
            for name, (remove, retain) in losses.items()
        },
        "diverged_at": run.diverged_at,
        "finite": run.finite,
        "micro_batches": steps.micro_batches,
        "optimizer_steps": steps.optimizer_steps,
        "effective_batch": recipe.effective_batch,
        "first_remove": _finite(run.remove[0]),
        "remove": [_finite(value) for value in run.remove],
        "retain": [_finite(value) for value in run.retain],
    }


def _allowed(trained: Any) -> frozenset[str]:
    """Names, in the model without adapters, of the tensors that training may change."""
    names = set()
    for name, parameter in trained.named_parameters():
        if parameter.requires_grad:
            plain = name.removeprefix("base_model.model.")
            names.add(plain.split(".lora_")[0] + ".weight" if ".lora_" in plain else plain)
    return frozenset(names)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
