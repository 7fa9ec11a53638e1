"""The JSON Schema's violations as sentences, each at the place a human has to edit.

jsonschema finds everything that is wrong and says it obscurely ("is not valid under any of the
given schemas"); this module keeps the finding and replaces the words. It is imported only when the
types refuse a document, because jsonschema takes 0.3 s.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, get_args

from jsonschema import Draft202012Validator, validators

from kit.manifest.pin_types import RelativePath
from kit.manifest.schema import schema_for
from kit.manifest.source import Node, Problems, Source, nearest
from kit.manifest.yaml_nodes import unquoted_revision

Violation = Any
"""``jsonschema.exceptions.ValidationError``, not imported here and loosely typed there."""

_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map",
    "null": "nothing",
}
_END = r"$(?!\n)"
_MOVED = {
    "reference": "reference values are read from the record of the runs: remove this block and "
    "name the file in 'record'"
}
"""Keys of earlier kits, and what takes their place."""
_PATTERNS = {
    r"^[0-9a-f]{40}": "a full commit: 40 lower-case hexadecimal digits, in quotes",
    r"^[0-9a-f]{64}": "a sha256: 64 lower-case hexadecimal digits, in quotes",
    r"^[a-z0-9][a-z0-9_.-]{0,63}": "a name of lower-case letters, digits, '_', '.' and '-' (64 at "
    "most)",
    r"^[a-z0-9][a-z0-9.-]{0,63}": "a name of lower-case letters, digits, '.' and '-' (64 at most)",
    r"^[a-z0-9][a-z0-9./@+_-]{0,127}": "a cell id: lower-case letters, digits and ./@+_-",
    r"^[a-z0-9{*][a-z0-9./@+_:{},*-]{0,4095}": "a cell id: lower-case letters, digits and "
    "./@+_-, with {a,b} for several; '*' in a default's 'match' only",
    r"^[1-9][0-9]*-[A-Z]": "a version N-X, such as 1-A",
    r"^[a-z0-9-]+/[a-z0-9-]+": "a step kind, family/name",
    get_args(RelativePath)[1].pattern.removesuffix(_END): "a path with '/' that stays below its "
    "folder: plain letters, no '..', not absolute",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}": "a hub repository, "
    "owner/name",
    r"^[-+]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,2})?": "a number as printed, such as "
    "'1.9', of a reasonable size",
}


def describe(node: Node | None, value: Any) -> str:
    """What stands in the document, in words."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    raw = node.raw if node is not None else str(value)
    short = raw if len(raw) <= 60 else raw[:57] + "..."
    if isinstance(value, str):
        return f"the text {short!r}"
    if value is None:
        return "nothing" if not raw else f"{short} (nothing)"
    if isinstance(value, bool):
        return f"the truth value {short}"
    return f"the number {short}"


def explain(error: Violation, source: Source, problems: Problems) -> None:
    """Note one violation (several for missing or unknown keys)."""
    for leaf in _leaves(error):
        _explain_leaf(leaf, source, problems)


def _leaves(error: Violation) -> Iterator[Violation]:
    """Descend into unions, following the branch that the document seems to mean."""
    branches: dict[int, list[Violation]] = {}
    for inner in error.context:
        branches.setdefault(inner.schema_path[0], []).append(inner)
    # A branch whose own type fits was meant: its complaints lie deeper or are not about the type.
    fitting = [
        branch
        for branch in branches.values()
        if not any(i.validator == "type" and not i.relative_path for i in branch)
    ]
    if not fitting:
        yield error
        return
    for inner in min(fitting, key=len):
        yield from _leaves(inner)


def _explain_leaf(error: Violation, source: Source, problems: Problems) -> None:
    path = list(error.absolute_path)
    value = error.instance
    node = source.node(path)
    name = str(path[-1]) if path else "the document"
    if isinstance(path[-1] if path else None, int):
        name = f"item {int(path[-1]) + 1} of {path[-2] if len(path) > 1 else 'the list'}"
    position = source.position(path)
    rule = str(error.validator)
    if rule == "additionalProperties":
        _unknown_keys(error, source, problems)
    elif rule == "required":
        missing = [key for key in error.validator_value if key not in value]
        for key in [k for k in missing if f"'{k}'" in error.message] or missing:
            problems.add(*position, f"{_of(path)} lacks the key {key!r}")
    elif "propertyNames" in error.absolute_schema_path:
        key = str(value)
        key_position = source.position([*path, key], key=True)
        problems.add(*key_position, f"the key {key!r} is not {_wanted(error)}")
    elif name == "revision" and not isinstance(value, str):
        if node is not None:
            unquoted_revision(node, f"{describe(node, value)} stands here", problems)
    else:
        problems.add(*position, f"{name} must be {_wanted(error)}, not {describe(node, value)}",
                     next_step=_remedy(error, node))  # fmt: skip


def _of(path: list[str | int]) -> str:
    return ".".join(str(step) for step in path) if path else "the document"


def _unknown_keys(error: Violation, source: Source, problems: Problems) -> None:
    path = list(error.absolute_path)
    known = list(error.schema.get("properties", {}))
    for key in error.instance:
        if key not in known:
            position = source.position([*path, key], key=True)
            guess = _MOVED.get(str(key), "") or nearest(str(key), known)
            problems.add(
                *position,
                f"unknown key {key!r}",
                next_step=guess or f"keys here: {', '.join(known)}",
            )


def _wanted(error: Violation) -> str:
    """What the schema asks for, in words."""
    rule, wanted = str(error.validator), error.validator_value
    if rule == "type":
        return _type_words(wanted)
    if rule in ("enum", "const"):
        choices = wanted if isinstance(wanted, list) else [wanted]
        shown = ", ".join(str(choice) for choice in choices if choice is not None)
        return shown if len(choices) == 1 else f"one of {shown}"
    if rule == "pattern":
        return _PATTERNS.get(wanted.removesuffix(_END), f"text that matches {wanted}")
    if rule == "minimum":
        return f"at least {wanted}"
    if rule in ("minLength", "minItems"):
        what = "characters" if rule == "minLength" else "items"
        return "filled in" if wanted == 1 else f"at least {wanted} {what} long"
    if rule in ("anyOf", "oneOf"):
        return _union_words(wanted)
    return re.sub(r"\s+", " ", error.message)


def _type_words(wanted: str | list[str]) -> str:
    names = [wanted] if isinstance(wanted, str) else wanted
    return " or ".join(_NAMES.get(name, name) for name in names)


def _union_words(branches: list[dict[str, Any]]) -> str:
    words: list[str] = []
    for branch in branches:
        kind = branch.get("type")
        if "$ref" in branch:
            word = f"a map ({branch['$ref'].rsplit('/', 1)[-1].lower()})"
        elif "enum" in branch:
            word = "one of " + ", ".join(str(choice) for choice in branch["enum"])
        elif kind == "null":
            continue
        else:
            word = _type_words(kind) if kind else "something else"
        if word not in words:
            words.append(word)
    if _NAMES["number"] in words and _NAMES["integer"] in words:
        words.remove(_NAMES["integer"])
    return " or ".join(words)


def _remedy(error: Violation, node: Node | None) -> str:
    scalar = node is not None and node.kind == "scalar"
    if not scalar or node is None:
        return ""
    text_wanted = error.validator == "type" and error.validator_value == "string"
    if error.validator in ("anyOf", "oneOf"):
        text_wanted = any(branch.get("type") == "string" for branch in error.validator_value)
    if text_wanted and not isinstance(node.value, str) and node.raw:
        return f'write it in quotes: "{node.raw}"'
    number_wanted = error.validator == "type" and error.validator_value in ("integer", "number")
    if number_wanted and node.quoted:
        return f"write it without quotes: {node.raw}"
    if error.validator in ("enum", "const") and isinstance(node.value, str):
        choices = error.validator_value
        return nearest(node.value, [str(c) for c in choices] if isinstance(choices, list) else [])
    return ""


def _integer(checker: Any, value: Any) -> bool:
    """Only a written integer is one: ``1.0`` is a float here, as it is for the types."""
    return isinstance(value, int) and not isinstance(value, bool)


_extend: Any = validators.extend
_Validator = _extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _integer),
)


@functools.cache
def validator(name: str) -> Any:
    """The validator of a document: a name of :data:`kit.manifest.schema.TYPES`."""
    return _Validator(schema_for(name))
