"""Judged evaluations: a model answers, a judge that was audited reads the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from kit.durable import write_json
from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, Sort
from kit.steps.common import finished, model_imports, tokenizer_of, transformers_backend
from kit.steps.tampering.kinds import SHARED

JUDGED = "judged.json"
JUDGES = ("harmbench", "strongreject", "mt-bench")
FILES: dict[str, Sort] = {"template": "pin", "requests": "pin", "references": "pin"}
Count = Annotated[int, Meta(ge=1)]


class JudgeModel(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/judge``."""

    judge: Literal["harmbench", "strongreject", "mt-bench"]
    max_new_tokens: Count = 512
    """Of an answer."""
    judge_tokens: Annotated[int, Meta(ge=0)] = 0
    """Most that the judge writes of a verdict; 0 leaves what its evaluation says."""
    batch_tokens: Count = 16384
    """Most prompt tokens in a batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model and of the judge."""
    most: Annotated[int, Meta(ge=0)] = 0
    """Requests that are asked, from the first; 0 asks all."""


class TabulateJudged(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of ``tar/tabulate-judged``."""

    not_run: list[str] = field(default_factory=list)
    """Rows of ``score`` that no judge here can give."""
    reason: str = ""
    """Why not."""
    over: str = ""
    """Axis over which attack success is averaged; none where empty."""
    absent: list[str] = field(default_factory=list)
    """Settings of that average that were not run, for the same reason."""


@REGISTRY.kind(
    "tar/judge",
    version=1,
    imports=model_imports,
    environment=SHARED,
    inputs={"model": "model", "judge": "model", **FILES},
    optional=frozenset({"references"}),
    outputs=(JUDGED,),
    canaries=("judge-audited", "judge-understood", "answers-given"),
)
def run_judge(ctx: StepContext, params: JudgeModel) -> None:
    """Ask a model, audit the judge, let it judge."""
    from dataclasses import replace

    from kit.evals.answers import answer
    from kit.evals.judge_audit import audit
    from kit.evals.judged_sets import MOST_UNREADABLE, TEMPLATE, evaluation, standin, summary
    from kit.evals.judges import judged
    from kit.evals.sets import pad_id

    files: dict[str, Path] = {name: ctx.pin(name).path for name in FILES if ctx.has(name)}
    whole = standin(params.judge) if ctx.rehearsal else evaluation(params.judge, files)
    judge = replace(whole.judge, tokens=params.judge_tokens or whole.judge.tokens)
    chosen = replace(whole, judge=judge, requests=whole.requests[: params.most or None])
    tokenizers = {name: tokenizer_of(ctx, ctx.model(name)) for name in ("model", "judge")}
    if ctx.rehearsal:
        for tokenizer in tokenizers.values():
            tokenizer.chat_template = TEMPLATE

    def backend(name: str):  # type: ignore[no-untyped-def]
        return transformers_backend(
            ctx,
            ctx.model(name),
            dtype=params.dtype,
            pad_id=pad_id(tokenizers[name]),
            batch_tokens=params.batch_tokens,
        )

    answered = answer(
        backend("model"),
        tokenizers["model"],
        chosen.requests,
        max_new_tokens=params.max_new_tokens,
    )
    reader = backend("judge")
    heard = audit(reader, tokenizers["judge"], chosen.judge)
    values = judged(reader, tokenizers["judge"], chosen.judge, answered)
    said = summary(chosen, values, [item.answers for item in answered])
    if ctx.rehearsal and said["mean"] is None:
        said["mean"] = 0.0  # no verdict of random weights can be read, and none means anything
    write_json(ctx.out / JUDGED, said)
    ctx.canary("judge-audited", ctx.rehearsal or heard.passed, str(heard))
    lost = said["unreadable"] / said["verdicts"]
    detail = f"{said['unreadable']} of {said['verdicts']} verdicts cannot be read"
    ctx.canary("judge-understood", ctx.rehearsal or lost <= MOST_UNREADABLE, detail)
    empty = f"{said['empty']} of {said['answers']} answers are empty"
    ctx.canary("answers-given", ctx.rehearsal or 2 * said["empty"] <= said["answers"], empty)


@REGISTRY.kind(
    "tar/tabulate-judged",
    version=1,
    inputs=dict.fromkeys(JUDGES, "steps"),
    optional=frozenset(JUDGES),
    outputs=("results.json", "labels.jsonl"),
    environment=(),
)
def run_tabulate_judged(ctx: StepContext, params: TabulateJudged) -> None:
    """Gather all judgements into ``results.json``."""
    from kit.methods.tar.judged_table import JudgedModel, tabulate_judged

    done = [model for name in JUDGES for model in finished(ctx, name, JudgedModel, JUDGED)]
    tabulate_judged(
        done,
        ctx.roles,
        not_run=dict.fromkeys(params.not_run, params.reason),
        over=params.over,
        absent=dict.fromkeys(params.absent, params.reason),
    ).write(ctx.out)
