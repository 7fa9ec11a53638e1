"""From what a manifest writes to a kind's typed parameters."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kit.engine.registry import StepKind, draws_fault, params_of, size_fault
from kit.errors import InvalidInput, UsageError
from kit.manifest.matrix import BadReference, axis_id, combinations, resolve
from kit.manifest.source import Hit, PathTuple, nearest
from kit.manifest.types import Profile, StepSpec, values_of


@dataclass(frozen=True)
class Override:
    """One ``--set step.param=value``."""

    step: str
    param: str
    text: str

    def candidates(self) -> list[Any]:
        """Readings of the text, best first: as JSON, then as plain text.

        The parameter's type decides between them, so that ``--set train.name=7`` fills a text
        parameter with "7" and ``--set train.steps=7`` a number.
        """
        try:
            return [json.loads(self.text), self.text]
        except (ValueError, RecursionError):  # also of 5,000 digits or brackets
            return [self.text]


def parse_override(text: str, steps: Sequence[str]) -> Override:
    """Read ``step.param=value``; step ids may themselves contain dots.

    Raises:
        UsageError: Not of that form, or no such step.
    """
    target, equals, value = text.partition("=")
    if not equals or "." not in target:
        raise UsageError(
            f"--set {text!r} is not of the form step.param=value",
            next_step="for example --set train.learning_rate=0.1",
        )
    matching = [step for step in steps if target.startswith(step + ".")]
    if not matching:
        raise UsageError(
            f"--set {text!r} names no step of this experiment",
            next_step=f"steps: {', '.join(steps)}",
        )
    step = max(matching, key=len)
    return Override(step=step, param=target[len(step) + 1 :], text=value)


def typed(
    kind: StepKind, values: Mapping[str, Any], overrides: Sequence[Override], *, step: str
) -> msgspec.Struct:
    """The kind's parameter struct; what a manifest says has passed :func:`parameter_faults`.

    Args:
        kind: The step kind.
        values: Parameter -> value from the manifest, references replaced.
        overrides: Those for this step; they win.
        step: Step id, for messages.

    Raises:
        InvalidInput: Parameters that the kind refuses together.
        UsageError: An unknown or ill-typed parameter in an override.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind.params)}
    chosen = dict(values)
    for override in overrides:
        if override.param not in fields:
            raise UsageError(
                f"step kind {kind.name!r} has no parameter {override.param!r}",
                where=f"{step}.{override.param}",
                next_step=nearest(override.param, fields)
                or f"parameters: {', '.join(fields) or 'none'}",
            )
        chosen[override.param] = _fitting(
            fields[override.param].type, override, step, values.get(override.param)
        )
    try:
        return params_of(kind, chosen)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        raise InvalidInput(
            message,
            where=f"{step}.{name}" if name else step,
            why=f"kind {kind.name!r} declares the type of every parameter",
            next_step="correct the value in the manifest or in --set",
            path=(name.partition("[")[0],) if name else (),
        ) from None


def _fitting(kind_type: Any, override: Override, step: str, now: Any) -> Any:
    """The first reading of an override that the parameter's type accepts.

    Raises:
        UsageError: None fits; the manifest's own value shows how one is written.
    """
    first: msgspec.ValidationError | None = None
    for candidate in override.candidates():
        try:
            msgspec.convert(candidate, kind_type)
        except msgspec.ValidationError as error:
            first = first or error
        else:
            fault = size_fault(override.param, candidate)
            if not fault:
                return candidate
            first = first or msgspec.ValidationError(fault)
    raise UsageError(
        f"--set {override.step}.{override.param}={override.text}: {first}",
        where=f"{step}.{override.param}",
        next_step=""
        if now is None
        else "as the manifest has it: --set "
        + shlex.quote(f"{override.step}.{override.param}={_typed(now)}"),
    )


def _typed(value: Any) -> str:
    """A value as :meth:`Override.candidates` reads it back."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def parameter_faults(
    name_of_profile: str, profile: Profile, step: StepSpec, kind: StepKind
) -> Iterator[Hit]:
    """What is wrong with the parameters that a profile gives a step.

    Every parameter is the kind's, none is missing, each has its type for every combination of the
    axes that it refers to, and functions that it names are there.
    """
    path: PathTuple = ("profiles", name_of_profile, "set", step.id)
    written = values_of(profile, step.id)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind.params)}
    missing = [name for name, field in fields.items() if field.required and name not in written]
    for name in missing:
        yield Hit(path, f"step {step.id!r} needs the parameter {name!r} of {kind.name}")
    wrong = False
    for name, value in written.items():
        if name not in fields:
            wrong = True
            yield Hit(
                (*path, name),
                f"{kind.name} has no parameter {name!r}",
                nearest(name, fields) or f"parameters: {', '.join(fields) or 'none'}",
                key=True,
            )
        elif problem := _problem(profile, step, value, fields[name].type, name):
            wrong = True
            yield Hit((*path, name), f"{name}: {problem}")
    if not wrong and not missing:
        problem = _problem(profile, step, written, kind.params)
        if problem:
            yield Hit(path, f"parameters of {step.id!r}: {problem}")
        else:
            yield from _function_faults(path, profile, step, kind)


def _problem(profile: Profile, step: StepSpec, value: Any, wanted: Any, name: str = "") -> str:
    """Why a value (or a dict of values) does not convert, for the first combination where so."""
    text = msgspec.json.encode(value).decode()
    used = [axis for axis in step.each if f"${{{axis}" in text]
    first = {axis: profile.matrix[axis][0] for axis in step.each if profile.matrix.get(axis)}
    for chosen in combinations(profile, used):
        point = first | chosen  # a message about an axis names all those of the step
        try:
            plain = resolve(value, point, profile.pins)
            made = msgspec.convert(plain, wanted, strict=True)
            whole = {} if name else msgspec.to_builtins(made)
            if fault := size_fault(name, plain) or draws_fault(whole):
                raise ValueError(fault)
        except BadReference as error:
            return error.what
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            at = ", ".join(f"{axis}={axis_id(v)}" for axis, v in chosen.items())
            return f"{error} ({at})" if at else str(error)
    return ""


def _function_faults(
    path: PathTuple, profile: Profile, step: StepSpec, kind: StepKind
) -> Iterator[Hit]:
    """Functions ``module:function`` that parameters name and that are not there."""
    written = values_of(profile, step.id)
    named: set[str] = set()
    for point in combinations(profile, step.each):
        params = msgspec.convert(resolve(dict(written), point, profile.pins), kind.params)
        named.update(name for name in kind.science(params) if ":" in name)
    if not named:
        return
    from kit.engine.code import absent

    for entry, fault, remedy in absent(sorted(named)):
        yield Hit((*path, *next(_places(entry, written), ())), fault, remedy)


def _places(entry: str, written: Mapping[str, Any]) -> Iterator[PathTuple]:
    """Where a text stands: the parameter, or the item of a list in it."""
    for name, value in written.items():
        for index, item in enumerate(value) if isinstance(value, list) else ():
            if entry in str(item):
                yield (name, index)
        if entry in str(value):
            yield (name,)
