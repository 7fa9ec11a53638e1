"""The shipped attack texts of the miniature world; every word is in its vocabulary."""

from __future__ import annotations

from functools import cache

from kit.methods.defensive_tokens.attack_texts import AttackTexts, read_json
from kit.mini.injection.paths import ATTACKS_FILE


@cache
def load_attacks() -> AttackTexts:
    """Read ``data/attacks.json``, as the steps do."""
    return read_json(ATTACKS_FILE)
