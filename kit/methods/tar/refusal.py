"""TAR on refusals: the outer loop on pairs, and what is measured of it.

Adversaries fine-tune on the rejected answers; the tamper-resistance loss is DPO on held-out pairs,
against the initial model (paper E.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.methods.tar.outer_loop import Batching, OuterLoop, outer_spec, train_tar
from kit.methods.tar.pairs import all_margins
from kit.methods.tar.settings import DPO
from kit.methods.tar.stages import Trained, divided
from kit.methods.tar.streams import HELD_OUT, adversary_stream, tar_streams
from kit.train.engine import Precision
from kit.train.engines import EngineFactory, engine_factory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kit.methods.tar.batches import PairExample
    from kit.methods.tar.records import OuterStep, TarRun
    from kit.methods.tar.settings import TarSettings
    from kit.train.batching import Example
    from kit.train.checkpoints import CheckpointFolder


@dataclass(frozen=True)
class Divided:
    """Pairs divided between simulated adversaries and the held-out batch.

    Attributes:
        adversary: What is trained on, its rejected answers.
        held_out: What is judged.
    """

    adversary: list[PairExample]
    held_out: list[PairExample]


@dataclass(frozen=True)
class RefusalData:
    """What a refusal training reads.

    Attributes:
        pairs: With reference values; divided here, unless ``held_out`` is given.
        retain: Examples of the retain loss.
        held_out: Pairs that were divided from the others before.
        judged: Pairs that no training has, for the win rate on the way.
        share: Of the adversary's pairs, where they are divided here.
        by: ``text`` or ``subject`` (:func:`kit.methods.tar.stages.divided`).
        redraw: Divide anew in every outer step.
    """

    pairs: Sequence[PairExample]
    retain: Sequence[Example]
    held_out: Sequence[PairExample] = ()
    judged: Sequence[PairExample] = ()
    share: float = 0.8
    by: str = "text"
    redraw: bool = False

    def parts(self, settings: TarSettings, seed: int | str) -> Divided:
        """Adversary and held-out pairs, as the setting ``held_out_split`` says.

        ``adversary`` is what the released code has: both draw from the same pairs (TAR reference
        page, 1.7 no. 11).
        """
        if settings.held_out_split == "adversary":
            return Divided(list(self.pairs), list(self.pairs))
        if self.held_out:
            return Divided(list(self.pairs), list(self.held_out))
        pair = {p.rejected.id: p for p in self.pairs}
        made = divided([p.rejected for p in self.pairs], self.share, by=self.by, seed=seed)
        return Divided([pair[e.id] for e in made.adversary], [pair[e.id] for e in made.held_out])


def train_refusal(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    data: RefusalData,
    settings: TarSettings,
    *,
    seed: int,
    pad_id: int,
    rows: int = 64,
    measure_every: int = 0,
    folder: CheckpointFolder | None = None,
    on_step: Callable[[OuterStep], None] | None = None,
    make_engine: EngineFactory | None = None,
    precision: Precision | None = None,
    snapshot_device: str | None = None,
) -> tuple[Trained, TarRun]:
    """Run the outer loop with DPO in place.

    Args:
        model: Trained; the initial model, or one with a safeguard.
        reference: The initial model, frozen; of the retain loss. The pairs have its
            log-probabilities already.
        data: Pairs and retain examples.
        settings: With the objective ``dpo``.
        seed: Of the division, the orders and the adversaries.
        pad_id: Fills rows.
        rows: Most rows in a forward pass.
        measure_every: Outer steps between win rates on ``data.judged``, which are measured before
            the first step and after the last too; 0 measures none.
        folder: Of checkpoints.
        on_step: Called after every outer step.
        make_engine: What trains; the whole model in this process without.
        precision: fp32 throughout if not given.
        snapshot_device: Where the weights wait for an attack's end; where they are if none.

    Raises:
        ValueError: Another objective, pairs that were divided and are to be divided anew, or
            nothing to measure a win rate on.
    """
    if settings.objective != DPO:
        raise ValueError(f"refusals are trained with {DPO!r}, not {settings.objective!r}")
    if data.redraw and (data.held_out or settings.held_out_split == "adversary"):
        raise ValueError("pairs that were divided before cannot be divided anew: leave one out")
    if measure_every and not data.judged:
        raise ValueError("a win rate needs pairs that no training has")
    names = sorted({kind.data for kind in settings.adversaries})
    parts = data.parts(settings, seed)
    streams = tar_streams(
        settings,
        adversary={name: [pair.rejected for pair in parts.adversary] for name in names},
        held_out=parts.held_out,
        retain=data.retain,
        seed=seed,
    )
    make = make_engine or engine_factory()
    engine = make(model, outer_spec(settings), precision or Precision())
    start = engine.snapshot("cpu")

    def anew(number: int) -> Mapping[str, Sequence[Any]]:
        drawn = data.parts(settings, f"{seed}/{number}")
        texts = [pair.rejected for pair in drawn.adversary]
        return {HELD_OUT: drawn.held_out, **{adversary_stream(name): texts for name in names}}

    def win_rate_of(measured: Any, _done: int) -> Mapping[str, Any]:
        return {"margins": all_margins(measured, data.judged, rows=rows, pad_id=pad_id)}

    loop = OuterLoop(
        engine,
        reference,
        settings,
        streams,
        Batching(rows, pad_id),
        seed,
        snapshot_device,
        redraw=anew if data.redraw else None,
    )
    last = settings.outer_steps
    points = sorted({*range(0, last, measure_every), last}) if measure_every else []
    run = train_tar(
        loop,
        measure=win_rate_of,
        measure_at=points,
        folder=folder,
        save_every=50,
        on_step=on_step,
    )
    return Trained(engine, start), run
