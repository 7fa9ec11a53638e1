"""What TAR's steps ask of the methods and what they leave, with the methods planted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.engine.registry import PinInput, StepInput
from kit.evals.judge_prompts import Request
from kit.evals.judged_sets import Evaluation
from kit.evals.judges import Answered, Judge
from kit.methods.tar.pooled import Pooled
from kit.steps.tampering import kinds as tampering
from kit.steps.tampering.params import Attack, Trial
from kit.steps.tar import judging, kinds, labels, refusal
from kit.steps.tar.judging import JudgeModel, TabulateJudged
from kit.steps.tar.params import Data, Safeguard, Tabulate, Train
from kit.steps.tar.refusal_params import LabelTraining, RefusalTable, Requests
from tests.steps.contexts import Loose, giving, nothing_is_loaded
from tests.steps.test_canaries_tar import ATTACK, RATE, Table, plant_attack

Patch = pytest.MonkeyPatch


@pytest.fixture
def done(tmp_path: Path) -> Loose:
    return Loose(tmp_path)


class Asked:
    """A function that keeps what it is asked."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.given: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        self.calls = 0

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.given, self.named, self.calls = given, named, self.calls + 1
        return self.value


def test_tables_are_written(tmp_path: Path, monkeypatch: Patch) -> None:
    step = StepInput("a", tmp_path / "a", {"method": "tar"}, {})
    made = Asked(Table())
    monkeypatch.setattr("kit.methods.tar.refusal_table.tabulate_refusals", made)
    done = Loose(tmp_path, before={"attacks": [step]})
    refusal.run_refusal_table(done, RefusalTable(harmful="h", benign="b", over="o"))
    assert (done.out / "results.json").is_file()
    assert made.named == {"harmful": "h", "benign": "b", "over": "o"}
    ((attack,), _) = made.given
    assert (attack.instance, attack.trajectory) == ("a", tmp_path / "a" / tampering.TRAJECTORY)

    (done.out / "results.json").unlink()
    judged = Asked(Table())
    monkeypatch.setattr("kit.methods.tar.judged_table.tabulate_judged", judged)
    done = Loose(tmp_path, before={"mt-bench": [step], "harmbench": [step, step]})
    judging.run_tabulate_judged(
        done, TabulateJudged(not_run=["x", "y"], reason="why", over="o", absent=["z"])
    )
    assert (done.out / "results.json").is_file()
    assert judged.named == {
        "not_run": {"x": "why", "y": "why"},
        "over": "o",
        "absent": {"z": "why"},
    }
    assert [model.file.name for model in judged.given[0]] == [judging.JUDGED] * 3


@pytest.mark.parametrize("over", ["", "order"])
def test_a_statistic_is_taken_over_an_axis_where_one_is_named(
    tmp_path: Path, monkeypatch: Patch, over: str
) -> None:
    step = StepInput("a", tmp_path / "a", {}, {})
    made = Asked((Table(), {}))
    monkeypatch.setattr("kit.methods.tar.gather.tabulate", made)
    done = Loose(tmp_path, before={"attacks": [step], "further": [step, step]})
    kinds.run_tabulate(done, Tabulate(steps=[3, 9], over=over, statistic="range"))
    assert made.named["pooled"] == (Pooled("order", "range", (3, 9)) if over else None)
    assert (made.named["steps"], len(made.given[0])) == ([3, 9], 3)


@pytest.mark.parametrize("rehearsal", [False, True])
def test_sets_of_a_domain_are_read_or_stood_in_for(
    tmp_path: Path, monkeypatch: Patch, rehearsal: bool
) -> None:
    sets = "kit.methods.tar.published_sets"
    asked = {
        "raw_sets": Asked({"b": [1, 2]}), "question_sets": Asked({"c": [1]}),
        "standin_sets": Asked(({"b": [1, 2]}, {"c": [1]})), "write_sets": Asked(None),
    }  # fmt: skip
    for name, function in asked.items():
        monkeypatch.setattr(f"{sets}.{name}", function)
    monkeypatch.setattr(kinds, "pinned_files", lambda path: [path])
    nothing_is_loaded(monkeypatch, kinds, "tokenizer_of")
    done = Loose(tmp_path, rehearsal=rehearsal, pins={"chem": PinInput("chem", tmp_path, {})})
    kinds.run_data(done, Data(domain="chem", width=9, published=["b=2", "c=1"]))
    calls = {name: function.calls for name, function in asked.items()}
    assert calls == {
        "raw_sets": not rehearsal, "question_sets": not rehearsal, "standin_sets": rehearsal,
        "write_sets": 1,
    }  # fmt: skip
    if rehearsal:
        assert asked["standin_sets"].given == ("chem", {"b": 2, "c": 1}, 9)
    else:
        assert asked["raw_sets"].given == ({"chem": [done.out]}, "chem")
    folder, texts, questions, _, width = asked["write_sets"].given
    assert (folder, texts, questions, width) == (done.out, {"b": [1, 2]}, {"c": [1]}, 9)
    assert done.outcomes == {"counts-as-published": True}


def test_published_pairs_are_written_at_their_widths(done: Loose, monkeypatch: Patch) -> None:
    pairs, wrote = Asked({"b": [1, 2]}), Asked(None)
    monkeypatch.setattr(refusal, "tokenizer_and_format", giving((None, None)))
    monkeypatch.setattr("kit.methods.tar.refusal_published.published_pairs", pairs)
    monkeypatch.setattr("kit.methods.tar.refusal_data.write_pairs", wrote)
    refusal.run_requests(done, Requests(prompt_width=5, width=8, refusal="no", published=["b=2"]))
    assert pairs.given == ({}, "no")
    assert wrote.given[:2] == (done.out, {"b": [1, 2]})
    assert wrote.named == {"prompt_width": 5, "width": 8}
    assert json.loads((done.out / refusal.COUNTS).read_text()) == {"b": 2}


class Judging:
    """A judge, and a model that it judges, planted."""

    def __init__(self, patch: Patch, requests: int = 40) -> None:
        self.judge = Judge("harmbench", giving([]), giving(None), 7, False, None, 0.5)
        self.requests = [Request(str(number), ("x",)) for number in range(requests)]
        whole = Evaluation(self.judge, self.requests)
        self.evaluation, self.standin = Asked(whole), Asked(whole)
        self.answer = Asked([Answered(self.requests[0], ("a",))])
        self.audit, self.judged = Asked(SimpleNamespace(passed=True)), Asked([[1.0]])
        self.summary, self.backend = Asked({}), Asked(None)
        self.tokenizers = {name: SimpleNamespace(chat_template=name) for name in ("model", "judge")}
        sets = "kit.evals.judged_sets"
        for name, value in (
            (f"{sets}.evaluation", self.evaluation), (f"{sets}.standin", self.standin),
            (f"{sets}.summary", self.summary), ("kit.evals.answers.answer", self.answer),
            ("kit.evals.judge_audit.audit", self.audit), ("kit.evals.judges.judged", self.judged),
            ("kit.evals.sets.pad_id", giving(0)),
        ):  # fmt: skip
            patch.setattr(name, value)
        patch.setattr(judging, "transformers_backend", self.backend)
        patch.setattr(judging, "tokenizer_of", lambda ctx, model: self.tokenizers[model.id])

    def said(self, **changes: Any) -> None:
        self.summary.value = {
            "mean": 1.0, "unreadable": 0, "verdicts": 100, "empty": 0, "answers": 10,
        } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("said", "outcome"),
    [({}, (True, True, True)), ({"unreadable": 5}, (True, True, True)),
     ({"unreadable": 6}, (True, False, True)), ({"empty": 5}, (True, True, True)),
     ({"empty": 6}, (True, True, False)), ({"passed": False}, (False, True, True))],
)  # fmt: skip
@pytest.mark.parametrize("rehearsal", [False, True])
def test_what_a_judge_has_to_pass(
    tmp_path: Path, monkeypatch: Patch, said: dict[str, Any], outcome: Any, rehearsal: bool
) -> None:
    """One verdict of twenty may be unreadable, half of the answers empty; a rehearsal asks less."""
    planted = Judging(monkeypatch)
    planted.audit.value.passed = said.get("passed", True)
    planted.said(**{name: value for name, value in said.items() if name != "passed"})
    done = Loose(tmp_path, rehearsal=rehearsal)
    judging.run_judge(done, JudgeModel(judge="harmbench"))
    names = ("judge-audited", "judge-understood", "answers-given")
    wanted = (True, True, True) if rehearsal else outcome
    assert done.outcomes == dict(zip(names, wanted, strict=True))


@pytest.mark.parametrize("rehearsal", [False, True])
def test_a_rehearsed_judge_stands_in_and_has_a_template(
    tmp_path: Path, monkeypatch: Patch, rehearsal: bool
) -> None:
    planted = Judging(monkeypatch)
    planted.said(mean=None)
    done = Loose(tmp_path, rehearsal=rehearsal, pins={"template": PinInput("t", tmp_path, {})})
    judging.run_judge(done, JudgeModel(judge="harmbench", most=3, max_new_tokens=5))
    assert (planted.standin.calls, planted.evaluation.calls) == (rehearsal, not rehearsal)
    if not rehearsal:
        assert planted.evaluation.given == ("harmbench", {"template": done.out})
    kept = {t.chat_template for t in planted.tokenizers.values()} == {"model", "judge"}
    assert kept is not rehearsal
    written = json.loads((done.out / judging.JUDGED).read_text())
    assert written["mean"] == (0.0 if rehearsal else None)
    assert planted.answer.given[2] == planted.requests[:3]
    assert planted.answer.named == {"max_new_tokens": 5}
    assert planted.backend.calls == 2


@pytest.mark.parametrize(("given", "tokens"), [(0, 7), (3, 3)])
def test_a_judge_writes_what_its_evaluation_says_unless_it_is_said_otherwise(
    done: Loose, monkeypatch: Patch, given: int, tokens: int
) -> None:
    planted = Judging(monkeypatch)
    planted.said(mean=2.5)
    judging.run_judge(done, JudgeModel(judge="harmbench", judge_tokens=given))
    assert planted.audit.given[2].tokens == tokens
    assert planted.answer.given[2] == planted.requests  # all of them
    assert planted.summary.given[2] == [("a",)]
    assert json.loads((done.out / judging.JUDGED).read_text())["mean"] == 2.5


def test_a_labelled_model_is_asked_what_it_knows(done: Loose, monkeypatch: Patch) -> None:
    chat = SimpleNamespace(pad_id=giving(3), stop_ids=giving([1]))
    monkeypatch.setattr(labels, "tokenizer_and_format", giving((None, chat)))
    loaded: list[bool] = []
    monkeypatch.setattr(labels, "load_model", lambda *_, trainable=False: loaded.append(trainable))
    items = {"known": [SimpleNamespace(id=f"q{n}", answer=n % 2) for n in range(3)]}
    picked = [SimpleNamespace(chosen=giving(choice)) for choice in (0, 0, 0)]
    log_probs = Asked([-1.0])
    for name, value in (
        ("kit.methods.tar.pairs.read_pairs", giving([])),
        ("kit.evals.requests.read_asked", giving([])),
        ("kit.evals.sets.question_items", giving(items)),
        ("kit.evals.multiple_choice.score", giving(picked)),
        ("kit.lm.generate.TransformersBackend", giving(None)),
        ("kit.evals.requests.TransformersBackend", giving(SimpleNamespace(generate=giving([])))),
        ("kit.methods.tar.label_study.answer_log_probs", log_probs),
    ):
        monkeypatch.setattr(name, value)

    def train(*given: Any, pad_id: int, rows: int) -> Any:
        measured = given[5](None)
        return {"before": measured, "after": measured}, SimpleNamespace(losses=[1.0, 2.0])

    monkeypatch.setattr("kit.methods.tar.label_study.train_with_label", train)
    labels.run_label_train(done, LabelTraining(objective="sft", pairs="p", rows=5, **RATE))
    state = json.loads((done.out / labels.STATES).read_text())["states"]["before"]
    assert state["known"] == [1, 0, 1]
    assert state["log_probs"] == {"trained": [-1.0], "harmful": [-1.0]}
    assert set(state["responses"]) == {"trained", "harmful"}
    assert log_probs.named == {"rows": 5, "pad_id": 3}
    assert loaded == [True, False]
    assert done.canaries == {"training-changed-the-model": (False, "2 steps")}


@pytest.mark.parametrize("step", [0, 6])
def test_the_seconds_of_an_outer_step_are_those_of_its_number(
    done: Loose, monkeypatch: Patch, step: int
) -> None:
    nothing_is_loaded(monkeypatch, kinds, "tokenizer_of")
    loaded = Asked(None)
    monkeypatch.setattr(kinds, "load_model", loaded)
    monkeypatch.setattr(kinds, "shared_training", giving({}))
    monkeypatch.setattr(kinds, "leave", giving(None))
    monkeypatch.setattr("kit.train.residence.frozen", giving(None))
    said: list[int] = []
    monkeypatch.setattr(kinds, "say_seconds", lambda ctx, clock, number: said.append(number))

    def train(*given: Any, **how: Any) -> Any:
        how["on_step"](SimpleNamespace(number=step))
        return None, SimpleNamespace(curves=dict)

    monkeypatch.setattr("kit.methods.tar.stages.train_outer_loop", train)
    kinds.run_train(done, Train(seed=0, preset="paper", domain="bio", outer_steps=9))
    assert said == [step + 1]
    assert loaded.calls == 2


def test_a_safeguards_model_is_trainable_and_its_losses_are_kept(
    done: Loose, monkeypatch: Patch
) -> None:
    nothing_is_loaded(monkeypatch, kinds, "tokenizer_of")
    loaded, left = Asked(None), Asked(None)
    monkeypatch.setattr(kinds, "load_model", loaded)
    monkeypatch.setattr(kinds, "shared_training", giving({}))
    monkeypatch.setattr(kinds, "leave", left)
    trained = Asked(("made", SimpleNamespace(losses=[2.0])))
    monkeypatch.setattr("kit.methods.tar.stages.train_by_terms", trained)
    kinds.run_safeguard(done, Safeguard(method="llmu", length=11, **RATE))
    assert loaded.named == {"trainable": True}
    assert trained.named["max_length"] == 11
    assert left.given[1] == "made"
    assert left.given[4] == {"losses": [2.0]}


@pytest.mark.parametrize("kind", ["attack", "trial"])
def test_an_attack_says_its_seconds_and_measures_where_it_is_told(
    done: Loose, monkeypatch: Patch, kind: str
) -> None:
    attacked = SimpleNamespace(
        engine=SimpleNamespace(rank=0),
        trajectory=SimpleNamespace(losses=[1.0], points=[], diverged=None),
    )
    plant_attack(monkeypatch, attacked)
    said: list[int] = []
    monkeypatch.setattr(tampering, "say_seconds", lambda ctx, clock, number: said.append(number))
    seen: dict[str, Any] = {}

    def run(model: Any, data: Any, attack: Any, **how: Any) -> Any:
        how["on_step"](1, 0.5)
        seen.update(how, attack=attack)
        return attacked

    monkeypatch.setattr("kit.tampering.run.run_attack", run)
    if kind == "attack":
        tampering.run_attack(done, Attack(**ATTACK))
        assert seen["attack"].name == "adamw"
    else:
        tampering.run_trial(done, Trial(**ATTACK, trial=4, lowest_rate=0.1, highest_rate=0.2))
        assert seen["attack"].name == "trial-004"
        assert (done.out / tampering.SETTINGS).is_file()
    assert said == [1, 2]  # after the step, and at the end
    assert done.progressed == [(1, 2)]
    assert seen["at_steps"] == [0]
    assert seen["pad_id"] == 0
