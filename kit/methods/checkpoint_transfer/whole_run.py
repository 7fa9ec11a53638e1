"""One unlearning from loaded models to a model that can be saved, and what it shows of itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from kit.lm.fingerprint import fingerprint, fingerprints
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.beside import ReadAhead
from kit.methods.checkpoint_transfer.pairs import batches
from kit.methods.checkpoint_transfer.recipe import Recipe
from kit.methods.checkpoint_transfer.student import make_student, optimizer_spec
from kit.methods.checkpoint_transfer.targets import ForgetTargets, RetainReference
from kit.methods.checkpoint_transfer.unlearn import UnlearnRun, unlearn
from kit.train.compiling import compiled_layers
from kit.train.engine import Precision
from kit.train.lora import merge_adapter
from kit.train.single_process import SingleProcess

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kit.methods.checkpoint_transfer.pairs import Pairs
    from kit.methods.checkpoint_transfer.states import States
    from kit.train.checkpoints import CheckpointFolder


NO_WEIGHTS = "no-finite-weights.txt"
"""Stands in the place of a model that diverged to NaN or infinity."""


@dataclass(frozen=True)
class Kept:
    """States that several runs share (:func:`kit.methods.checkpoint_transfer.targets.keep`).

    Attributes:
        forget: Targets.
        retain: States of the last block of the model before.
    """

    forget: States | None = None
    retain: States | None = None

    def in_order(self, recipe: Recipe, seed: int, device: str | torch.device) -> Kept:
        """The same, read ahead in the order in which the recipe asks."""
        steps = batches(recipe, seed)
        order = [example for step in steps for micro in step for example in micro.examples]

        def ahead(states: States | None) -> States | None:
            return None if states is None else ReadAhead(states, order, device)

        return Kept(ahead(self.forget), ahead(self.retain))


@dataclass(frozen=True)
class Unlearned:
    """A finished run.

    Attributes:
        model: Adapters merged.
        run: What was measured.
        teacher_unchanged: Whether the teacher's weights are those it was loaded with.
        moved: Names of tensors of the model that differ from before, adapters merged.
        allowed: Names of tensors that the recipe may change.
        base_moved: How many tensors differ from before with the adapters taken off again; all of
            ``moved`` where there are none.
        trained_share: Trained numbers over the model's own.
        muon: Tensors that Muon updated.
    """

    model: PreTrainedModel
    run: UnlearnRun
    teacher_unchanged: bool
    moved: frozenset[str]
    allowed: frozenset[str]
    base_moved: int
    trained_share: float
    muon: int


def run_recipe(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    maps: Mapping[int, AffineMap] | None,
    recipe: Recipe,
    pairs: Pairs,
    *,
    seed: int,
    precision: Precision | None = None,
    kept: Kept | None = None,
    folder: CheckpointFolder | None = None,
    save_every: int = 0,
    on_step: Callable[[int], None] | None = None,
    rows: int | None = None,
    compiled: bool = False,
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
        kept: Targets and retain reference that are there already.
        folder: Of checkpoints; a run that finds one goes on from it.
        save_every: Optimizer steps between two checkpoints.
        on_step: Called with the optimizer steps done.
        rows: Most texts in a forward pass; changes no loss but by rounding.
        compiled: Compile the layers that are trained; takes a while once, and moves roundings and
            the draws of dropout.

    Raises:
        ValueError: Inputs that do not fit the recipe.
        TrainingDiverged: The recipe says stop.
    """
    before = fingerprints(student.state_dict())
    own = sum(parameter.numel() for parameter in student.parameters())
    teachers = fingerprint(teacher)
    kept = (kept or Kept()).in_order(recipe, seed, pairs.device)
    reference = None
    if recipe.retain_coef > 0 and recipe.full_rank:
        reference = RetainReference(copy.deepcopy(student), kept=kept.retain)
    torch.manual_seed(seed)
    trained = make_student(student, recipe, seed=seed)
    if recipe.retain_coef > 0 and not recipe.full_rank:
        adapted = cast("PreTrainedModel", trained)
        reference = RetainReference(adapted, adapter_off=True, kept=kept.retain)
    targets = ForgetTargets(teacher, maps if recipe.affine else None, recipe, kept.forget)
    engine = SingleProcess(trained, optimizer_spec(recipe), precision)
    with compiled_layers(cast("PreTrainedModel", trained)) if compiled else nullcontext():
        run = unlearn(
            engine,
            recipe,
            pairs,
            targets,
            reference,
            seed=seed,
            folder=folder,
            save_every=save_every,
            on_step=on_step,
            rows=rows,
        )
    allowed = _allowed(trained)
    census = engine.optimizer.census.counts
    share = sum(p.numel() for p in trained.parameters() if p.requires_grad) / own
    base_moved = _differing(before, _own_weights(trained))
    model = trained if recipe.full_rank else merge_adapter(cast("PeftModel", trained))
    merged = cast("PreTrainedModel", model).eval()  # type: ignore[no-untyped-call]
    return Unlearned(
        model=merged,
        run=run,
        teacher_unchanged=fingerprint(teacher) == teachers,
        moved=_differing(before, merged.state_dict()),
        allowed=allowed,
        base_moved=len(base_moved),
        trained_share=share,
        muon=census.get("muon", 0),
    )


def save(done: Unlearned, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the unlearned model; of one whose weights are not finite only that it has none."""
    from kit.lm.load import save_model

    if done.run.finite:
        save_model(done.model, tokenizer, folder)
        return
    folder.mkdir()
    text = f"diverged at optimizer step {done.run.diverged_at}; weights not finite\n"
    (folder / NO_WEIGHTS).write_text(text, encoding="utf-8")


def without_weights(folder: Path) -> bool:
    """Whether a model's folder says that it ended with weights that are not finite."""
    return (folder / NO_WEIGHTS).is_file()


def summary(done: Unlearned, recipe: Recipe) -> dict[str, Any]:
    """What a run measured, as plain values; a number that is not finite is ``None``."""
    steps, run = recipe.steps, done.run
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
        "base_moved": done.base_moved,
        "trained_percent": 100 * done.trained_share,
        "muon_tensors": done.muon,
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


def _own_weights(trained: Any) -> dict[str, Tensor]:
    """The model's own tensors by their names without adapters."""
    plain = {}
    for name, tensor in trained.state_dict().items():
        if ".lora_" not in name:
            plain[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
    return plain


def _differing(before: Mapping[str, str], after: Mapping[str, Tensor]) -> frozenset[str]:
    now = fingerprints({name: after[name] for name in before})
    return frozenset(name for name in before if before[name] != now[name])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
