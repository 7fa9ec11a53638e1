"""Step kinds: what a manifest's ``kind`` names.

A kind is declared in ``kit/steps`` and stays light to import: its parameters are a msgspec Struct,
its function imports torch inside. ``version`` is bumped by hand when the outputs change; the source
is no part of the key, and :mod:`kit.engine.code` says when it has changed all the same.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import Struct

from kit.errors import InvalidInput, KitError
from kit.manifest.home import MODULES_VARIABLE, step_modules
from kit.manifest.matrix import LARGEST_SEED
from kit.manifest.pin_types import AttributeValue
from kit.manifest.types import Resources

if TYPE_CHECKING:
    from kit.engine.context import StepContext

OWN = 'kinds of your own: [tool.kit] steps = ["your.module"] in the pyproject.toml of your folder'
"""What to write for kinds that are not the kit's."""


LARGEST_COUNT = 10_000_000
"""Of any parameter that counts something, and of the examples that a training draws; 10**15 steps
would fill the memory with their schedule before a kind could say that it is too many."""


class NoParams(Struct, frozen=True, forbid_unknown_fields=True):
    """For kinds without parameters."""


Attributes = dict[str, AttributeValue]
"""Facts that a model or a data set declares: chat format, architecture and so on."""


@dataclass(frozen=True)
class PinInput:
    """A pinned input, present on disk and checked.

    Attributes:
        id: Pin id.
        path: Local folder (models, data sets, packages) or file.
        attributes: The pin's declared facts (chat format and so on).
    """

    id: str
    path: Path
    attributes: Attributes


@dataclass(frozen=True)
class ModelInput:
    """A model: pinned, or made by an earlier step.

    Attributes:
        id: Pin id, or instance id of the step; for messages, not in the key.
        path: Folder in Hugging Face layout: ``config.json``, safetensors, tokenizer (read only).
        attributes: What the pin declared, also through any number of trainings.
        pinned: Whether it is a pin; in a rehearsal only a pin has to be replaced by a stand-in.
    """

    id: str
    path: Path
    attributes: Attributes
    pinned: bool


@dataclass(frozen=True)
class StepInput:
    """A finished step's outputs.

    Attributes:
        instance: Its instance id, for messages.
        path: Folder with the output files (read only).
        axes: Axis name -> value (a record for record axes) of the instance.
        params: Its resolved parameters.
    """

    instance: str
    path: Path
    axes: Mapping[str, Any]
    params: dict[str, Any]


@dataclass(frozen=True)
class Remedy:
    """A parameter that a user can change when a step fails for a known reason.

    Attributes:
        param: Field of the kind's parameters.
        value: Parameters of the failed step -> value to try; ``None`` when this cure is used up or
            does nothing for them.
        effect: What it costs, and whether it can move a number.
    """

    param: str
    value: Callable[[Any], bool | int | float | str | None]
    effect: str


@dataclass(frozen=True)
class Cards:
    """GPUs that a step shall do with.

    Attributes:
        gpus: How many.
        gpu_gb: Memory of each.
        memory_gb: The machine's.
        kept: Parameters that the user chose, which stay.
    """

    gpus: int
    gpu_gb: float
    memory_gb: float
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sized:
    """How a step does with them.

    Attributes:
        params: What changes; none of it is published, all of it moves numbers by rounding only.
        gpu_memory_gb: A GPU.
        memory_gb: Of the machine.
        minutes: Of the step; ``None`` where the declared ones stay.
        words: For people.
    """

    params: Mapping[str, Any]
    gpu_memory_gb: float
    memory_gb: float
    minutes: float | None
    words: str


@dataclass(frozen=True)
class ModelOutput:
    """That a kind writes a model, and what is known of it.

    Attributes:
        folder: The output that is the model, in Hugging Face layout; one of the kind's outputs.
        inherits: The input of sort ``model`` whose attributes it keeps; ``""`` for none.
        attributes: Attributes that the parameters decide; they are added to the inherited ones.
    """

    folder: str = "model"
    inherits: str = ""
    attributes: Callable[[Any], Attributes] = lambda params: {}


Sort = Literal["pin", "step", "steps", "model"]


@dataclass(frozen=True)
class StepKind:
    """A registered kind.

    Attributes:
        name: ``family/name`` as manifests write it.
        version: Bumped when outputs change for equal inputs.
        params: Frozen msgspec Struct; a field without default is required.
        run: ``run(context, params)``; writes ``outputs`` into ``context.out``.
        inputs: Input name -> ``pin``, ``step`` (exactly one instance), ``steps`` (a list) or
            ``model`` (a pin, or what a step with ``model`` made; the manifest decides).
        optional: Names of inputs a manifest may leave out.
        needs: Input -> attributes that its pin must declare, for inputs ``pin`` and ``model``.
        outputs: Files and folders that the step promises; every file it writes is hashed into the
            record.
        canaries: Ids of the canaries that it always leaves; a table without them is not whole.
        model: That one of the outputs is a model, which other steps can read as such.
        launch: ``torchrun`` if the function can be shared by several processes, one a GPU: it is
            then started by torchrun where the step has more than one (:class:`Resources`), and in
            a single process without torchrun where it has not. ``worker``: always one process.
            With parameters called ``global_batch``, ``micro_batch`` and ``accumulation`` the
            planner solves the split for the GPUs (:mod:`kit.engine.batch`); name ``world`` in
            ``environment`` then.
        resources: Estimate from parameters and whether the profile needs a GPU.
        environment: Which fields of the environment class enter the key.
        sized: (parameters, attributes of input models, GPUs) -> how the step does with them, for
            kinds that shard their work over as many as there are; ``None`` where it does not. A
            ValueError says in a sentence why it cannot.
        shortened: (parameters, share) -> parameters of a rehearsal of that share.
        unread: Input names that the function leaves alone at these parameters; they are neither
            waited for nor part of the key.
        reads_axes: The function looks at ``context.axes`` or at the ``axes`` of a single upstream
            step. They then enter the key; without this they cannot be read, because a value that
            decides outputs and is not in the key would let one instance take another's outputs.
            The axes of a list (kind input ``steps``) are always in the key and always readable.
        intermediate: Its outputs are large and read by steps of the same experiment alone: they
            are dropped once these are done, and made again if one has to be.
        save_minutes: A long step saves its state at least this often (:meth:`StepContext.due`).
        stop_seconds: A stopped step has so long to save its state before it is killed.
        repeatable: When a process of it is killed from outside, the step is tried once more, and
            that is said, before the run fails (on several nodes, the run fails at once). False
            where the function acts on more than its folders.
        lowers_memory: What a user can change when the step runs out of memory, best first. The
            engine cannot know it; a kind without any says that only a larger machine helps.
        steadies: What a user can change when its training diverges.
        science: Modules (``a.b``) and functions (``a.b:c``) that the function reaches by no import
            in its source but by a name in a list, or in its parameters: they must be there, and
            belong to its code as well (:mod:`kit.engine.code`).
        imports: Modules that the function imports and that take seconds; the process of a GPU step
            may import them before the step's inputs are there (:mod:`kit.engine.early`). None of
            them may touch a GPU.
        ahead: ``ahead(context, params)`` -> name -> thing: what the function needs of no other step
            and takes seconds to make on the GPU. The function asks for it by ``context.made``,
            which makes it where it is not there. It reads pins and models alone, leaves no
            canary and writes nothing but scratch, which goes with the process.
    """

    name: str
    version: int
    params: type[Struct]
    run: Callable[[StepContext, Any], None]
    inputs: dict[str, Sort]
    outputs: tuple[str, ...]
    launch: Literal["worker", "torchrun"] = "worker"
    resources: Callable[[Any, bool], Resources] = lambda params, gpu: Resources()
    environment: tuple[str, ...] = ("device", "dtype", "torch", "transformers")
    optional: frozenset[str] = frozenset()
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    canaries: tuple[str, ...] = ()
    sized: Callable[[Any, Mapping[str, Attributes], Cards], Sized | None] | None = None
    shortened: Callable[[Any, float], Struct] | None = None
    unread: Callable[[Any], frozenset[str]] = lambda params: frozenset()
    reads_axes: bool = False
    intermediate: bool = False
    save_minutes: float = 10.0
    stop_seconds: float = 15.0
    repeatable: bool = True
    lowers_memory: tuple[Remedy, ...] = ()
    steadies: tuple[Remedy, ...] = ()
    science: Callable[[Any], tuple[str, ...]] = lambda params: ()
    imports: Callable[[Any], tuple[str, ...]] = lambda params: ()
    ahead: Callable[[StepContext, Any], dict[str, Any]] | None = None
    doc: str = field(default="")
    model: ModelOutput | None = None

    def __post_init__(self) -> None:
        other = [name for name in self.needs if self.inputs.get(name) not in ("pin", "model")]
        if other:
            raise ValueError(f"{self.name}: {other[0]!r} of 'needs' is no pin and no model")
        if self.model is None:
            return
        if self.model.folder not in self.outputs:
            raise ValueError(f"{self.name}: its model {self.model.folder!r} is none of its outputs")
        if self.model.inherits and self.inputs.get(self.model.inherits) != "model":
            raise ValueError(f"{self.name}: {self.model.inherits!r} is no input of sort 'model'")


def size_fault(name: str, value: Any) -> str:
    """Why the numbers of a parameter are refused before any memory is asked for; empty if not.

    Args:
        name: Of the parameter; seeds may be as large as libraries take them.
        value: Plain: scalars, lists and dicts of them.
    """
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    largest = LARGEST_SEED if "seed" in name else LARGEST_COUNT
    if isinstance(value, int) and abs(value) > largest:
        return f"{name} is {value:,}; the limit is {largest:,}"
    return next(filter(None, (size_fault(name, item) for item in inner)), "")


def draws_fault(values: Mapping[str, Any]) -> str:
    """Why a training would draw too many examples, each number being small enough by itself.

    A schedule holds every draw: steps (or epochs) times what each of them takes.

    Args:
        values: All parameters of a step, plain.
    """

    def largest(*words: str) -> tuple[int, str]:
        named = ((v, name) for name, v in values.items() if name.rpartition("_")[2] in words)
        return max(((v, name) for v, name in named if isinstance(v, int)), default=(1, ""))

    (times, repeated), (each, taken) = largest("steps", "epochs"), largest("batch", "examples")
    if times * each <= LARGEST_COUNT:
        return ""
    return f"{repeated} times {taken} is {times * each:,}; the limit is {LARGEST_COUNT:,}"


def params_of(kind: StepKind, values: Mapping[str, Any]) -> Struct:
    """Values as the kind's parameters.

    Raises:
        msgspec.ValidationError: Of another type, missing, or out of all proportion.
    """
    made = msgspec.convert(values, kind.params)
    plain = msgspec.to_builtins(made)
    for name, value in plain.items():
        if fault := size_fault(name, value):
            raise msgspec.ValidationError(f"{fault} - at `$.{name}`")
    if fault := draws_fault(plain):
        raise msgspec.ValidationError(f"{fault} - at `$.{fault.partition(' ')[0]}`")
    return made


Run = TypeVar("Run", bound="Callable[[StepContext, Any], None]")


class Registry:
    """Name -> kind. One module-level instance, filled by importing :mod:`kit.steps`."""

    def __init__(self) -> None:
        self._kinds: dict[str, StepKind] = {}

    def add(self, kind: StepKind) -> StepKind:
        """Register a kind; a second registration of a name is a programming error."""
        if kind.name in self._kinds:
            raise ValueError(f"step kind {kind.name!r} is registered twice")
        self._kinds[kind.name] = kind
        return kind

    def kind(self, name: str, **declared: Any) -> Callable[[Run], Run]:
        """Register the function below it as a kind.

        Its parameters are of the type that its argument ``params`` is annotated with; the first
        line of its docstring is the kind's ``doc``.

        Args:
            name: ``family/name``.
            declared: The other fields of :class:`StepKind`.
        """

        def register(run: Run) -> Run:
            params = get_type_hints(run)["params"]
            doc = (run.__doc__ or "").partition("\n")[0].rstrip(".")
            self.add(StepKind(name=name, params=params, run=run, doc=doc, **declared))
            return run

        return register

    def get(self, name: str, *, where: str = "") -> StepKind:
        """The kind of this name.

        Raises:
            InvalidInput: Unknown name; the message lists what is registered.
        """
        try:
            return self._kinds[name]
        except KeyError:
            raise InvalidInput(
                f"unknown step kind {name!r}",
                where=where,
                next_step=f"known kinds: {', '.join(sorted(self._kinds))}; {OWN}",
            ) from None

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._kinds)


REGISTRY = Registry()


def load_registry() -> Registry:
    """Import the modules that register kinds; returns the registry they filled.

    Raises:
        InvalidInput: A module of the user's cannot be imported.
    """
    for named in map(str.strip, os.environ.get(MODULES_VARIABLE, "kit.steps").split(",")):
        if os.sep in named:
            file = Path(named, "pyproject.toml")
            if named not in sys.path:
                sys.path.append(named)  # last: a random.py there is nobody's library
            for module in step_modules(file) or ():
                _import(module, str(file))
        elif named:
            _import(named, MODULES_VARIABLE)
    return REGISTRY


def _import(name: str, said_in: str) -> None:
    """Import a module that registers kinds."""
    try:
        importlib.import_module(name)
    except KitError:
        raise
    except Exception as error:
        if name.partition(".")[0] == "kit":
            raise
        raise InvalidInput(
            f"the step module {name!r} cannot be imported: {type(error).__name__}: {error}",
            where=_origin(error) or said_in,
            next_step="mend the module, or its name; Python looks in the folder of that "
            "pyproject.toml, in what is installed and in PYTHONPATH",
        ) from error


def _origin(error: Exception) -> str:
    """``file:line`` of the user's code that an import failed in; empty if no file was reached."""
    importers = (__file__, importlib.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<") and frame.filename not in importers:
            return f"{frame.filename}:{frame.lineno}"
    return ""
