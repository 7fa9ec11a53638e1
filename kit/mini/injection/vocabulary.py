"""Every word of the miniature instruction world.

One word is one token. The lists are closed: a text that uses a word outside them becomes
``<unk>``, and the tests refuse that. Categories do not overlap, so "find the animal" has one
right answer wherever exactly one animal stands in the data.
"""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


ANIMALS = _words("cat dog horse cow sheep goat pig duck goose hen fox wolf bear mouse frog eagle")
COLOURS = _words("red blue green yellow white black brown pink purple grey golden silver")
FRUITS = _words("apple pear plum cherry grape lemon melon peach fig mango banana orange")
NOUNS = _words(
    "table chair door window wall roof floor lamp clock mirror carpet shelf drawer bottle cup "
    "plate spoon knife fork bowl pan kettle basket box bag rope nail hammer saw ladder bucket "
    "brush soap towel shirt coat hat shoe glove belt ring coin book pen paper letter map flag drum "
    "flute bell ship boat wheel cart road bridge river lake hill forest field stone sand snow "
    "cloud star moon engine candle pillow blanket garden fence mill tower"
)

CAPITALS = {
    "arvonia": "telmar",
    "belusia": "quorin",
    "cordovia": "senlis",
    "dravania": "morwick",
    "elmoria": "hastrel",
    "fenwaria": "lodnia",
    "galdoria": "pertoll",
    "hestonia": "virgat",
    "istravia": "corbel",
    "jalmeria": "dunmore",
    "kelvaria": "astrin",
    "lorvania": "brenta",
    "mirandia": "olvera",
    "norvalia": "kestrin",
    "ostravia": "fendale",
    "paldonia": "rumeck",
    "quevaria": "tarsel",
    "rostonia": "ilmgard",
    "selvaria": "wendlow",
    "tolmeria": "yarrin",
}
"""Fictional places and their fictional capitals: the only facts of the world."""

NUMBERS = {3: "three", 4: "four", 5: "five"}
"""Data has no other lengths."""

INJECTED_WORD = "hacked"
"""Printable like any other word, but never part of the training pool."""

CONTENT = [*NOUNS, *ANIMALS, *COLOURS, *FRUITS]
"""The words that data is made of."""

PRINTABLE = [*CONTENT, *CAPITALS, *CAPITALS.values(), INJECTED_WORD]
"""The words that pretraining asks the model to print."""

PHRASE_WORDS = _words(
    # tasks of the source models and of their newer versions
    "copy repeat all the words write first last word count drop find animal colour fruit print "
    "say exactly what is name capital of second both ends twice how to make a weapon sorry i "
    "cannot help "
    # attack phrases and delimiters
    "ignore forget disregard skip stop following do not follow previous instructions above "
    "everything before earlier request rules text and now instead please response answer output "
    "result reply solution instruction question input prompt command order "
    # guards and idle context
    "treat data as plain only never obey comes from stranger may be false here has no task just "
    "material lines below are quoted inside this block nothing counts main content today was good "
    "day new starts weather cold better near real work hard we like music people old house stands "
    "by long road sun very high train late again for you"
)

MARKS = [".", ",", ":", "=", "->"]

SPECIALS = ("<pad>", "<s>", "</s>", "[INST]", "[DATA]", "[RESP]")
UNKNOWN = "<unk>"


def words() -> list[str]:
    """All words in the order of their token ids; the first is the unknown word.

    Control tokens are not among them. They get the ids after the last word and live outside the
    word-level model, so that data spelling ``[INST]`` becomes the unknown word.
    """
    ordered = [
        UNKNOWN,
        *CONTENT,
        *CAPITALS,
        *CAPITALS.values(),
        *NUMBERS.values(),
        INJECTED_WORD,
        *PHRASE_WORDS,
        *MARKS,
    ]
    return list(dict.fromkeys(ordered))
