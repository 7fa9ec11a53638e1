"""A step's context without the engine: what a step function sees, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.engine.registry import ModelInput, PinInput, StepInput
from kit.manifest.types import Resources
from kit.mini.injection.paths import ATTACKS_FILE, DATA_DIR, WEIGHTS_DIR, mini_model_dir

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
"""Shape of a stand-in for Llama-3 that a CPU can take; the vocabulary keeps its true size."""


@dataclass
class FakeContext:
    """Pins and steps by name; canaries, progress and metrics are kept."""

    out: Path
    scratch: Path
    pins: Mapping[str, PinInput] = field(default_factory=dict)
    before: Mapping[str, list[StepInput]] = field(default_factory=dict)
    rehearsal: bool = False
    device: str = "cpu"
    resources: Resources = field(default_factory=Resources)
    instance: str = "step"
    axes: dict[str, Any] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    canaries: dict[str, tuple[bool, str]] = field(default_factory=dict)
    cells: dict[str, list[str] | None] = field(default_factory=dict)
    progressed: list[tuple[int, int]] = field(default_factory=list)
    ahead: dict[str, Any] = field(default_factory=dict)

    def pin(self, name: str) -> PinInput:
        return self.pins[name]

    def model(self, name: str) -> ModelInput:
        pin = self.pins[name]
        return ModelInput(pin.id, pin.path, pin.attributes, pinned=True)

    def step(self, name: str) -> StepInput:
        (found,) = self.before[name]
        return found

    def steps(self, name: str) -> list[StepInput]:
        return self.before[name]

    def has(self, name: str) -> bool:
        return name in self.pins or name in self.before

    def made(self, name: str, make: Callable[[], Any]) -> Any:
        return self.ahead.pop(name) if name in self.ahead else make()

    def progress(self, done: int, total: int, unit: str) -> None:
        self.progressed.append((done, total))

    def metric(self, name: str, value: float, step: int) -> None:
        pass

    def canary(self, id: str, passed: bool, detail: str, cells: list[str] | None = None) -> None:
        self.canaries[id] = (passed, detail)
        self.cells[id] = cells

    def note(self, text: str) -> None:
        pass

    def due(self) -> bool:
        return False


class Loose(FakeContext):
    """Whatever a step asks for is there, and what it notes is kept."""

    def __init__(self, folder: Path, *, rehearsal: bool = False, **inputs: Any) -> None:
        super().__init__(folder / "out", folder / "scratch", rehearsal=rehearsal, **inputs)
        self.out.mkdir(exist_ok=True)
        self.notes: list[str] = []
        self.metrics: list[tuple[str, float, int]] = []

    def metric(self, name: str, value: float, step: int) -> None:
        self.metrics.append((name, value, step))

    def model(self, name: str) -> ModelInput:
        return ModelInput(name, self.out, {}, pinned=False)

    def pin(self, name: str) -> PinInput:
        return PinInput(name, self.out, {})

    def step(self, name: str) -> StepInput:
        return self.before[name][0] if name in self.before else StepInput(name, self.out, {}, {})

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def outcomes(self) -> dict[str, bool]:
        return {id: passed for id, (passed, _) in self.canaries.items()}


def giving(value: Any) -> Callable[..., Any]:
    """A function that gives this, whatever it is asked."""
    return lambda *given, **named: value


def nothing_is_loaded(patch: pytest.MonkeyPatch, module: Any, *names: str) -> None:
    """Let a step's inputs be nothing: what it makes of them is planted."""
    for name in names:
        patch.setattr(module, name, giving(SimpleNamespace()))


class Steps:
    """Runs step functions one after another in a folder; an earlier one is an input by its name."""

    def __init__(self, root: Path, pins: Mapping[str, PinInput], *, rehearsal: bool = False):
        self.root, self.pins, self.rehearsal = root, pins, rehearsal
        self.axes = {"pair": {"id": "p", "group": "g", "seed": 1}}
        self.done: dict[str, StepInput] = {}

    def context(self, name: str, **inputs: str | list[str]) -> FakeContext:
        folders = [self.root / kind / name for kind in ("out", "scratch")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        before = {
            key: [self.done[one] for one in ([value] if isinstance(value, str) else value)]
            for key, value in inputs.items()
        }
        return FakeContext(*folders, self.pins, before, self.rehearsal, instance=name)

    def run(
        self,
        name: str,
        function: Callable[[Any, Any], None],
        params: Any,
        **inputs: str | list[str],
    ) -> FakeContext:
        context = self.context(name, **inputs)
        function(context, params)
        self.done[name] = StepInput(name, context.out, self.axes, {})
        return context


def model_pin(path: Path, name: str) -> PinInput:
    """A model in the miniature world's format."""
    return PinInput(f"mini-{name}", path, {"chat_format": "mini", "released_tokens_key": name})


def mini_pins(source: str = "source-5", target: str = "source-6") -> dict[str, PinInput]:
    """Everything that the mini profile pins, as the steps name it."""
    return {
        "source": model_pin(mini_model_dir(source), source),
        "target": model_pin(mini_model_dir(target), target),
        "model": model_pin(mini_model_dir(target), target),
        "released": PinInput("released", WEIGHTS_DIR / "defensivetokens.json", {}),
        "pool": PinInput("pool", DATA_DIR / "alpaca.json", {}),
        "evaluation": PinInput("evaluation", DATA_DIR / "alpaca_farm.json", {}),
        "attacks": PinInput("attacks", ATTACKS_FILE, {"style": "mini"}),
    }


def rehearsal_pins() -> dict[str, PinInput]:
    """The same names with attributes only: a rehearsal reads no file of a pin."""
    nowhere = Path("/nowhere")
    llama = {
        "chat_format": "llama3-defensive-tokens",
        "released_tokens_key": "x",
        "architecture": "llama-3-8b",
    }
    names = ("source", "target", "model", "released", "pool", "evaluation")
    pins = {name: PinInput(name, nowhere / name, dict(llama)) for name in names}
    return pins | {"attacks": PinInput("attacks", nowhere / "attacks", {"style": "paper"})}


def rehearsed_steps(folder: Path, patch: pytest.MonkeyPatch, *models: str) -> Steps:
    """Steps on stand-ins at a small shape.

    Args:
        folder: Where they write.
        patch: Puts the small shape in the place of every published one.
        *models: Further names under which the stand-in model is known.
    """
    from kit.lm import standin

    whole = standin.read_shape("llama-3-8b")
    shape = replace(whole, config={**whole.config, **SMALL})
    patch.setattr(standin, "read_shape", lambda _: shape)
    pins = rehearsal_pins()
    return Steps(folder, pins | dict.fromkeys(models, pins["model"]), rehearsal=True)
