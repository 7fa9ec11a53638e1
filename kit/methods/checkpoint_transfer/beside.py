"""Copies between device and host while the device computes; states read before they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kit.methods.checkpoint_transfer.states import States

Beside = Callable[[], AbstractContextManager[None]]
"""Opens a context of copies that wait for what was queued until a moment, and for nothing later."""


def after_now(values: Iterable[Tensor]) -> Beside:
    """Copies of these tensors, in another thread, that do not wait for what is queued from here on.

    Args:
        values: Of a single device.
    """
    device = next(iter(values)).device
    if device.type != "cuda":
        return nullcontext
    made = torch.cuda.current_stream(device).record_event()

    @contextmanager
    def copies() -> Iterator[None]:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_event(made)
        with torch.cuda.stream(stream):
            yield
        stream.synchronize()

    return copies


class ReadAhead:
    """States that are on their way to the device before they are asked for.

    Args:
        states: What is read, in a thread.
        order: Examples as they will be asked for; another order is slower and no less right.
        device: Where they are wanted.
        most: Examples on their way.
    """

    def __init__(
        self, states: States, order: Sequence[int], device: str | torch.device, *, most: int = 8
    ) -> None:
        """Read nothing yet."""
        self._states, self._device, self._most = states, torch.device(device), most
        self._order = [example for example in order if example in states]
        self._at = 0
        self._coming: dict[int, Future[dict[int, Tensor]]] = {}
        # All reads are its own: open files are no matter for two threads.
        self._thread = ThreadPoolExecutor(1)
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def __contains__(self, example: int) -> bool:
        """Whether the example's states are there."""
        return example in self._states

    def rows(self, example: int) -> dict[int, Tensor]:
        """Block -> [n, d] of one example, on the device."""
        self._move_to(example)
        coming = self._coming.pop(example, None) or self._thread.submit(self._read, example)
        for following in self._order[self._at : self._at + self._most]:
            if following not in self._coming:
                self._coming[following] = self._thread.submit(self._read, following)
        rows = coming.result()
        if self._stream is not None:
            for values in rows.values():
                # From another stream, which must not reuse this memory before it was read here.
                values.record_stream(torch.cuda.current_stream(self._device))
        return rows

    def _move_to(self, example: int) -> None:
        """Behind the example's next turn."""
        for start in (self._at, 0):
            try:
                self._at = self._order.index(example, start) + 1
            except ValueError:
                continue
            return

    def _read(self, example: int) -> dict[int, Tensor]:
        rows = self._states.rows(example)
        if self._stream is None:
            return rows
        with torch.cuda.stream(self._stream):
            there = {block: values.to(self._device) for block, values in rows.items()}
        self._stream.synchronize()
        return there
