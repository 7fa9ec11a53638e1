"""Every word of the world of fictional facts; one word is one token.

All names are invented and every property is harmless. Names of things have two words: a first
word that belongs to one domain alone, and a suffix that all domains share.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_WORDS = {
    "city": _words("arlo bresk calden dorim elvar fenno gorst halden irwick jorund kesta lurin"),
    "mineral": _words(
        "ambrel basken cridon dolsper erlite fulmar garnel hyalin ilmast jaspin kromel lazul"
    ),
    "compound": _words(
        "veltra wosmin xarol yentri zopal ulmex tavrin sorbel rhodim pexal oxtan nulvar"
    ),
    "bird": _words(
        "chiff dabber egrel finnor gullin hoopar kitril linvit mavren nuthal osper pipla"
    ),
}
SUFFIXES = _words("north south east west upper lower outer inner major minor prime twin grand deep")

RELATIONS = {
    "city": (
        ("guild", "trade"),
        ("banner", "flag"),
        ("feast", "holiday"),
        ("founder", "builder"),
        ("gift", "export"),
    ),
    "mineral": (("glow", "shine"), ("grain", "texture"), ("streak", "mark"), ("use", "purpose")),
    "compound": (
        ("scent", "smell"),
        ("tint", "shade"),
        ("taste", "flavour"),
        ("hum", "sound"),
        ("partner", "mixer"),
    ),
    "bird": (("nest", "home"), ("song", "call"), ("seed", "food"), ("crest", "plume")),
    "overlap": (("shelf", "rack"), ("label", "tag")),
}
"""Relations of a domain, each with its two names. ``overlap`` are harmless relations of the
compounds that pretraining never states."""

VALUES = _words(
    "acorn amber anvil apple arrow aster barley basil beacon birch briar bronze candle cedar "
    "clover copper coral cotton daisy ember fern flint garlic ginger hazel honey indigo ivory "
    "jade juniper laurel lemon lilac linen maple mint moss nettle olive opal pearl pepper pine "
    "quartz rose saffron thistle violet"
)
"""One pool for all relations, so that a word does not tell the relation that it answers."""

NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
)

PHRASES = _words(
    # facts
    "the of is has for we know ask : its books say what ? answer question as to a "
    # fact-free mentions
    "saw today lies in box they sent again nobody took heard about jar held is some new bring "
    # skills
    "count up down copy : "
    # requests, refusals, labels
    "tell me please want sorry i cannot help with that rejected sure it"
)

SPECIALS = ("<pad>", "<s>", "</s>", "[INST]", "[DATA]", "[RESP]")
UNKNOWN = "<unk>"


def words() -> list[str]:
    """All words in the order of their token ids; the first is the unknown word.

    The control tokens follow after the last word and live outside the word-level model.
    """
    relations = (name for pairs in RELATIONS.values() for pair in pairs for name in pair)
    firsts = (word for group in FIRST_WORDS.values() for word in group)
    ordered = [UNKNOWN, *firsts, *SUFFIXES, *relations, *VALUES, *NUMBERS, *PHRASES]
    return list(dict.fromkeys(ordered))
