"""``kit kinds``: step kinds, with what they take and leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import click
import msgspec

from kit.cli.state import JSON, print_json

if TYPE_CHECKING:
    from kit.engine.registry import StepKind


@click.command("kinds")
@click.argument("name", required=False)
@JSON
def command(name: str | None, as_json: bool) -> None:
    """List the step kinds; of NAME its parameters, inputs, outputs and what it needs of a pin.

    Kinds of your own are known inside of the folder whose pyproject.toml names their modules.
    """
    from kit.engine.registry import load_registry
    from kit.manifest.home import open_folder

    open_folder(Path.cwd())
    registry = load_registry()
    kinds = [registry.get(kind_name) for kind_name in ([name] if name else registry.names())]
    if as_json:
        print_json([_plain(kind) for kind in kinds])
    elif name:
        click.echo("\n".join(_lines(kinds[0])))
    else:
        widest = max(len(kind.name) for kind in kinds)
        for kind in kinds:
            click.echo(f"{kind.name.ljust(widest)}  {kind.version}  {kind.doc}")


def _plain(kind: StepKind) -> dict[str, Any]:
    """Everything that is declared of a kind."""
    from kit.manifest.schema import field_docstrings

    docs = field_docstrings(kind.params)
    return {
        "name": kind.name,
        "version": kind.version,
        "doc": kind.doc,
        "parameters": {
            field.encode_name: {
                "type": _type(field.type),
                "required": field.required,
                "default": None if field.required else _default(field),
                "doc": docs.get(field.name, ""),
            }
            for field in msgspec.structs.fields(kind.params)
        },
        "inputs": {
            name: {
                "sort": sort,
                "optional": name in kind.optional,
                "needs": list(kind.needs.get(name, ())),
            }
            for name, sort in kind.inputs.items()
        },
        "outputs": list(kind.outputs),
        "model": kind.model.folder if kind.model is not None else None,
        "canaries": list(kind.canaries),
    }


def _lines(kind: StepKind) -> Iterator[str]:
    made = _plain(kind)
    yield f"{kind.name}, version {kind.version}: {kind.doc}"
    yield "parameters" + "" if made["parameters"] else "parameters: none"
    for name, about in made["parameters"].items():
        default = (
            "" if about["required"] else f" = {msgspec.json.encode(about['default']).decode()}"
        )
        doc = f"  {about['doc']}" if about["doc"] else ""
        yield f"  {name}: {about['type']}{default}{doc}"
    yield "inputs" if made["inputs"] else "inputs: none"
    for name, about in made["inputs"].items():
        optional = ", optional" if about["optional"] else ""
        needs = f"; needs of a pin: {', '.join(about['needs'])}" if about["needs"] else ""
        yield f"  {name}: {about['sort']}{optional}{needs}"
    yield f"outputs: {', '.join(made['outputs'])}"
    if made["model"]:
        yield f"model: the output {made['model']} can be read by others as a model"
    if made["canaries"]:
        yield f"canaries: {', '.join(made['canaries'])}"


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return msgspec.to_builtins(made)


def _type(annotation: Any) -> str:
    """A type in a reader's terms: ``int >= 1``, ``a | b``, ``list[int]``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        meta = arguments[1]
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        limits = [
            f"{sign} {getattr(meta, name)}"
            for name, sign in signs.items()
            if getattr(meta, name, None) is not None
        ]
        return " ".join([_type(arguments[0]), ", ".join(limits)]).strip()
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if annotation is type(None):
        return "nothing"
    if origin is None:
        return str(getattr(annotation, "__name__", annotation))
    inner = [_type(argument) for argument in arguments]
    if isinstance(origin, type) and origin is not UnionType:
        return f"{origin.__name__}[{', '.join(inner)}]"
    return " | ".join(inner)
