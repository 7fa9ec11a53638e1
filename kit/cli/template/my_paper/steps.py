"""Step kinds: what a manifest's ``kind`` names. They wire files to the method."""

from __future__ import annotations

import json

from msgspec import Struct

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY, NoParams
from kit.results.axes import Axes
from kit.results.builder import TableBuilder


class Attack(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``my-paper/attack``."""

    defence: str
    seed: int
    limit: int = 40
    """Prompts that are tried."""


@REGISTRY.kind(
    "my-paper/attack",
    version=1,  # raised when equal inputs give other outputs
    inputs={"prompts": "pin"},
    outputs=("labels.json",),
    canaries=("every-prompt-tried",),
    environment=(),
)
def run_attack(context: StepContext, params: Attack) -> None:
    """Attack every prompt once; leaves a label for each."""
    from my_paper.method import attack  # heavy imports stay inside: planning never needs them

    prompts = json.loads((context.pin("prompts").path / "prompts.json").read_text())
    prompts = prompts[: params.limit]
    labels = attack(prompts, defence=params.defence, seed=params.seed)
    # A canary is evidence that the mechanism ran; when it fails the numbers are invalid.
    context.canary("every-prompt-tried", len(labels) == len(prompts), f"{len(labels)} labels")
    made = {"items": prompts, "labels": labels}
    (context.out / "labels.json").write_text(json.dumps(made))


@REGISTRY.kind(
    "my-paper/table",
    version=1,
    inputs={"attacks": "steps"},
    outputs=("results.json", "labels.jsonl"),
    environment=(),
)
def run_table(context: StepContext, params: NoParams) -> None:
    """All measurements as cells, by the role of each axis."""
    measured = context.steps("attacks")
    table, axes = TableBuilder(), Axes([step.axes for step in measured], context.roles)
    for step in measured:
        made = json.loads((step.path / "labels.json").read_text())
        here = table.at(axes.origin(step.instance, step.axes))
        here.proportion("asr", "attack", made["labels"], made["items"])
    table.build().write(context.out)  # results.json and labels.jsonl
