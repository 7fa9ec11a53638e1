"""What :mod:`kit.train.zero3` needs of DeepSpeed beyond its public interface, all of it.

The public calls on local pieces (``safe_get_local_fp32_param`` and its kin) work parameter by
parameter, reach the fp32 masters only and leave the low-precision weights that a forward pass reads
as they were until the next optimizer step. Written for exactly one version; a test each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from kit.train.shards import Layout

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = "0.19.8"
_SHARED_MEMORY = "deepspeed_shm_comm"


def checked_deepspeed() -> Any:
    """DeepSpeed, if it is the version that this file was written for; nothing is compiled.

    Raises:
        ValueError: Another version.
    """
    import deepspeed

    if deepspeed.__version__ != VERSION:
        raise ValueError(
            f"this engine touches internals of DeepSpeed {VERSION}; {deepspeed.__version__} is "
            "installed: read kit/train/zero3_internals.py against it first"
        )
    # On CPUs DeepSpeed would compile a C++ collective at first use; gloo needs no compiler.
    deepspeed.ops.__compatible_ops__[_SHARED_MEMORY] = False
    return deepspeed


class Partition:
    """The flat local tensors of a DeepSpeed ZeRO-3 engine with one group of parameters.

    Attributes:
        layout: Where which parameter's piece lies, in all three tensors.
        masters: [n] fp32: what the optimizer updates.
        weights: [n] in the compute type: what forward passes gather. The same tensor as the
            masters where that is fp32.
        gradient: [n] fp32: sum over backward passes of the mean over processes.
    """

    def __init__(self, engine: Any, names: dict[int, str]) -> None:
        """Find the tensors.

        Args:
            engine: From ``deepspeed.initialize``.
            names: id(parameter) -> name.

        Raises:
            ValueError: DeepSpeed laid them out otherwise than this file expects.
        """
        self._optimizer = optimizer = engine.optimizer
        if len(optimizer.fp16_groups) != 1:
            raise ValueError(f"{len(optimizer.fp16_groups)} groups of weights; one was asked for")
        self.layout = Layout(
            [(names[id(p)], tuple(p.ds_shape)) for p in optimizer.fp16_groups[0]],
            rank=torch.distributed.get_rank(),
            world_size=torch.distributed.get_world_size(),
        )
        self.masters: Tensor = optimizer.fp32_partitioned_groups_flat[0].detach()
        self.weights: Tensor = optimizer.fp16_partitioned_groups_flat[0].detach()
        self.gradient: Tensor = optimizer.grad_partitions_flat_buffer
        for tensor in (self.masters, self.weights, self.gradient):
            if tensor.shape != (self.layout.length,):
                raise ValueError(
                    f"a flat tensor of {tuple(tensor.shape)}, not of {self.layout.length} elements"
                )

    def zero_gradient(self) -> None:
        """Forget the gradient; the next backward pass adds to zeros.

        DeepSpeed would overwrite instead, and keep what was there before for every parameter that
        the next loss does not reach.
        """
        self._optimizer.zero_grad()
        self.gradient.zero_()
        self._optimizer.micro_step_id = 1

    def publish(self) -> None:
        """Make forward passes read the masters.

        The engine's own ``empty_partition_cache`` collects garbage and gives the GPU's memory back
        as well, which costs as much as a whole step.
        """
        self._optimizer.empty_partition_cache()
        if self.weights.data_ptr() != self.masters.data_ptr():
            self.weights.copy_(self.masters)

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Within, every process has all weights and modules run without DeepSpeed's hooks."""
        import deepspeed

        self._optimizer.empty_partition_cache()
        offload = self._optimizer.parameter_offload
        parameters: list[Any] = list(model.parameters())
        with deepspeed.zero.GatheredParameters(parameters):
            for parameter in parameters:
                parameter.ds_active_sub_modules.clear()
            for hook in (*offload.forward_hooks, *offload.backward_hooks):
                hook.remove()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                offload._register_deepspeed_module(offload.module)
