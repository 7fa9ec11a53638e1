"""Named streams of examples: what a step draws from, in an order that only the seed decides.

A training with an adversary draws from several (adversary, held-out, retain), each with its own
global batch size. Where a stream is, is how many items it has given out: the same number of
processes or another goes on from there with the same items.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

WRAP = "wrap"
DROP = "drop"


class Stream(Generic[T]):
    """Global batches of one data set, for ever.

    Attributes:
        name: Part of what decides the order: two streams over one data set differ.
        size: Items a global batch.
        seed: The other part.
    """

    def __init__(
        self,
        name: str,
        items: Sequence[T],
        size: int,
        *,
        seed: int,
        shuffle: bool = True,
        tail: str = WRAP,
    ) -> None:
        """Start at the first epoch.

        Args:
            name: Of the stream.
            items: At least one; with ``drop`` at least ``size``.
            size: Items a global batch, over all processes.
            seed: Of the order.
            shuffle: A new order in every epoch; else the order given, as in loaders that were run
                unshuffled.
            tail: What becomes of the items that fill no batch at the end of an epoch: ``wrap``
                puts them in front of the next epoch's, ``drop`` leaves them out.

        Raises:
            ValueError: No items, too few of them, a size below 1 or an unknown tail.
        """
        if tail not in (WRAP, DROP):
            raise ValueError(f"stream {name}: tail is {WRAP!r} or {DROP!r}, not {tail!r}")
        if size < 1:
            raise ValueError(f"stream {name}: batches of {size} items")
        self.name = name
        self.size = size
        self.seed = seed
        self._shuffle = shuffle
        self._tail = tail
        self.renew(items)

    @property
    def epoch(self) -> float:
        """Epochs given out so far."""
        return self._drawn / self._epoch_items

    def take(self) -> list[T]:
        """The next global batch."""
        return [self._items[index] for index in self.take_indices()]

    def take_indices(self) -> list[int]:
        """The next global batch, as indices into the items."""
        batch = [self._at(self._drawn + offset) for offset in range(self.size)]
        self._drawn += self.size
        return batch

    def renew(self, items: Sequence[T]) -> None:
        """Begin again at the first epoch, with other items.

        Raises:
            ValueError: No items, or too few of them.
        """
        if not items or (self._tail == DROP and len(items) < self.size):
            raise ValueError(
                f"stream {self.name}: {len(items)} items do not fill batches of {self.size}"
            )
        self._items = items
        self._epoch_items = (
            len(items) if self._tail == WRAP else len(items) // self.size * self.size
        )
        self._drawn = 0
        self._order: tuple[int, list[int]] = (-1, [])

    @property
    def position(self) -> dict[str, int]:
        """Where the stream is, and of what, as JSON values."""
        return {"drawn": self._drawn, "items": len(self._items), "seed": self.seed}

    def restore(self, position: Mapping[str, int]) -> None:
        """Go on from a position.

        Raises:
            ValueError: The position of another data set or seed.
        """
        here = self.position
        for key in ("items", "seed"):
            if position[key] != here[key]:
                raise ValueError(
                    f"stream {self.name}: saved with {key} {position[key]}, now {here[key]}"
                )
        self._drawn = position["drawn"]

    def _at(self, number: int) -> int:
        epoch, offset = divmod(number, self._epoch_items)
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch_order(epoch))
        return self._order[1][offset]

    def _epoch_order(self, epoch: int) -> list[int]:
        order = list(range(len(self._items)))
        if self._shuffle:
            random.Random(f"{self.seed}/{self.name}/{epoch}").shuffle(order)
        return order


class Streams(Mapping[str, Stream[Any]]):
    """The streams of a training by name, with their positions as one value."""

    def __init__(self, *streams: Stream[Any]) -> None:
        """Keep the streams.

        Raises:
            ValueError: Two of one name.
        """
        self._streams = {stream.name: stream for stream in streams}
        if len(self._streams) != len(streams):
            raise ValueError(f"two streams of one name: {[s.name for s in streams]}")

    def __getitem__(self, name: str) -> Stream[Any]:
        """The stream of a name."""
        if name not in self._streams:
            raise ValueError(f"no stream {name!r}; there are {', '.join(self._streams)}")
        return self._streams[name]

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self._streams)

    def __len__(self) -> int:
        """How many."""
        return len(self._streams)

    def positions(self) -> dict[str, Any]:
        """Where each stream is, as JSON values."""
        return {name: stream.position for name, stream in self._streams.items()}

    def restore(self, positions: Mapping[str, Any]) -> None:
        """Go on from :meth:`positions`.

        Raises:
            ValueError: Positions of other streams.
        """
        if set(positions) != set(self._streams):
            raise ValueError(
                f"saved streams {', '.join(sorted(positions))}; now there are "
                + ", ".join(sorted(self._streams))
            )
        for name, position in positions.items():
            self._streams[name].restore(position)


def split(items: Sequence[T], first_share: float, *, seed: int) -> tuple[list[T], list[T]]:
    """Two disjoint parts in random order: adversary and held-out, for example.

    Args:
        items: What to divide.
        first_share: Between 0 and 1; the first part gets this share, rounded down.
        seed: Of the order.

    Raises:
        ValueError: A part without items.
    """
    order = list(items)
    random.Random(f"{seed}/split").shuffle(order)
    count = int(len(order) * first_share)
    if not 0 < count < len(order):
        raise ValueError(f"a share of {first_share} of {len(order)} items leaves a part empty")
    return order[:count], order[count:]
