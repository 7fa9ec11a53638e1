"""Rules over a manifest's steps: those of planning, and what planning does not ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kit.engine.registry import StepKind
from kit.engine.wiring import RULES, Hit, Rule
from kit.lint.core import MANIFEST, ManifestContext, duplicates
from kit.manifest.catalog import profile_of, steps_of
from kit.manifest.names import nearest
from kit.manifest.refs import read_steps
from kit.manifest.types import StepSpec


def _over_profiles(rule: Rule) -> Callable[[ManifestContext], Iterator[Hit]]:
    """A rule of planning, asked for every profile; what two profiles share is said once."""

    def check(context: ManifestContext) -> Iterator[Hit]:
        seen: set[Hit] = set()
        for profile in context.manifest.profiles:
            for hit in rule(context.manifest, profile, context.registry):
                if hit not in seen:
                    seen.add(hit)
                    yield hit

    check.__doc__ = rule.__doc__
    return check


for _id, _rule in RULES.items():
    MANIFEST.rule(_id)(_over_profiles(_rule))


def kind_of(context: ManifestContext, step: StepSpec) -> StepKind | None:
    """The registered kind of a step, or ``None``."""
    known = step.kind in context.registry.names()
    return context.registry.get(step.kind) if known else None


@MANIFEST.rule("duplicate-document")
def duplicate_document(context: ManifestContext) -> Iterator[Hit]:
    """Document ids are unique."""
    for index, id in duplicates(document.id for document in context.manifest.documents):
        yield Hit(("documents", index, "id"), f"a second document {id!r}")


@MANIFEST.rule("step-profiles")
def step_profiles(context: ManifestContext) -> Iterator[Hit]:
    """A step names profiles that exist."""
    for index, step in enumerate(context.manifest.steps):
        for place, profile in enumerate(step.profiles or []):
            if profile not in context.manifest.profiles:
                yield Hit(
                    ("steps", index, "profiles", place), f"the manifest has no profile {profile!r}"
                )
        if step.profiles == []:
            yield Hit(("steps", index, "profiles"), f"step {step.id!r} is in no profile")


@MANIFEST.rule("no-profile")
def no_profile(context: ManifestContext) -> Iterator[Hit]:
    """A manifest has a profile."""
    if not context.manifest.profiles:
        yield Hit(("profiles",), "no profile: there is nothing to run")


@MANIFEST.rule("results-step")
def results_step(context: ManifestContext) -> Iterator[Hit]:
    """The results step exists in every profile and has one instance."""
    manifest = context.manifest
    for profile in manifest.profiles:
        steps = steps_of(manifest, profile)
        if manifest.results not in steps:
            yield Hit(
                ("results",),
                f"the results step {manifest.results!r} is no step of profile {profile!r}",
                nearest(manifest.results, steps) or f"steps: {', '.join(steps)}",
            )
        elif steps[manifest.results].each:
            index = list(manifest.steps).index(steps[manifest.results])
            yield Hit(
                ("steps", index, "each"),
                "the results step has 'each', but there must be one table",
                "collect the instances in a step without 'each'",
            )
            return


@MANIFEST.rule("unused-step", "warning")
def unused_step(context: ManifestContext) -> Iterator[Hit]:
    """Every step leads to the results."""
    manifest = context.manifest
    reads: dict[str, set[str]] = {}
    for profile in manifest.profiles:
        for id, step in steps_of(manifest, profile).items():
            read = read_steps(step, profile_of(manifest, profile)).values()
            reads.setdefault(id, set()).update(*read)
    reached: set[str] = set()
    open_ends = [manifest.results]
    while open_ends:
        id = open_ends.pop()
        if id not in reached and id in reads:
            reached.add(id)
            open_ends += reads[id]
    for index, step in enumerate(manifest.steps):
        if step.id not in reached:
            yield Hit(
                ("steps", index, "id"), f"nothing that leads to the results reads {step.id!r}"
            )
