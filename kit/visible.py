"""Characters that act without being seen: terminal escapes, direction overrides, zero width.

Titles, model outputs, rows of data and even cell ids may come from strangers, and every one of
them may end in a message, on a terminal or on a page. :func:`visible` turns such characters into
signs that a reader sees; HTML escaping alone does not help against them.
"""

from __future__ import annotations

import re

_SPECIAL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, except tab and newline
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"  # invisible letters and marks
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, separators, direction
    "\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff"  # lone surrogates: not encodable as UTF-8
    "\U000e0000-\U000e0fff]"  # tag characters: text that only a model reads
)


def _show(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x7F:
        return chr(0x2400 + code)  # the control picture, e.g. U+241B for escape
    return f"\u27e8U+{code:04X}\u27e9"


def visible(text: str) -> str:
    """``text`` with every character that acts without being seen replaced by a visible sign."""
    if text.isascii() and text.isprintable():
        return text
    return _SPECIAL.sub(_show, text)


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, with the number of those left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} \u2026 [{len(text) - limit} more characters]"
