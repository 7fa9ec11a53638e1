"""The log's code versions as presets: each is what differs from ``corrected``, with its source.

``corrected`` fits and uses the maps on the same state, averages gradients over processes, routes
Muon by name, and stops on divergence. An ``as-reported`` preset repeats a version of the published
code, flaws included. Coefficients, examples and ranks are the rows' own and belong to no preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.methods.checkpoint_transfer.recipe import BLOCK_OUTPUT, Recipe
from kit.train.loop import GO_ON
from kit.train.routing import BELOW_10000_ROWS, BELOW_50000_ROWS

_PAGE = "reference page, section"


@dataclass(frozen=True)
class Difference:
    """A setting in which a version differs from ``corrected``.

    Attributes:
        value: What the version has.
        source: Document and place.
        effect: What it does to the numbers.
    """

    value: Any
    source: str
    effect: str


_GOES_ON = Difference(
    GO_ON,
    f"{_PAGE} 2.5 and 2.10.5; seed log, lines 180 and 182",
    "a diverged model is finished and evaluated",
)
_ONE_BLOCK_LATE = Difference(
    BLOCK_OUTPUT,
    f"{_PAGE} 1.3 (a9166f1)",
    "a map fitted on what enters block l is applied to what block l returns",
)

_FOUR_PROCESSES = {
    "world": Difference(4, f"{_PAGE} 2.6; seed log, line 124", "64 micro-batches an epoch"),
    "all_reduce": Difference(
        False,
        f"{_PAGE} 1.13 (until b43b7b1)",
        "the saved model is trained on a quarter of the pairs, at an effective batch of 8",
    ),
    "on_divergence": _GOES_ON,
}

PRESETS: Mapping[str, Mapping[str, Difference]] = {
    "corrected": {},
    "v1": {"on_divergence": _GOES_ON},
    "v2": {"use_at": _ONE_BLOCK_LATE, "on_divergence": _GOES_ON},
    "v2-muon-bug": {
        "use_at": _ONE_BLOCK_LATE,
        "on_divergence": _GOES_ON,
        "muon_routing": Difference(
            BELOW_10000_ROWS,
            f"{_PAGE} 1.11; seed log, line 184",
            "query_key_value and the MLP's first matrix go to AdamW at the full learning rate",
        ),
    },
    "v2-muon-repaired": {
        "use_at": _ONE_BLOCK_LATE,
        "on_divergence": _GOES_ON,
        "muon_routing": Difference(
            BELOW_50000_ROWS,
            f"{_PAGE} 1.11 (4e7b9ea); seed log, line 184",
            "right for this vocabulary only: a smaller one's matrices would go to Muon",
        ),
    },
    "epoch-sweep": {
        "affine": Difference(
            False,
            f"{_PAGE} 2.6 (hp_tune_kl_loss.py passes no affine flag); seed log, line 8 says True",
            "the target is the raw teacher state, at a distance of about 6 instead of 0.9",
        ),
        **_FOUR_PROCESSES,
    },
    "epoch-sweep-with-map": _FOUR_PROCESSES,
}
"""Name -> setting -> how it differs from ``corrected``."""

UNDECIDED: Mapping[str, str] = {
    "precision": f"{_PAGE} 1.8: fp16 AMP in v1; which of fp16 and bf16 held in each job of v2 is "
    "not known",
    "world of the full-rank runs": f"{_PAGE} 1.10: 512 steps of 2048 examples imply 4 pairs at "
    "once, on one GPU or four",
    "betas of AdamW": f"{_PAGE} 1.8: the library's defaults, not checked",
}
"""What no source decides; a run states what it took."""


def make_recipe(preset: str, *, retain_coef: float, remove_coef: float, **settings: Any) -> Recipe:
    """A row of the log, or one's own, on top of a preset.

    Args:
        preset: A name of :data:`PRESETS`.
        retain_coef: See :class:`Recipe`.
        remove_coef: See :class:`Recipe`.
        **settings: Any other field of :class:`Recipe`. A difference of the preset can be scaled
            to a smaller model (the rows of Muon's rule), and not taken back.

    Raises:
        ValueError: Unknown preset or setting, or one that would undo the preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    differences = PRESETS[preset]
    fields = Recipe.__dataclass_fields__
    unknown = sorted(settings.keys() - fields.keys())
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]!r}")
    both = sorted(differences.keys() & settings.keys())
    undone = [name for name in both if settings[name] == fields[name].default]
    if undone:
        raise ValueError(f"{undone[0]} is what makes the preset {preset!r}; take another preset")
    values = {name: difference.value for name, difference in differences.items()}
    return Recipe(retain_coef, remove_coef, **{**values, **settings})
