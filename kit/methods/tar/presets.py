"""The published settings, as the paper gives them, as the released code has them, and repaired.

Every value carries its source. [CODE] is rishub-tamirisa/tamper-resistance at 19de233; other tags
as in docs/methods/tar.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from kit.methods.tar.adversaries import AdversaryType
from kit.methods.tar.losses import INCLUDED, MASKED
from kit.methods.tar.representations import NORM, SQUARED_NORM
from kit.methods.tar.settings import (
    AVERAGED,
    BLOCK_OUTPUTS,
    DPO,
    HIDDEN_STATES,
    TRAINED,
    TarSettings,
)
from kit.methods.tar.weighting import EXPONENTIAL, UNIFORM

PAPER = "paper"
RELEASED_CODE = "released-code"
CORRECTED = "corrected"
PRESETS = (PAPER, RELEASED_CODE, CORRECTED)
DOMAINS = ("bio", "chem", "cyber", "refusal")

RETAIN = "adversary-retain"
"""Name of the retain data that adversaries train on; ``adv_retain`` in the released code."""


@dataclass(frozen=True)
class Sourced:
    """A value and where it stands.

    Attributes:
        value: What the setting is.
        source: Document and place, or why this value where none gives it.
    """

    value: Any
    source: str


def _types(*forget: str, retain: bool = False) -> tuple[AdversaryType, ...]:
    kinds = [AdversaryType(name=name, data=name) for name in forget]
    if retain:
        kinds.append(AdversaryType(name="retain", data=RETAIN))
    kinds.append(AdversaryType(name="retain-then-forget", data=forget[0], first=RETAIN))
    return tuple(kinds)


_RUN = "[CODE] run_tar_bio.sh, run_tar_cyber.sh"
_SHARED: dict[str, Sourced] = {
    "outer_steps": Sourced(750, f"{_RUN}: --max_steps; rebuttal"),
    "inner_steps": Sourced(64, f"{_RUN}: --tar_inner_loop_steps; paper E.2"),
    "every": Sourced(4, f"{_RUN}: --tar_inner_loop_subsample; paper C.4"),
    "outer_learning_rate": Sourced(2e-5, f"{_RUN}: --lr"),
    "outer_warmup": Sourced(32, f"{_RUN}: --warmup_steps"),
    "tamper_scale": Sourced(4.0, f"{_RUN}: --tar_tamper_resistance_grad_scale; paper D.4"),
    "retain_scale": Sourced(1.0, f"{_RUN}: --tar_retain_scale"),
    "switch": Sourced((6.0, 3.0), f"{_RUN}: --switching_point_coeffs"),
    "lowest_tamper_loss": Sourced(-math.inf, f"{_RUN}: --unbounded"),
    "inner_weight_decay": Sourced(0.01, "[CODE] modules/training.py: torch's default of AdamW"),
    "held_out_batch": Sourced(64, f"{_RUN}: --batch_size 8 on 8 GPUs; rebuttal"),
    "retain_batch": Sourced(64, f"{_RUN}: --batch_size 8 on 8 GPUs; rebuttal"),
    "inner_retain_batch": Sourced(64, f"{_RUN}: --batch_size 8 on 8 GPUs; rebuttal"),
}

_ADVERSARIES = {
    "bio": Sourced(
        _types("pile-bio-forget", "camel-bio-forget"),
        "paper E.2; [CODE] run_tar_bio.sh --adversary_dist_types",
    ),
    "chem": Sourced(_types("chem-forget", retain=True), "paper E.2"),
    "cyber": Sourced(_types("cyber-forget", retain=True), "paper E.2"),
    "refusal": Sourced(
        (AdversaryType(name="rejected", data="rejected-completions"),),
        "paper E.2: SFT on rejected completions of Anthropic-HH",
    ),
}

_WIDTH = Sourced(256, "[CODE] modules/dataloaders.py: cut at and padded to 256; paper E.1")
_DOMAIN: dict[str, dict[str, Sourced]] = {
    "bio": {"width": _WIDTH},
    "chem": {
        "width": _WIDTH,
        "tamper_scale": Sourced(3.0, "paper E.2 (notes among the seeds)"),
    },
    "cyber": {"width": _WIDTH},
    "refusal": {
        "objective": Sourced(DPO, "paper E.2"),
        "outer_steps": Sourced(100, "rebuttal; TamperBench"),
        "outer_learning_rate": Sourced(6e-5, "TamperBench, quoting the paper's table 12"),
        "tamper_scale": Sourced(0.1, "TamperBench, quoting the paper's table 12"),
        "beta": Sourced(0.1, "[CODE] modules/objectives.py DPOLoss"),
        "recovery_steps": Sourced(100, "paper E.2; learning rate and batch unpublished"),
    },
}

_UNSAID = "unspecified: the paper does not say; data are taken to be shuffled"
_PAPER: dict[str, Sourced] = {
    "weighting": Sourced(UNIFORM, "paper algorithm 1: 1/K"),
    "distance": Sourced(SQUARED_NORM, "paper equation 2"),
    "layers": Sourced(BLOCK_OUTPUTS, "paper equation 2: post-decoder-layer residual stream"),
    "entropy_padding": Sourced(MASKED, "paper C.3: tokens"),
    "representation_padding": Sourced(MASKED, "unspecified: as in the entropy"),
    "forget_batch": Sourced(64, "rebuttal"),
    "saved_weights": Sourced(AVERAGED, "unspecified: what schedule-free AdamW is made to return"),
    "shuffle_adversary": Sourced(True, _UNSAID),
    "shuffle_held_out": Sourced(True, _UNSAID),
    "shuffle_retain": Sourced(True, _UNSAID),
    "held_out_split": Sourced("own", "paper E.2: 80-20 split"),
    "retain_split": Sourced("train", "unspecified: the larger split"),
    "special_token_labels": Sourced("masked", "[CODE] README, 14 Oct 2024"),
    "adversary_learning_rates": Sourced((2e-5, 4e-5), "paper E.2"),
}
_PAPER_DOMAIN: dict[str, dict[str, Sourced]] = {
    "refusal": {
        "adversary_learning_rates": Sourced((2e-6, 2e-5, 4e-5), "TamperBench"),
    },
}

_CODE: dict[str, Sourced] = {
    "weighting": Sourced(EXPONENTIAL, f"{_RUN}: --use_weighting_schedule"),
    "weighting_rate": Sourced(0.0625, f"{_RUN}: --schedule_lambda"),
    "distance": Sourced(NORM, "[CODE] modules/objectives.py obj_model_mse_representations"),
    "layers": Sourced(HIDDEN_STATES, "[CODE] likewise: output_hidden_states, 33 of them"),
    "entropy_padding": Sourced(INCLUDED, "[CODE] modules/objectives.py max_entropy_loss"),
    "representation_padding": Sourced(INCLUDED, "[CODE] obj_model_mse_representations"),
    "forget_batch": Sourced(32, f"{_RUN}: --tar_adversary_batch_size 4 on 8 GPUs"),
    "saved_weights": Sourced(TRAINED, "[CODE] tar.py never calls optimizer.eval()"),
    "shuffle_adversary": Sourced(True, "[CODE] modules/dataloaders.py"),
    "shuffle_held_out": Sourced(True, "[CODE] modules/dataloaders.py"),
    "shuffle_retain": Sourced(True, "[CODE] modules/dataloaders.py"),
    "held_out_split": Sourced("own", "[CODE] modules/dataloaders.py"),
    "retain_split": Sourced("train", "[CODE] modules/dataloaders.py"),
    "special_token_labels": Sourced(
        "kept", "[CODE] DataCollatorForLanguageModeling writes the labels anew, read and not run"
    ),
    "adversary_learning_rates": Sourced((2e-5, 4e-5), "[CODE] run_tar_cyber.sh"),
}
_CODE_DOMAIN: dict[str, dict[str, Sourced]] = {
    "bio": {
        "adversary_learning_rates": Sourced((2e-6, 2e-5, 4e-5), "[CODE] run_tar_bio.sh"),
        "shuffle_adversary": Sourced(False, "[CODE] dataloaders.py: pile and camel, shuffle=False"),
        "shuffle_held_out": Sourced(False, "[CODE] dataloaders.py: heldout, shuffle=False"),
    },
    "chem": {},
    "cyber": {
        "adversaries": Sourced(
            _types("cyber-forget"), "[CODE] run_tar_cyber.sh: forget_train:0.5, R->F:0.5"
        ),
    },
    "refusal": {
        "adversary_learning_rates": Sourced((2e-6, 2e-5, 4e-5), "TamperBench; [CODE] default"),
        "held_out_split": Sourced(
            "adversary", "[CODE] get_tar_dpo_dataloaders: meta and harmful_completions are one"
        ),
        "retain_split": Sourced(
            "test", "[CODE] get_tar_dpo_dataloaders unpacks (test, train) as (train, test)"
        ),
    },
}

_REPAIRED = "corrected: every loader shuffles with the seed (Qi et al. 2024 found order to matter)"
_CORRECTED: dict[str, Sourced] = {
    "entropy_padding": Sourced(MASKED, "corrected: padding is no token"),
    "representation_padding": Sourced(MASKED, "corrected: padding is no token"),
    "shuffle_adversary": Sourced(True, _REPAIRED),
    "shuffle_held_out": Sourced(True, _REPAIRED),
    "shuffle_retain": Sourced(True, _REPAIRED),
    "held_out_split": Sourced("own", "corrected: as the paper's E.2 says"),
    "retain_split": Sourced("train", "corrected: what the code's names mean"),
    "special_token_labels": Sourced("masked", "corrected: what the README announces"),
}


def sourced(name: str, domain: str) -> dict[str, Sourced]:
    """The settings of a preset that differ from a bare default, with sources.

    Raises:
        ValueError: Unknown preset or domain.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    values = {**_SHARED, "adversaries": _ADVERSARIES[domain], **_DOMAIN[domain]}
    if name == PAPER:
        return {**values, **_PAPER, **_PAPER_DOMAIN.get(domain, {})}
    values |= _CODE | _CODE_DOMAIN[domain]
    if domain == "refusal":
        values["forget_batch"] = Sourced(64, "TamperBench: 2 x 8 x 4")
    if domain == "chem":
        values["adversary_learning_rates"] = Sourced((2e-5, 4e-5), "paper E.2; no chem script")
    return values | _CORRECTED if name == CORRECTED else values


def preset(name: str, domain: str, **changes: Any) -> TarSettings:
    """The settings of a preset for a domain; ``changes`` replace single ones.

    Raises:
        ValueError: Unknown preset or domain, or settings no run can follow.
    """
    values = {key: entry.value for key, entry in sourced(name, domain).items()}
    return TarSettings(**(values | changes))
