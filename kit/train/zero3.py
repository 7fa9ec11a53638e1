"""The engine that shards weights, gradients and optimizer state: DeepSpeed ZeRO-3.

DeepSpeed gathers weights in front of each module and scatters gradients behind it. The optimizer
steps here, on local fp32 pieces: DeepSpeed would step once a group of weights, which a
schedule-free optimizer counts as so many steps, and cannot make moments fresh. Hence the same
optimizers, the same checkpoints and the same numbers as in :mod:`kit.train.single_process`, to
rounding. A parameter that a loss does not reach has a gradient of 0 here and none there.

Where the compute type is bf16, weights are bf16 in forward passes (there is no autocast), and the
masters are fp32 and local.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist

from kit.train.engine import AVERAGED, BatchT, Precision, Progress, Snapshot, checked_weights
from kit.train.optimizers import Muon, Optimizer, OptimizerSpec, make_optimizer
from kit.train.randomness import kept_random_state, random_state, set_random_state
from kit.train.shards import everybody, parameters_of, sum_over_processes
from kit.train.zero3_internals import Partition, checked_deepspeed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kit.train.checkpoints import CheckpointFolder

RESIDENT = "resident"
OFFLOADED = "offloaded"


@dataclass(frozen=True)
class Zero3Settings:
    """What may change speed and memory; the first three change numbers by rounding only.

    Attributes:
        communication: Type in which gradients are summed over processes; they are added up over
            micro-batches in fp32 either way.
        bucket: Elements that are reduced at once.
        prefetch: Elements that are gathered ahead.
        live: Gathered elements that may exist at once.
        reuse: A weight that is wanted again within so many elements stays gathered.
        leaf_layers: Gather and release decoder layers as wholes: fewer hooks, fewer and larger
            transfers.
        outer_state: ``resident``, or ``offloaded`` to the machine's memory while an inner
            optimizer is at work.
    """

    communication: str = "float32"
    bucket: int = 500_000_000
    prefetch: int = 50_000_000
    live: int = 1_000_000_000
    reuse: int = 1_000_000_000
    leaf_layers: bool = False
    outer_state: str = RESIDENT

    def __post_init__(self) -> None:
        """Refuse what DeepSpeed would take for something else."""
        if self.communication not in ("float32", "bfloat16"):
            raise ValueError(f"communication in {self.communication!r}: float32 or bfloat16")
        if self.outer_state not in (RESIDENT, OFFLOADED):
            raise ValueError(f"outer state {self.outer_state!r}: {RESIDENT!r} or {OFFLOADED!r}")


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


@dataclass(frozen=True)
class LocalWeights:
    """A snapshot: a copy of the local masters."""

    masters: Tensor


class _Call(torch.nn.Module):
    """A model whose forward pass is whatever a loss function does with it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[nn.Module, Any], Tensor], batch: Any) -> Tensor:
        return loss(self.model, batch)


class Zero3:
    """See :class:`kit.train.engine.Engine`.

    Attributes:
        model: The model, whose parameters are empty outside of forward passes and ``evaluating``.
        optimizer: The one that steps now, on local pieces.
        outer_optimizer: The one that steps outside of ``inner``.
        precision: Types.
        settings: Of speed and memory.
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
        self.precision = precision or Precision()
        self.settings = settings or Zero3Settings()
        if self.precision.masters != "float32":
            raise ValueError("sharded masters are float32; those of one process may be bfloat16")
        _check_sharded(spec)
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError("no parameter requires a gradient: there is nothing to train")
        deepspeed = checked_deepspeed()
        if not dist.is_initialized():
            deepspeed.init_distributed(dist_backend="gloo" if device == "cpu" else "nccl")
        if self.settings.leaf_layers:
            deepspeed.utils.set_z3_leaf_modules(model, [_layer_class(model)])
        self.model = model
        originals = _fp32_weights(model)
        names = {id(p): n for n, p in model.named_parameters()}
        trained = [p for p in model.parameters() if p.requires_grad]
        elements = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
        self._engine, *_ = deepspeed.initialize(
            model=_Call(model),
            # Never steps: it tells DeepSpeed which weights are trained, and keeps no state.
            optimizer=torch.optim.SGD(trained, lr=0.0),
            config=deepspeed_config(self.precision, self.settings, elements),
        )
        self.partition = Partition(self._engine, names)
        self._clean_masters(originals)
        self._counts = dist.new_group(backend="gloo")
        self._pieces = parameters_of(
            self.partition.layout, self.partition.masters, self.partition.gradient
        )
        self.optimizer: Optimizer = self._optimizer(spec)
        self._collected: dict[str, Tensor] = {}
        self.outer_optimizer = self.optimizer
        self._inner = False
        self.zero_gradient()

    @property
    def device(self) -> torch.device:
        """Where the local weights are."""
        return self.partition.masters.device

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.partition.layout.rank

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.partition.layout.world_size

    def accumulate(
        self,
        loss: Callable[[nn.Module, BatchT], Tensor],
        micro_batches: Sequence[BatchT],
        *,
        scale: float = 1.0,
    ) -> Tensor:
        """Add a global batch's gradient.

        A forward pass is a conversation of all processes: those with fewer micro-batches than
        others repeat their last with a weight of 0.

        Raises:
            ValueError: No micro-batch, or a loss that is no scalar.
        """
        if not micro_batches:
            raise ValueError(f"process {self.rank} has no micro-batch of this step")
        self.model.train()
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        for number in range(self._most(len(micro_batches))):
            counts = number < len(micro_batches)
            share = self._engine(loss, micro_batches[number if counts else -1])
            if share.ndim:
                raise ValueError(f"a loss of shape {tuple(share.shape)} is no scalar")
            # DeepSpeed takes the mean over processes; the shares are to be added.
            factor = scale * self.world_size if counts else 0.0
            self._engine.backward(share.float() * factor)
            if counts:
                total += share.detach().float()
        return sum_over_processes(total)

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to ``max_norm``; the norm before."""
        norm = self.gradient_norm()
        self.partition.gradient.mul_(min(1.0, max_norm / (norm + 1e-6)))
        return norm

    def gradient_norm(self) -> float:
        """L2 norm of the gradient."""
        # Piece by piece, because a sum of billions of squares in fp32 loses digits.
        norms = torch._foreach_norm([cast("Tensor", p.grad) for p in self._pieces.values()])
        square = torch.stack(list(norms)).double().square().sum()
        return float(sum_over_processes(square).sqrt())

    def step(self, rate: float | None = None) -> None:
        """Update the weights; the gradient is 0 afterwards."""
        if rate is not None:
            self.optimizer.set_learning_rate(rate)
        self.optimizer.step()
        self.partition.publish()
        self.zero_gradient()

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        self.partition.zero_gradient()

    def snapshot(self, device: torch.device | str | None = None) -> LocalWeights:
        """A copy of the local masters; in page-locked memory where it leaves a GPU."""
        return LocalWeights(_moved(self.partition.masters, device or self.device, copy=True))

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Put the masters back, and the weights in the compute type, which are rounded from them.

        They always are, so they too come back bit for bit.
        """
        assert isinstance(snapshot, LocalWeights)
        self.partition.masters.copy_(snapshot.masters, non_blocking=True)
        self.partition.publish()

    def largest_change(self, since: Snapshot) -> float:
        """Largest absolute difference of a trained weight, in any process."""
        assert isinstance(since, LocalWeights)
        moved = (self.partition.masters.detach() - since.masters.to(self.device)).abs().max()
        dist.all_reduce(moved, dist.ReduceOp.MAX)
        return float(moved)

    @contextmanager
    def inner(self, spec: OptimizerSpec) -> Iterator[None]:
        """A fresh optimizer for a while."""
        if self._inner:
            raise ValueError("an inner optimizer is at work already")
        _check_sharded(spec)
        outer = self.outer_optimizer
        offload = self.settings.outer_state == OFFLOADED
        if offload:
            _move_state(outer, "cpu")
        self.zero_gradient()
        self.optimizer, self._inner = self._optimizer(spec), True
        try:
            yield
        finally:
            self.optimizer, self._inner = outer, False
            if offload:
                _move_state(outer, self.device)
            self.zero_gradient()

    def collect(self, name: str, scale: float = 1.0) -> None:
        """Move the scaled gradient into an fp32 accumulator."""
        if name in self._collected:
            self._collected[name].add_(self.partition.gradient, alpha=scale)
        else:
            self._collected[name] = self.partition.gradient * scale
        self.zero_gradient()

    def add_collected(self, name: str) -> None:
        """Add an accumulator to the gradient, and let it go."""
        if name not in self._collected:
            raise ValueError(f"no gradient was collected as {name!r}")
        self.partition.gradient.add_(self._collected.pop(name))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the weights are the average that the optimizer keeps, if it keeps one."""
        if not self.optimizer.averages:
            yield
            return
        kept = self.snapshot()
        self.optimizer.use_averaged_weights()
        self.partition.publish()
        try:
            yield
        finally:
            self.restore(kept)
            self.optimizer.mark_training()

    @contextmanager
    def evaluating(self, weights: str = AVERAGED) -> Iterator[nn.Module]:
        """The model for measuring: every process has all of it, in the compute type."""
        chosen = self.averaged() if checked_weights(weights) == AVERAGED else nullcontext()
        with kept_random_state(), torch.no_grad(), chosen, self.partition.whole(self.model):
            self.model.eval()
            try:
                yield self.model
            finally:
                self.model.train()

    def keep_averaged(self) -> None:
        """Make the average the weights for good."""
        if self.optimizer.averages:
            self.optimizer.use_averaged_weights()
            self.partition.publish()

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return bool(self._most(int(flag)))

    def save(self, folder: CheckpointFolder, progress: Progress) -> None:
        """Write whole weights and optimizer state as one file, as an engine of one process does.

        Any number of processes goes on from it. Process 0 needs memory for all of it.

        Raises:
            ValueError: In the middle of an outer step.
        """
        if self._inner or self._collected:
            raise ValueError("a checkpoint belongs between two outer steps, not inside of one")
        generators = everybody(random_state())
        layout = self.partition.layout
        pieces = {n: p.detach() for n, p in self._pieces.items()}
        tensors = {f"weights/{n}": t for n, t in layout.joined(pieces.items())}
        for path, tensor in self.optimizer.tensors().items():
            whole = layout.join(path.split("/")[1], tensor) if tensor.ndim else tensor
            if self.rank == 0:
                tensors[f"optimizer/{path}"] = whole.cpu()
        if self.rank == 0:
            values = {
                "optimizer": self.optimizer.values(),
                "precision": asdict(self.precision),
                "random": generators,
                "positions": progress.positions,
                "curves": progress.curves,
            }
            folder.write(progress.step, tensors, values)
        dist.barrier()

    @torch.no_grad()
    def resume(self, folder: CheckpointFolder) -> Progress | None:
        """Go on from the newest checkpoint, whatever number of processes wrote it.

        Raises:
            ValueError: A checkpoint of other parameters or another optimizer.
        """
        checkpoint = folder.newest(remove=self.rank == 0)
        dist.barrier()
        if checkpoint is None:
            return None
        layout = self.partition.layout
        weights = checkpoint.under("weights/")
        if {n: tuple(t.shape) for n, t in weights.items()} != {
            n: p.shape for n, p in layout.pieces.items()
        }:
            raise ValueError(f"the checkpoint in {folder.folder} is of another model")
        for name, whole in weights.items():
            self._pieces[name].copy_(layout.cut(name, whole))
        self.partition.publish()
        state = {
            path: layout.cut(path.split("/")[1], tensor) if tensor.ndim else tensor
            for path, tensor in checkpoint.under("optimizer/").items()
        }
        self.optimizer.load(state, checkpoint.values["optimizer"])
        generators = checkpoint.values["random"]
        if self.rank < len(generators):
            set_random_state(generators[self.rank])
        else:
            # A process that was not there before: its own stream, the same on every resumption.
            torch.manual_seed(1_000_003 * checkpoint.step + self.rank)
        return Progress(
            checkpoint.step, checkpoint.values["positions"], checkpoint.values["curves"]
        )

    def save_model(self, folder: Path, weights: str = AVERAGED) -> None:
        """Write the model in Hugging Face layout, in fp32 from the masters."""
        from kit.train.saving import save_gathered

        with self.averaged() if checked_weights(weights) == AVERAGED else nullcontext():
            pieces = {n: p.detach() for n, p in self._pieces.items()}
            trained = dict(self.partition.layout.joined(pieces.items()))
            with self.partition.whole(self.model):
                if self.rank == 0:
                    save_gathered(self.model, trained, folder)
                dist.barrier()

    def gradients(self) -> dict[str, Tensor]:
        """Whole gradients by parameter, in every process; for tests, no loop may need them."""
        layout = self.partition.layout
        return {n: layout.join(n, p.of(self.partition.gradient)) for n, p in layout.pieces.items()}

    def _optimizer(self, spec: OptimizerSpec) -> Optimizer:
        return make_optimizer(spec, self._pieces.items(), fused=self.device.type == "cuda")

    def _most(self, count: int) -> int:
        """The largest number that any process says; on the CPU, so that no GPU waits."""
        counts = torch.tensor(count)
        dist.all_reduce(counts, dist.ReduceOp.MAX, group=self._counts)
        return int(counts)

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


def _check_sharded(spec: OptimizerSpec) -> None:
    if isinstance(spec, Muon):
        raise ValueError("Muon needs whole matrices; a sharded engine has pieces of them")


def _layer_class(model: nn.Module) -> type[nn.Module]:
    from kit.lm.model import decoder_layers

    return type(decoder_layers(cast("Any", model))[0])


def _fp32_weights(model: nn.Module) -> dict[str, Tensor]:
    """Trained weights that are whole and fp32; kept until the masters have been cut from them."""
    return {
        n: p.data
        for n, p in model.named_parameters()
        if p.requires_grad and p.dtype == torch.float32 and not hasattr(p, "ds_id")
    }


def _moved(tensor: Tensor, device: torch.device | str, *, copy: bool = False) -> Tensor:
    target = torch.device(device)
    if target.type == "cpu" and tensor.device.type == "cuda":
        kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return kept.copy_(tensor.detach(), non_blocking=True)
    return tensor.detach().to(target, copy=copy, non_blocking=True)


def _move_state(optimizer: Optimizer, device: torch.device | str) -> None:
    """Put the state's tensors elsewhere; counters stay."""
    for tensor in optimizer.tensors().values():
        if tensor.ndim:
            tensor.data = _moved(tensor, device)
