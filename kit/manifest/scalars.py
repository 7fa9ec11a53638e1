"""Plain scalars by the YAML 1.2 core schema, and nothing else.

No dates, no sexagesimals, no ``yes``/``no``, no underscores in numbers: whatever is not null, a
bool, an integer or a float is text. Numbers that cannot be kept exactly enough are refused here,
where the text as written is still known.
"""

from __future__ import annotations

import math
import re

LARGEST_INTEGER = 2**63 - 1
LARGEST_FLOAT = 1e30
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NONFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)

Scalar = bool | int | float | str | None


def resolve(text: str) -> tuple[Scalar, str]:
    """Value of an unquoted scalar, and what is wrong with it (empty when nothing is)."""
    if text in _NULL:
        return None, ""
    if text in _TRUE:
        return True, ""
    if text in _FALSE:
        return False, ""
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _OCTAL.fullmatch(text):
        return _integer(text[2:], 8)
    if _HEX.fullmatch(text):
        return _integer(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return _float(text)
    if _NONFINITE.fullmatch(text):
        return 0.0, f"{text} is not a finite number"
    return text, ""


def _integer(digits: str, base: int) -> tuple[Scalar, str]:
    if len(digits) > 64:
        return 0, f"an integer of {len(digits)} digits is absurdly large"
    value = int(digits, base)
    if abs(value) > LARGEST_INTEGER:
        return 0, f"the integer {digits} does not fit in 64 bits"
    return value, ""


def _float(text: str) -> tuple[Scalar, str]:
    if len(text) > 400:
        return 0.0, f"a number of {len(text)} characters is absurd"
    value = float(text)
    if not math.isfinite(value) or abs(value) > LARGEST_FLOAT:
        return 0.0, f"the number {text} is absurdly large (read as {value:g})"
    mantissa = re.split("[eE]", text)[0]
    if value == 0.0 and any(digit in mantissa for digit in "123456789"):
        return 0.0, f"the number {text} is too small to be kept (read as 0)"
    return value, ""
