"""Every canary of the trainings and evaluations fires on the harm it is named for, and no earlier.

What a method would have measured is planted in its stead: the step alone decides what passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.evals.judge_prompts import Request
from kit.mini.facts.measure import LEAST_KNOWN, MOST_GUESSED
from kit.steps.checkpoint_transfer import maps, unlearning
from kit.steps.checkpoint_transfer import params as ct
from kit.steps.mini import pretraining
from kit.steps.mini.params import Pretrain
from kit.steps.tar import judging
from tests.steps.contexts import Loose, giving, nothing_is_loaded
from tests.steps.test_checkpoint_transfer_run import _unlearn

Patch = pytest.MonkeyPatch


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Loose]:
    return lambda **given: Loose(tmp_path, **given)


JUDGED = [
    # What the audit says, unreadable and empty of a hundred; what fails of it.
    (True, 0, 0, set()),
    (False, 0, 0, {"judge-audited"}),
    (True, 5, 0, set()),
    (True, 6, 0, {"judge-understood"}),
    (True, 0, 50, set()),
    (True, 0, 51, {"answers-given"}),
    (False, 100, 100, {"judge-audited", "judge-understood", "answers-given"}),
]


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize(("audited", "unreadable", "empty", "failed"), JUDGED)
def test_a_judge_that_is_none_and_a_model_that_is_silent(
    context: Any,
    monkeypatch: Patch,
    audited: bool,
    unreadable: int,
    empty: int,
    failed: set[str],
    rehearsal: bool,
) -> None:
    nothing_is_loaded(monkeypatch, judging, "tokenizer_of", "transformers_backend")
    said = {"unreadable": unreadable, "verdicts": 100, "empty": empty, "answers": 100, "mean": None}
    whole = _judged_evaluation(["a", "b", "c"])
    for name, value in (
        ("answers.answer", []),
        ("judge_audit.audit", SimpleNamespace(passed=audited)),
        ("judges.judged", []),
        ("judged_sets.summary", said),
        ("judged_sets.evaluation", whole),
        ("judged_sets.standin", whole),
        ("sets.pad_id", 0),
    ):
        monkeypatch.setattr(f"kit.evals.{name}", giving(value))
    made = context(rehearsal=rehearsal)
    judging.run_judge(made, judging.JudgeModel(judge="harmbench"))
    assert {id for id, passed in made.outcomes.items() if not passed} == (
        set() if rehearsal else failed
    )
    assert len(made.outcomes) == 3
    # A rehearsal's table needs a number; a run's score of nothing is none.
    written = json.loads((made.out / judging.JUDGED).read_text(encoding="utf-8"))
    assert written["mean"] == (0.0 if rehearsal else None)


def _judged_evaluation(names: list[str]) -> Any:
    from kit.evals import judges
    from kit.evals.judge_prompts import Template
    from kit.evals.judged_sets import Evaluation

    judge = judges.harmbench(Template("{behavior} {generation}"))
    return Evaluation(judge, [Request(name, (name,)) for name in names])


@pytest.mark.parametrize(
    ("given", "asked", "tokens"),
    [({}, ["a", "b", "c"], None), ({"most": 2, "judge_tokens": 7}, ["a", "b"], 7)],
)
def test_how_much_a_judge_reads_and_writes(
    context: Any, monkeypatch: Patch, given: dict[str, int], asked: list[str], tokens: int | None
) -> None:
    nothing_is_loaded(monkeypatch, judging, "tokenizer_of", "transformers_backend")
    whole = _judged_evaluation(["a", "b", "c"])
    seen: dict[str, Any] = {}
    said = {"unreadable": 0, "verdicts": 1, "empty": 0, "answers": 1, "mean": 1.0}

    def summarised(of: Any, values: Any, answers: Any) -> dict[str, Any]:
        seen["of"] = of
        return said

    monkeypatch.setattr("kit.evals.answers.answer", lambda *a, **k: [])
    monkeypatch.setattr("kit.evals.judge_audit.audit", giving(SimpleNamespace(passed=True)))
    monkeypatch.setattr("kit.evals.judges.judged", giving([]))
    monkeypatch.setattr("kit.evals.judged_sets.summary", summarised)
    monkeypatch.setattr("kit.evals.judged_sets.evaluation", giving(whole))
    monkeypatch.setattr("kit.evals.sets.pad_id", giving(0))
    judging.run_judge(context(), judging.JudgeModel(judge="harmbench", **given))
    assert [request.id for request in seen["of"].requests] == asked
    assert seen["of"].judge.tokens == (tokens or whole.judge.tokens)


@pytest.mark.parametrize(
    ("retain", "forget", "moved", "frozen", "control", "failed"),
    [
        (LEAST_KNOWN, LEAST_KNOWN, (7, 7), True, False, set()),
        (LEAST_KNOWN - 0.01, LEAST_KNOWN, (7, 7), True, False, {"retained-is-known"}),
        (1.0, LEAST_KNOWN - 0.01, (7, 7), True, False, {"compounds-are-known"}),
        (1.0, MOST_GUESSED, (7, 7), True, True, set()),
        (1.0, MOST_GUESSED + 0.01, (7, 7), True, True, {"compounds-are-not-known"}),
        (1.0, 1.0, (6, 7), True, False, {"weights-moved"}),
        (1.0, 1.0, (7, 7), False, False, {"embeddings-frozen"}),
    ],
)
def test_a_pretraining_that_taught_nothing_or_too_much(
    context: Any,
    monkeypatch: Patch,
    retain: float,
    forget: float,
    moved: tuple[int, int],
    frozen: bool,
    control: bool,
    failed: set[str],
) -> None:
    params = Pretrain(seed=0, forget=not control)
    shares = {params.steps: {"retain": retain, "forget_judge": forget}, 0: {}}
    made = SimpleNamespace(losses=[1.0], shares=shares, moved=moved, frozen=frozen)

    def pretrain(*given: Any, on_step: Any, **named: Any) -> Any:
        on_step(2, 0.5)
        return made

    monkeypatch.setattr("kit.mini.facts.runs.pretrain_into", pretrain)
    done = context()
    pretraining.run_pretrain(done, params)
    assert (done.progressed, done.metrics) == ([(2, params.steps)], [("loss", 0.5, 2)])
    assert {id for id, passed in done.outcomes.items() if not passed} == failed
    assert len(done.outcomes) == 4
    written = json.loads((done.out / "training.json").read_text(encoding="utf-8"))
    assert written == {"losses": [1.0], "shares": {str(step): s for step, s in shares.items()}}


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize(
    ("mapped", "raw", "closer"),
    [([1.0, 1.0], [2.0, 2.0], True), ([1.0, 2.0], [2.0, 2.0], False), ([3, 1.0], [2, 2], False)],
)
def test_maps_that_are_no_closer_at_some_block(
    context: Any,
    monkeypatch: Patch,
    mapped: list[float],
    raw: list[float],
    closer: bool,
    rehearsal: bool,
) -> None:
    nothing_is_loaded(monkeypatch, maps, "tokenizer_of", "pad_of", "padded", "load_model")
    texts = SimpleNamespace(fit=[[1]], held_out=[[2]])
    monkeypatch.setattr("kit.methods.checkpoint_transfer.texts.read_texts", giving(texts))
    errors = [dict(enumerate(map(_mse, values))) for values in (mapped, raw)]
    fitted = SimpleNamespace(maps={}, fit={}, held_out=errors[0], unmapped=errors[1])
    monkeypatch.setattr("kit.methods.checkpoint_transfer.fitting.fit_maps", giving(fitted))
    monkeypatch.setattr("kit.methods.checkpoint_transfer.affine_files.save_maps", giving(None))
    done = context(rehearsal=rehearsal)
    maps.run_fit(done, ct.Fit(layers=[0, 1]))
    assert done.outcomes == {"maps-are-closer-than-raw-states": closer or rehearsal}


def _mse(value: float) -> Any:
    return SimpleNamespace(mse=value)


@pytest.mark.parametrize("rehearsal", [False, True])
@pytest.mark.parametrize(
    ("right", "forgot"),
    [
        ({1: [1, 1, 1, 1], 4: [1, 0, 0, 0]}, True),  # as much as may be known, at the deepest
        ({1: [0, 0, 0, 0], 4: [1, 1, 0, 0]}, False),
    ],
)
def test_a_target_that_knows_itself(
    context: Any, monkeypatch: Patch, right: dict[int, list[int]], forgot: bool, rehearsal: bool
) -> None:
    names = ("tokenizer_of", "pad_of", "load_model", "maps_of", "questions_of", "encoder")
    nothing_is_loaded(monkeypatch, maps, *names)
    monkeypatch.setattr("kit.lm.generate.TransformersBackend", giving(None))
    answers = {block: {"right": flags} for block, flags in right.items()}
    monkeypatch.setattr("kit.methods.checkpoint_transfer.answers.patched_answers", giving(answers))
    done = context(rehearsal=rehearsal)
    maps.run_oracle(done, ct.Oracle(questions="forget", most_known=0.25))
    assert done.outcomes == {"target-does-not-know": forgot or rehearsal}
    written = json.loads((done.out / "answers.json").read_text(encoding="utf-8"))
    assert written == {"forget": {"blocks": {str(b): {"right": r} for b, r in right.items()}}}


UNCHANGED = "model-under-the-adapters-unchanged"


@pytest.mark.parametrize("full_rank", [False, True])
@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, set()),
        ({"teacher_unchanged": False}, {"teacher-unchanged"}),
        ({"moved": frozenset()}, {"only-trained-weights-moved"}),
        ({"moved": frozenset("abc")}, {"only-trained-weights-moved"}),
        ({"base_moved": 1}, {UNCHANGED}),
    ],
)
def test_an_unlearning_that_moved_something_else_or_nothing(
    context: Any, monkeypatch: Patch, changes: dict[str, Any], failed: set[str], full_rank: bool
) -> None:
    done = unlearned(monkeypatch, context(), full_rank=full_rank, **changes)
    assert {id for id, passed in done.outcomes.items() if not passed} == (
        failed - {UNCHANGED} if full_rank else failed
    )
    # All weights are trained: there is no model under adapters.
    assert (UNCHANGED in done.outcomes) is not full_rank
    assert done.notes == []


def test_the_first_tensor_that_may_not_move_is_named(context: Any, monkeypatch: Patch) -> None:
    moved = {"moved": frozenset("hgfedcb"), "allowed": frozenset("b")}
    _, detail = unlearned(monkeypatch, context(), **moved).canaries["only-trained-weights-moved"]
    assert detail == "7 tensors moved of 1 that may; c may not"


@pytest.mark.parametrize(
    ("diverged_at", "finite", "notes"),
    [(None, True, 0), (3, True, 1), (0, True, 1), (3, False, 2), (None, False, 1)],
)
def test_a_divergence_is_noted(
    context: Any, monkeypatch: Patch, diverged_at: int | None, finite: bool, notes: int
) -> None:
    run = SimpleNamespace(diverged_at=diverged_at, finite=finite)
    assert len(unlearned(monkeypatch, context(), run=run).notes) == notes


def unlearned(patch: Patch, done: Loose, *, full_rank: bool = False, **changes: Any) -> Loose:
    """The step around a run that ended as told."""
    names = ("tokenizer_of", "pad_of", "load_model", "maps_of")
    nothing_is_loaded(patch, unlearning, *names)
    texts = SimpleNamespace(pairs=giving(None))
    patch.setattr("kit.methods.checkpoint_transfer.texts.read_texts", giving(texts))
    run = SimpleNamespace(diverged_at=None, finite=True)
    ended = {"moved": frozenset("a"), "allowed": frozenset("ab"), "base_moved": 0, "run": run}
    ended |= {"teacher_unchanged": True, **changes}
    whole_run = "kit.methods.checkpoint_transfer.whole_run"
    patch.setattr(f"{whole_run}.run_recipe", giving(SimpleNamespace(**ended)))
    patch.setattr(f"{whole_run}.save", giving(None))
    patch.setattr(f"{whole_run}.summary", giving({}))
    unlearning.run_unlearn(done, _unlearn(full_rank=full_rank))
    return done
