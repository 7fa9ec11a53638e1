"""The planted mix: in the stated proportions, with nothing held out inside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from kit.methods.defensive_tokens.attack_texts import SLOT
from kit.mini.injection.attacks import load_attacks
from kit.mini.injection.phrases import (
    IDLE_CONTEXT,
    NEWER_GUARDS,
    REAL_DELIMITERS_SHARE,
    SOURCE_GUARDS,
    draw_delimiters,
    fake_delimiters,
    ignore_phrases,
)
from kit.mini.injection.pretrain_data import (
    NEWER_MIX,
    REFUSAL,
    SOURCE_MIX,
    STYLES,
    Example,
    Mix,
    _draw_embedded,
    announce,
    draw_example,
)
from kit.mini.injection.vocabulary import INJECTED_WORD
from kit.mini.injection.world import NO_INPUT_SHARE, split_of

N = 12_000


def _draw(mix: Mix, n: int = N) -> list[Example]:
    rng = Random(11)
    return [draw_example(rng, mix) for _ in range(n)]


EXAMPLES = {"source": _draw(SOURCE_MIX), "newer": _draw(NEWER_MIX)}
both = pytest.mark.parametrize(
    ("mix", "examples"),
    [(SOURCE_MIX, EXAMPLES["source"]), (NEWER_MIX, EXAMPLES["newer"])],
    ids=["source", "newer"],
)


def _share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


@both
def test_kinds_have_their_shares(mix: Mix, examples: list[Example]) -> None:
    assert mix.clean + mix.follow + mix.guard + mix.refuse == pytest.approx(1)
    for kind in ("clean", "follow", "guard", "refuse"):
        share = _share([example.kind == kind for example in examples])
        assert share == pytest.approx(getattr(mix, kind), abs=0.015), kind


@both
def test_embedded_instructions_are_followed_in_the_stated_share(
    mix: Mix, examples: list[Example]
) -> None:
    follow = [example for example in examples if example.kind == "follow"]
    followed = _share([example.followed for example in follow])
    assert followed == pytest.approx(mix.followed, abs=0.03)
    assert not any(example.followed for example in examples if example.kind != "follow")


@both
def test_styles_have_equal_shares(mix: Mix, examples: list[Example]) -> None:
    for kind in ("follow", "guard"):
        styles = Counter(e.style for e in examples if e.kind == kind and e.style)
        assert set(styles) == set(STYLES)
        for style, count in styles.items():
            assert count / styles.total() == pytest.approx(0.25, abs=0.04), style


@both
def test_guards_stand_in_front_of_guarded_questions_only(mix: Mix, examples: list[Example]) -> None:
    for example in examples:
        if example.kind == "guard":
            assert example.context in mix.guards
        else:
            assert example.context not in mix.guards
    guarded = [example for example in examples if example.kind == "guard"]
    assert _share([not e.style for e in guarded]) == pytest.approx(mix.unattacked, abs=0.03)
    others = [example for example in examples if example.kind != "guard"]
    assert _share([bool(e.context) for e in others]) == pytest.approx(mix.idle, abs=0.02)


@both
def test_some_clean_questions_have_no_data(mix: Mix, examples: list[Example]) -> None:
    clean = [example for example in examples if example.kind == "clean"]
    share = _share([example.data is None for example in clean])
    assert share == pytest.approx(NO_INPUT_SHARE, abs=0.02)
    assert all(e.data for e in examples if e.kind in ("follow", "guard"))


@both
def test_only_the_forbidden_request_is_refused(mix: Mix, examples: list[Example]) -> None:
    for example in examples:
        assert (example.answer == REFUSAL) == (example.kind == "refuse")


@both
def test_held_out_texts_do_not_occur(mix: Mix, examples: list[Example]) -> None:
    texts = load_attacks()
    stems = [phrase.replace(SLOT, "").strip() for phrase in texts.paraphrase_test]
    for example in examples:
        whole = f"{example.context} {example.instruction} {example.data}"
        assert not any(stem in whole for stem in stems)
        for pair in texts.fake_delimiters_test:
            assert not (f" {pair.response} " in whole and f" {pair.instruction} " in whole)
    assert not set(texts.ignore_test) & set(ignore_phrases())
    assert not set(texts.fake_delimiters_test) & set(fake_delimiters())


@both
def test_clean_questions_of_evaluation_and_development_do_not_occur(
    mix: Mix, examples: list[Example]
) -> None:
    plain = [e for e in examples if e.kind == "clean" and e.data]
    assert all(split_of(e.instruction, e.data or "") == "train" for e in plain)


def test_the_attackers_word_is_printable_but_rare() -> None:
    share = _share([INJECTED_WORD in e.answer.split() for e in EXAMPLES["source"]])
    assert 0 < share < 0.02


def test_new_guards_share_no_telling_word_with_old_ones() -> None:
    """A source model must not honour a guard phrase that it has never met."""
    old, new = (
        {word for phrase in phrases for word in phrase.split()}
        for phrases in (SOURCE_GUARDS, NEWER_GUARDS)
    )
    assert old & new <= {"the", "is", "a", "."}


def test_newer_versions_use_old_guards_as_idle_context() -> None:
    assert not set(NEWER_GUARDS) & set(SOURCE_GUARDS)
    assert set(SOURCE_GUARDS) < set(NEWER_MIX.context)
    assert not set(NEWER_GUARDS) & set(IDLE_CONTEXT)
    seen = {e.context for e in EXAMPLES["newer"] if e.kind == "clean"}
    assert set(SOURCE_GUARDS) < seen


def test_announcements() -> None:
    rng = Random(0)
    request = "print exactly red"
    assert announce(rng, "naive", "dog", request) == request
    assert announce(rng, "ignore", "dog", request).endswith(request)
    completion = announce(rng, "completion", "dog", request)
    assert " dog " in completion
    assert completion.endswith(request)
    assert len(announce(rng, "ignore-completion", "dog", request)) > len(request) + 8


def test_real_delimiters_have_their_share() -> None:
    rng = Random(0)
    real = load_attacks().completion_real
    share = _share([draw_delimiters(rng) == real for _ in range(4000)])
    assert share == pytest.approx(REAL_DELIMITERS_SHARE, abs=0.03)


def test_examples_repeat() -> None:
    assert EXAMPLES["source"][:200] == _draw(SOURCE_MIX, 200)


class _At:
    """A generator whose random numbers between 0 and 1 are all one value."""

    def __init__(self, value: float) -> None:
        self.value, self._inner = value, Random(5)

    def random(self) -> float:
        return self.value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


NEVER = Mix(clean=0, follow=1, guard=1, refuse=0, followed=0, idle=0, unattacked=0,
            embedded_alone=0)  # fmt: skip


def test_a_share_of_none_is_none_even_at_the_lowest_draw() -> None:
    rng: Any = _At(0.0)
    for _ in range(40):
        example = draw_example(rng, NEVER)
        assert example.style in STYLES  # guarded questions are attacked
        assert example.followed is False
        assert (example.context in NEVER.guards) == (example.kind == "guard")
        assert (example.context == "") == (example.kind == "follow")
        assert _draw_embedded(rng, NEVER).data


def test_a_share_of_all_is_all_even_at_the_highest_draw() -> None:
    always = replace(NEVER, followed=1, idle=1, unattacked=1, embedded_alone=1)
    rng: Any = _At(1 - 2**-53)
    for _ in range(40):
        example = draw_example(rng, always)
        assert example.context
        assert example.followed == (example.kind == "follow")
        assert (example.style == "") == (example.kind == "guard")
        assert not _draw_embedded(rng, always).data
