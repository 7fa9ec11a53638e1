"""YAML as Kubernetes reads it."""

from __future__ import annotations

import io
from typing import Any


def dump(objects: list[dict[str, Any]]) -> bytes:
    """Objects as the documents of one file.

    Every text is quoted: Kubernetes reads YAML 1.1, where a bare ``no`` or ``12:30`` is not text.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.BytesIO()
    for number, one in enumerate(objects):
        stream.write(b"---\n" * bool(number))
        yaml.dump(_quoted(one), stream)
    return stream.getvalue()


def _quoted(value: Any) -> Any:
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {key: _quoted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_quoted(one) for one in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) else value
