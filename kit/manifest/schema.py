"""JSON Schema 2020-12, generated from the types; ``kit docs`` writes it, a test fails on drift."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import json
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec

from kit.manifest.expectation_types import ExpectationFile
from kit.manifest.pin_types import Pins, Register
from kit.manifest.types import Identifier, Manifest

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES: dict[str, type[msgspec.Struct]] = {
    "manifest": Manifest,
    "pins": Pins,
    "expectation": ExpectationFile,
    "register": Register,
}


@functools.cache
def schema_for(name: str) -> dict[str, Any]:
    """The schema of a name of :data:`TYPES`, without field descriptions."""
    (reference,), definitions = msgspec.json.schema_components(
        [TYPES[name]], ref_template="#/$defs/{name}"
    )
    if name == "manifest":
        # msgspec checks the keys of this map but leaves them out of the schema it generates.
        definitions["Manifest"]["properties"]["profiles"]["propertyNames"] = {
            "type": "string",
            "pattern": get_args(Identifier)[1].pattern,
        }
    return {"$schema": DRAFT, "title": f"kit {name}", **reference, "$defs": definitions}


def described_schema(name: str) -> dict[str, Any]:
    """The schema with each field's docstring as its description, as committed."""
    schema: dict[str, Any] = json.loads(json.dumps(schema_for(name)))
    structs = _structs(TYPES[name])
    for title, definition in schema["$defs"].items():
        docs = field_docstrings(structs[title])
        for field, spec in definition.get("properties", {}).items():
            if field in docs:
                spec["description"] = docs[field]
    return schema


def field_docstrings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Field name -> the docstring that stands under it in the source, inherited fields too."""
    base = struct.__base__
    docs = field_docstrings(base) if base not in (None, msgspec.Struct) else {}
    tree = ast.parse(inspect.getsource(struct))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[statement.target.id] = " ".join(following.value.value.split())
    return docs


def _structs(root: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Name -> class of every Struct that the module of ``root`` can see."""
    names = vars(sys.modules[root.__module__]).values()
    return {
        item.__name__: item
        for item in names
        if isinstance(item, type) and issubclass(item, msgspec.Struct)
    }


def schema_files(root: Path) -> dict[Path, str]:
    """Path -> text of every generated schema file under a repository root."""
    return {
        root / "manifests" / "schema" / f"{name}.json": json.dumps(
            described_schema(name), indent=2, ensure_ascii=False
        )
        + "\n"
        for name in TYPES
    }
