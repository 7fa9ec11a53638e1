"""Where paper and released code compute different things, and the setting that chooses.

Numbers 1 to 13 are those of docs/methods/tar.md; what follows was seen while writing this.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One disagreement.

    Attributes:
        item: What it is about.
        paper: What the paper says.
        code: What the released code does.
        settings: Names of the settings that choose; empty where none does.
        why_none: The reason where none does.
    """

    item: str
    paper: str
    code: str
    settings: tuple[str, ...] = ()
    why_none: str = ""


DIFFERENCES = (
    Difference(
        "weights of inner steps",
        "mean over K, lambda 4: the 16 evaluated steps sum to 1",
        "4 exp(0.0625 (s - 63)): they sum to 17.75",
        ("weighting", "weighting_rate"),
    ),
    Difference("representation term", "squared L2 norm", "L2 norm, not squared", ("distance",)),
    Difference("entropy", "over tokens", "over all positions, padding too", ("entropy_padding",)),
    Difference("inner batch", "64", "32 for forget adversaries on 8 GPUs", ("forget_batch",)),
    Difference(
        "adversary learning rates (bio)",
        "2e-5, 4e-5",
        "2e-6, 2e-5, 4e-5",
        ("adversary_learning_rates",),
    ),
    Difference(
        "order of the retain-forget attack at test",
        "forget 40 %, then retain 60 % (the notes' F.1)",
        "retain 40 %, then forget 60 % (red_teaming/README.md and the name)",
        why_none="a setting of the attack at test time (kit.tampering), not of training",
    ),
    Difference(
        "held-out batches (bio)",
        "drawn from the held-out split",
        "in order: some 23 outer steps of Pile, then Camel only",
        ("shuffle_held_out",),
    ),
    Difference(
        "order of the adversaries' data (bio)", "not said", "unshuffled", ("shuffle_adversary",)
    ),
    Difference(
        "labels of special tokens in chat data",
        "masked since October 2024",
        "written anew by the collator, which masks padding only",
        ("special_token_labels",),
    ),
    Difference(
        "retain data (refusal)",
        "Magpie",
        "its 20 % test split, through swapped names",
        ("retain_split",),
    ),
    Difference(
        "held-out data (refusal)",
        "modified test split",
        "the loader of the adversary",
        ("held_out_split",),
    ),
    Difference(
        "inner linear warm-up",
        "a warm-up",
        "a constant factor K / 20",
        why_none="never used: every script asks for a constant rate",
    ),
    Difference(
        "gradient accumulation",
        "the mean",
        "an extra 1 / accumulation",
        why_none="accumulation is 1 in the scripts, and AdamW does not see a factor",
    ),
    Difference(
        "layers of the representation losses",
        "residual stream behind each block (32)",
        "embeddings, 31 blocks, and the last behind the final norm (33)",
        ("layers",),
    ),
    Difference(
        "padding in the representation term",
        "not said",
        "included",
        ("representation_padding",),
    ),
    Difference(
        "weights that are saved",
        "not said; schedule-free AdamW returns x",
        "y: optimizer.eval() is never called",
        ("saved_weights",),
    ),
    Difference(
        "adversaries (cyber)",
        "forget, retain, retain-then-forget",
        "forget, retain-then-forget",
        ("adversaries",),
    ),
    Difference(
        "hashed vectors of random mapping",
        "a hash of the token",
        "drawn from the global generator",
        why_none="a seeded table; which table it is changes nothing that is measured",
    ),
)
