"""What an attack is watched with picks answers as evaluations before and after it do."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from kit.evals.multiple_choice import letters, score
from kit.lm.generate import TransformersBackend
from kit.tampering.watched import watch
from tests.train.tiny import VOCABULARY, llama


class Characters:
    """A tokenizer of one token a character."""

    pad_token_id = 0
    eos_token_id = 0

    def __call__(self, text):
        return SimpleNamespace(input_ids=[1 + ord(c) % (VOCABULARY - 1) for c in text])


def questions(count=24):
    """Options of one, three, seven and twelve characters, so that their lengths decide."""
    words = ("a", "bcd", "efghijk", "lmnopqrstuvw")
    return [
        {
            "id": f"q-{at}",
            "prompt": f"{at:04d}: ",
            "options": [" " + word[at % 5 :] + word[: at % 5] for word in words],
            "answer": at % 4,
        }
        for at in range(count)
    ]


def test_a_cloze_set_is_picked_by_characters_under_attack_as_before_it(tmp_path):
    for kind in ("questions", "texts"):
        (tmp_path / kind).mkdir()
    text = "".join(json.dumps(one) + "\n" for one in questions())
    for name in ("plain", "world-cloze"):
        (tmp_path / "questions" / f"{name}.jsonl").write_text(text)
    (tmp_path / "texts" / "attacker.jsonl").write_text('{"id": "t", "text": "abc"}\n')
    sets = {"plain": "plain", "cloze": "world-cloze"}
    settings = SimpleNamespace(
        steps=4, measure_every=2, data=["attacker"], questions=sets, seldom=[]
    )
    points, watched = watch(tmp_path, Characters(), settings)
    model = llama(3).eval()
    with torch.no_grad():
        found = watched(model, points[0])
    scored = score(TransformersBackend(model, 0), watched.items["cloze"])
    for name, normalised in (("plain", False), ("cloze", True)):
        picked, right = letters(scored, normalised=normalised)
        assert found["picks"][name] == "".join(picked)
        assert found[name] == sum(a == b for a, b in zip(picked, right, strict=True)) / len(right)
    assert found["picks"]["plain"] != found["picks"]["cloze"]
    assert found["probability"]["plain"] == found["probability"]["cloze"]


@pytest.mark.parametrize(
    ("steps", "every", "points", "whole"),
    [
        (10, 5, (0, 5, 10), {0, 5, 10}),
        (10, 4, (0, 4, 8, 10), {0, 4, 10}),
        (12, 4, (0, 4, 8, 12), {0, 4, 12}),  # of two as near the first
        (9, 4, (0, 4, 8, 9), {0, 4, 9}),
        (3, 9, (0, 3), {0, 3}),
        (6, 1, (0, 1, 2, 3, 4, 5, 6), {0, 3, 6}),
    ],
)
def test_what_is_seldom_asked_is_asked_before_half_way_and_after(
    tmp_path, steps, every, points, whole
):
    for kind, name in (("questions", "plain"), ("texts", "attacker"), ("texts", "first")):
        (tmp_path / kind).mkdir(exist_ok=True)
        text = (
            "".join(json.dumps(one) + "\n" for one in questions(2))
            if kind == "questions"
            else '{"id": "t", "text": "abc"}\n'
        )
        (tmp_path / kind / f"{name}.jsonl").write_text(text)
    settings = SimpleNamespace(
        steps=steps, measure_every=every, data=["first", "attacker"], questions=["plain"],
        seldom=["plain", "trained"],
    )  # fmt: skip
    at, watched = watch(tmp_path, Characters(), settings)
    assert at == points
    model = llama(3).eval()
    with torch.no_grad():
        asked = {step: "plain" in watched(model, step) for step in points}
    assert asked == {step: step in whole for step in points}
