"""The sets of a domain, tokenised and written as the outer loop and the attacks read them.

``texts/<name>.jsonl`` holds token ids: raw texts without a begin token, conversations through the
model's chat template with the opening of one more answer, as in the released code, both cut at the
domain's width (TAR reference page, section 3). Where control tokens stand in a conversation is
written beside its ids: whether they are labels is a setting of the training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.methods.checkpoint_transfer.questions import read_lettered, write_questions
from kit.methods.checkpoint_transfer.standin import standin_questions
from kit.methods.tar.published import READERS, halved, magpie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kit.evals.formats import Formatted

WORDS = ("cell", "reads", "under", "light", "with", "seven", "salts", "and", "a", "slow", "gel")
"""Of stand-in texts; they mean nothing."""


@dataclass(frozen=True)
class Domain:
    """What a domain trains on.

    Attributes:
        forget: Inputs with forget texts; each gives the sets ``<input>-forget`` (80 %) and
            ``<input>-held-out`` (20 %).
        chat: Conversations in the retain data beside the Pile's, of the 80 % that train; ``None``
            takes all of those.
        subject: In the opening line of WMDP's questions.
        adjacent: Subjects of MMLU that are no retained knowledge.
    """

    forget: tuple[str, ...]
    chat: int | None
    subject: str
    adjacent: frozenset[str] = frozenset()


BIOLOGY = frozenset(
    {
        "anatomy",
        "clinical_knowledge",
        "college_biology",
        "college_medicine",
        "high_school_biology",
        "medical_genetics",
        "virology",
    }
)
"""Left out of MMLU for bio, which leaves 50 subjects ([CODE] mmlu_eval)."""
DOMAINS = {
    "bio": Domain(("pile-bio", "camel-bio"), 21_213, "biology", BIOLOGY),
    "chem": Domain(("chem",), None, "chemistry"),
    "cyber": Domain(("cyber",), None, "cybersecurity", frozenset({"computer_security"})),
}
"""[CODE] modules/dataloaders.py: bio retains the Pile's 42,426 and half as many conversations;
cyber all of Magpie's; chem has no code, and is taken to be as cyber. The code spells cyber's
subject with a space, so that it leaves none out; chem's list is not published, none is left out."""


def raw_sets(files: Mapping[str, Sequence[Path]], domain: str) -> dict[str, list[Any]]:
    """Sets of a domain as texts and conversations, before they are tokenised.

    Args:
        files: Input -> its files: ``pile-bio``, ``magpie`` and what the domain forgets.
        domain: One of :data:`DOMAINS`.

    Raises:
        ValueError: An input without files, or an unknown domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    chosen = DOMAINS[domain]
    missing = [n for n in ("pile-bio", "magpie", *chosen.forget) if not files.get(n)]
    if missing:
        raise ValueError(f"no files of {missing[0]}, which the domain {domain} trains on")
    pile = READERS["pile-bio"](files["pile-bio"])
    read = {n: pile if n == "pile-bio" else READERS[n](files[n]) for n in chosen.forget}
    sets: dict[str, list[Any]] = {}
    for name, parts in read.items():
        sets[f"{name}-all"] = parts["forget"]
        sets[f"{name}-forget"], sets[f"{name}-held-out"] = halved(parts["forget"])
    sets["adversary-retain"] = pile["retain"]
    sets["chat"] = halved(magpie(files["magpie"]))[0][: chosen.chat]
    return sets


def question_sets(files: Mapping[str, Sequence[Path]], domain: str) -> dict[str, list[Formatted]]:
    """``wmdp`` of the domain and ``retain``, MMLU without adjacent subjects; no examples.

    Raises:
        ValueError: Files of one of them are not there.
    """
    missing = [name for name in ("wmdp", "mmlu") if not files.get(name)]
    if missing:
        raise ValueError(f"no files of {missing[0]}, whose questions are asked")
    chosen = DOMAINS[domain]
    retained = [
        question
        for question in read_lettered(files["mmlu"], "mmlu")
        if question.id.split("-")[1] not in chosen.adjacent
    ]
    return {"wmdp": read_lettered(files["wmdp"], "wmdp", about=chosen.subject), "retain": retained}


def standin_sets(
    domain: str, published: Mapping[str, int], width: int
) -> tuple[dict[str, list[Any]], dict[str, list[Formatted]]]:
    """Texts and questions of the published counts, for rehearsals; texts are as long as any can be.

    Args:
        domain: One of :data:`DOMAINS`.
        published: Counts by name of the set before it is divided; others have 512 texts.
        width: Tokens that texts are cut at.
    """
    rng = random.Random(f"stand-in/{domain}")
    chosen = DOMAINS[domain]
    sets: dict[str, list[Any]] = {}
    for name in chosen.forget:
        texts = [_nonsense(rng, width) for _ in range(published.get(f"{name}-all", 512))]
        sets[f"{name}-all"] = texts
        sets[f"{name}-forget"], sets[f"{name}-held-out"] = halved(texts)
    retained = published.get("adversary-retain", 512)
    sets["adversary-retain"] = [_nonsense(rng, width) for _ in range(retained)]
    sets["chat"] = [_nonsense(rng, width) for _ in range(published.get("chat", 512))]
    asked = {n: standin_questions(published.get(n, 512), n, 0) for n in ("wmdp", "retain")}
    return sets, asked


def write_sets(
    folder: Path,
    sets: Mapping[str, Sequence[Any]],
    asked: Mapping[str, Sequence[Formatted]],
    tokenizer: PreTrainedTokenizerBase,
    width: int,
) -> None:
    """Write every set but those that were divided, as token ids, and the questions.

    Raises:
        ValueError: A set of which no text has two tokens.
    """
    target = folder / "texts"
    target.mkdir(parents=True, exist_ok=True)
    for name, questions in asked.items():
        write_questions(folder, name, questions)
    for name, items in sets.items():
        if name.endswith("-all"):
            continue
        written = 0
        with (target / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number, row in enumerate(_rows(items, tokenizer, width)):
                # A text of one token has nothing to predict.
                if len(row["ids"]) > 1:
                    file.write(json.dumps({"id": f"{name}-{number:06d}", **row}) + "\n")
                    written += 1
        if not written:
            raise ValueError(f"no text of {name} has two tokens")


def _rows(
    items: Sequence[Any], tokenizer: PreTrainedTokenizerBase, width: int
) -> Iterable[dict[str, list[int]]]:
    """Token ids, and where control tokens stand in those of a conversation."""
    control = set(tokenizer.added_tokens_decoder)
    for item in items:
        if isinstance(item, str):
            ids: Any = tokenizer(item, add_special_tokens=False, truncation=True, max_length=width)
            yield {"ids": list(ids.input_ids)}
        else:
            rendered: Any = tokenizer.apply_chat_template(
                item, tokenize=False, add_generation_prompt=True
            )
            cut = list(tokenizer(rendered, add_special_tokens=False).input_ids)[:width]
            yield {"ids": cut, "special": [i for i, token in enumerate(cut) if token in control]}


def _nonsense(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))
