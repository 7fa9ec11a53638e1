"""Steps ``evaluate`` and ``tabulate``: every token set attacked, all measurements as cells."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY
from kit.steps.common import FORMATS, finished, model_imports
from kit.steps.defensive_tokens.files import SETS, write_json
from kit.steps.defensive_tokens.inputs import (
    GENERATION,
    attack_texts,
    engine,
    engine_ahead,
    evaluation_samples,
    frozen_model,
    full_prefix,
    tokenizer_and_format,
)
from kit.steps.defensive_tokens.params import KNOWN_DEFENCES, Evaluate, Tabulate
from kit.steps.defensive_tokens.remedies import GENERATION_MEMORY

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def evaluate_science(params: Evaluate) -> tuple[str, ...]:
    """What no import shows: chat formats, and defences that are functions."""
    own = [written for written in params.defences if written not in KNOWN_DEFENCES]
    if not own:
        return FORMATS
    from kit.methods.defensive_tokens.prompt_defences import own_defence

    read = [own_defence(written) for written in own]
    return (*FORMATS, *sorted({f"{module}:{name}" for _, module, name in read if name}))


@REGISTRY.kind(
    "defensive-tokens/evaluate",
    version=2,
    imports=model_imports,
    ahead=engine_ahead,
    environment=GENERATION,
    lowers_memory=GENERATION_MEMORY,
    inputs={
        "model": "model",
        "evaluation": "pin",
        "attacks": "pin",
        "released": "pin",
        "native": "step",
        "transferred": "step",
        "trained": "step",
        "control": "step",
    },
    optional=frozenset({"released", "native", "transferred", "trained", "control"}),
    needs={"model": ("chat_format",), "attacks": ("style",)},
    science=evaluate_science,
    outputs=("responses.jsonl", "scores.json"),
    canaries=("attack-present", "prefix-in-place", "labels-differ-between-sets"),
)
def run_evaluate(ctx: StepContext, params: Evaluate) -> None:
    """Attack every token set of one model; one model load for all."""
    from kit.methods.defensive_tokens.evaluate import evaluate_prefixes
    from kit.methods.defensive_tokens.prompt_checks import (
        PromptCheck,
        check_prompts,
        combine,
        turns_changed,
    )
    from kit.methods.defensive_tokens.scores import response_rows, score_table

    tokenizer, chat, backend = engine(ctx, params)
    texts, style = attack_texts(ctx)
    samples = evaluation_samples(ctx)
    rows = _conditions(ctx, params)
    itself = cache(partial(_model_itself, ctx, params, backend))
    scores: dict[str, Any] = {}
    checks: list[PromptCheck] = []
    with (ctx.out / "responses.jsonl").open("w", encoding="utf-8") as file:
        evaluations = evaluate_prefixes(
            backend,
            tokenizer,
            chat,
            params.layout,
            list(rows.values()),
            samples,
            texts,
            style,
            attacks=params.attacks,
            max_new_tokens=params.max_new_tokens,
            seed=params.seed,
            references_are_right=params.accuracy,
        )
        for done, (name, evaluation) in enumerate(zip(rows, evaluations, strict=True), start=1):
            prefix, defence = rows[name]
            scores[name] = score_table(evaluation)
            if params.output_rows and prefix is not None:
                scores[name]["output_rows"] = _as_output_rows(ctx, params, itself(), prefix)
            for row in response_rows(evaluation):
                file.write(json.dumps({"set": name, **row}, ensure_ascii=False) + "\n")
            checks += check_prompts(
                evaluation,
                texts,
                slots=0 if prefix is None else len(prefix),
                vocabulary_size=backend.vocabulary_size,
            )
            if defence.rewrite is not None:
                changed, turns = turns_changed(evaluation, samples, defence)
                detail = f"{name}: {changed} of {turns} attacked data turns are changed by it"
                ctx.canary("own-defence-acts", changed > 0, detail)
            ctx.progress(done, len(rows), "token sets")
    write_json(ctx.out / "scores.json", scores)
    for check in combine(checks):
        ctx.canary(check.id, check.passed, check.detail)
    if ctx.rehearsal:
        return  # random weights say nothing: no response can differ in what is counted
    words = {json.dumps(score["asr"]) for score in scores.values()}
    ctx.canary(
        "labels-differ-between-sets",
        len(scores) == 1 or len(words) > 1,
        f"{len(words)} distinct label tables in {len(scores)} token sets",
    )


@REGISTRY.kind(
    "defensive-tokens/tabulate",
    version=3,
    inputs={
        "evaluations": "steps",
        "alignments": "steps",
        "transfers": "steps",
        "trainings": "steps",
        "controls": "steps",
    },
    optional=frozenset({"alignments", "transfers", "trainings", "controls"}),
    outputs=("results.json", "labels.jsonl"),
    environment=(),
)
def run_tabulate(ctx: StepContext, params: Tabulate) -> None:
    """Gather all measurements into ``results.json``."""
    from kit.methods.defensive_tokens.gather import StageFolder, Utility, tabulate

    tabulate(
        evaluations=finished(ctx, "evaluations", StageFolder),
        alignments=finished(ctx, "alignments", StageFolder),
        transfers=finished(ctx, "transfers", StageFolder),
        trainings=finished(ctx, "trainings", StageFolder) + finished(ctx, "controls", StageFolder),
        native=params.native,
        published_full=params.published_full,
        refusal_rule=params.refusal_rule,
        loss_window=params.loss_window,
        loss_divisor=params.loss_divisor,
        utility=Utility(params.utility_sets, params.utility_not_run, params.utility),
        roles=ctx.roles,
    ).write(ctx.out)


def _conditions(ctx: StepContext, params: Evaluate) -> dict[str, tuple[Tensor | None, Any]]:
    """Row name -> prefix and prompting defence, in table order."""
    from kit.methods.defensive_tokens.prefix_sets import load_sets
    from kit.methods.defensive_tokens.prompt_defences import (
        NO_DEFENCE,
        PromptDefence,
        load_defence,
    )

    rows: dict[str, tuple[Tensor | None, Any]] = {}
    for defence in params.defences:
        if defence == "native":
            native = full_prefix(ctx, "model", n=params.tokens, trained="native")
            rows[defence] = (native, NO_DEFENCE)
        elif defence == "reminder":
            rows[defence] = (None, PromptDefence(after_instruction=params.reminder))
        elif defence == "sandwich":
            rows[defence] = (None, PromptDefence(after_data=params.sandwich))
        elif defence == "undefended":
            rows[defence] = (None, NO_DEFENCE)
        else:
            name, own = load_defence(defence)
            rows[name] = (None, own)
    for name in ("transferred", "trained", "control"):
        if ctx.has(name):
            for label, prefix in load_sets(ctx.step(name).path / SETS).items():
                if label in rows:
                    raise ValueError(f"two token sets are called {label!r}: give one another label")
                rows[label] = (prefix, NO_DEFENCE)
    return rows


def _model_itself(ctx: StepContext, params: Evaluate, backend: Any) -> PreTrainedModel:
    """The model that answers, or beside vLLM's engine the same once more."""
    from kit.lm.generate import TransformersBackend

    plain = getattr(backend, "backend", backend)  # without a rehearsal's answer lengths
    if isinstance(plain, TransformersBackend):
        return plain.model
    return frozen_model(ctx, params.dtype)


def _as_output_rows(
    ctx: StepContext, params: Evaluate, model: PreTrainedModel, prefix: Tensor
) -> dict[str, list[Any]]:
    """Labels and probabilities of the benign prompts."""
    from kit.lm.model import vocabulary_rows
    from kit.methods.defensive_tokens.output_rows import as_output_rows, benign_prompts

    tokenizer, chat = tokenizer_and_format(ctx)
    prompts = benign_prompts(
        tokenizer,
        chat,
        params.layout,
        evaluation_samples(ctx),
        slots=len(prefix),
        vocabulary_size=vocabulary_rows(model),
    )
    wins, shares = as_output_rows(model, prompts, prefix, pad_id=chat.pad_id(tokenizer))
    return {"wins": [int(win) for win in wins], "probabilities": shares}
