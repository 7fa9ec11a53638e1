"""The engine that shards weights, gradients and optimizer state: DeepSpeed ZeRO-3.

DeepSpeed gathers weights in front of each module and scatters gradients behind it. It would step
once a group of weights, which a schedule-free optimizer counts as so many steps, and cannot make
moments fresh: the optimizer steps in :mod:`kit.train.sharded`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist

from kit.train.engine import BatchT, Precision
from kit.train.layers import prepare_layers
from kit.train.sharded import Call, Sharded, ShardedSettings, fp32_weights
from kit.train.shards import parameters_of
from kit.train.zero3_internals import Partition, checked_deepspeed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kit.train.optimizers import OptimizerSpec


@dataclass(frozen=True, kw_only=True)
class Zero3Settings(ShardedSettings):
    """See :class:`kit.train.sharded.ShardedSettings`.

    Attributes:
        bucket: Elements that are reduced at once.
        prefetch: Elements that are gathered ahead.
        live: Gathered elements that may exist at once.
        reuse: A weight that is wanted again within so many elements stays gathered.
        leaf_layers: Gather and release decoder layers as wholes: fewer hooks, fewer and larger
            transfers.
    """

    bucket: int = 500_000_000
    prefetch: int = 50_000_000
    live: int = 1_000_000_000
    reuse: int = 1_000_000_000
    leaf_layers: bool = False

    def __post_init__(self) -> None:
        """Refuse what would be compiled in pieces."""
        super().__post_init__()
        if self.compiled and not self.leaf_layers:
            raise ValueError("a layer is compiled as a whole only where it is gathered as a whole")


def deepspeed_config(
    precision: Precision, settings: Zero3Settings, elements: int
) -> dict[str, Any]:
    """Settings as DeepSpeed reads them; public, so that a record can keep them.

    Args:
        precision: Compute type.
        settings: Ours.
        elements: Of the whole model: no bucket needs to be larger.
    """
    short = {"float32": "fp32", "bfloat16": "bf16"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "steps_per_print": 10**12,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": precision.compute == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": short[settings.communication],
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": min(settings.bucket, elements),
            "stage3_prefetch_bucket_size": min(settings.prefetch, elements),
            "stage3_max_live_parameters": settings.live,
            "stage3_max_reuse_distance": settings.reuse,
            # A weight that stays gathered would have to be written twice at every change.
            "stage3_param_persistence_threshold": 0,
            # All weights in one group: the flat tensors are then one each.
            "sub_group_size": 10**15,
        },
    }


class Zero3(Sharded):
    """See :class:`kit.train.sharded.Sharded`.

    Attributes:
        partition: The flat local tensors.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: OptimizerSpec,
        precision: Precision | None = None,
        *,
        settings: Zero3Settings | None = None,
        device: str = "cuda",
    ) -> None:
        """Shard a model over the processes that torchrun started.

        Args:
            model: Whole and equal in every process; or made under ``deepspeed.zero.Init``, which
                never holds a whole one.
            spec: Of the (outer) optimizer.
            precision: fp32 throughout if not given.
            settings: Speed and memory.
            device: ``cuda`` or ``cpu``.

        Raises:
            ValueError: Nothing to train, masters that are not fp32, an optimizer that needs whole
                matrices, another version of DeepSpeed.
        """
        chosen = settings or Zero3Settings()
        super().__init__(model, spec, precision or Precision(), chosen)
        deepspeed = checked_deepspeed()
        if not dist.is_initialized():
            deepspeed.init_distributed(dist_backend="gloo" if device == "cpu" else "nccl")
        if chosen.leaf_layers:
            deepspeed.utils.set_z3_leaf_modules(model, [_layer_class(model)])
        prepare_layers(model, compiled=chosen.compiled, checkpointing=chosen.checkpointing)
        originals = fp32_weights(model)
        names = {id(p): n for n, p in model.named_parameters()}
        trained = [p for p in model.parameters() if p.requires_grad]
        elements = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
        self._engine, *_ = deepspeed.initialize(
            model=Call(model),
            # Never steps: it tells DeepSpeed which weights are trained, and keeps no state.
            optimizer=torch.optim.SGD(trained, lr=0.0),
            config=deepspeed_config(self.precision, chosen, elements),
        )
        self.partition = Partition(self._engine, names)
        self._clean_masters(originals)
        self.pieces = parameters_of(
            self.partition.layout, self.partition.masters, self.partition.gradient
        )
        self.begin(spec)

    def forward(self, loss: Callable[[nn.Module, BatchT], Tensor], batch: BatchT) -> Tensor:
        """A loss inside DeepSpeed's forward pass."""
        share: Tensor = self._engine(loss, batch)
        return share

    def backward(self, loss: Tensor) -> None:
        """Add the gradient, summed over processes and divided by their number."""
        self._engine.backward(loss)

    def publish(self) -> None:
        """Make forward passes read the masters."""
        self.partition.publish()

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        self.partition.zero_gradient()

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's piece of a whole tensor."""
        return self.partition.layout.cut(name, whole)

    def join(self, name: str, held: Tensor) -> Tensor:
        """The whole tensor, in every process."""
        return self.partition.layout.join(name, held)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the whole trained parameters."""
        return {name: piece.shape for name, piece in self.partition.layout.pieces.items()}

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The model itself, all of whose weights are gathered."""
        with self.partition.whole(self.model):
            yield self.model

    @torch.no_grad()
    def _clean_masters(self, originals: Mapping[str, Tensor]) -> None:
        """Masters from the fp32 weights that were given, not from their bf16 copies; padding 0."""
        layout, masters = self.partition.layout, self.partition.masters
        for name, piece in layout.pieces.items():
            held = piece.of(masters)
            if name in originals:
                held.copy_(layout.cut(name, originals[name]))
            else:
                real = torch.Size(piece.shape).numel() - self.rank * piece.length
                held.view(-1)[max(real, 0) :] = 0
        self.partition.publish()


def _layer_class(model: nn.Module) -> type[nn.Module]:
    from kit.lm.model import decoder_layers

    return type(decoder_layers(cast("Any", model))[0])
