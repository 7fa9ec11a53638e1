"""Steps ``gcg``, ``published-texts`` and ``attack-table``: attackers who know the defence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, Sort
from kit.steps.common import finished, model_imports, same_named
from kit.steps.defensive_tokens.files import SETS, write_json
from kit.steps.defensive_tokens.inputs import (
    GENERATION,
    attack_texts,
    evaluation_samples,
    frozen_model,
    full_prefix,
    generation_backend,
    tokenizer_and_format,
)
from kit.steps.defensive_tokens.params import AttackTable, Gcg, PublishedTexts
from kit.steps.defensive_tokens.remedies import GENERATION_MEMORY, SEARCH_MEMORY

if TYPE_CHECKING:
    from kit.lm.backend import Backend
    from kit.methods.defensive_tokens.adaptive.victims import Victim

ATTACKED: dict[str, Sort] = {
    "model": "model",
    "evaluation": "pin",
    "attacks": "pin",
    "released": "pin",
    "trained": "step",
}


@REGISTRY.kind(
    "defensive-tokens/gcg",
    version=1,
    imports=model_imports,
    lowers_memory=SEARCH_MEMORY,
    inputs=ATTACKED,
    optional=frozenset({"trained"}),
    outputs=("texts.jsonl", "scores.json"),
    canaries=(
        "attack-present",
        "text-tokenises-alike",
        "prefix-in-place",
        "kept-loss-never-rises",
        "search-moved",
    ),
)
def run_gcg(ctx: StepContext, params: Gcg) -> None:
    """Search a suffix for every item; resumes behind the last finished group after a kill."""
    from kit.lm.generate import TransformersBackend
    from kit.methods.defensive_tokens.adaptive.attack import (
        Wanted,
        attack_items,
        broken_by,
        mean_losses,
    )
    from kit.methods.defensive_tokens.adaptive.checks import check_search
    from kit.methods.defensive_tokens.adaptive.gcg import SearchSettings
    from kit.methods.defensive_tokens.adaptive.prompts import searchable_ids
    from kit.methods.defensive_tokens.adaptive.search_files import (
        append_group,
        read_groups,
        search_scores,
        text_rows,
    )
    from kit.methods.defensive_tokens.attacks import attack_samples, with_input
    from kit.methods.defensive_tokens.prompt_checks import combine

    model = frozen_model(ctx, params.dtype)
    tokenizer, chat = tokenizer_and_format(ctx)
    backend = TransformersBackend(model, chat.pad_id(tokenizer), max_tokens=params.batch_tokens)
    texts, style = attack_texts(ctx)
    samples = with_input(evaluation_samples(ctx))[: params.items]
    turns = [attacked.data for attacked in attack_samples(params.attack, samples, texts, style)]
    victims = _victims(ctx, params, backend)
    blind = params.attacker == "blind"
    loops = (
        [victims["undefended"]] if blind else [v for v in victims.values() if v.prefix is not None]
    )
    settings = SearchSettings(**same_named(params, SearchSettings))
    wanted = Wanted(
        texts.injected_word,
        searchable_ids(tokenizer, backend.vocabulary_size),
        params.filler,
        params.length,
        params.together,
        params.rows,
    )
    broken, losses, checks = {}, {}, []
    with (ctx.out / "texts.jsonl").open("w", encoding="utf-8") as file:
        for number, own in enumerate(loops):
            kept = ctx.scratch / f"{own.name}.jsonl"
            known, searched = read_groups(kept), []
            for group in attack_items(model, own, samples, turns, wanted, settings, known=known):
                if any(candidate.prompt.sample.id not in known for candidate in group):
                    append_group(kept, group)
                searched += group
                done = number * len(samples) + len(searched)
                ctx.progress(done, len(loops) * len(samples), "items")
                if ctx.due():
                    ctx.saved()
            searched.sort(key=lambda candidate: samples.index(candidate.prompt.sample))
            for row in text_rows(own, searched):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            for victim in victims.values() if blind else [own]:
                broken[victim.name] = broken_by(victim, own, searched, texts.injected_word)
            losses[own.name] = mean_losses(searched)
            checks += check_search(own, searched, texts)
    items = [sample.id for sample in samples]
    write_json(ctx.out / "scores.json", search_scores(items, settings.queries, broken, losses))
    for check in combine(checks):
        ctx.canary(check.id, check.passed, check.detail)


@REGISTRY.kind(
    "defensive-tokens/published-texts",
    version=1,
    imports=model_imports,
    environment=GENERATION,
    lowers_memory=GENERATION_MEMORY,
    inputs=ATTACKED,
    optional=frozenset({"trained"}),
    outputs=("labels.json",),
    canaries=("attack-present",),
)
def run_published_texts(ctx: StepContext, params: PublishedTexts) -> None:
    """Put every published text into every item, for every token set."""
    from kit.methods.defensive_tokens.adaptive.published import published_turns
    from kit.methods.defensive_tokens.attacks import with_input

    tokenizer, chat = tokenizer_and_format(ctx)
    backend = generation_backend(ctx, params, tokenizer, chat.pad_id(tokenizer))
    texts, style = attack_texts(ctx)
    samples = with_input(evaluation_samples(ctx))
    turns = published_turns(params.attacks, samples, texts, style, seed=params.seed)
    victims = _victims(ctx, params, backend)
    labels: dict[str, dict[str, list[int]]] = {}
    for done, victim in enumerate(victims.values(), start=1):
        hits = victim.obeys(
            samples * len(turns),
            [turn for of in turns.values() for turn in of],
            texts.injected_word,
        )
        parts = [hits[i : i + len(samples)] for i in range(0, len(hits), len(samples))]
        labels[victim.name] = {
            name: [int(hit) for hit in part] for name, part in zip(turns, parts, strict=True)
        }
        ctx.progress(done, len(victims), "token sets")
    items = [sample.id for sample in samples]
    write_json(ctx.out / "labels.json", {"items": items, "victims": labels})
    injected = texts.injected_prompt.lower()
    there = sum(injected in turn.lower() for of in turns.values() for turn in of)
    ctx.canary(
        "attack-present",
        there == len(turns) * len(samples),
        f"the injected instruction stands in {there} of {len(turns) * len(samples)} data turns of "
        f"{len(turns)} texts",
    )


@REGISTRY.kind(
    "defensive-tokens/attack-table",
    version=1,
    inputs={"searches": "steps", "texts": "steps"},
    outputs=("results.json", "labels.jsonl"),
    environment=(),
)
def run_attack_table(ctx: StepContext, params: AttackTable) -> None:
    """Gather both attacks into ``results.json``."""
    from kit.methods.defensive_tokens.adaptive.attack_table import attack_table
    from kit.methods.defensive_tokens.gather import StageFolder

    searches, texts = (finished(ctx, name, StageFolder) for name in ("searches", "texts"))
    attack_table(searches, texts, ctx.roles, level=params.level, seed=params.seed).write(ctx.out)


def _victims(ctx: StepContext, params: Gcg | PublishedTexts, backend: Backend) -> dict[str, Victim]:
    """The model without a prefix and with each of the token sets, by name."""
    from kit.methods.defensive_tokens.adaptive.prompts import Prompter
    from kit.methods.defensive_tokens.adaptive.victims import Victim
    from kit.methods.defensive_tokens.prefix_sets import load_sets

    tokenizer, chat = tokenizer_and_format(ctx)
    trained = load_sets(ctx.step("trained").path / SETS) if ctx.has("trained") else {}
    unknown = set(params.trained) - set(trained)
    if unknown:
        raise ValueError(f"no trained token set {', '.join(sorted(unknown))}: {', '.join(trained)}")
    prefixes = {
        "undefended": None,
        "native": full_prefix(ctx, "model", n=params.tokens, trained="native"),
        **{name: trained[name] for name in params.trained},
    }
    return {
        name: Victim(
            name,
            prefix,
            Prompter(
                tokenizer,
                chat,
                params.layout,
                0 if prefix is None else len(prefix),
                backend.vocabulary_size,
            ),
            backend,
            params.max_new_tokens,
        )
        for name, prefix in prefixes.items()
    }
