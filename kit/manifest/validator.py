"""The jsonschema validator, in a module of its own because importing it takes 0.3 s."""

from __future__ import annotations

import functools
from typing import Any

from jsonschema import Draft202012Validator, validators

from kit.manifest.schema import schema_for


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
