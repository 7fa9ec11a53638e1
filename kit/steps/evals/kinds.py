"""``evals/multiple-choice``: a model's picks on sets of questions, every item kept."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kit.engine.registry import REGISTRY, StepContext, StepKind
from kit.pins.hashing import write_json
from kit.steps.common import load_model, model_folder


class MultipleChoice(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``evals/multiple-choice``."""

    questions: dict[str, str]
    """Measurement -> set of questions."""
    dtype: Literal["float32", "bfloat16"] = "float32"


def run_multiple_choice(ctx: StepContext, params: MultipleChoice) -> None:
    """Score every question of some sets."""
    from kit.evals.multiple_choice import score
    from kit.evals.sets import pad_id, question_items, scored_rows
    from kit.lm.generate import TransformersBackend
    from kit.lm.load import load_tokenizer

    source = ctx.model("model")
    tokenizer = load_tokenizer(model_folder(ctx, source))
    backend = TransformersBackend(load_model(ctx, source, params.dtype), pad_id(tokenizer))
    items = question_items(ctx.step("data").path, params.questions, tokenizer)
    found = {name: scored_rows(score(backend, part)) for name, part in items.items()}
    write_json(ctx.out / "scores.json", found)


REGISTRY.add(
    StepKind(
        name="evals/multiple-choice",
        version=1,
        params=MultipleChoice,
        run=run_multiple_choice,
        inputs={"model": "model", "data": "step"},
        outputs=("scores.json",),
        doc="multiple choice by log-likelihood, every item kept",
    )
)
