"""Every registered kind, and every manifest of the repository planned in both profiles."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import kit.steps
from kit.cli.main import run as kit_command
from kit.engine.environment import Machine, this_machine
from kit.engine.hardware import Gpu
from kit.engine.planner import make_plan
from kit.engine.registry import REGISTRY, Sort, StepKind
from kit.manifest.catalog import Catalog
from kit.manifest.types import Manifest
from kit.pins.store import PinStore
from kit.results.plan import Plan

ROOT = Path(__file__).parents[2]
CATALOG = Catalog(ROOT)
EXPERIMENTS = CATALOG.ids()
PROFILES = ("mini", "paper")
KINDS = [REGISTRY.get(name) for name in REGISTRY.names() if name.split("/")[0] != "toy"]


def plan(experiment: str, profile: str, home: Path, **options: Any) -> tuple[Manifest, Plan]:
    manifest, pins = CATALOG.manifest(experiment), CATALOG.pins(experiment)
    made = make_plan(
        manifest,
        profile,
        pins={pin.id: pin for pin in pins.pins},
        digests=PinStore(home, pins),
        registry=REGISTRY,
        machine=this_machine("sm_90"),
        **options,
    )
    return manifest, made


PLANNED = [(id, profile) for id in EXPERIMENTS for profile in CATALOG.manifest(id).profiles]
WITHOUT_PAPER = {
    "tar-ablations",
    "tar-baselines",
    "tar-benign-finetune",
    "tar-bio",
    "tar-dpo-win-rate",
    "tar-long-attack",
    "tar-red-team",
    "tar-refusal",
    "tar-rejected-label",
    "tar-shuffle-variance",
    "tar-targeted-patching",
    "tar-worst-case",
}
"""Experiments whose published setting is not written down yet."""
WITHOUT_MINI = {
    "tar-bio-full-size",
    "tar-chem",
    "tar-cyber",
    "tar-judged",
    "tar-red-team-full-size",
    "tar-refusal-full-size",
    "tar-released-checkpoints",
}
"""What has no miniature counterpart, or has it in another experiment."""


@pytest.fixture(scope="module", params=PLANNED, ids=str)
def planned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Manifest, Plan]:
    return plan(*request.param, tmp_path_factory.mktemp("home"))


def test_the_kinds_of_the_family_are_registered() -> None:
    assert kit.steps.__all__
    assert {kind.name for kind in KINDS} >= {
        f"defensive-tokens/{name}"
        for name in (
            "align",
            "transfer",
            "training-data",
            "self-label",
            "train-prefix",
            "evaluate",
            "tabulate",
        )
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_declared_in_full(kind: StepKind) -> None:
    assert kind.outputs
    assert kind.doc
    assert kind.optional <= kind.inputs.keys()
    assert set(kind.inputs.values()) <= set(get_args(Sort))
    config = kind.params.__struct_config__
    assert config.frozen
    assert config.forbid_unknown_fields
    assert kind.run.__doc__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_unknown_and_missing_parameters_are_refused(kind: StepKind) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"no_such_parameter": 1}, kind.params)


def test_every_manifest_has_both_profiles_but_those_that_say_so() -> None:
    lacking = {id for id in EXPERIMENTS if not set(PROFILES) <= set(CATALOG.manifest(id).profiles)}
    assert lacking == WITHOUT_PAPER | WITHOUT_MINI


def test_the_number_of_instances_is_that_of_the_matrix(planned: tuple[Manifest, Plan]) -> None:
    manifest, made = planned
    profile = manifest.profiles[made.profile]  # type: ignore[index]
    matrix, left_out = profile.matrix, profile.exclude
    for spec in manifest.steps:
        if spec.profiles is None or made.profile in spec.profiles:
            count = sum(one.step == spec.id for one in made.instances)
            # An excluded combination of this family names all axes of the step but the replicate.
            missing = sum(
                prod(len(matrix[axis]) for axis in spec.each if axis not in entry)
                for entry in left_out
                if set(entry) <= set(spec.each)
            )
            assert count == prod(len(matrix[axis]) for axis in spec.each) - missing
    assert len({one.id for one in made.instances}) == len(made.instances)
    assert made.results == manifest.results


def test_parameters_survive_a_round_trip(planned: tuple[Manifest, Plan]) -> None:
    for one in planned[1].instances:
        kind = REGISTRY.get(one.kind).params
        struct = msgspec.convert(one.params, kind)
        assert msgspec.to_builtins(struct) == one.params
        assert msgspec.json.decode(msgspec.json.encode(struct), type=kind) == struct


def test_promised_outputs_and_inputs_are_those_of_the_kind(planned: tuple[Manifest, Plan]) -> None:
    for one in planned[1].instances:
        kind = REGISTRY.get(one.kind)
        assert tuple(one.outputs) == kind.outputs
        given = one.pins.keys() | one.steps.keys()
        assert kind.inputs.keys() - kind.optional <= given <= kind.inputs.keys()


def test_equal_work_has_equal_keys_and_other_work_other_ones(
    planned: tuple[Manifest, Plan], tmp_path: Path
) -> None:
    _, made = planned
    _, again = plan(made.experiment, made.profile, tmp_path)
    assert [one.key for one in again.instances] == [one.key for one in made.instances]
    by_step: dict[str, set[str]] = {}
    for one in made.instances:
        by_step.setdefault(one.step, set()).add(one.key)
    _, rehearsed = plan(made.experiment, made.profile, tmp_path, rehearsal=True)
    assert not by_step.keys() - {one.step for one in rehearsed.instances}
    assert not set().union(*by_step.values()) & {one.key for one in rehearsed.instances}


def test_a_model_is_evaluated_with_the_batch_it_was_trained_on(
    planned: tuple[Manifest, Plan],
) -> None:
    """The data step's batch is what one optimizer step consumes."""
    made = planned[1]
    instances = {one.id: one for one in made.instances}
    trainings = [one for one in made.instances if one.kind.endswith("/train-prefix")]
    for one in trainings:
        (data,) = one.steps["data"].instances
        mixture = instances[data].params
        assert mixture["batch"] == one.params["micro_batch"] * one.params["accumulation"]
        assert mixture["steps"] >= one.params["steps"]
        assert max(one.params["checkpoints"]) <= one.params["steps"]
        (labels,) = one.steps["labels"].instances
        assert instances[labels].steps["data"].instances == [data]
        assert instances[labels].pins["model"].pin == one.pins["model"].pin


def test_a_gpu_is_asked_for_where_the_profile_says_so(planned: tuple[Manifest, Plan]) -> None:
    made = planned[1]
    profile = planned[0].profiles[str(made.profile)]
    gpus = {one.kind.split("/")[1] for one in made.instances if one.resources.gpus}
    assert bool(gpus) == profile.gpu == (made.profile != "mini")
    assert not gpus & {"tabulate", "training-data"}


def test_sentences_of_prompting_defences_do_not_run_into_the_words_before(
    planned: tuple[Manifest, Plan],
) -> None:
    for sentence in _sentences(planned[1]):
        assert not sentence[:1].strip(), "begins with a separator"


def _sentences(plan: Plan) -> list[str]:
    given = [one.params.get(name) for one in plan.instances for name in ("reminder", "sandwich")]
    return [sentence for sentence in given if sentence]


@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_the_baselines_have_such_sentences(profile: str, tmp_path: Path) -> None:
    """The test above looks at something."""
    assert len(set(_sentences(plan("dt-baselines", profile, tmp_path)[1]))) >= 2


def test_the_matrix_of_the_slurm_test_fits_the_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs where SLURM is; that it can still be planned is seen everywhere."""
    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    assert kit_command(["plan", str(ROOT / "tests/slurm/matrix.yaml"), "--json"]) == 0
    steps = [one["step"] for one in json.loads(capsys.readouterr().out)["instances"]]
    assert steps.count("evaluate") == 60


H200_RECORD = "rehearsal-tiny-adapt-h200-torch2.11.0-vllm0.26.0-2026-11-29.json"
H100_SECONDS = {"align": 15, "transfer": 11, "labels": 122, "adapt": 97, "evaluate": 174}
"""Rehearsal of 2026-11-27 on one H100 80GB, nine token sets; the other steps took under a second
each, and 410 s all together, some side by side."""


@pytest.mark.parametrize("card", ["NVIDIA H200", "NVIDIA H100 80GB HBM3"])
def test_the_plan_knows_how_long_a_step_takes_on_this_card(card: str, tmp_path: Path) -> None:
    gpu = Gpu(index="0", name=card, arch="sm_90", memory_gb=80.0)
    manifest, pins = CATALOG.manifest("tiny-adapt"), CATALOG.pins("tiny-adapt")
    made = make_plan(
        manifest,
        "paper",
        pins={pin.id: pin for pin in pins.pins},
        digests=PinStore(tmp_path, pins),
        registry=REGISTRY,
        machine=Machine(gpus=[gpu]),
    )
    planned = {one.step: 60 * one.resources.minutes for one in made.instances}
    if "H100" in card:
        measured: dict[str, float] = dict(H100_SECONDS)
    else:
        record = json.loads((ROOT / "benchmarks" / H200_RECORD).read_text(encoding="utf-8"))
        measured = {one["step"]: 60 * one["measured_minutes"] for one in record["steps"]}
    total = sum(measured.values())
    assert abs(sum(planned.values()) - total) < 0.2 * total
