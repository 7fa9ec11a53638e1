"""What alignments, transfers and trainings leave in their files, as cells of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kit.methods.defensive_tokens.checkpoint_choice import chosen_step
from kit.methods.defensive_tokens.token_norms import l1_norms
from kit.results.builder import Observation

if TYPE_CHECKING:
    from torch import Tensor

ALIGNMENT = {
    "residual": "residual",
    "distance-from-identity": "distance_from_identity",
    "mean-trace": "mean_trace",
    "orthogonality-error": "orthogonality_error",
    "smallest-singular-value": "smallest_singular_value",
    "sum-of-singular-values": "sum_of_singular_values",
}
"""Row of the metric ``alignment`` -> field of ``alignment.json``."""
NORMS = ("norm_mean", "norm_min", "norm_max", "norm_l1_mean", "norm_l1_max")
COSINES = ("cosine_native", "cosine_source")


def training_facts(
    label: str,
    losses: Sequence[float],
    checkpoints: Mapping[int, Tensor],
    heldout: Mapping[int, float] | None = None,
    mixture: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What a training leaves besides its vectors.

    Args:
        label: Names the rows.
        losses: Of every step.
        checkpoints: Step -> prefix [n, d].
        heldout: Step -> loss on items held out.
        mixture: Kind -> items of the mixture that the consumed ones were drawn from.
    """
    # In float64: the squares of large float32 values are infinite in float32.
    norms = {step: prefix.double().norm(dim=1).tolist() for step, prefix in checkpoints.items()}
    last = checkpoints[max(checkpoints)]
    return {
        "label": label,
        "losses": list(losses),
        "norms": norms,
        "trained_parameters": int(last.numel()),
        **({"heldout_losses": dict(heldout)} if heldout else {}),
        **({"mixture": dict(mixture)} if mixture else {}),
    }


def add_alignment(here: Observation, facts: Mapping[str, Any]) -> None:
    """How well one vocabulary is rotated onto the other."""
    for row, name in ALIGNMENT.items():
        here.number("alignment", row, facts[name], "number")
    if "rows" in facts:
        here.number("alignment", "rows", facts["rows"], "count")
    here.number("alignment", "relative-residual", 100 * facts["relative_residual"], "number")
    here.number("alignment", "largest-singular-value", facts["singular_values"][0], "number")


def add_geometry(here: Observation, table: Mapping[str, Mapping[str, float]]) -> None:
    """Lengths of the token sets of a transfer, and their angles to the native and source ones."""
    for row, facts in table.items():
        for names, unit in ((NORMS, "norm"), (COSINES, "number")):
            for name in names:
                here.number(name.replace("_", "-"), row, facts[name], unit)


def add_training(
    here: Observation, facts: Mapping[str, Any], folder: Path, window: int, divisor: float | None
) -> None:
    """Losses and norms of one training.

    Args:
        here: Where the numbers belong.
        facts: Of :func:`training_facts`.
        folder: With ``prefixes.safetensors``.
        window: Steps over which the first and the last loss are averaged.
        divisor: What a document's log divides the mean loss by, if it is to be repeated.
    """
    label, losses = facts["label"], facts["losses"]
    for which, part in (("first", losses[:window]), ("last", losses[-window:])):
        here.number(f"loss-{which}", label, fmean(part), "loss")
        if divisor is not None:
            here.number(f"loss-{which}-printed", label, fmean(part) / divisor, "loss")
    if "heldout_losses" in facts:
        for step, loss in facts["heldout_losses"].items():
            here.number("loss-heldout", f"{label}-{step}", loss, "loss")
        here.number("chosen-step", label, chosen_step(facts["heldout_losses"]), "count")
    here.number("trained-parameters", label, facts["trained_parameters"], "count")
    kinds = facts.get("mixture", {})
    if kinds:
        here.number("items", label, sum(kinds.values()), "count")
    for kind, count in kinds.items():
        here.count(f"items-{kind}", label, count, sum(kinds.values()))
    for step, norms in facts["norms"].items():
        for which, value in (("min", min(norms)), ("max", max(norms)), ("mean", fmean(norms))):
            here.number(f"norm-{which}", f"{label}-{step}", value, "norm")
    for row, (mean, largest) in l1_norms(folder / "prefixes.safetensors").items():
        here.number("norm-l1-mean", row, mean, "norm")
        here.number("norm-l1-max", row, largest, "norm")
