"""Copies between device and host while the device computes; states read before they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kit.methods.checkpoint_transfer.states import States


class ToHost:
    """Copies of an example's states in the host's memory, made while the device goes on.

    On a GPU into page-locked memory, which is used again when a copy is let go, and on a stream of
    its own: a copy waits for what was queued before it, and nothing waits for the copy.
    """

    def __init__(self) -> None:
        """No stream yet."""
        self._stream: torch.cuda.Stream | None = None

    def copy(self, rows: Mapping[int, Tensor]) -> tuple[dict[int, Tensor], Callable[[], object]]:
        """Block -> [n, d] on the host, and what to call before reading it, in any thread."""
        made = {block: values.detach().contiguous() for block, values in rows.items()}
        device = next(iter(made.values())).device
        if device.type != "cuda":
            return made, lambda: None
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))
        there = {}
        with torch.cuda.stream(self._stream):
            for block, values in made.items():
                there[block] = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
                there[block].copy_(values, non_blocking=True)
                # Its memory must not be used anew before it was read here.
                values.record_stream(self._stream)
        return there, self._stream.record_event().synchronize


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
