"""Every canary of the DefensiveTokens steps passes and fails, on planted numbers or a few texts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit.engine.registry import PinInput
from kit.methods.defensive_tokens.layouts import BEFORE_BOS
from kit.methods.defensive_tokens.prompt_checks import PromptCheck
from kit.steps.defensive_tokens import alignment, evaluation, labels, params, training
from kit.steps.defensive_tokens.evaluation import run_evaluate
from tests.steps.contexts import FakeContext, Loose, Steps, giving, mini_pins, nothing_is_loaded

Patch = pytest.MonkeyPatch
METHOD = "kit.methods.defensive_tokens"


@pytest.fixture
def done(tmp_path: Path) -> Loose:
    return Loose(tmp_path)


@pytest.mark.parametrize(
    ("error", "unique", "failed"),
    [
        (9e-7, True, set()),
        (1e-6, True, {"map-is-orthogonal"}),
        (0.0, False, {"map-is-unique"}),
    ],
)
def test_a_map_that_is_no_rotation_or_one_of_many(
    done: Loose, monkeypatch: Patch, error: float, unique: bool, failed: set[str]
) -> None:
    facts = {"orthogonality_error": error, "unique": unique, "smallest_singular_value": 1.0}
    nothing_is_loaded(monkeypatch, alignment, "tokenizer")
    monkeypatch.setattr(alignment, "embeddings", giving(torch.zeros(7, 3)))
    monkeypatch.setattr("kit.lm.vocabulary.renamed_control_ids", giving({}))
    monkeypatch.setattr(f"{METHOD}.procrustes.orthogonal_map", giving(None))
    monkeypatch.setattr(f"{METHOD}.alignment_files.describe", giving(facts))
    monkeypatch.setattr(f"{METHOD}.alignment_files.save_alignment", giving(None))
    alignment.run_align(done, params.Align())
    assert {id for id, passed in done.outcomes.items() if not passed} == failed
    assert len(done.outcomes) == 2
    written = json.loads((done.out / "alignment.json").read_text(encoding="utf-8"))
    assert written == {**facts, "rows": 7}


@pytest.mark.parametrize(
    ("builder", "leaked", "passed"),
    [
        ("as-reported", 1, True),
        ("as-reported", 0, False),
        ("proper", 1, False),
        ("proper", 0, True),
    ],
)
def test_a_leak_that_should_not_be_there_and_that_should(
    tmp_path: Path, monkeypatch: Patch, builder: Any, leaked: int, passed: bool
) -> None:
    monkeypatch.setattr(f"{METHOD}.struq.leaked_items", giving([None] * leaked))
    asked = params.TrainingData(builder=builder, steps=3, batch=4, seed=1)
    made = Steps(tmp_path, mini_pins()).run("data", labels.run_training_data, asked)
    outcome, detail = made.canaries["test-word-leak"]
    assert outcome is passed
    assert detail == f"{leaked} of 12 consumed items contain the test word"


@pytest.mark.parametrize(("empty", "passed"), [(0, True), (1, True), (2, False)])
def test_labels_of_which_many_are_empty(
    done: Loose, monkeypatch: Patch, empty: int, passed: bool
) -> None:
    """A twentieth may be; a label of white space is empty."""
    texts = [" \n"] * empty + ["a"] * (20 - empty)
    made = {
        str(n): SimpleNamespace(text=text, finish_reason="length" if n < 3 else "stop")
        for n, text in enumerate(texts)
    }
    monkeypatch.setattr(labels, "engine", giving((None, None, None)))
    nothing_is_loaded(monkeypatch, labels, "samples_to_label")
    monkeypatch.setattr(f"{METHOD}.self_label.make_labels", giving(made))
    monkeypatch.setattr(f"{METHOD}.self_label.save_labels", giving(None))
    labels.run_self_label(done, params.SelfLabel(max_new_tokens=2, empty_data="no-turn"))
    assert done.outcomes == {"labels-are-answers": passed}
    written = json.loads((done.out / "summary.json").read_text(encoding="utf-8"))
    assert written == {"labels": 20, "empty": empty, "truncated": 3}


TRAIN = {
    "label": "adapt",
    "init": "normal",
    "lr": 0.1,
    "schedule": "constant",
    "steps": 3,
    "micro_batch": 2,
    "accumulation": 2,
    "checkpoints": [3],
    "layout": BEFORE_BOS,
    "seed": 1,
    "end_truncated": True,
    "label_tokens": "as-text",
}


@pytest.mark.parametrize(
    ("masked", "moved", "touched", "failed"),
    [
        (0, 1e-9, False, set()),
        (1, 1.0, False, set()),  # of a hundred items
        (2, 1.0, False, {"prompts-leave-room"}),
        (0, 0.0, False, {"prefix-moved"}),
        (0, 1.0, True, {"model-is-frozen"}),
    ],
)
def test_a_training_that_moved_the_wrong_thing(
    tmp_path: Path, monkeypatch: Patch, masked: int, moved: float, touched: bool, failed: set[str]
) -> None:
    made = trained(tmp_path, monkeypatch, masked=masked, moved=moved, touched=touched)
    assert {id for id, passed in made.outcomes.items() if not passed} == failed
    assert len(made.outcomes) == 3
    assert made.notes == []
    _, detail = made.canaries["prompts-leave-room"]
    assert detail.startswith(f"{masked} of 100 items train nothing")
    assert ("item-0" in detail) is bool(masked)


def test_checkpoints_that_were_damaged_are_noted(tmp_path: Path, monkeypatch: Patch) -> None:
    (note,) = trained(tmp_path, monkeypatch, damaged=["state-2"]).notes
    assert "state-2" in note


@pytest.mark.parametrize(
    ("checkpoints", "said"),
    [
        ([], "at least one"),
        ([-1, 3], "from 0 on"),
        ([4], "behind the last"),
        ([1, 4], "behind the last"),
    ],
)
def test_checkpoints_that_no_step_reaches(
    tmp_path: Path, monkeypatch: Patch, checkpoints: list[int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        trained(tmp_path, monkeypatch, checkpoints=checkpoints)


def test_every_step_is_said_and_kept(tmp_path: Path, monkeypatch: Patch) -> None:
    kept: list[tuple[int, float]] = []
    saved: dict[str, list[str]] = {}
    made = trained(tmp_path, monkeypatch, kept_steps=kept, saved=saved, label="new")
    assert saved == {"prefixes.safetensors": ["new-3"]}
    assert made.progressed == [(1, 3), (2, 3), (3, 3)]
    assert made.metrics == [("loss", 0.5, 1), ("loss", 0.5, 2), ("loss", 0.5, 3)]
    assert kept == [(1, 0.5), (2, 0.5), (3, 0.5)]


def test_vocabularies_that_cannot_be_aligned_are_not(done: Loose, monkeypatch: Patch) -> None:
    nothing_is_loaded(monkeypatch, alignment, "tokenizer", "embeddings")

    def refuse(source: Any, target: Any) -> None:
        raise ValueError("two vocabularies")

    monkeypatch.setattr("kit.lm.vocabulary.renamed_control_ids", refuse)
    with pytest.raises(ValueError, match="two vocabularies"):
        alignment.run_align(done, params.Align())


def trained(
    folder: Path,
    patch: Patch,
    *,
    masked: int = 0,
    moved: float = 1.0,
    touched: bool = False,
    damaged: list[str] | None = None,
    kept_steps: list[tuple[int, float]] | None = None,
    saved: dict[str, list[str]] | None = None,
    **changes: Any,
) -> Loose:
    """The step around a training of which this became known."""
    made, saved = Loose(folder), {} if saved is None else saved
    (made.out / "summary.json").write_text("{}", encoding="utf-8")
    start, prints = torch.zeros(5, 2), iter(["before", "after" if touched else "before"])
    kept = SimpleNamespace(
        resume=giving(SimpleNamespace(step=0)),
        damaged=damaged or [],
        save=None,
        on_step=lambda step, loss: None if kept_steps is None else kept_steps.append((step, loss)),
        prefixes=lambda: {3: start},
        losses=list,
    )

    def fit(*given: Any, on_masked: Any, on_step: Any, **named: Any) -> Any:
        for step in range(1, 4):
            on_step(step, 0.5)
        on_masked([f"item-{n}" for n in range(masked)])
        return SimpleNamespace(state=SimpleNamespace(prefix=start + moved))

    plan = SimpleNamespace(heldout=[], schedule=SimpleNamespace(consumed=giving(range(100))))
    nothing_is_loaded(patch, training, "_compiled_model", "_recipe")
    patch.setattr(training, "tokenizer_and_format", giving((None, None)))
    patch.setattr(training, "_initial", giving(start))
    patch.setattr("kit.lm.fingerprint.fingerprint", lambda model: next(prints))
    for name, value in (
        ("plan_files.load_plan", giving(plan)),
        ("prefix_sets.save_sets", lambda path, sets: saved.update({path.name: list(sets)})),
        ("prefix_training.checkpoints.Checkpoints", giving(kept)),
        ("recipe.fit", fit),
        ("self_label.load_labels", giving({})),
        ("stage_numbers.training_facts", giving({})),
    ):
        patch.setattr(f"{METHOD}.{name}", value)
    training.run_train_prefix(made, params.TrainPrefix(**(TRAIN | changes)))  # type: ignore[arg-type]
    return made


def evaluated(folder: Path, defences: list[str], **changes: Any) -> FakeContext:
    """Four texts of the miniature world, attacked."""
    pins = mini_pins()
    rows = json.loads(pins["evaluation"].path.read_text(encoding="utf-8"))[:4]
    (folder / "few.json").write_text(json.dumps(rows), encoding="utf-8")
    asked = params.Evaluate(
        layout=BEFORE_BOS,
        attacks=["ignore"],
        max_new_tokens=3,
        seed=42,
        accuracy=False,
        refusal_rule="as-reported",
        defences=defences,
        **changes,
    )
    pins |= {"evaluation": PinInput("few", folder / "few.json", {})}
    return Steps(folder, pins).run("evaluate", run_evaluate, asked)


@pytest.mark.parametrize(("own", "acts"), [("own={data}", False), ("own={data} now", True)])
def test_a_defence_of_ones_own_that_changes_no_text(tmp_path: Path, own: str, acts: bool) -> None:
    made = evaluated(tmp_path, [own])
    assert made.canaries["own-defence-acts"][0] is acts
    assert "own" in made.canaries["own-defence-acts"][1]
    # Of a single row none can differ.
    assert made.canaries["labels-differ-between-sets"][0]


@pytest.mark.parametrize(
    ("defences", "differ"),
    [(["undefended", "native"], True), (["undefended", "sandwich"], False)],
)
def test_rows_that_all_say_the_same(tmp_path: Path, defences: list[str], differ: bool) -> None:
    """A sandwich of nothing is no defence."""
    made = evaluated(tmp_path, defences)
    assert made.canaries["labels-differ-between-sets"][0] is differ
    assert "own-defence-acts" not in made.canaries


@pytest.mark.parametrize("output_rows", [True, False])
def test_only_a_prefix_is_measured_as_output_rows_and_where_that_is_asked(
    tmp_path: Path, monkeypatch: Patch, output_rows: bool
) -> None:
    monkeypatch.setattr(evaluation, "_as_output_rows", giving({"wins": []}))
    made = evaluated(tmp_path, ["undefended", "native"], output_rows=output_rows)
    scores = json.loads((made.out / "scores.json").read_text(encoding="utf-8"))
    assert ["output_rows" in scores[name] for name in ("undefended", "native")] == [
        False,
        output_rows,
    ]
    assert made.progressed == [(1, 2), (2, 2)]


@pytest.mark.parametrize("id", ["attack-present", "prefix-in-place"])
def test_a_check_of_the_prompts_that_fails_is_a_canary_that_fails(
    tmp_path: Path, monkeypatch: Patch, id: str
) -> None:
    check = PromptCheck(id, 3, 4)
    monkeypatch.setattr(f"{METHOD}.prompt_checks.check_prompts", giving([check]))
    assert evaluated(tmp_path, ["undefended"]).canaries[id] == (False, check.detail)
