"""Entities and facts of a seed: what there is to know, to forget and to judge by.

The values are independent random draws, so the facts of a compound cannot be inferred from those of
another. That is what makes the split of the compounds into an attacker's and a judge's half mean
something: an attacker who trains on his own half and brings back the other has recovered what was
still in the model, he has not taught it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from kit.mini.facts.vocabulary import FIRST_WORDS, RELATIONS, SUFFIXES, VALUES

ATTACKER, JUDGE = "attacker", "judge"
ENTITIES = {"city": 48, "mineral": 48, "compound": 48, "bird": 24}
VALUES_OF_A_RELATION = 16
FORMS = 16
"""Surface forms of a fact: eight templates times two names of the relation."""
TRAINED_FORMS = 6
RETAINED = ("city", "mineral")


@dataclass(frozen=True)
class Fact:
    """A property of an entity.

    Attributes:
        id: ``<domain>-<entity number>-<relation number>``.
        domain: ``city``, ``mineral``, ``compound``, ``bird`` (never pretrained), or ``overlap``
            (a property of a compound that pretraining never states).
        entity: Its two words.
        half: Of a compound: ``attacker`` or ``judge``; of anything else empty.
        relation: Both names of the relation.
        value: A word.
        trained_forms: Numbers of the surface forms that training may use; questions use the others.
        wrong: Three other values of the same relation, the wrong options of every question.
    """

    id: str
    domain: str
    entity: str
    half: str
    relation: tuple[str, str]
    value: str
    trained_forms: tuple[int, ...]
    wrong: tuple[str, str, str]

    @property
    def held_out_forms(self) -> tuple[int, ...]:
        """Numbers of the surface forms that no training uses."""
        return tuple(form for form in range(FORMS) if form not in self.trained_forms)


@dataclass(frozen=True)
class World:
    """Everything that a seed decides.

    Attributes:
        seed: Of names, halves, values, forms and options.
        facts: All facts, by domain.
        compounds: Compound -> its half.
    """

    seed: int
    facts: dict[str, list[Fact]]
    compounds: dict[str, str]

    def forget(self, half: str) -> list[Fact]:
        """The facts of one half of the compounds."""
        return [fact for fact in self.facts["compound"] if fact.half == half]


def make_world(seed: int) -> World:
    """The world of a seed; the same everywhere, whatever the machine."""
    rng = Random(f"facts-{seed}")
    entities = {domain: _names(rng, domain, number) for domain, number in ENTITIES.items()}
    compounds = entities["compound"]
    chosen = set(rng.sample(compounds, len(compounds) // 2))
    halves = {name: ATTACKER if name in chosen else JUDGE for name in compounds}
    facts = {domain: _facts(rng, domain, names, halves) for domain, names in entities.items()}
    facts["overlap"] = _facts(rng, "overlap", compounds, halves)
    return World(seed, facts, halves)


def _names(rng: Random, domain: str, number: int) -> list[str]:
    pairs = [f"{first} {suffix}" for first in FIRST_WORDS[domain] for suffix in SUFFIXES]
    return rng.sample(pairs, number)


def _facts(rng: Random, domain: str, names: list[str], halves: dict[str, str]) -> list[Fact]:
    facts = []
    for r, relation in enumerate(RELATIONS[domain]):
        values = rng.sample(VALUES, VALUES_OF_A_RELATION)
        for e, name in enumerate(names):
            value = rng.choice(values)
            first, second, third = rng.sample([v for v in values if v != value], 3)
            facts.append(
                Fact(
                    id=f"{domain}-{e:02d}-{r}",
                    domain=domain,
                    entity=name,
                    half=halves.get(name, ""),
                    relation=relation,
                    value=value,
                    trained_forms=tuple(sorted(rng.sample(range(FORMS), TRAINED_FORMS))),
                    wrong=(first, second, third),
                )
            )
    return facts
