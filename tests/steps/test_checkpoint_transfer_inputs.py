"""What the family's steps read and hand on: published sets or stand-ins, ids, maps, questions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit.engine.registry import PinInput, StepInput
from kit.evals.sets import read_questions
from kit.methods.checkpoint_transfer.affine import AffineMap
from kit.methods.checkpoint_transfer.affine_files import save_maps
from kit.methods.checkpoint_transfer.questions import STEM
from kit.methods.checkpoint_transfer.standin import standin_sets
from kit.steps import common
from kit.steps.checkpoint_transfer import evaluation, inputs, maps, params
from tests.lm.tiny_world import MINI_WORDS, mini_tokenizer
from tests.steps.contexts import Loose, giving, nothing_is_loaded

Patch = pytest.MonkeyPatch
METHOD = "kit.methods.checkpoint_transfer"
COUNTS = params.Questions(robust=5, mmlu=9, mmlu_stem=4)
ALL = params.Questions(robust=5, mmlu=9, mmlu_stem=4, cloze=3, shots=2)


def written(done: Loose) -> dict[str, int]:
    names = [path.stem for path in (done.out / "questions").iterdir()]
    return {name: len(read_questions(done.out, name)) for name in names}


@pytest.mark.parametrize("asked", [COUNTS, ALL])
def test_a_rehearsal_asks_as_many_questions_as_published(
    tmp_path: Path, asked: params.Questions
) -> None:
    done = Loose(tmp_path, rehearsal=True)
    evaluation.run_questions(done, asked)
    more = {"wmdp-cloze": 3, "mmlu-2-shot": 9} if asked.cloze else {}
    assert written(done) == {"wmdp-bio": 5, "wmdp-robust": 5, "mmlu": 9, "mmlu-stem": 4, **more}
    stem = read_questions(done.out, "mmlu-stem")
    assert {question.id.split("-")[1] for question in stem} <= STEM
    assert done.outcomes == {"every-question-is-there": True}


@pytest.mark.parametrize("lost", ["", "wmdp-robust", "mmlu", "mmlu-stem"])
def test_a_question_that_is_lost_is_noticed(tmp_path: Path, monkeypatch: Patch, lost: str) -> None:
    sets = standin_sets({"wmdp-robust": 5, "mmlu": 9, "mmlu-stem": 4})
    made = {name: questions[:-1] if name == lost else questions for name, questions in sets.items()}
    monkeypatch.setattr(f"{METHOD}.questions.published_sets", giving(made))
    done = Loose(tmp_path)
    evaluation.run_questions(done, COUNTS)
    assert done.outcomes == {"every-question-is-there": not lost}
    assert written(done)["wmdp-bio"] == 5


@pytest.mark.parametrize("asked", [COUNTS, ALL])
def test_only_what_is_asked_is_read(
    tmp_path: Path, monkeypatch: Patch, asked: params.Questions
) -> None:
    seen: dict[str, Any] = {}

    def published(robust: Any, mmlu: Any, **given: Any) -> Any:
        seen.update(given)
        return standin_sets(
            {"wmdp-robust": 5, "mmlu": 9, "mmlu-stem": 4, "wmdp-cloze": 3, "mmlu-2-shot": 9}
        )

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data.jsonl").write_text("", encoding="utf-8")
    monkeypatch.setattr(f"{METHOD}.questions.published_sets", published)
    evaluation.run_questions(Loose(tmp_path), asked)
    file = [tmp_path / "out" / "data.jsonl"]
    assert seen["shots"] == asked.shots
    assert list(seen["cloze_files"]) == (file if asked.cloze else [])
    assert list(seen["shot_files"]) == (file if asked.shots else [])


@pytest.mark.parametrize(
    ("pad", "eos", "chosen"), [(7, 2, 7), (0, 2, 0), (None, 2, 2), (None, 0, 0), (None, None, None)]
)
def test_the_end_of_a_text_fills_where_nothing_else_does(
    pad: int | None, eos: int | None, chosen: int | None
) -> None:
    tokenizer: Any = SimpleNamespace(pad_token_id=pad, eos_token_id=eos)
    if chosen is None:
        with pytest.raises(ValueError, match="neither a pad token"):
            inputs.pad_of(tokenizer)
    else:
        assert inputs.pad_of(tokenizer) == chosen


def test_ids_of_a_text_are_its_words_alone() -> None:
    tokenizer = mini_tokenizer()
    words = " ".join(MINI_WORDS[:2])
    ids = inputs.encoder(tokenizer)(words)
    assert tokenizer.decode(ids) == words
    assert len(ids) == 2

    class Adding:
        """As Llama's: a control token in front unless told otherwise."""

        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return [0] * add_special_tokens + [7]

    adding: Any = Adding()
    assert inputs.encoder(adding)(words) == [7]


@pytest.mark.parametrize(("size", "sizes"), [(2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_every_row_is_in_a_batch(size: int, sizes: list[int]) -> None:
    rows = [[number + 1] * (number + 1) for number in range(5)]
    made = inputs.padded(rows, size, 0, "cpu")
    assert [len(ids) for ids, _ in made] == sizes
    again = [row[kept].tolist() for ids, mask in made for row, kept in zip(ids, mask, strict=True)]
    assert again == rows


@pytest.mark.parametrize("given", [(), ("questions",), ("published",), ("questions", "published")])
def test_questions_come_from_one_of_two(tmp_path: Path, given: tuple[str, ...]) -> None:
    before = {}
    for name in given:
        folder = tmp_path / name / "questions"
        folder.mkdir(parents=True)
        row = {"id": name, "prompt": "p", "options": ["a", "b"], "answer": 1}
        (folder / "x.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        before[name] = [StepInput(name, tmp_path / name, {}, {})]
    ctx: Any = Loose(tmp_path, before=before)
    if len(given) == 1:
        assert [question.id for question in inputs.questions_of(ctx, "x")] == [*given]
    else:
        with pytest.raises(ValueError, match="not both"):
            inputs.questions_of(ctx, "x")


@pytest.mark.parametrize("given", [(), ("fitted",), ("published",), ("fitted", "published")])
def test_maps_come_from_one_of_two_or_are_none(tmp_path: Path, given: tuple[str, ...]) -> None:
    for scale, name in enumerate(given, start=1):
        folder = tmp_path / name / ("maps" if name == "fitted" else "")
        one = {3: AffineMap(scale * torch.eye(2), torch.zeros(2))}
        save_maps(folder, one, alpha=0.0, provenance={}, fit={}, held_out={})
    pins = {"published_maps": PinInput("maps", tmp_path / "published", {})}
    steps = {"maps": [StepInput("fit", tmp_path / "fitted", {}, {})]}

    class WithPins(Loose):
        def pin(self, name: str) -> PinInput:
            return self.pins[name]

    ctx: Any = WithPins(
        tmp_path,
        before=steps if "fitted" in given else {},
        pins=pins if "published" in given else {},
    )
    if len(given) == 2:
        with pytest.raises(ValueError, match="not both"):
            inputs.maps_of(ctx)
        return
    made = inputs.maps_of(ctx)
    assert (None if made is None else list(made)) == ([3] if given else None)


def test_stand_in_texts_are_as_long_as_the_longest(tmp_path: Path) -> None:
    ctx: Any = Loose(tmp_path, rehearsal=True)
    forget = inputs.documents_of(ctx, "forget", ["text"], number=4, words=11)
    retain = inputs.documents_of(ctx, "retain-x", ["text"], number=4, words=11)
    assert [len(text.split()) for text in (*forget, *retain)] == [11] * 8
    assert not set(forget) & set(retain)


class Taken(Exception):
    """What a step went on with."""


def taking(seen: dict[str, Any]) -> Any:
    def take(*given: Any, **named: Any) -> Any:
        seen.update(named, given=given)
        raise Taken

    return take


def test_texts_of_pins_are_enough_for_pairs_and_maps(tmp_path: Path, monkeypatch: Patch) -> None:
    """In a rehearsal every set has what the run takes, each text as long as it is cut."""
    nothing_is_loaded(monkeypatch, maps, "tokenizer_of", "encoder")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(f"{METHOD}.texts.choose_texts", taking(seen))
    asked = params.Texts(seed=1, pairs=4, fit=3, held_out=2, most_tokens=17)
    with pytest.raises(Taken):
        maps.run_texts(Loose(tmp_path, rehearsal=True), asked)
    forget, retain, _ = seen["given"]
    assert len(forget) == len(retain) == 9
    assert {len(text.split()) for text in (*forget, *retain)} == {17}


def test_an_attack_of_pins_has_documents_for_all_its_pieces(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    nothing_is_loaded(monkeypatch, evaluation, "tokenizer_of", "encoder")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(f"{METHOD}.attack_data.cut", taking(seen))
    asked = params.AttackData(seed=1, documents=3, most_tokens=7, most_pieces=2)
    with pytest.raises(Taken):
        evaluation.run_attack_data(Loose(tmp_path, rehearsal=True), asked)
    (documents, _) = seen["given"]
    assert [len(text.split()) for text in documents] == [14] * 3


@pytest.mark.parametrize(
    ("scorer", "fraction", "asked"), [("kit", 1.0, 10), ("kit", 0.3, 3), ("lm-eval", 0.01, 1)]
)
def test_a_share_of_each_set_is_asked_and_a_cloze_test_is_normalised(
    tmp_path: Path, monkeypatch: Patch, scorer: Any, fraction: float, asked: int
) -> None:
    names = ("tokenizer_of", "load_model", "transformers_backend", "pad_of", "encoder")
    nothing_is_loaded(monkeypatch, evaluation, *names)
    monkeypatch.setattr(evaluation, "questions_of", giving(list(range(10))))
    scored: list[int] = []

    def answered(first: Any, second: Any = (), *rest: Any, normalised: bool) -> Any:
        questions = second if scorer == "kit" else first
        return {"asked": len(questions), "normalised": normalised}

    def harness(model: Any, tokenizer: Any, questions: Any, *, batch: int) -> Any:
        scored.append(batch)
        return questions

    monkeypatch.setattr("kit.evals.harness.harness_score", harness)
    name = "as_answers" if scorer == "lm-eval" else "answer"
    monkeypatch.setattr(f"{METHOD}.answers.{name}", answered)
    done = Loose(tmp_path)
    sets = ["wmdp-robust", "wmdp-cloze"]
    given = params.Evaluate(sets=sets, scorer=scorer, fraction=fraction, batch=5)
    evaluation.run_evaluate(done, given)
    assert json.loads((done.out / "answers.json").read_text(encoding="utf-8")) == {
        name: {"asked": asked, "normalised": name == "wmdp-cloze"} for name in sets
    }
    assert scored == ([5, 5] if scorer == "lm-eval" else [])


@pytest.mark.parametrize("rows", [["a", "b"], []])
def test_broken_models_are_noted(tmp_path: Path, monkeypatch: Patch, rows: list[str]) -> None:
    table = SimpleNamespace(write=giving(None))
    monkeypatch.setattr(f"{METHOD}.gather.tabulate", giving((table, rows)))
    done = Loose(tmp_path)
    evaluation.run_tabulate(done, params.Tabulate(losses="logged"))
    assert [note.split()[0] for note in done.notes] == rows


@pytest.mark.parametrize("failed", ["", "no compiler"])
@pytest.mark.parametrize(
    ("rows", "lengths", "graphs"),
    [
        (0, [3, 4], 0),
        (2, [3, 3], 1),  # whole batches only
        (2, [3, 4], 2),
    ],
)
def test_layers_are_compiled_ahead_for_the_batches_that_there_are(
    tmp_path: Path,
    monkeypatch: Patch,
    rows: int,
    lengths: list[int],
    graphs: int,
    failed: str,
) -> None:
    from contextlib import nullcontext

    nothing_is_loaded(monkeypatch, maps, "tokenizer_of", "pad_of", "maps_of", "load_model")
    pairs = SimpleNamespace(forget=[[1] * n for n in lengths], retain=[[1] * n for n in lengths])
    texts = SimpleNamespace(pairs=giving(pairs))
    monkeypatch.setattr(f"{METHOD}.texts.read_texts", giving(texts))
    monkeypatch.setattr(f"{METHOD}.student.adapter", giving(None))
    plan = SimpleNamespace(retain=2, forget=1)
    seen: dict[str, Any] = {}

    def keep(*given: Any, **named: Any) -> Any:
        seen.update(named, maps=given[3])
        return plan, 2**30

    monkeypatch.setattr(f"{METHOD}.targets.keep_pairs", keep)
    ahead: list[Any] = []

    def compiling(*asked: Any) -> Any:
        ahead.extend(asked)
        return nullcontext(SimpleNamespace(failed=failed))

    monkeypatch.setattr("kit.train.compile_ahead.compiling_ahead", compiling)
    inner = SimpleNamespace(config=SimpleNamespace(hidden_size=16))
    monkeypatch.setattr("kit.lm.model.inner_model", giving(inner))
    done = Loose(tmp_path)
    asked = params.Targets(
        layers=[1], pairs=2, uses=3, budget_gb=0.5, compiled_rows=rows, affine=False
    )
    maps.run_targets(done, asked)
    assert [(one.padded, one.tokens, one.rows) for one in ahead] == [
        (padded, max(lengths), rows) for padded in (False, True)[:graphs]
    ]
    assert seen["budget"] == 2**29
    assert (seen["uses"], seen["width"], seen["maps"]) == (3, 16, None)
    assert len(done.notes) == (2 if failed else 1)
    assert "1.00 GiB" in done.notes[-1]
    assert json.loads((done.out / "kept.json").read_text()) == {"retain": 2, "forget": 1}


def test_documents_of_a_pin_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("c.parquet", "a/z.jsonl", "b.json", "readme.md", "a/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    made = [str(path.relative_to(tmp_path)) for path in common.pinned_files(tmp_path)]
    assert made == ["a/z.jsonl", "b.json", "c.parquet"]
