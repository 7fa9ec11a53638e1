"""The data of an outer loop as named streams: adversaries', held-out, retain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kit.methods.tar.adversaries import check_data
from kit.methods.tar.batches import PairExample
from kit.methods.tar.settings import TarSettings
from kit.train.streams import Stream, Streams

if TYPE_CHECKING:
    from kit.train.batching import Example

HELD_OUT = "held-out"
RETAIN = "retain"


def adversary_stream(data: str) -> str:
    """Name of the stream of an adversary's data."""
    return f"adversary/{data}"


def tar_streams(
    settings: TarSettings,
    *,
    adversary: Mapping[str, Sequence[Example]],
    held_out: Sequence[Example] | Sequence[PairExample],
    retain: Sequence[Example],
    seed: int,
) -> Streams:
    """Streams with the settings' batch sizes and orders.

    Iterators live as long as the run and start again when they are exhausted, as in the released
    code.

    Args:
        settings: Sizes, and what is shuffled.
        adversary: Examples by the names that the adversary types use. Data that some type uses
            before its switch, and only those, are retain data with ``inner_retain_batch``.
        held_out: What the tamper-resistance loss is measured on; pairs for DPO.
        retain: Of the retain loss.
        seed: Of the orders.

    Raises:
        ValueError: An adversary without data, or a stream without examples.
    """
    check_data(settings.adversaries, list(adversary))
    retain_names = {kind.first for kind in settings.adversaries}
    used = retain_names | {kind.data for kind in settings.adversaries}
    inner = [
        Stream(
            adversary_stream(name),
            adversary[name],
            settings.inner_retain_batch if name in retain_names else settings.forget_batch,
            seed=seed,
            shuffle=settings.shuffle_adversary,
        )
        for name in sorted(filter(None, used))
    ]
    return Streams(
        *inner,
        Stream(
            HELD_OUT,
            held_out,
            settings.held_out_batch,
            seed=seed,
            shuffle=settings.shuffle_held_out,
        ),
        Stream(RETAIN, retain, settings.retain_batch, seed=seed, shuffle=settings.shuffle_retain),
    )
