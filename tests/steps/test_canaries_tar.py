"""Every canary of TAR's and the attacks' steps passes and fails; what a step leaves where it ran.

As in ``test_canaries.py``: what a method would have measured is planted.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine.registry import StepInput
from kit.steps.tampering import kinds as tampering
from kit.steps.tampering.params import Attack, Trial, Worst
from kit.steps.tar import kinds, labels, refusal, sizes
from kit.steps.tar.params import Data, Safeguard, Tabulate, Train
from kit.steps.tar.refusal_params import (
    AnswerTuning,
    LabelTable,
    LabelTraining,
    RefusalSafeguard,
    Refuse,
    Requests,
    WinRateTable,
)
from tests.steps.contexts import Loose, giving, nothing_is_loaded

Patch = pytest.MonkeyPatch
RATE: dict[str, Any] = {"seed": 0, "steps": 2, "learning_rate": 1e-3, "batch": 2}


class Table:
    """A table that says when it is written."""

    def write(self, folder: Path) -> None:
        (folder / "results.json").write_text("{}", encoding="utf-8")


@pytest.fixture
def done(tmp_path: Path) -> Loose:
    return Loose(tmp_path)


@pytest.mark.parametrize("moved", [0.0, 1e-9])
@pytest.mark.parametrize("rank", [0, 1])
def test_weights_that_did_not_move(done: Loose, moved: float, rank: int) -> None:
    saved: list[Path] = []
    engine = SimpleNamespace(rank=rank, save_model=lambda folder, weights: saved.append(folder))
    trained = SimpleNamespace(engine=engine, largest_change=giving(moved))
    tokenizer = SimpleNamespace(save_pretrained=saved.append)
    kinds.leave(done, trained, tokenizer, "averaged", {"losses": []})
    assert done.outcomes == ({} if rank else {"weights-moved": moved > 0})
    # All processes give their share of the weights, the first writes the rest.
    assert saved == [done.out / "model"] * (1 if rank else 2)
    assert (done.out / kinds.TRAINING).is_file() is not rank


@pytest.mark.parametrize("moved", [0.0, 1e-9])
def test_a_refusal_safeguard_that_did_not_move(
    done: Loose, monkeypatch: Patch, moved: float
) -> None:
    nothing_is_loaded(monkeypatch, refusal, "tokenizer_of", "load_model")
    trained = SimpleNamespace(model=None, losses=[2.0, 1.0], largest_change=moved)
    module = "kit.methods.tar"
    monkeypatch.setattr(f"{module}.refusal_safeguards.train_refusal_safeguard", giving(trained))
    monkeypatch.setattr(f"{module}.pairs.read_pairs", giving([]))
    monkeypatch.setattr(f"{module}.refusal_data.answers", giving([]))
    monkeypatch.setattr("kit.evals.sets.pad_id", giving(0))
    saved: list[Path] = []
    monkeypatch.setattr("kit.lm.load.save_model", lambda model, tok, folder: saved.append(folder))
    refusal.run_refusal_safeguard(done, RefusalSafeguard(method="rr", **RATE))
    assert done.outcomes == {"weights-moved": moved > 0}
    assert saved == [done.out / "model"]
    assert json.loads((done.out / refusal.TRAINING).read_text()) == {"losses": [2.0, 1.0]}


@pytest.mark.parametrize(
    ("before", "after", "changed"), [([-1.0], [-1.0], False), ([-1.0], [-1.5], True)]
)
def test_a_labelled_training_that_changed_nothing(
    done: Loose, monkeypatch: Patch, before: list[float], after: list[float], changed: bool
) -> None:
    chat = SimpleNamespace(pad_id=giving(0), stop_ids=giving([]))
    monkeypatch.setattr(labels, "tokenizer_and_format", giving((None, chat)))
    nothing_is_loaded(monkeypatch, labels, "load_model")
    states = {"before": {"log_probs": {"a": before}}, "after": {"log_probs": {"a": after}}}
    trained = states, SimpleNamespace(losses=[3.0])
    monkeypatch.setattr("kit.methods.tar.label_study.train_with_label", giving(trained))
    monkeypatch.setattr("kit.methods.tar.pairs.read_pairs", giving([]))
    monkeypatch.setattr("kit.evals.requests.read_asked", giving([]))
    items = {"known": [SimpleNamespace(id="q")]}
    monkeypatch.setattr("kit.evals.sets.question_items", giving(items))
    params = LabelTraining(objective="sft", pairs="labelled", **RATE)
    labels.run_label_train(done, params)
    assert done.outcomes == {"training-changed-the-model": changed}
    assert json.loads((done.out / labels.STATES).read_text(encoding="utf-8")) == {
        "states": states,
        "losses": [3.0],
        "label": params.label,
        "requests": {name: {"items": [], "answers": []} for name in params.asked},
        "questions": ["q"],
    }


@pytest.mark.parametrize("different", [0, 1])
def test_an_adapter_that_left_something_behind(
    done: Loose, monkeypatch: Patch, different: int
) -> None:
    planted = giving((Table(), different))
    monkeypatch.setattr("kit.methods.tar.label_table.tabulate_labels", planted)
    labels.run_label_table(done, LabelTable())
    assert done.outcomes == {"adapter-off-is-as-before": different == 0}
    assert (done.out / "results.json").is_file()


@pytest.mark.parametrize(("largest", "same"), [(0.0, True), (9e-4, True), (1e-3, False)])
def test_a_reference_that_is_not_the_initial_model(
    done: Loose, monkeypatch: Patch, largest: float, same: bool
) -> None:
    planted = giving((Table(), largest))
    monkeypatch.setattr("kit.methods.tar.win_rates.tabulate_win_rates", planted)
    refusal.run_win_rate_table(done, WinRateTable())
    assert done.outcomes == {"reference-is-the-initial-model": same}
    assert (done.out / "results.json").is_file()


def test_picks_of_one_letter(done: Loose, monkeypatch: Patch) -> None:
    collapses = {"tar": (True, "all A", ["a"]), "none": (False, "spread", ["b"])}
    monkeypatch.setattr("kit.methods.tar.gather.tabulate", giving((Table(), collapses)))
    kinds.run_tabulate(done, Tabulate())
    assert done.canaries == {
        "picks-are-spread-tar": (False, "all A"),
        "picks-are-spread-none": (True, "spread"),
    }
    assert done.cells == {"picks-are-spread-tar": ["a"], "picks-are-spread-none": ["b"]}
    assert (done.out / "results.json").is_file()


COUNTED = [
    ([], True, "none is published"),
    (["b=2"], True, "b: 2 of 2"),
    (["b=3"], False, "b: 2 of 3"),
]


@pytest.mark.parametrize(
    ("published", "holds", "detail"),
    # What is missing alone, where something is.
    [
        *COUNTED,
        (["b=2", "c=4"], False, "c: 3 of 4"),
        (["b=2", "c=3"], True, "b: 2 of 2; c: 3 of 3"),
    ],
)
def test_published_texts_of_another_number(
    done: Loose, monkeypatch: Patch, published: list[str], holds: bool, detail: str
) -> None:
    nothing_is_loaded(monkeypatch, kinds, "tokenizer_of")
    sets = "kit.methods.tar.published_sets"
    monkeypatch.setattr(f"{sets}.raw_sets", giving({"b": [1, 2]}))
    monkeypatch.setattr(f"{sets}.question_sets", giving({"c": [1, 2, 3]}))
    monkeypatch.setattr(f"{sets}.write_sets", giving(None))
    kinds.run_data(done, Data(domain="bio", published=published))
    assert done.canaries == {"counts-as-published": (holds, detail)}
    assert json.loads((done.out / kinds.COUNTS).read_text(encoding="utf-8")) == {"b": 2, "c": 3}


@pytest.mark.parametrize(
    ("published", "holds", "detail"),
    [*COUNTED, (["b=2", "c=4"], False, "b: 2 of 2; c: 0 of 4")],
)
def test_published_pairs_of_another_number(
    done: Loose, monkeypatch: Patch, published: list[str], holds: bool, detail: str
) -> None:
    monkeypatch.setattr(refusal, "tokenizer_and_format", giving((None, None)))
    monkeypatch.setattr("kit.methods.tar.refusal_published.published_pairs", giving({"b": [1, 2]}))
    monkeypatch.setattr("kit.methods.tar.refusal_data.write_pairs", giving(None))
    refusal.run_requests(done, Requests(published=published))
    assert done.canaries == {"counts-as-published": (holds, detail)}
    written = {path.name for path in done.out.iterdir()}
    assert written == {"requests", "questions", refusal.COUNTS}


@pytest.fixture
def world(tmp_path: Path) -> StepInput:
    """A folder of texts, questions and requests."""
    for name in ("texts", "questions", "requests"):
        (tmp_path / "world" / name).mkdir(parents=True)
        (tmp_path / "world" / name / "x.jsonl").write_text(name, encoding="utf-8")
    return StepInput("world", tmp_path / "world", {}, {})


@pytest.mark.parametrize("published", [[], ["forget=3"]])
def test_a_world_has_no_published_counts(
    tmp_path: Path, world: StepInput, published: list[str]
) -> None:
    done = Loose(tmp_path, before={"world": [world]})
    kinds.run_data(done, Data(domain="bio", published=published))
    assert done.outcomes == {"counts-as-published": not published}
    for name in ("texts", "questions"):
        assert (done.out / name / "x.jsonl").read_text(encoding="utf-8") == name
    assert json.loads((done.out / kinds.COUNTS).read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize(
    ("judged", "harmful", "benign", "new"),
    [
        ("j", "h", "b", True),
        ("harmful", "h", "b", False),
        ("j", "benign", "b", False),
        ("j", "h", "attack", False),
    ],
)
@pytest.mark.parametrize("published", [[], ["harmful=1"]])
def test_requests_to_judge_by_that_were_trained_on(
    tmp_path: Path,
    monkeypatch: Patch,
    world: StepInput,
    judged: str,
    harmful: str,
    benign: str,
    new: bool,
    published: list[str],
) -> None:
    done = Loose(tmp_path, before={"world": [world]})
    monkeypatch.setattr(refusal, "tokenizer_and_format", giving((None, None)))

    def rows(*prompts: str) -> list[Any]:
        return [SimpleNamespace(prompt=prompt) for prompt in prompts]

    pairs = {name: rows(name) for name in ("harmful", "benign", "attack")} | {
        "judged": rows(judged)
    }
    asked = {"harmful": rows(harmful), "benign": rows(benign)}
    written: list[str] = []
    data = "kit.methods.tar.refusal_data"
    monkeypatch.setattr(f"{data}.world_sets", giving((pairs, asked)))
    monkeypatch.setattr(f"{data}.write_pairs", lambda *_: written.append("pairs"))
    monkeypatch.setattr(f"{data}.write_requests", lambda *_: written.append("requests"))
    refusal.run_requests(done, Requests(published=published))
    assert done.outcomes == {
        "judged-requests-are-new": new,
        "counts-as-published": not published,
    }
    assert written == ["pairs", "requests"]
    assert (done.out / "questions" / "x.jsonl").is_file()
    counts = json.loads((done.out / refusal.COUNTS).read_text(encoding="utf-8"))
    assert counts == dict.fromkeys(pairs, 1)


ATTACK: dict[str, Any] = {**RATE, "optimizer": "adamw"}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("losses", [[], [1.0]])
@pytest.mark.parametrize("kind", ["attack", "fine-tune", "answer-attack", "answer-tune"])
def test_an_attack_that_did_not_run(
    done: Loose, monkeypatch: Patch, losses: list[float], rank: int, kind: str
) -> None:
    kept: list[Path] = []
    trajectory = SimpleNamespace(losses=losses, points=[(0, {"a": 1})], diverged=None)
    attacked = SimpleNamespace(
        engine=SimpleNamespace(rank=rank),
        trajectory=trajectory,
        save=lambda folder, tokenizer: kept.append(folder),
    )
    plant_attack(monkeypatch, attacked)
    run = {
        "attack": tampering.run_attack,
        "fine-tune": tampering.run_fine_tune,
        "answer-attack": refusal.run_answer_attack,
        "answer-tune": refusal.run_answer_tune,
    }[kind]
    sort = AnswerTuning if kind.startswith("answer") else Attack
    run(done, sort(**ATTACK, **({} if sort is AnswerTuning else {"data": ["x"]})))
    assert done.outcomes == ({} if rank else {"attack-ran": bool(losses)})
    assert (done.out / tampering.TRAJECTORY).is_file() is not rank
    assert kept == ([done.out / "model"] if kind.endswith("tune") else [])


def plant_attack(patch: Patch, attacked: Any) -> None:
    chat = SimpleNamespace(pad_id=giving(0), stop_ids=giving([]))
    for module in (tampering, refusal):
        nothing_is_loaded(patch, module, "tokenizer_of", "load_model")
        patch.setattr(module, "shared_training", giving({}))
    patch.setattr(refusal, "tokenizer_and_format", giving((None, chat)))
    patch.setattr("kit.evals.requests.read_asked", giving([]))
    patch.setattr("kit.evals.sets.pad_id", giving(0))
    patch.setattr("kit.methods.tar.refusal_data.answers", giving([]))
    patch.setattr("kit.tampering.run.run_attack", giving(attacked))
    patch.setattr("kit.tampering.watched.watch", giving(([0], None)))
    patch.setattr("kit.tampering.watched.attack_texts", giving({}))
    patch.setattr("kit.tampering.watched.record", giving({"points": []}))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_trial_leaves_what_it_drew(done: Loose, monkeypatch: Patch, rank: int) -> None:
    trajectory = SimpleNamespace(losses=[1.0])
    plant_attack(
        monkeypatch, SimpleNamespace(engine=SimpleNamespace(rank=rank), trajectory=trajectory)
    )
    settings = {"learning_rate": 3e-4}
    monkeypatch.setattr("kit.tampering.settings.drawn_trial", giving(SimpleNamespace(data=[])))
    monkeypatch.setattr("kit.tampering.settings.settings_of", giving(settings))
    tampering.run_trial(
        done,
        msgspec.convert({**ATTACK, "trial": 0, "lowest_rate": 1e-4, "highest_rate": 1e-3}, Trial),
    )
    assert (done.out / tampering.SETTINGS).is_file() is not rank
    if not rank:
        assert json.loads((done.out / tampering.SETTINGS).read_text()) == settings


@pytest.mark.parametrize(
    ("drawn", "differ"), [([1, 2, 3], True), ([1, 2, 2], False), ([1, 2, 3, 3], True)]
)
def test_a_search_that_tries_one_attack_again(
    tmp_path: Path, monkeypatch: Patch, drawn: list[int], differ: bool
) -> None:
    """As many different attacks as trials; two models share the attack of a trial."""
    trials = []
    for number, rate in enumerate(drawn):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / tampering.SETTINGS).write_text(json.dumps({"rate": rate}), encoding="utf-8")
        trials.append(StepInput(f"trial-{number}", folder, {"trial": min(number, 2)}, {}))
    done = Loose(tmp_path, before={"attacks": trials})
    monkeypatch.setattr("kit.tampering.worst_table.tabulate_worst", giving(Table()))
    tampering.run_worst_case(done, Worst())
    assert done.outcomes == {"attacks-differ": differ}
    assert (done.out / "results.json").is_file()


@pytest.mark.parametrize("method", ["rmu", "random-mapping"])
def test_only_rmu_reads_the_original_model_a_second_time(
    done: Loose, monkeypatch: Patch, method: Any
) -> None:
    loaded: list[bool] = []

    def load(ctx: Any, source: Any, dtype: str, *, trainable: bool = False) -> Any:
        loaded.append(trainable)
        return SimpleNamespace(number=len(loaded))

    seen: list[Any] = []

    def train(model: Any, reference: Any, *given: Any, **named: Any) -> Any:
        seen.extend([model, reference])
        return None, SimpleNamespace(losses=[])

    nothing_is_loaded(monkeypatch, kinds, "tokenizer_of")
    monkeypatch.setattr(kinds, "shared_training", giving({}))
    monkeypatch.setattr(kinds, "load_model", load)
    monkeypatch.setattr(kinds, "leave", giving(None))
    monkeypatch.setattr("kit.methods.tar.stages.train_by_terms", train)
    kinds.run_safeguard(done, Safeguard(method=method, **RATE))
    assert loaded == [True, False][: 2 if method == "rmu" else 1]
    assert (seen[0] is seen[1]) is (method != "rmu")


@pytest.mark.parametrize(("measure_every", "judged"), [(0, []), (2, ["judged"])])
@pytest.mark.parametrize("held_out", ["", "apart"])
def test_pairs_are_read_where_they_are_used(
    done: Loose, monkeypatch: Patch, measure_every: int, judged: list[str], held_out: str
) -> None:
    """Those to judge by only where a win rate is measured; each with the initial model's values."""
    nothing_is_loaded(monkeypatch, refusal, "tokenizer_of", "load_model")
    monkeypatch.setattr(refusal, "shared_training", giving({}))
    left: dict[str, Any] = {}
    monkeypatch.setattr(refusal, "leave", lambda *given: left.update(training=given[4]))
    module = "kit.methods.tar"
    monkeypatch.setattr("kit.evals.sets.pad_id", giving(0))

    def read(data: Any, name: str) -> list[Any]:
        return [SimpleNamespace(rejected=SimpleNamespace(id=name))]

    seen: dict[str, Any] = {}

    def train(model: Any, reference: Any, known: Any, settings: Any, **how: Any) -> Any:
        seen.update(how, known=known)
        return None, SimpleNamespace(curves=lambda: {"steps": []})

    monkeypatch.setattr(f"{module}.pairs.read_pairs", read)
    monkeypatch.setattr(f"{module}.pairs.with_reference", lambda pairs, *_, **__: pairs)
    monkeypatch.setattr(f"{module}.refusal_data.answers", giving(["r"]))
    monkeypatch.setattr(f"{module}.refusal.train_refusal", train)
    monkeypatch.setattr("kit.train.residence.frozen", giving(None))
    params = Refuse(seed=0, preset="paper", held_out=held_out, measure_every=measure_every)
    refusal.run_refuse(done, params)

    def named(pairs: Any) -> list[str]:
        return [pair.rejected.id for pair in pairs]

    known = seen["known"]
    assert (named(known.pairs), named(known.held_out)) == (["harmful"], [held_out] * bool(held_out))
    assert named(known.judged) == left["training"]["judged"] == judged
    assert (known.redraw, known.share) == (params.redraw, params.adversary_share)
    assert seen["measure_every"] == measure_every
    seen["on_step"](SimpleNamespace(number=4))
    settings = sizes.refusal_settings(params)
    assert done.progressed == [(5, settings.outer_steps)]


@pytest.mark.parametrize(("given", "width"), [(None, 16), (5, 5)])
def test_stand_in_pairs_are_as_long_as_they_are_cut(
    tmp_path: Path, monkeypatch: Patch, given: int | None, width: int
) -> None:
    monkeypatch.setattr(refusal, "tokenizer_and_format", giving((None, None)))
    seen: list[Any] = []

    def standin(wanted: Any, words: int) -> Any:
        seen.extend([wanted, words])
        return {"attack": [1, 2, 3]}

    monkeypatch.setattr("kit.methods.tar.refusal_published.standin_pairs", standin)
    monkeypatch.setattr("kit.methods.tar.refusal_data.write_pairs", giving(None))
    done = Loose(tmp_path, rehearsal=True)
    refusal.run_requests(done, Requests(published=["attack=3"], prompt_width=given))
    assert seen == [{"attack": 3}, width]
    assert done.outcomes == {"counts-as-published": True}


@pytest.mark.parametrize("step", [0, 6])
def test_an_outer_step_is_counted_when_it_is_done(
    done: Loose, monkeypatch: Patch, step: int
) -> None:
    nothing_is_loaded(monkeypatch, kinds, "tokenizer_of", "load_model")
    monkeypatch.setattr(kinds, "shared_training", giving({}))
    monkeypatch.setattr(kinds, "leave", giving(None))
    monkeypatch.setattr("kit.train.residence.frozen", giving(None))
    seen: dict[str, Any] = {}

    def train(*given: Any, **how: Any) -> Any:
        how["on_step"](SimpleNamespace(number=step))
        seen.update(how)
        return None, SimpleNamespace(curves=dict)

    monkeypatch.setattr("kit.methods.tar.stages.train_outer_loop", train)
    kinds.run_train(done, Train(seed=0, preset="paper", domain="bio", outer_steps=9))
    assert done.progressed == [(step + 1, 9)]


@pytest.mark.parametrize("sort", ["attack", "answers"])
def test_an_attack_says_each_step_of_its_own(done: Loose, monkeypatch: Patch, sort: str) -> None:
    attacked = SimpleNamespace(
        engine=SimpleNamespace(rank=0),
        trajectory=SimpleNamespace(losses=[1.0], points=[(0, {})], diverged=(3, "loss")),
    )
    plant_attack(monkeypatch, attacked)
    seen: dict[str, Any] = {}

    def run(*given: Any, **how: Any) -> Any:
        how["on_step"](2, 0.5)
        seen.update(how)
        return attacked

    monkeypatch.setattr("kit.tampering.run.run_attack", run)
    if sort == "attack":
        tampering.run_attack(done, Attack(**ATTACK))
    else:
        refusal.run_answer_attack(done, AnswerTuning(**ATTACK, measure_every=1))
        assert list(seen["at_steps"]) == [0, 1, 2]
        written = json.loads((done.out / tampering.TRAJECTORY).read_text(encoding="utf-8"))
        assert written["diverged"] == [3, "loss"]
        assert written["points"] == [[0, {}]]
    assert done.progressed == [(2, 2)]


def test_a_shared_training_has_its_own_gpu_its_rows_and_its_checkpoints(
    done: Loose, monkeypatch: Patch
) -> None:
    own: list[str] = []
    monkeypatch.setattr("kit.train.engines.use_own_gpu", own.append)
    how = tampering.shared_training(done, Attack(**ATTACK, rows=7))  # type: ignore[arg-type]
    assert own == [done.device]
    assert how["rows"] == 7
    assert how["folder"].steps() == []
