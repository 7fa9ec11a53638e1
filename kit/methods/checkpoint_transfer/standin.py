"""Stand-in texts and questions of the true lengths and counts, for rehearsals.

They are made of neutral words, so nothing gated is fetched. A word is a token of the stand-in's
tokenizer, and texts are cut where the true ones are: every text of a rehearsal is as long as the
longest may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from kit.evals.formats import Formatted, lettered, with_shots
from kit.methods.checkpoint_transfer.questions import STEM, stem

_NEUTRAL = (
    "amber basket birch bridge candle cedar cliff clover copper creek desk ember fern field forest "
    "garden glass harbor hazel island kettle ladder lantern linen maple meadow mirror moss needle "
    "orchard pebble pepper quartz ribbon river saddle shell silver spoon stream thread timber"
)
WORDS = tuple(_NEUTRAL.split())
PROMPT_WORDS, OPTION_WORDS = 40, 6
"""Of a stand-in question: about 100 tokens with its options, as long as those of WMDP."""


def standin_documents(number: int, words: int, name: str) -> list[str]:
    """Texts of neutral words.

    Args:
        number: How many.
        words: Of each.
        name: Of the data they stand for; other data have others.
    """
    draw = Random(f"documents-{name}")
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(number)]


def standin_questions(number: int, prefix: str, seed: int) -> list[Formatted]:
    """Lettered questions of neutral words, the right letters in turn.

    Args:
        number: How many.
        prefix: Of the ids.
        seed: Of the draws.
    """
    draw = Random(f"questions-{prefix}-{seed}")

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words))

    made = []
    for at in range(number):
        options = tuple(text(OPTION_WORDS) for _ in range(4))
        bare = Formatted(f"{prefix}-{at:05d}", text(PROMPT_WORDS), options, at % 4)
        made.append(lettered(bare, about="nothing"))
    return made


def standin_mmlu(number: int, stem: int, seed: int) -> list[Formatted]:
    """As many questions, of which ``stem`` carry the id of a STEM subject.

    Raises:
        ValueError: More of STEM than of all.
    """
    if stem > number:
        raise ValueError(f"{stem} questions of STEM among {number}")
    subject = min(STEM)
    return [
        *standin_questions(stem, f"mmlu-{subject}", seed),
        *standin_questions(number - stem, "mmlu-philosophy", seed),
    ]


def standin_sets(counts: Mapping[str, int]) -> dict[str, list[Formatted]]:
    """A stand-in for each published set, by name, with ``wmdp-bio`` beside ``wmdp-robust``.

    Examples before a question make its prompt longer; a stand-in of such a set is as long.

    Args:
        counts: Questions of each set; with ``mmlu-stem`` at most as many as ``mmlu``.
    """
    robust = standin_questions(counts["wmdp-robust"], "robust", 0)
    mmlu = standin_mmlu(counts["mmlu"], counts["mmlu-stem"], 0)
    sets = {"wmdp-bio": robust, "wmdp-robust": robust, "mmlu": mmlu, "mmlu-stem": stem(mmlu)}
    for name in counts.keys() - sets.keys():
        shots = int(name.split("-")[1]) if name.endswith("-shot") else 0
        bare = standin_questions(counts[name] + shots, name, 0)
        sets[name] = [with_shots(q, bare[:shots]) for q in bare[shots:]] if shots else bare
    return sets
