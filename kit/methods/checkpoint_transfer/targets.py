"""What the student is compared with, computed when needed or kept.

Keeping does not change the numbers: the targets are those of the frozen teacher, which runs only
to the last block that is needed and never through an output layer; the retain reference is kept as
the states of the last block, to which the frozen norm and output layer are applied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kit.lm.forward import unlike_plain_head
from kit.lm.hidden import block_outputs
from kit.lm.model import decoder_layers, final_norm, inner_model
from kit.methods.checkpoint_transfer.affine import AffineMap, maps_for
from kit.methods.checkpoint_transfer.losses import mapped_targets, rows_of
from kit.methods.checkpoint_transfer.states import FileStates, States, StateWriter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kit.methods.checkpoint_transfer.pairs import Pairs
    from kit.methods.checkpoint_transfer.recipe import Recipe

    Rows = Callable[[Tensor, Tensor | None], dict[int, Tensor]]


FORGET, RETAIN = "forget", "retain"
WRITERS = 4
"""Threads that write files of states."""


class ForgetTargets:
    """Mapped teacher states on forget text.

    Args:
        teacher: The early checkpoint, frozen.
        maps: Block -> map; ``None`` where the recipe has none.
        recipe: Which blocks, and whose map.
        kept: States of :func:`keep`, for all pairs or some.

    Raises:
        ValueError: A map that is missing, of another width, or not wanted; a teacher that could be
            trained.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        maps: Mapping[int, AffineMap] | None,
        recipe: Recipe,
        kept: States | None = None,
    ) -> None:
        """Check that every block has its map."""
        if (maps is not None) != recipe.affine:
            raise ValueError(
                f"the recipe says affine={recipe.affine}; maps are given: {bool(maps)}"
            )
        _require_frozen(teacher, "the teacher")
        width = int(inner_model(teacher).config.hidden_size)
        depth = len(decoder_layers(teacher))
        self.teacher, self.blocks, self._map_of = teacher, recipe.blocks, recipe.map_of
        needed = sorted(set(self._map_of.values()))
        self.maps = None
        if maps is not None:
            checked = maps_for(maps, needed, width=width, depth=depth)
            # In the teacher's type, as the published code casts them (reference page, 1.2).
            where = (teacher.device, teacher.dtype)
            self.maps = {block: affine.to(*where) for block, affine in checked.items()}
        self.kept = kept

    def rows(self, pairs: Pairs, examples: Sequence[int]) -> dict[int, Tensor]:
        """Block -> [n, d] of the batch of these pairs."""
        return _gather(pairs, FORGET, examples, self.kept, self.compute, self.blocks)

    def compute(self, ids: Tensor, mask: Tensor | None) -> dict[int, Tensor]:
        """Block -> [n, d] of a batch, by the teacher."""
        with _measuring(ids):
            states = block_outputs(self.teacher, ids, mask, self.blocks)
            return mapped_targets(states, self.maps, mask, self._map_of)


class RetainReference:
    """The model before unlearning, on retain text.

    Args:
        model: A frozen copy, or the adapted model itself with ``adapter_off``.
        adapter_off: Read the model with its adapter switched off, as the published code does.
        kept: States of :func:`keep`, for all pairs or some.

    Raises:
        ValueError: A model that is trained and has no adapter to switch off: the KL term would
            compare it with itself; one that does more behind its last block than norm and output
            layer.
    """

    def __init__(
        self, model: PreTrainedModel, *, adapter_off: bool = False, kept: States | None = None
    ) -> None:
        """Check that the reference cannot move."""
        if adapter_off and not hasattr(model, "disable_adapter"):
            raise ValueError("there is no adapter to switch off")
        if not adapter_off:
            _require_frozen(model, "the retain reference")
        unlike = unlike_plain_head(inner_model(model).config)
        if unlike is not None:
            raise ValueError(f"no retain reference by norm and output layer: {unlike}")
        self.model, self.kept, self._adapter_off = model, kept, adapter_off
        self._last = len(decoder_layers(model)) - 1
        self._norm = final_norm(model)
        self._head: Any = inner_model(model).get_output_embeddings()  # type: ignore[no-untyped-call]

    def logits(self, pairs: Pairs, examples: Sequence[int]) -> Tensor:
        """[n, V] of the batch of these pairs, without gradient."""
        last = [self._last]
        rows = _gather(pairs, RETAIN, examples, self.kept, self.compute, last)[self._last]
        with _measuring(rows):
            scores: Tensor = self._head(self._norm(rows.to(self._head.weight.dtype)))
            return scores

    def compute(self, ids: Tensor, mask: Tensor | None) -> dict[int, Tensor]:
        """States of the last block, [n, d], by the model."""
        return {self._last: rows_of(self.states(ids, mask, [self._last])[self._last], mask)}

    def states(self, ids: Tensor, mask: Tensor | None, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Block -> [B, T, d], for the hidden-state retain loss."""
        with _measuring(ids):
            if not self._adapter_off:
                return block_outputs(self.model, ids, mask, blocks)
            training, adapted = self.model.training, self.model
            adapted.train(False)
            try:
                with adapted.disable_adapter():  # type: ignore[operator]
                    return block_outputs(adapted, ids, mask, blocks)
            finally:
                adapted.train(training)


def keep(
    compute: Rows, pairs: Pairs, kind: str, groups: Iterable[Sequence[int]]
) -> Iterator[tuple[int, dict[int, Tensor]]]:
    """States of each example, to write or to hold.

    Args:
        compute: :meth:`ForgetTargets.compute` or :meth:`RetainReference.compute`.
        pairs: The texts.
        kind: ``forget`` or ``retain``.
        groups: Examples that are run together.

    Yields:
        Example and block -> [n, d].
    """
    for examples in groups:
        whole = compute(*pairs.inputs(kind, examples))
        yield from zip(examples, _split(whole, pairs.lengths(kind, examples)), strict=True)


@dataclass(frozen=True)
class CachePlan:
    """What to keep.

    Attributes:
        retain: Examples whose retain reference is kept.
        forget: Examples whose targets are kept.
        bytes: What both take.
    """

    retain: int
    forget: int
    bytes: int


def plan_cache(
    *,
    examples: int,
    tokens: int,
    width: int,
    depth: int,
    blocks: Sequence[int],
    value_bytes: int,
    uses: int,
    budget: int,
) -> CachePlan:
    """Keep first what saves most computation a byte.

    A retain reference saves a whole forward pass for one state a token; targets save a pass up to
    the last block for one state a block.

    Args:
        examples: Pairs.
        tokens: Of one text, at most.
        width: Hidden size.
        depth: Blocks of the model.
        blocks: Blocks with targets.
        value_bytes: Of one number.
        uses: How often each is read: epochs x configurations. What is read once is not kept.
        budget: Bytes.
    """
    if uses <= 1:
        return CachePlan(0, 0, 0)
    sizes = {"retain": tokens * width * value_bytes}
    sizes["forget"] = sizes["retain"] * len(blocks)
    saved = {"retain": 1.0, "forget": (max(blocks) + 1) / depth}
    counts = dict.fromkeys(sizes, 0)
    left = budget
    for kind in sorted(sizes, key=lambda kind: -saved[kind] / sizes[kind]):
        counts[kind] = min(examples, left // sizes[kind])
        left -= counts[kind] * sizes[kind]
    return CachePlan(counts["retain"], counts["forget"], budget - left)


def keep_pairs(
    folder: Path,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    maps: Mapping[int, AffineMap] | None,
    recipe: Recipe,
    pairs: Pairs,
    *,
    width: int,
    uses: int,
    budget: int,
    batch: int,
    dtype: str,
) -> tuple[CachePlan, int]:
    """Write what the rows of a sweep share into ``folder``, as far as the budget goes.

    Args:
        folder: Receives ``forget`` and ``retain``; one of which nothing is kept is not made.
        teacher: The early checkpoint, frozen.
        student: The model before unlearning, frozen.
        maps: Block -> map; ``None`` where the recipe has none.
        recipe: Which blocks, and whose map.
        pairs: Of which the first are kept.
        width: Hidden size.
        uses: How often each pair is read.
        budget: Bytes.
        batch: Examples that are run together.
        dtype: Of the kept states; another than they are computed in changes the numbers.

    Returns:
        What is kept, and the bytes written.
    """
    kind = getattr(torch, dtype)
    plan = plan_cache(
        examples=len(pairs.forget),
        tokens=max(map(len, (*pairs.forget, *pairs.retain))),
        width=width,
        depth=len(decoder_layers(student)),
        blocks=recipe.blocks,
        value_bytes=kind.itemsize,
        uses=uses,
        budget=budget,
    )
    computed: dict[str, tuple[int, Rows]] = {
        FORGET: (plan.forget, ForgetTargets(teacher, maps, recipe).compute),
        RETAIN: (plan.retain, RetainReference(student).compute),
    }
    # Targets are made faster than they are written, references slower: both go on side by side.
    turns = sorted(
        ((at + batch / 2) / count, name, range(at, min(at + batch, count)))
        for name, (count, _) in computed.items()
        for at in range(0, count, batch)
    )
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = {name: StateWriter(folder / name, pool) for _, name, _ in turns}
        for _, name, group in turns:
            for example, rows in keep(computed[name][1], pairs, name, [group]):
                writers[name].add(example, {b: values.to(kind) for b, values in rows.items()})
        written = sum(writer.finish() for writer in writers.values())
    return plan, written


def kept_states(folder: Path, name: str) -> States | None:
    """What :func:`keep_pairs` wrote of ``forget`` or ``retain``; ``None`` if nothing."""
    return FileStates(folder / name) if (folder / name).is_dir() else None


def _gather(
    pairs: Pairs,
    kind: str,
    examples: Sequence[int],
    kept: States | None,
    compute: Rows,
    wanted: Sequence[int],
) -> dict[int, Tensor]:
    """Rows of a batch, in its order: the kept ones read, the others computed together."""
    if kept is None or not any(example in kept for example in examples):
        return compute(*pairs.inputs(kind, examples))
    missing = [example for example in examples if example not in kept]
    parts: dict[int, dict[int, Tensor]] = {}
    if missing:
        parts = dict(keep(compute, pairs, kind, [missing]))
    for example in examples:
        if example not in parts:
            parts[example] = kept.rows(example)
            if set(parts[example]) != set(wanted):
                raise ValueError(
                    f"states of blocks {sorted(parts[example])} are kept, {sorted(wanted)} are "
                    "needed: they belong to another recipe"
                )
    blocks = parts[examples[0]].keys()
    device = torch.device(pairs.device)
    return {
        block: torch.cat([parts[example][block].to(device) for example in examples])
        for block in blocks
    }


def _split(rows: dict[int, Tensor], lengths: list[int]) -> list[dict[int, Tensor]]:
    """Rows of a batch by example."""
    cut = {block: torch.split(values, lengths) for block, values in rows.items()}
    return [{block: parts[at] for block, parts in cut.items()} for at in range(len(lengths))]


@contextmanager
def _measuring(like: Tensor) -> Iterator[None]:
    """No gradient, and the model's own precision, inside of a training step too."""
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield


def _require_frozen(model: PreTrainedModel, role: str) -> None:
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    if trained or model.training:
        what = f"{trained[0]} is trained" if trained else "it is in training mode"
        raise ValueError(
            f"{role} must be frozen ({what}); full-rank training needs a copy of the model from "
            "before, or the KL term compares the model with itself"
        )
