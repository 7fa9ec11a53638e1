"""The engine that keeps the whole model in each process.

Alone, or beside others that hold the same weights: then accelerate reduces the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.utils import clip_grad_norm_, get_total_norm

from kit.train.engine import AVERAGED, BatchT, Precision, Progress, Snapshot, checked_weights
from kit.train.optimizers import Optimizer, OptimizerSpec, make_optimizer
from kit.train.randomness import kept_random_state, random_state, set_random_state

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

    from kit.train.checkpoints import CheckpointFolder


def data_parallel(device: str = "cpu", *, unused_parameters: bool = False) -> Accelerator:
    """The processes that torchrun started with this one; alone without torchrun.

    Args:
        device: ``cpu`` for gloo, else the GPU of this process.
        unused_parameters: The losses do not reach every trained weight (a loss on an early block,
            for example).
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    settings = DistributedDataParallelKwargs(find_unused_parameters=unused_parameters)
    return Accelerator(cpu=device == "cpu", kwargs_handlers=[settings])


@dataclass(frozen=True)
class WholeWeights:
    """A snapshot: parameter name -> copy."""

    tensors: dict[str, Tensor]


class _Call(torch.nn.Module):
    """A model whose forward pass is whatever a loss function does with it.

    What runs outside the forward pass of the wrapped module is not reduced over processes, so the
    loss function runs inside.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[nn.Module, Any], Tensor], batch: Any) -> Tensor:
        return loss(self.model, batch)


class SingleProcess:
    """See :class:`kit.train.engine.Engine`.

    Attributes:
        model: The model itself.
        optimizer: The one that steps now.
        precision: Types.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: OptimizerSpec,
        precision: Precision | None = None,
        *,
        accelerator: Accelerator | None = None,
    ) -> None:
        """Take a model over for training: what requires a gradient is cast to the master type.

        Args:
            model: With the parameters to train requiring a gradient; frozen ones keep their type.
            spec: Of the (outer) optimizer.
            precision: fp32 throughout if not given.
            accelerator: :func:`data_parallel`, where several processes train together.

        Raises:
            ValueError: Nothing to train.
        """
        self.model = model
        self.precision = precision or Precision()
        self._accelerator = accelerator
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(self.precision.masters_dtype)
        self._call: nn.Module = _Call(model)
        if accelerator is not None:
            self._call = accelerator.prepare_model(self._call)
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer: Optimizer = make_optimizer(spec, self._trained.items())
        self._collected: dict[str, dict[str, Tensor]] = {}
        self._inner = False

    @property
    def device(self) -> torch.device:
        """Where the trained weights are."""
        return next(iter(self._trained.values())).device

    @property
    def rank(self) -> int:
        """Number of this process."""
        return 0 if self._accelerator is None else int(self._accelerator.process_index)

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return 1 if self._accelerator is None else int(self._accelerator.num_processes)

    def accumulate(
        self,
        loss: Callable[[nn.Module, BatchT], Tensor],
        micro_batches: Sequence[BatchT],
        *,
        scale: float = 1.0,
    ) -> Tensor:
        """Add a global batch's gradient.

        Raises:
            ValueError: No micro-batch, or a loss that is no scalar.
        """
        if not micro_batches:
            raise ValueError(f"process {self.rank} has no micro-batch of this step")
        self.model.train()
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        for number, batch in enumerate(micro_batches, start=1):
            with self._together(number == len(micro_batches)):
                with self._compute():
                    share = self._call(loss, batch)
                if share.ndim:
                    raise ValueError(f"a loss of shape {tuple(share.shape)} is no scalar")
                # The reduction takes the mean over processes; the shares are to be added.
                (share.float() * (scale * self.world_size)).backward()
            total += share.detach().float()
        if self._accelerator is not None:
            total = cast("Tensor", self._accelerator.reduce(total, "sum"))
        return total

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to ``max_norm``; the norm before."""
        return float(clip_grad_norm_(self._trained.values(), max_norm))

    def gradient_norm(self) -> float:
        """L2 norm of the gradient."""
        return float(get_total_norm(list(self.gradients().values())))

    def gradients(self) -> dict[str, Tensor]:
        """Gradients by parameter, where there are any; for tests, no loop may need them."""
        return {n: p.grad for n, p in self._trained.items() if p.grad is not None}

    def step(self, rate: float | None = None) -> None:
        """Update the weights; the gradient is 0 afterwards."""
        if rate is not None:
            self.optimizer.set_learning_rate(rate)
        self.optimizer.step()
        self.zero_gradient()

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        for parameter in self._trained.values():
            parameter.grad = None

    def snapshot(self, device: torch.device | str | None = None) -> WholeWeights:
        """A copy of the trained weights."""
        return WholeWeights(
            {n: p.detach().to(device or p.device, copy=True) for n, p in self._trained.items()}
        )

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Put the weights back.

        There is one form of them: autocast casts them anew in each forward pass.
        """
        assert isinstance(snapshot, WholeWeights)
        for name, parameter in self._trained.items():
            parameter.copy_(snapshot.tensors[name])

    def largest_change(self, since: Snapshot) -> float:
        """Largest absolute difference of a trained weight."""
        assert isinstance(since, WholeWeights)
        pairs = ((p.detach(), since.tensors[n].to(p.device)) for n, p in self._trained.items())
        return max(float((now - then).abs().max()) for now, then in pairs)

    @contextmanager
    def inner(self, spec: OptimizerSpec) -> Iterator[None]:
        """A fresh optimizer for a while."""
        if self._inner:
            raise ValueError("an inner optimizer is at work already")
        outer = self.optimizer
        self.zero_gradient()
        self.optimizer, self._inner = make_optimizer(spec, self._trained.items()), True
        try:
            yield
        finally:
            self.optimizer, self._inner = outer, False
            self.zero_gradient()

    def collect(self, name: str, scale: float = 1.0) -> None:
        """Move the scaled gradient into an fp32 accumulator."""
        sums = self._collected.setdefault(name, {})
        for parameter, gradient in self.gradients().items():
            if parameter in sums:
                sums[parameter].add_(gradient.float(), alpha=scale)
            else:
                sums[parameter] = gradient.float() * scale
        self.zero_gradient()

    def add_collected(self, name: str) -> None:
        """Add an accumulator to the gradient, and let it go."""
        if name not in self._collected:
            raise ValueError(f"no gradient was collected as {name!r}")
        for parameter, gradient in self._collected.pop(name).items():
            target = self._trained[parameter]
            if target.grad is None:
                target.grad = gradient.to(target.dtype)
            else:
                target.grad += gradient.to(target.dtype)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the weights are the average that the optimizer keeps, if it keeps one."""
        if not self.optimizer.averages:
            yield
            return
        kept = self.snapshot()
        self.optimizer.use_averaged_weights()
        try:
            yield
        finally:
            self.restore(kept)
            self.optimizer.mark_training()

    @contextmanager
    def evaluating(self, weights: str = AVERAGED) -> Iterator[nn.Module]:
        """The model for measuring."""
        chosen = self.averaged() if checked_weights(weights) == AVERAGED else nullcontext()
        with kept_random_state(), torch.no_grad(), chosen:
            self.model.eval()
            try:
                with self._compute():
                    yield self.model
            finally:
                self.model.train()

    def keep_averaged(self) -> None:
        """Make the average the weights for good."""
        if self.optimizer.averages:
            self.optimizer.use_averaged_weights()

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self._accelerator is None or self.world_size == 1:
            return flag
        up = self._accelerator.reduce(torch.tensor(float(flag), device=self.device), "sum")
        return bool(cast("Tensor", up) > 0)

    def save(self, folder: CheckpointFolder, progress: Progress) -> None:
        """Write weights, optimizer, generators of all processes and progress as one file.

        Raises:
            ValueError: In the middle of an outer step.
        """
        if self._inner or self._collected:
            raise ValueError("a checkpoint belongs between two outer steps, not inside of one")
        generators = [random_state()]
        if self._accelerator is not None and self.world_size > 1:
            from accelerate.utils import gather_object

            generators = gather_object(generators)
        if self.rank == 0:
            weights = {f"weights/{n}": p for n, p in self._trained.items()}
            state = {f"optimizer/{n}": t for n, t in self.optimizer.tensors().items()}
            values = {
                "optimizer": self.optimizer.values(),
                "precision": asdict(self.precision),
                "random": generators,
                "positions": progress.positions,
                "curves": progress.curves,
            }
            folder.write(progress.step, weights | state, values)
        self._wait()

    @torch.no_grad()
    def resume(self, folder: CheckpointFolder) -> Progress | None:
        """Go on from the newest checkpoint.

        Raises:
            ValueError: A checkpoint of other parameters, another optimizer or precision.
        """
        checkpoint = folder.newest(remove=self.rank == 0)
        self._wait()
        if checkpoint is None:
            return None
        values = checkpoint.values
        weights = checkpoint.under("weights/")
        shapes = {n: (tuple(t.shape), t.dtype) for n, t in weights.items()}
        if shapes != {n: (tuple(p.shape), p.dtype) for n, p in self._trained.items()}:
            raise ValueError(f"the checkpoint in {folder.folder} is of another model or precision")
        self.optimizer.load(checkpoint.under("optimizer/"), values["optimizer"])
        self.restore(WholeWeights(weights))
        generators = values["random"]
        if self.rank < len(generators):
            set_random_state(generators[self.rank])
        else:
            # A process that was not there before: its own stream, the same on every resumption.
            torch.manual_seed(1_000_003 * checkpoint.step + self.rank)
        return Progress(checkpoint.step, values["positions"], values["curves"])

    def save_model(self, folder: Path, weights: str = AVERAGED) -> None:
        """Write the model in Hugging Face layout."""
        with self.averaged() if checked_weights(weights) == AVERAGED else nullcontext():
            if self.rank == 0:
                cast("Any", self.model).save_pretrained(str(folder))
            self._wait()

    def _compute(self) -> AbstractContextManager[Any]:
        dtype = self.precision.compute_dtype
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def _together(self, last: bool) -> AbstractContextManager[Any]:
        """Reduce the gradient over processes once, in the last micro-batch of a batch."""
        if last or self._accelerator is None:
            return nullcontext()
        return cast("AbstractContextManager[Any]", self._accelerator.no_sync(self._call))

    def _wait(self) -> None:
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
