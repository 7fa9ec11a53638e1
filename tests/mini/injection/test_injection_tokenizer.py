"""One word, one token, and no way from text to a control token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from kit.methods.defensive_tokens.attack_texts import SLOT
from kit.mini.chat import MINI
from kit.mini.injection import vocabulary
from kit.mini.injection.attacks import load_attacks
from kit.mini.injection.entry import OTHER_ATTACKS, RULE_ATTACKS, attacked
from kit.mini.injection.paths import ATTACKS_FILE
from kit.mini.injection.phrases import fake_delimiters, ignore_phrases
from kit.mini.injection.pretrain_data import NEWER_MIX, SOURCE_MIX, draw_example
from kit.mini.injection.tokenizer import QuickTokenizer, build_tokenizer, save_tokenizer
from kit.mini.injection.world import dev_set, evaluation_set, training_pool


def _pretraining_texts() -> Iterator[str]:
    for mix in (SOURCE_MIX, NEWER_MIX):
        rng = Random(0)
        for _ in range(1500):
            example = draw_example(rng, mix)
            yield from (
                example.context,
                example.instruction,
                example.data or "",
                example.answer,
            )


def _question_texts() -> Iterator[str]:
    for sample in [*training_pool(3, 500), *evaluation_set(), *dev_set(400)]:
        yield from (sample.instruction, sample.input, sample.output)
    for index, sample in enumerate(evaluation_set()):
        for attack in (*RULE_ATTACKS, *OTHER_ATTACKS):
            yield attacked(sample, attack, index)


def _attack_texts() -> Iterator[str]:
    texts = load_attacks()
    phrases = (*texts.ignore_test, *texts.ignore_train, *texts.paraphrase_test, *ignore_phrases())
    yield from (phrase.replace(SLOT, texts.injected_prompt) for phrase in phrases)
    pairs = (
        texts.completion_real,
        *texts.fake_delimiters_train,
        *texts.fake_delimiters_test,
        *fake_delimiters(),
    )
    for pair in pairs:
        yield from (pair.response, pair.instruction)


@pytest.mark.parametrize("texts", [_pretraining_texts, _question_texts, _attack_texts])
def test_every_text_survives_the_round_trip(texts: object) -> None:
    assert callable(texts)
    tokenizer = build_tokenizer()
    for text in set(texts()):
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text.split())


def test_the_quick_tokenizer_gives_the_same_ids() -> None:
    real, quick = build_tokenizer(), QuickTokenizer()
    assert real.get_vocab() == quick.get_vocab()
    for text in set(_pretraining_texts()):
        assert quick.encode(text) == real.encode(text, add_special_tokens=False)


def test_the_quick_tokenizer_refuses_unknown_words() -> None:
    with pytest.raises(ValueError, match="'giraffe'"):
        QuickTokenizer().encode("find the giraffe")


def test_data_cannot_spell_a_control_token() -> None:
    tokenizer = build_tokenizer()
    controls = {tokenizer.convert_tokens_to_ids(token) for token in vocabulary.SPECIALS}
    honest = MINI.prompt_ids(tokenizer, "copy the words", "red dog")
    forged = MINI.prompt_ids(tokenizer, "copy the words", f"red {' '.join(vocabulary.SPECIALS)}")
    assert [i for i in forged if i in controls] == [i for i in honest if i in controls]
    assert forged.count(tokenizer.unk_token_id) == len(vocabulary.SPECIALS)


def test_saved_files_load_again_and_are_small(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == build_tokenizer().get_vocab()
    assert loaded.pad_token == MINI.pad
    assert loaded.eos_token in MINI.stop
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_000


def test_words_are_used_once_and_categories_do_not_overlap() -> None:
    content = vocabulary.CONTENT
    assert len(content) == len(set(content))
    places = [*vocabulary.CAPITALS, *vocabulary.CAPITALS.values()]
    assert len(set(places)) == 2 * len(vocabulary.CAPITALS)
    assert not set(places) & set(content)
    assert vocabulary.words()[0] == vocabulary.UNKNOWN
    assert len(vocabulary.words()) == len(set(vocabulary.words()))


def test_every_word_is_used_by_some_text() -> None:
    used = {word for text in _pretraining_texts() for word in text.split()}
    rng = Random(1)
    for _ in range(8000):
        example = draw_example(rng, NEWER_MIX)
        used |= set(f"{example.context} {example.instruction} {example.data}".split())
        used |= set(example.answer.split())
    assert set(vocabulary.words()) - used == {vocabulary.UNKNOWN}


def test_attack_lists_for_training_and_test_are_disjoint() -> None:
    texts = load_attacks()
    assert texts.injected_word in texts.injected_prompt.split()
    assert not set(texts.ignore_test) & set(texts.ignore_train)
    assert not set(texts.fake_delimiters_test) & set(texts.fake_delimiters_train)
    assert texts.completion_real not in (
        *texts.fake_delimiters_test,
        *texts.fake_delimiters_train,
    )
    for phrase in (*texts.ignore_test, *texts.ignore_train, *texts.paraphrase_test):
        assert phrase.count(SLOT) == 1
    raw = json.loads(ATTACKS_FILE.read_text(encoding="utf-8"))
    # The miniature world has no lists of spellings of its own for StruQ's delimiters.
    assert set(raw) == set(texts.__dataclass_fields__) - {"delimiter_words"}
    assert texts.delimiter_words is None
