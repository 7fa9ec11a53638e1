"""What labels depend on: the whole pool or what is consumed, and what survives other steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.engine.environment import this_machine
from kit.engine.job import make_job
from kit.engine.planner import make_plan
from kit.engine.registry import REGISTRY, PinInput
from kit.engine.store import Store
from kit.engine.worker import perform
from kit.lm.generate import TransformersBackend
from kit.manifest.catalog import Catalog
from kit.methods.defensive_tokens.self_label import load_labels
from kit.pins.store import PinStore
from kit.results.plan import Plan, StepInstance
from kit.steps.defensive_tokens import params
from kit.steps.defensive_tokens.labels import run_self_label, run_training_data
from kit.steps.defensive_tokens.training import run_train_prefix
from tests.steps import small
from tests.steps.contexts import Steps, mini_pins

ALL = "labels.scope=all"


def plan(home: Path, *overrides: str) -> tuple[Plan, PinStore]:
    """The small experiment."""
    catalog = Catalog()
    path = small.write(home)
    pins = catalog.pins(str(path))
    store = PinStore(home, pins)
    made = make_plan(
        catalog.manifest(str(path)),
        "mini",
        pins={pin.id: pin for pin in pins.pins},
        digests=store,
        registry=REGISTRY,
        machine=this_machine("sm_90"),
        overrides=overrides,
    )
    return made, store


def labels_of(made: Plan) -> StepInstance:
    (instance,) = (one for one in made.instances if one.step == "labels")
    return instance


@pytest.mark.parametrize(
    ("overrides", "consumed", "everything"),
    [
        (("adapt.steps=3", "adapt.checkpoints=[3]"), True, True),
        (("data.steps=9", "adapt.steps=9"), False, True),
        (("data.seed=7",), False, True),
        (("labels.max_new_tokens=5",), False, False),
    ],
)
def test_what_keeps_the_labels_key(
    tmp_path: Path, overrides: tuple[str, ...], consumed: bool, everything: bool
) -> None:
    """``consumed`` and ``everything``: whether the key stays, by scope."""
    for scope, stays in (((), consumed), ((ALL,), everything)):
        before = labels_of(plan(tmp_path, *scope)[0]).key
        after = labels_of(plan(tmp_path, *scope, *overrides)[0]).key
        assert (before == after) is stays


def test_the_input_that_a_scope_does_not_read_is_no_input(tmp_path: Path) -> None:
    consumed, everything = (labels_of(plan(tmp_path, *scope)[0]) for scope in ((), (ALL,)))
    assert (set(consumed.pins), set(consumed.steps)) == ({"model"}, {"data"})
    assert (set(everything.pins), set(everything.steps)) == ({"model", "pool"}, set())


@pytest.fixture
def forty(tmp_path: Path) -> Steps:
    """The miniature world with a pool of forty samples."""
    pins = mini_pins()
    rows = json.loads(pins["pool"].path.read_text(encoding="utf-8"))[:40]
    (tmp_path / "pool.json").write_text(json.dumps(rows), encoding="utf-8")
    return Steps(tmp_path, pins | {"pool": PinInput("pool", tmp_path / "pool.json", {})})


def test_everything_is_labelled_and_serves_any_schedule(forty: Steps) -> None:
    """Twelve samples are consumed; each finds the label that was made for its instruction."""
    data = params.TrainingData(builder="as-reported", steps=3, batch=4, seed=1)
    forty.run("data", run_training_data, data)
    asked: dict[str, Any] = {"max_new_tokens": 2, "empty_data": "no-turn"}
    every = params.SelfLabel(scope="all", **asked)
    context = forty.run("labels", run_self_label, every)
    labels = load_labels(context.out / "labels.jsonl")
    rows = json.loads(forty.pins["pool"].path.read_text(encoding="utf-8"))
    assert [label.instruction for label in labels.values()] == [row["instruction"] for row in rows]
    few = forty.run("few", run_self_label, params.SelfLabel(**asked), data="data")
    consumed = load_labels(few.out / "labels.jsonl")
    assert 0 < len(consumed) <= 12
    assert {id: labels[id] for id in consumed} == consumed
    trained = forty.run("train", run_train_prefix, TRAIN, data="data", labels="labels")
    assert trained.canaries["prefix-moved"][0]


TRAIN = params.TrainPrefix(
    label="full",
    init="normal",
    lr=0.1,
    schedule="constant",
    steps=3,
    micro_batch=2,
    accumulation=2,
    checkpoints=[3],
    layout="before-bos",
    seed=1,
    end_truncated=True,
    label_tokens="as-text",
)


def test_a_scope_without_its_input_says_so(forty: Steps) -> None:
    asked = params.SelfLabel(max_new_tokens=2, empty_data="no-turn")
    with pytest.raises(ValueError, match="scope 'consumed' of the labels needs the input 'data'"):
        forty.run("labels", run_self_label, asked)


def perform_labels(home: Path, *overrides: str) -> dict[str, str]:
    """Do the data and the label step; sample id -> its line in the labels' file."""
    made, pins = plan(home, *overrides)
    digests: dict[str, str] = {}
    for instance in made.instances:
        if instance.step in ("data", "labels"):
            job = make_job(
                made, instance, home=home, logs=home / "logs", pins=pins, digests=digests
            )
            digests[instance.id] = perform(job, REGISTRY, lambda event: None).digest
    text = (Store(home).path(labels_of(made).key) / "labels.jsonl").read_text(encoding="utf-8")
    return {json.loads(line)["sample_id"]: line for line in text.splitlines()}


def test_the_label_of_a_sample_is_the_same_in_every_schedule(tmp_path: Path) -> None:
    few = perform_labels(tmp_path, "data.steps=3", "adapt.steps=3")
    more = perform_labels(tmp_path, "data.steps=9", "adapt.steps=9")
    assert few.keys() < more.keys()
    assert {id: more[id] for id in few} == few


def test_labels_are_asked_for_in_the_layout_of_the_labelling_harness(
    forty: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strings to an engine that adds a begin token: two of them, as in the evaluation."""
    starts: list[tuple[int, ...]] = []
    generate = TransformersBackend.generate

    def watched(self: TransformersBackend, prompts: Any, **rest: Any) -> Any:
        starts.extend(tuple(prompt[:3]) for prompt in prompts)
        return generate(self, prompts, **rest)

    monkeypatch.setattr(TransformersBackend, "generate", watched)
    asked = params.SelfLabel(
        max_new_tokens=2, empty_data="empty-turn", scope="all", layout="bos-before-and-after"
    )
    forty.run("doubled", run_self_label, asked)
    assert starts
    assert all(one[0] == one[1] != one[2] for one in starts)


@pytest.mark.parametrize("experiment", ["tiny-adapt", "tiny-adapt-random-init", "refusal-rule"])
def test_the_reported_labels_come_from_the_harness_of_the_reported_rates(experiment: str) -> None:
    settings = Catalog().manifest(experiment).profiles["paper"].set
    assert settings["labels"]["layout"].value == settings["evaluate"]["layout"].value
