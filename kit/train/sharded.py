"""What engines have in common that hold the model in pieces, one of each weight in every process.

Forward and backward passes are a library's (:mod:`kit.train.zero3`, :mod:`kit.train.fsdp`), which
gathers weights in front of a layer and scatters gradients behind it. Everything else happens here,
on local fp32 pieces: the same optimizers, the same checkpoints and the same numbers as in
:mod:`kit.train.single_process`, to rounding. A parameter that a loss does not reach has a gradient
of 0 here and none there.

Where the compute type is bf16, weights are bf16 in forward passes (there is no autocast).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist

from kit.train.engine import AVERAGED, BatchT, Precision, Progress, Snapshot, checked_weights
from kit.train.optimizers import Muon, Optimizer, OptimizerSpec, make_optimizer
from kit.train.randomness import kept_random_state, random_state, set_random_state
from kit.train.residence import OFFLOADED, RESIDENCES, RESIDENT, copies, move_state
from kit.train.shards import everybody, sum_over_processes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kit.train.checkpoints import CheckpointFolder


@dataclass(frozen=True, kw_only=True)
class ShardedSettings:
    """What may change speed and memory, and numbers by rounding only.

    Attributes:
        communication: Type in which gradients are summed over processes; they are added up over
            micro-batches in fp32 either way.
        outer_state: ``resident``, or ``offloaded`` to the machine's memory while an inner
            optimizer is at work.
        collected: Likewise, of gradients that are kept for later.
        compiled: Decoder layers are compiled, each as a whole.
        checkpointing: Decoder layers are computed again in the backward pass.
    """

    communication: str = "float32"
    outer_state: str = RESIDENT
    collected: str = RESIDENT
    compiled: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse what a library would take for something else."""
        if self.communication not in ("float32", "bfloat16"):
            raise ValueError(f"communication in {self.communication!r}: float32 or bfloat16")
        for what in ("outer_state", "collected"):
            if getattr(self, what) not in RESIDENCES:
                name, value = what.replace("_", " "), getattr(self, what)
                raise ValueError(f"{name} {value!r}: {RESIDENT!r} or {OFFLOADED!r}")


@dataclass(frozen=True)
class LocalWeights:
    """A snapshot: copies of the local masters, in the order of the pieces."""

    masters: list[Tensor]


class Call(torch.nn.Module):
    """A model whose forward pass is whatever a loss function does with it."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[nn.Module, Any], Tensor], batch: Any) -> Tensor:
        """The loss of a micro-batch."""
        return loss(self.model, batch)


class Sharded(ABC):
    """See :class:`kit.train.engine.Engine`.

    A subclass shards the model, sets ``pieces`` and calls :meth:`begin`.

    Attributes:
        model: The model, whose parameters are pieces outside of forward passes.
        optimizer: The one that steps now, on local pieces.
        outer_optimizer: The one that steps outside of ``inner``.
        precision: Types.
        settings: Of speed and memory.
        pieces: By parameter: the local fp32 piece, whose gradient is the local piece of the
            gradient, always there.
    """

    optimizer: Optimizer
    outer_optimizer: Optimizer
    pieces: dict[str, torch.nn.Parameter]

    def __init__(
        self, model: nn.Module, spec: OptimizerSpec, precision: Precision, settings: ShardedSettings
    ) -> None:
        """Refuse what cannot be sharded, and prepare the decoder layers.

        Raises:
            ValueError: Nothing to train, masters that are not fp32, an optimizer that needs whole
                matrices.
        """
        if precision.masters != "float32":
            raise ValueError("sharded masters are float32; those of one process may be bfloat16")
        check_sharded(spec)
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError("no parameter requires a gradient: there is nothing to train")
        self.model = model
        self.precision = precision
        self.settings = settings
        self._collected: dict[str, list[Tensor]] = {}
        self._inner = False

    def begin(self, spec: OptimizerSpec) -> None:
        """Make the outer optimizer; called when the pieces are there."""
        self._counts = dist.new_group(backend="gloo")
        self.optimizer = self.outer_optimizer = self._optimizer(spec)
        self.zero_gradient()

    @property
    def rank(self) -> int:
        """Number of this process."""
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return dist.get_world_size()

    @property
    def device(self) -> torch.device:
        """Where batches belong, and the local weights are."""
        return next(iter(self.pieces.values())).device

    @abstractmethod
    def forward(self, loss: Callable[[nn.Module, BatchT], Tensor], batch: BatchT) -> Tensor:
        """A loss inside the library's own forward pass."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the mean over processes of a loss's gradient to the gradients of the pieces."""

    @abstractmethod
    def publish(self) -> None:
        """Make forward passes read the masters."""

    @abstractmethod
    def zero_gradient(self) -> None:
        """Forget the gradient."""

    @abstractmethod
    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's piece of a tensor that has a parameter's shape."""

    @abstractmethod
    def join(self, name: str, held: Tensor) -> Tensor:
        """A whole tensor from the pieces of all processes, which call this together."""

    @abstractmethod
    def whole(self) -> AbstractContextManager[nn.Module]:
        """A model that every process has all of, in the compute type, without gathering."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the whole trained parameters."""

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
            share = self.forward(loss, micro_batches[number if counts else -1])
            if share.ndim:
                raise ValueError(f"a loss of shape {tuple(share.shape)} is no scalar")
            # Libraries take the mean over processes; the shares are to be added.
            self.backward(share.float() * (scale * self.world_size if counts else 0.0))
            if counts:
                total += share.detach().float()
        return sum_over_processes(total)

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to ``max_norm``; the norm before."""
        norm = self.gradient_norm()
        torch._foreach_mul_(self._gradients(), min(1.0, max_norm / (norm + 1e-6)))
        return norm

    def gradient_norm(self) -> float:
        """L2 norm of the gradient."""
        # Piece by piece, because a sum of billions of squares in fp32 loses digits.
        norms = torch._foreach_norm(self._gradients())
        square = torch.stack(list(norms)).double().square().sum()
        return float(sum_over_processes(square).sqrt())

    def step(self, rate: float | None = None) -> None:
        """Update the weights; the gradient is 0 afterwards."""
        if rate is not None:
            self.optimizer.set_learning_rate(rate)
        self._state_here()
        self.optimizer.step()
        self.publish()
        self.zero_gradient()

    def snapshot(self, device: torch.device | str | None = None) -> LocalWeights:
        """A copy of the local masters; in page-locked memory where it leaves a GPU."""
        return LocalWeights(copies(self._masters(), device or self.device))

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Put the masters back, and the weights in the compute type, which are rounded from them.

        They always are, so they too come back bit for bit.
        """
        assert isinstance(snapshot, LocalWeights)
        for master, kept in zip(self._masters(), snapshot.masters, strict=True):
            master.copy_(kept, non_blocking=True)
        self.publish()

    def largest_change(self, since: Snapshot) -> float:
        """Largest absolute difference of a trained weight, in any process."""
        assert isinstance(since, LocalWeights)
        moved = torch.zeros((), device=self.device)
        for master, kept in zip(self._masters(), since.masters, strict=True):
            if master.numel():
                moved = torch.maximum(moved, (master - kept.to(self.device)).abs().max())
        dist.all_reduce(moved, dist.ReduceOp.MAX)
        return float(moved)

    @contextmanager
    def inner(self, spec: OptimizerSpec) -> Iterator[None]:
        """A fresh optimizer for a while."""
        if self._inner:
            raise ValueError("an inner optimizer is at work already")
        check_sharded(spec)
        if self.settings.outer_state == OFFLOADED:
            move_state(self.outer_optimizer, "cpu")
        self.zero_gradient()
        self.optimizer, self._inner = self._optimizer(spec), True
        try:
            yield
        finally:
            self.optimizer, self._inner = self.outer_optimizer, False
            self.zero_gradient()

    def collect(self, name: str, scale: float = 1.0) -> None:
        """Move the scaled gradient into an fp32 accumulator."""
        gradients = self._gradients()
        kept = self._collected.get(name)
        where = "cpu" if self.settings.collected == OFFLOADED else self.device
        torch._foreach_mul_(gradients, scale)
        if kept is None:
            self._collected[name] = copies(gradients, where)
        elif self.settings.collected == RESIDENT:
            torch._foreach_add_(kept, gradients)
        else:
            for gradient, sum_ in zip(gradients, kept, strict=True):
                gradient.add_(sum_.to(self.device, non_blocking=True))
                sum_.copy_(gradient, non_blocking=True)
        self.zero_gradient()

    def add_collected(self, name: str) -> None:
        """Add an accumulator to the gradient, and let it go."""
        if name not in self._collected:
            raise ValueError(f"no gradient was collected as {name!r}")
        for gradient, kept in zip(self._gradients(), self._collected.pop(name), strict=True):
            gradient.add_(kept.to(self.device, non_blocking=True))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the weights are the average that the optimizer keeps, if it keeps one."""
        if not self.optimizer.averages:
            yield
            return
        kept = self.snapshot()
        self._state_here()
        self.optimizer.use_averaged_weights()
        self.publish()
        try:
            yield
        finally:
            self.restore(kept)
            self.optimizer.mark_training()

    @contextmanager
    def evaluating(self, weights: str = AVERAGED) -> Iterator[nn.Module]:
        """The model for measuring: every process has all of it, in the compute type."""
        chosen = self.averaged() if checked_weights(weights) == AVERAGED else nullcontext()
        if self.device.type == "cuda":
            # What passes left cached is of other sizes: the whole model would come on top of it.
            torch.cuda.empty_cache()
        with kept_random_state(), torch.no_grad(), chosen, self.whole() as model:
            model.eval()
            try:
                yield model
            finally:
                model.train()

    def keep_averaged(self) -> None:
        """Make the average the weights for good."""
        if self.optimizer.averages:
            self._state_here()
            self.optimizer.use_averaged_weights()
            self.publish()

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
        self._state_here()
        generators = everybody(random_state())
        tensors = {f"weights/{n}": t for n, t in self._joined(self._named_masters())}
        for path, tensor in self.optimizer.tensors().items():
            whole = self.join(path.split("/")[1], tensor) if tensor.ndim else tensor
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
        weights = checkpoint.under("weights/")
        if {n: tuple(t.shape) for n, t in weights.items()} != self.shapes():
            raise ValueError(f"the checkpoint in {folder.folder} is of another model")
        for name, whole in weights.items():
            self.pieces[name].copy_(self.cut(name, whole))
        self.publish()
        state = {
            path: self.cut(path.split("/")[1], tensor) if tensor.ndim else tensor
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
            trained = dict(self._joined(self._named_masters()))
            with self.whole() as model:
                if self.rank == 0:
                    save_gathered(model, trained, folder)
                dist.barrier()

    def gradients(self) -> dict[str, Tensor]:
        """Whole gradients by parameter, in every process; for tests, no loop may need them."""
        return {n: self.join(n, cast("Tensor", p.grad)) for n, p in self.pieces.items()}

    def _masters(self) -> list[Tensor]:
        return [p.detach() for p in self.pieces.values()]

    def _named_masters(self) -> Iterator[tuple[str, Tensor]]:
        return ((n, p.detach()) for n, p in self.pieces.items())

    def _gradients(self) -> list[Tensor]:
        return [cast("Tensor", p.grad) for p in self.pieces.values()]

    def _joined(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Whole tensors one after the other, in the machine's memory, in process 0.

        The others take part and get empty tensors.
        """
        for name, held in tensors:
            whole = self.join(name, held)
            yield name, whole.cpu() if self.rank == 0 else whole.new_empty(0, device="cpu")

    def _state_here(self) -> None:
        """Bring back what waited for an inner optimizer; not before an update wants it."""
        if self.settings.outer_state == OFFLOADED:
            move_state(self.optimizer, self.device)

    def _optimizer(self, spec: OptimizerSpec) -> Optimizer:
        return make_optimizer(spec, self.pieces.items(), fused=self.device.type == "cuda")

    def _most(self, count: int) -> int:
        """The largest number that any process says; on the CPU, so that no GPU waits."""
        counts = torch.tensor(count)
        dist.all_reduce(counts, dist.ReduceOp.MAX, group=self._counts)
        return int(counts)


def check_sharded(spec: OptimizerSpec) -> None:
    """Refuse an optimizer that needs whole matrices.

    Raises:
        ValueError: It does.
    """
    if isinstance(spec, Muon):
        raise ValueError("Muon needs whole matrices; a sharded engine has pieces of them")


def fp32_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Trained weights that are whole and fp32; kept until the masters have been cut from them."""
    return {
        n: p.data
        for n, p in model.named_parameters()
        if p.requires_grad and p.dtype == torch.float32 and not hasattr(p, "ds_id")
    }
