"""A pretraining from written data to model folders: what the step and nobody else does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.mini.facts import files, measure
from kit.mini.facts.model import Shape, build_tokenizer, new_model
from kit.mini.facts.pretrain import Recipe, Rows, pretrain, rows_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

QUESTIONS = {
    "forget_judge": "forget-judge",
    "forget_attacker": "forget-attacker",
    "retain": "retain",
}
"""Name of a measured share -> name of its set of questions."""


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining leaves beside its models.

    Attributes:
        losses: Of every step, in nats a word.
        shares: Steps done -> shares of the questions answered right, at every checkpoint and at
            the end.
        moved: Trained weights that changed, and all trained weights.
        frozen: Whether input and output embeddings are bit for bit as they began.
    """

    losses: list[float]
    shares: dict[int, measure.Shares]
    moved: tuple[int, int]
    frozen: bool


def pretraining_rows(data: Path, *, requests: bool) -> Rows:
    """Token ids of all sentences that pretraining draws from, of a written world."""
    texts = [
        text for name in ("retain", "mention", "forget") for text in files.read_texts(data, name)
    ]
    asked = [r for name in ("benign", "harmful") for r in files.read_requests(data, name)]
    return rows_of(texts, asked if requests else ())


def pretrain_into(
    model_folder: Path,
    checkpoints_folder: Path,
    data: Path,
    shape: Shape,
    recipe: Recipe,
    seed: int,
    *,
    requests: bool = False,
    checkpoints: Sequence[int] = (),
    on_step: Callable[[int, float], None] | None = None,
) -> Pretrained:
    """Pretrain a model, write it and the checkpoints, in Hugging Face layout.

    Args:
        model_folder: Receives the final model.
        checkpoints_folder: Receives a folder for each checkpoint (:func:`checkpoint_folder`).
        data: A written world (:func:`kit.mini.facts.files.write_world`).
        shape: Of the model.
        recipe: How to train.
        seed: Of the first weights and of the draws.
        requests: Whether the model learns to answer requests and to refuse those about compounds.
        checkpoints: Steps after which the model is kept.
        on_step: Called with (steps done, loss).

    Raises:
        ValueError: A checkpoint after the last step, data without a needed set.
        TrainingDiverged: A loss that is not finite.
    """
    from kit.lm.load import save_model
    from kit.train.errors import TrainingDiverged, divergence

    model, tokenizer = new_model(shape, seed), build_tokenizer()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    sets = {name: files.read_questions(data, stored) for name, stored in QUESTIONS.items()}
    losses: list[float] = []
    shares: dict[int, measure.Shares] = {}
    checkpoints_folder.mkdir(parents=True, exist_ok=True)

    def stepped(step: int, loss: float) -> None:
        if reason := divergence(loss):
            raise TrainingDiverged(step - 1, (), None, reason)
        losses.append(loss)
        if on_step:
            on_step(step, loss)

    def keep(step: int) -> None:
        model.eval()  # type: ignore[no-untyped-call]
        shares[step] = measure.measure(model, sets)
        if step in checkpoints:
            save_model(model, tokenizer, checkpoint_folder(checkpoints_folder, step))

    pretrain(
        model,
        pretraining_rows(data, requests=requests),
        recipe,
        seed,
        on_step=stepped,
        checkpoints=sorted({*checkpoints, recipe.steps}),
        on_checkpoint=keep,
    )
    save_model(model, tokenizer, model_folder)
    changed, trained, frozen = _compare(model, before)
    return Pretrained(losses, shares, (changed, trained), frozen)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the model after ``step`` steps lies."""
    return folder / f"step-{step}"


def find_checkpoint(folder: Path, step: int) -> Path:
    """The kept model after ``step`` steps.

    Raises:
        ValueError: It was not kept; the message lists those that were.
    """
    wanted = checkpoint_folder(folder, step)
    if not wanted.is_dir():
        kept = sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
        listed = ", ".join(map(str, kept)) or "none"
        raise ValueError(f"the pretraining kept no checkpoint at step {step}; kept: {listed}")
    return wanted


def _compare(model: PreTrainedModel, before: dict[str, Tensor]) -> tuple[int, int, bool]:
    """Trained weights that changed, trained weights, and whether all others stayed."""
    changed, trained, frozen = 0, 0, True
    for name, parameter in model.named_parameters():
        differs = bool((parameter.detach() != before[name]).any())
        if parameter.requires_grad:
            trained += 1
            changed += differs
        else:
            frozen = frozen and not differs
    return changed, trained, frozen
