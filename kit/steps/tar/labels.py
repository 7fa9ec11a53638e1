"""Training with a "rejected" label: the kind that trains and asks, and its table."""

from __future__ import annotations

from typing import Any

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY
from kit.steps.common import finished, load_model, same_named, tokenizer_and_format
from kit.steps.tar.refusal_params import LabelTable, LabelTraining

STATES = "states.json"


@REGISTRY.kind(
    "tar/label-train",
    version=1,
    inputs={"model": "model", "data": "step"},
    outputs=(STATES,),
    canaries=("training-changed-the-model",),
)
def run_label_train(ctx: StepContext, params: LabelTraining) -> None:
    """Train with a label, and ask the model before, after, and with its adapter off."""
    from kit.evals.multiple_choice import score
    from kit.evals.requests import Interview, read_asked
    from kit.evals.sets import question_items
    from kit.lm.generate import TransformersBackend
    from kit.methods.tar import label_study
    from kit.methods.tar.pairs import read_pairs

    source, data = ctx.model("model"), ctx.step("data").path
    tokenizer, chat = tokenizer_and_format(ctx, source)
    pad = chat.pad_id(tokenizer)
    interview = Interview(
        {name: read_asked(data, name, params.most) for name in params.asked},
        tokenizer,
        chat.stop_ids(tokenizer),
        pad,
        params.new_tokens,
    )
    scored = {name: read_pairs(data, stored) for name, stored in params.log_probs.items()}
    items = question_items(data, {"known": params.questions}, tokenizer)["known"]

    def measure(model: Any) -> dict[str, Any]:
        picked = score(TransformersBackend(model, pad, max_batch=1024), items)
        return {
            **interview(model, 0),
            "log_probs": {
                name: label_study.answer_log_probs(model, pairs, rows=params.rows, pad_id=pad)
                for name, pairs in scored.items()
            },
            "known": [
                int(answer.chosen() == item.answer)
                for answer, item in zip(picked, items, strict=True)
            ],
        }

    model = load_model(ctx, source, params.dtype, trainable=True)
    states, done = label_study.train_with_label(
        model,
        load_model(ctx, source, params.dtype),
        read_pairs(data, params.pairs),
        read_pairs(data, params.benign),
        label_study.LabelTraining(**same_named(params, label_study.LabelTraining)),
        measure,
        pad_id=pad,
        rows=params.rows,
    )
    write_json(
        ctx.out / STATES,
        {
            "states": states,
            "losses": done.losses,
            "label": params.label,
            "requests": interview.asked(),
            "questions": [item.id for item in items],
        },
    )
    before, after = (states[name]["log_probs"] for name in ("before", "after"))
    ctx.canary("training-changed-the-model", before != after, f"{len(done.losses)} steps")


@REGISTRY.kind(
    "tar/label-table",
    version=1,
    inputs={"trainings": "steps"},
    outputs=("results.json", "labels.jsonl"),
    environment=(),
    canaries=("adapter-off-is-as-before",),
)
def run_label_table(ctx: StepContext, params: LabelTable) -> None:
    """Gather what became of the responses into ``results.json``."""
    from kit.methods.tar.label_table import LabelledTraining, tabulate_labels

    done = finished(ctx, "trainings", LabelledTraining, STATES)
    table, different = tabulate_labels(done, ctx.roles)
    table.write(ctx.out)
    ctx.canary(
        "adapter-off-is-as-before",
        different == 0,
        f"{different} responses or log-probabilities differ with the adapter off from before",
    )
