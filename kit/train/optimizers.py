"""Optimizers by name, with every setting that moves a number written down.

A specification is plain data: it comes out of a manifest and goes into a record. What is made from
it keeps its state under the names of the parameters, as tensors and JSON values, so that a
checkpoint needs no pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from kit.train.routing import HIDDEN_LAYERS, Census, route

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

ALL = "all"
MATRICES = "matrices"


@dataclass(frozen=True)
class OptimizerSpec:
    """What all optimizers have.

    Attributes:
        learning_rate: Peak rate; a schedule scales it step by step.
        weight_decay: Decoupled for AdamW, Muon and schedule-free AdamW; added to the gradient for
            SGD and Adadelta. No default, because libraries differ: torch's AdamW decays by 0.01,
            DeepSpeed's by 0.
        decay: What is decayed: ``all`` parameters as torch does, or ``matrices``, which leaves
            biases and norms out as the Trainer of transformers does.
    """

    name: ClassVar[str]

    learning_rate: float
    weight_decay: float
    decay: str = ALL

    def __post_init__(self) -> None:
        """Refuse what no optimizer can use."""
        if not self.learning_rate >= 0:
            raise ValueError(f"{self.name}: a learning rate of {self.learning_rate} is below 0")
        if self.decay not in (ALL, MATRICES):
            raise ValueError(f"{self.name}: decay is {ALL!r} or {MATRICES!r}, not {self.decay!r}")


@dataclass(frozen=True)
class AdamW(OptimizerSpec):
    """torch.optim.AdamW; the defaults are torch's."""

    name: ClassVar[str] = "adamw"

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class SGD(OptimizerSpec):
    """torch.optim.SGD; with momentum it is Nesterov's unless that is switched off."""

    name: ClassVar[str] = "sgd"

    momentum: float = 0.9
    nesterov: bool = True


@dataclass(frozen=True)
class Adadelta(OptimizerSpec):
    """torch.optim.Adadelta; the defaults are torch's."""

    name: ClassVar[str] = "adadelta"

    rho: float = 0.9
    eps: float = 1e-6


@dataclass(frozen=True)
class ScheduleFreeAdamW(OptimizerSpec):
    """AdamWScheduleFree of the package ``schedulefree``; its own warm-up, no schedule.

    Attributes:
        warmup_steps: Optimizer steps of linear rise, counted by the package.
    """

    name: ClassVar[str] = "schedule-free-adamw"

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_steps: int = 0


@dataclass(frozen=True)
class Muon(OptimizerSpec):
    """torch.optim.Muon for the weights that ``routing`` names, AdamW for all others.

    Defaults as in the runs of the checkpoint-transfer log (reference page 1.11): both at the same
    rate and decay, Muon's update scaled to the size of AdamW's.

    Attributes:
        momentum: Muon's, Nesterov.
        newton_schulz_steps: Iterations of the orthogonalisation.
        adjust: Scaling of the rate by shape: ``match_rms_adamw`` or ``original``.
        betas: AdamW's.
        eps: AdamW's.
        routing: A rule of :mod:`kit.train.routing`.
    """

    name: ClassVar[str] = "muon"

    momentum: float = 0.95
    newton_schulz_steps: int = 5
    adjust: str = "match_rms_adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    routing: str = HIDDEN_LAYERS


SPECS: dict[str, type[OptimizerSpec]] = {
    spec.name: spec for spec in (AdamW, SGD, Adadelta, ScheduleFreeAdamW, Muon)
}
# What an optimizer changes in its parameter groups while it runs; the rest comes from the spec.
_CHANGING = ("lr", "k", "weight_sum", "lr_max", "scheduled_lr", "train_mode")


def optimizer_spec(name: str, settings: Mapping[str, Any]) -> OptimizerSpec:
    """A specification from a name and settings as a manifest has them.

    Raises:
        ValueError: Unknown optimizer, a setting that it does not have, or one that is missing.
    """
    if name not in SPECS:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(SPECS)}")
    known = {field.name for field in fields(SPECS[name])}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"optimizer {name} has no setting {', '.join(unknown)}; it has "
            + ", ".join(sorted(known))
        )
    missing = sorted({"learning_rate", "weight_decay"} - set(settings))
    if missing:
        raise ValueError(f"optimizer {name} needs {' and '.join(missing)}")
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()
    }
    return SPECS[name](**values)


class Optimizer:
    """Torch optimizers over named parameters that step together.

    Attributes:
        spec: What it was made from.
        census: Which parameters went to which torch optimizer.
        parts: The torch optimizers by name: one, or ``muon`` and ``adamw``.
    """

    def __init__(
        self,
        spec: OptimizerSpec,
        parameters: Mapping[str, Parameter],
        parts: Mapping[str, torch.optim.Optimizer],
        census: Census,
    ) -> None:
        """Keep the parts; a schedule-free part starts in training mode."""
        self.spec = spec
        self.parts = dict(parts)
        self.census = census
        self._parameters = dict(parameters)
        self.use_training_weights()

    @property
    def averages(self) -> bool:
        """Whether the weights to use (x) differ from those that are trained (y)."""
        return isinstance(self.spec, ScheduleFreeAdamW)

    @property
    def learning_rate(self) -> float:
        """Rate of the next step, before a package's own warm-up."""
        return float(next(iter(self.parts.values())).param_groups[0]["lr"])

    def set_learning_rate(self, rate: float) -> None:
        """Use this rate from the next step on, in every part and group."""
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        """Update the parameters that have a gradient."""
        for part in self.parts.values():
            part.step()

    def use_training_weights(self) -> None:
        """Put y into the parameters, if the optimizer keeps an average."""
        for part in self.parts.values():
            if self.averages:
                part.train()  # type: ignore[attr-defined]

    def use_averaged_weights(self) -> None:
        """Put the average x into the parameters, if the optimizer keeps one.

        Going back to y by :meth:`use_training_weights` is exact to rounding only; who wants the
        same bits keeps a copy (``SingleProcess.averaged`` does).
        """
        for part in self.parts.values():
            if self.averages:
                part.eval()  # type: ignore[attr-defined]

    def mark_training(self) -> None:
        """Say that the caller has put y back."""
        for part in self.parts.values():
            for group in part.param_groups:
                if "train_mode" in group:
                    group["train_mode"] = True

    def tensors(self) -> dict[str, Tensor]:
        """State tensors as ``part/parameter/key``; the tensors themselves, not copies."""
        named: dict[str, Tensor] = {}
        for part_name, part in self.parts.items():
            for name in self.census.names(part_name):
                for key, value in part.state.get(self._parameters[name], {}).items():
                    if isinstance(value, torch.Tensor):
                        named[f"{part_name}/{name}/{key}"] = value
        return named

    def values(self) -> dict[str, Any]:
        """What changes besides tensors, as JSON values."""
        return {
            name: [{k: group[k] for k in _CHANGING if k in group} for group in part.param_groups]
            for name, part in self.parts.items()
        }

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from :meth:`tensors` and :meth:`values`.

        Raises:
            ValueError: State of another optimizer or of other parameters.
        """
        if set(values) != set(self.parts):
            raise ValueError(
                f"state of {', '.join(sorted(values))} does not fit {', '.join(sorted(self.parts))}"
            )
        for part in self.parts.values():
            part.state.clear()
        for path, tensor in tensors.items():
            part_name, name, key = path.split("/")
            if part_name not in self.parts or name not in self.census.names(part_name):
                raise ValueError(f"state of {path} belongs to no parameter of this optimizer")
            parameter = self._parameters[name]
            if tensor.ndim and tensor.shape != parameter.shape:
                raise ValueError(
                    f"state {path} has shape {tuple(tensor.shape)}, the parameter "
                    f"{tuple(parameter.shape)}"
                )
            # Step counters stay in the machine's memory, as torch keeps them unless it is fused.
            fused = self.parts[part_name].defaults.get("fused")
            device = parameter.device if tensor.ndim or fused else "cpu"
            self.parts[part_name].state[parameter][key] = tensor.to(device, copy=True)
        for part_name, part in self.parts.items():
            for group, saved in zip(part.param_groups, values[part_name], strict=True):
                group.update(saved)


def make_optimizer(
    spec: OptimizerSpec,
    named_parameters: Iterable[tuple[str, Parameter]],
    *,
    fused: bool = False,
) -> Optimizer:
    """A fresh optimizer over the parameters that require a gradient.

    Args:
        spec: Which.
        named_parameters: Names and parameters.
        fused: AdamW updates in one kernel instead of several, schedule-free parameter by parameter,
            without copies of the state in between: the same to rounding.

    Raises:
        ValueError: Nothing to train, or a routing that leaves Muon without a weight.
    """
    parameters = {name: p for name, p in named_parameters if p.requires_grad}
    if not parameters:
        raise ValueError("no parameter requires a gradient: there is nothing to train")
    routing = spec.routing if isinstance(spec, Muon) else None
    census = route(parameters, spec.name, routing)
    parts = {
        part: _part(
            spec, part, _groups(spec, {n: parameters[n] for n in census.names(part)}), fused
        )
        for part in census.parts
    }
    return Optimizer(spec, parameters, parts, census)


def _groups(spec: OptimizerSpec, parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    decayed = [p for p in parameters.values() if spec.decay == ALL or p.ndim >= 2]
    others = [p for p in parameters.values() if spec.decay == MATRICES and p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _part(
    spec: OptimizerSpec, part: str, groups: list[dict[str, Any]], fused: bool
) -> torch.optim.Optimizer:
    rate = spec.learning_rate
    match spec:
        case Muon() if part == "muon":
            return torch.optim.Muon(
                groups,
                lr=rate,
                weight_decay=spec.weight_decay,
                momentum=spec.momentum,
                nesterov=True,
                ns_steps=spec.newton_schulz_steps,
                adjust_lr_fn=spec.adjust,
            )
        case AdamW() | Muon():
            return torch.optim.AdamW(
                groups, lr=rate, betas=spec.betas, eps=spec.eps, fused=fused or None
            )
        case SGD():
            nesterov = spec.nesterov and spec.momentum > 0
            return torch.optim.SGD(groups, lr=rate, momentum=spec.momentum, nesterov=nesterov)
        case Adadelta():
            return torch.optim.Adadelta(groups, lr=rate, rho=spec.rho, eps=spec.eps)
        case ScheduleFreeAdamW():
            from schedulefree import AdamWScheduleFree

            made: torch.optim.Optimizer = AdamWScheduleFree(
                groups,
                lr=rate,
                betas=spec.betas,
                eps=spec.eps,
                warmup_steps=spec.warmup_steps,
                # One parameter after the other, without denominators for all of them at once.
                foreach=not fused,
            )
            return made
    raise ValueError(f"no optimizer is made from {type(spec).__name__}")
