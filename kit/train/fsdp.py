"""The engine that shards weights, gradients and optimizer state by torch's own ``fully_shard``.

The same state is sharded as in ZeRO-3, and the same numbers come out; torch gathers a decoder layer
by one collective and with few calls of its own, so that a step is bound by the GPU instead of the
host. Weights may stay whole between the forward and the backward pass where memory allows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist

from kit.train.engine import BatchT, Precision
from kit.train.layers import prepare_layers
from kit.train.sharded import Call, Sharded, ShardedSettings

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed.tensor import DTensor

    from kit.train.optimizers import OptimizerSpec


@dataclass(frozen=True, kw_only=True)
class FsdpSettings(ShardedSettings):
    """See :class:`kit.train.sharded.ShardedSettings`.

    Attributes:
        gather_twice: Whole weights are let go behind the forward pass of a layer and gathered again
            for its backward pass; else they stay, which takes 2 bytes a parameter in bf16.
    """

    gather_twice: bool = True


class Fsdp(Sharded):
    """See :class:`kit.train.sharded.Sharded`."""

    def __init__(
        self,
        model: nn.Module,
        spec: OptimizerSpec,
        precision: Precision | None = None,
        *,
        settings: FsdpSettings | None = None,
        device: str = "cuda",
    ) -> None:
        """Shard a model over the processes that torchrun started.

        Args:
            model: Whole and equal in every process.
            spec: Of the (outer) optimizer.
            precision: fp32 throughout if not given.
            settings: Speed and memory.
            device: ``cuda`` or ``cpu``.

        Raises:
            ValueError: Nothing to train, masters that are not fp32, an optimizer that needs whole
                matrices.
        """
        chosen = settings or FsdpSettings()
        super().__init__(model, spec, precision or Precision(), chosen)
        from torch.distributed.device_mesh import init_device_mesh

        if not dist.is_initialized():
            dist.init_process_group("gloo" if device == "cpu" else "nccl")
        self._mesh = init_device_mesh(device, (dist.get_world_size(),))
        self._shell = _shell(model)
        prepare_layers(model, compiled=chosen.compiled, checkpointing=chosen.checkpointing)
        self._call = self._shard(model, chosen)
        self._parameters = {
            n: cast("DTensor", p) for n, p in model.named_parameters() if p.requires_grad
        }
        self.pieces = {name: _piece(parameter) for name, parameter in self._parameters.items()}
        self.begin(spec)

    def forward(self, loss: Callable[[nn.Module, BatchT], Tensor], batch: BatchT) -> Tensor:
        """A loss inside the sharded forward pass."""
        share: Tensor = self._call(loss, batch)
        return share

    def backward(self, loss: Tensor) -> None:
        """Add the gradient; it is summed over processes and divided by their number."""
        loss.backward()  # type: ignore[no-untyped-call]

    def publish(self) -> None:
        """Nothing to do: every forward pass gathers the masters anew."""

    def zero_gradient(self) -> None:
        """Forget the gradient; the next backward pass adds to zeros."""
        torch._foreach_zero_(self._gradients())

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's rows of a whole tensor; a copy.

        Raises:
            ValueError: A tensor of another shape.
        """
        from torch.distributed.tensor import distribute_tensor

        parameter = self._parameters[name]
        if whole.shape != parameter.shape:
            raise ValueError(
                f"{name} has shape {tuple(whole.shape)} here and {tuple(parameter.shape)} in the "
                "model"
            )
        there = whole.to(self.device)
        # Every process has the whole tensor: nothing is sent.
        pieces = distribute_tensor(there, self._mesh, parameter.placements, src_data_rank=None)
        return pieces.to_local().clone()

    def join(self, name: str, held: Tensor) -> Tensor:
        """The whole tensor, in every process."""
        from torch.distributed.tensor import DTensor

        parameter = self._parameters[name]
        return DTensor.from_local(
            held.detach(),
            self._mesh,
            parameter.placements,
            shape=parameter.shape,
            stride=parameter.stride(),
        ).full_tensor()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the whole trained parameters."""
        return {name: tuple(parameter.shape) for name, parameter in self._parameters.items()}

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """A second model without hooks, which has weights of its own while it is needed."""
        dtype = self.precision.compute_dtype
        sharded = dict(self.model.named_parameters())
        try:
            for name, parameter in self._shell.named_parameters():
                parameter.data = cast("Any", sharded[name]).detach().to(dtype).full_tensor()
            yield self._shell
        finally:
            for parameter in self._shell.parameters():
                parameter.data = parameter.data.new_empty(0)

    def _shard(self, model: nn.Module, chosen: FsdpSettings) -> Call:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        from kit.lm.model import decoder_layers

        low = self.precision.compute_dtype
        policy = MixedPrecisionPolicy(
            param_dtype=low,
            reduce_dtype=getattr(torch, chosen.communication),
            cast_forward_inputs=False,
        )
        for layer in decoder_layers(cast("Any", model)):
            fully_shard(
                layer,
                mesh=self._mesh,
                mp_policy=policy,
                reshard_after_forward=chosen.gather_twice,
            )
        # What stands around the layers is wanted at both ends of a pass: it stays whole meanwhile.
        call = Call(model)
        fully_shard(call, mesh=self._mesh, mp_policy=policy, reshard_after_forward=False)
        call.float()
        # The first pass decides which module is the root; it must not be a layer called alone.
        with torch.no_grad():
            call(_nothing, None)
        cast("Any", call).reshard()
        return call


def _nothing(_model: nn.Module, _batch: object) -> Tensor:
    return torch.zeros(())


def _piece(parameter: DTensor) -> torch.nn.Parameter:
    """The local rows as a parameter whose gradient is what backward passes add to."""
    from torch.distributed.tensor import DTensor

    held = torch.nn.Parameter(parameter.to_local().detach())
    held.grad = torch.zeros_like(held)
    parameter.grad = DTensor.from_local(
        held.grad,
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    return held


def _shell(model: nn.Module) -> nn.Module:
    """The model once more, without its weights: what is shared stays shared."""
    empty = {
        id(p): torch.nn.Parameter(p.new_empty(0), requires_grad=False) for p in model.parameters()
    }
    return copy.deepcopy(model, cast("dict[int, Any]", empty))
