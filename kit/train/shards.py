"""Weights cut over processes: which piece of which parameter a process holds, and back again.

A parameter is laid out in a row, cut into as many equal pieces as there are processes (the last
padded with zeros), and process r holds piece r. All pieces of a process lie one behind the other in
one flat tensor, so that most of what is done to weights is one operation on one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """What one process holds of one parameter.

    Attributes:
        name: Of the parameter.
        shape: Of the whole parameter.
        offset: Where the piece begins in the flat tensor.
        length: Elements, padding included; equal in every process.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    length: int

    def of(self, flat: Tensor) -> Tensor:
        """The piece as a view of a flat tensor, with as many dimensions as the parameter has.

        An optimizer that treats matrices and vectors differently can so tell them apart.
        """
        return flat.narrow(0, self.offset, self.length).view(*[1] * (len(self.shape) - 1), -1)


class Layout:
    """The pieces of all trained parameters, in the order of the flat tensor.

    Attributes:
        pieces: By name of the parameter.
        rank: Which piece of each parameter is here.
        world_size: How many pieces there are of each.
    """

    def __init__(
        self, shapes: Iterable[tuple[str, tuple[int, ...]]], *, rank: int, world_size: int
    ) -> None:
        """Lay the parameters out one behind the other."""
        self.rank = rank
        self.world_size = world_size
        self.pieces: dict[str, Piece] = {}
        offset = 0
        for name, shape in shapes:
            length = -(-prod(shape) // world_size)
            self.pieces[name] = Piece(name, tuple(shape), offset, length)
            offset += length
        self.length = offset
        """Elements of the flat tensor."""

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's piece of a whole tensor, shaped as ``Piece.of``; a copy.

        Raises:
            ValueError: A tensor of another shape.
        """
        piece = self.pieces[name]
        if tuple(whole.shape) != piece.shape:
            raise ValueError(
                f"{name} has shape {tuple(whole.shape)} here and {piece.shape} in the model"
            )
        row = whole.reshape(-1)[self.rank * piece.length : (self.rank + 1) * piece.length]
        held = row.new_zeros(piece.length)
        held[: row.numel()] = row
        return held.view(*[1] * (len(piece.shape) - 1), -1)

    def join(self, name: str, held: Tensor) -> Tensor:
        """The whole tensor from the pieces of all processes, which call this together."""
        piece = self.pieces[name]
        row = held.reshape(-1).contiguous()
        if self.world_size > 1:
            pieces = row.new_empty(self.world_size * piece.length)
            dist.all_gather_into_tensor(pieces, row)
            row = pieces
        return row[: prod(piece.shape)].view(piece.shape)


def parameters_of(
    layout: Layout, masters: Tensor, gradient: Tensor
) -> dict[str, torch.nn.Parameter]:
    """The pieces as parameters whose gradient is the piece of the flat gradient, for an optimizer.

    Both are views: what an optimizer does to them is done to the flat tensors.
    """
    made = {}
    for name, piece in layout.pieces.items():
        parameter = torch.nn.Parameter(piece.of(masters.detach()))
        parameter.grad = piece.of(gradient)
        made[name] = parameter
    return made


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a scalar over processes, in place."""
    if dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


def everybody(values: object) -> list[object]:
    """What each process gave, by rank; JSON values."""
    gathered: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, values)
    return gathered
