"""TAR at the published size, at a tiny shape: rehearsed by two processes, and sized for GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from torch import nn

import kit.train.plan
from kit.cli.rehearse import _full_size
from kit.engine.environment import Machine
from kit.engine.hardware import Gpu
from kit.engine.planner import make_plan
from kit.engine.registry import load_registry
from kit.errors import Preflight, UsageError
from kit.manifest.catalog import Catalog
from kit.pins.store import PinStore
from kit.results.plan import Plan
from kit.steps.sharding import make_engine
from kit.train.engine import Precision
from kit.train.optimizers import AdamW
from tests.steps.contexts import SMALL

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests/tar"
SHAPE = Path(__file__).resolve().parents[2] / "kit/lm/shapes/llama-3-8b.json"
SHARED = ("random-mapping", "tar", "attack")


def plan_of(experiment: str, gpus: int, gpu_gb: float, **how: Any) -> Plan:
    catalog = Catalog()
    pins = catalog.pins(experiment)
    return make_plan(
        catalog.manifest(experiment),
        "paper",
        pins={pin.id: pin for pin in pins.pins},
        digests=PinStore(Path("/nowhere"), pins),
        registry=load_registry(),
        machine=Machine(),
        rehearsal=True,
        gpus=gpus,
        gpu_gb=gpu_gb,
        **how,
    )


def step(plan: Plan, id: str) -> Any:
    return next(one for one in plan.instances if one.step == id)


def tiny(folder: Path) -> Path:
    """The published profile, everything scaled down but the way that it is run."""
    text = (MANIFESTS / "tar-bio-full-size.yaml").read_text(encoding="utf-8")
    manifest = yaml.safe_load(text)
    profile: dict[str, Any] = manifest["profiles"]["paper"]
    profile["gpu"] = False
    profile["resources"] = {name: {"processes": 2} for name in SHARED}
    profile["models"]["base"] = {"pin": "tiny"}
    changes: dict[str, dict[str, Any]] = {
        "data": {
            "width": 12,
            "published": ["pile-bio-all=90", "adversary-retain=70", "camel-bio-all=90", "chat=64"],
        },
        "random-mapping": {"steps": 200, "batch": 4},
        "tar": {
            **{f"{name}_batch": 4 for name in ("forget", "held_out", "retain", "inner_retain")},
            "inner_steps": 4,
            "width": 12,
        },
        "attack": {"batch": 4, "questions": ["wmdp"]},
    }
    for name, params in changes.items():
        if name in SHARED:
            params = {**params, "dtype": "float32", "compute": "float32", "compiled": False}
        for key, value in params.items():
            profile["set"][name][key] = {"value": value, "source": "unspecified: of this test"}
    shape = json.loads(SHAPE.read_text(encoding="utf-8"))
    shape["config"] |= SMALL
    pin = {
        "id": "tiny",
        "kind": "unavailable",
        "title": "no model",
        "licence": "CC0-1.0",
        "unavailable": "a shape alone",
        "attributes": {"architecture": shape, "chat_format": "llama-3"},
    }
    pins = yaml.safe_dump({"schema_version": 1, "pins": [pin]})
    (folder / "pins.yaml").write_text(pins, encoding="utf-8")
    path = folder / "tar-bio-full-size.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full-size")
    command = [sys.executable, "-m", "kit.cli.main", "--progress", "plain", "rehearse"]
    arguments = [str(tiny(folder)), "--profile", "paper", "--fraction", "0.002", "--jobs", "1"]
    arguments += ["--only", "seed=0", "--only", "method=tar"]
    done = subprocess.run(
        [*command, *arguments, "--runs-dir", str(folder / "runs")],
        capture_output=True,
        text=True,
        env={**os.environ, "KIT_HOME": str(folder / "home"), "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_share_of_the_published_steps_is_rehearsed_by_two_processes(rehearsal: Path) -> None:
    plan = json.loads((rehearsal / "plan.json").read_text(encoding="utf-8"))
    by_step = {one["step"]: one for one in plan["instances"]}
    assert len(plan["instances"]) == len(by_step) == 5
    assert by_step["tar"]["params"]["outer_steps"] == 2
    assert by_step["random-mapping"]["params"]["steps"] == 1
    assert by_step["attack"]["params"]["steps"] == 2
    for name in SHARED:
        assert by_step[name]["launch"] == "torchrun"
        assert by_step[name]["resources"]["processes"] == 2
        assert by_step[name]["params"]["engine"] == "fsdp"
    made = json.loads((rehearsal / "rehearsal.json").read_text(encoding="utf-8"))
    assert made["fraction"] == 0.002
    assert {one["step"] for one in made["steps"]} == set(by_step)
    assert all(one["measured_minutes"] for one in made["steps"])


@pytest.mark.parametrize("name", ["tar-bio", "tar-red-team", "tar-refusal"])
def test_a_miniature_experiment_is_rehearsed_at_its_published_size(name: str) -> None:
    assert _full_size(name) == (f"{name}-full-size", "paper")


def test_the_plan_fits_itself_to_the_gpus() -> None:
    two, four = (plan_of("tar-bio-full-size", gpus, 79.0) for gpus in (2, 4))
    small, large = (step(plan, "tar") for plan in (two, four))
    assert (small.resources.gpus, large.resources.gpus) == (2, 4)
    assert small.resources.minutes > 1.5 * large.resources.minutes
    assert max(small.resources.gpu_memory_gb, large.resources.gpu_memory_gb) <= 79
    assert small.params["reference"] == "offloaded"
    for published in ("inner_steps", "outer_steps", "forget_batch", "held_out_batch"):
        assert small.params[published] == large.params[published]
    assert any(note.startswith("tar: GPUs: 2, fsdp, compiled") for note in two.notes)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_type_of_sums_is_what_the_plan_counts_with(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, asked = kit.train.plan.solve, []

    def watched(shape: Any, machine: Any, work: Any, wanted: Any, fixed: Any) -> Any:
        asked.append(wanted.communication)
        return solve(shape, machine, work, wanted, fixed)

    monkeypatch.setattr("kit.train.plan.solve", watched)
    chosen = tuple(f"{id}.communication={name}" for id in SHARED)
    plan = plan_of("tar-bio-full-size", 4, 139.0, overrides=chosen)
    assert step(plan, "tar").params["communication"] == name
    assert set(asked) == {name}


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_type_of_sums_reaches_the_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("kit.train.fsdp.Fsdp", lambda *_, **how: made.append(how["settings"]))
    params: Any = SimpleNamespace(engine="fsdp", communication=name)
    context: Any = SimpleNamespace(device="cpu")
    make_engine(context, params)(nn.Linear(2, 2), AdamW(0.1, 0.0), Precision())
    assert [settings.communication for settings in made] == [name]


def test_gpus_that_cannot_hold_it_are_refused_in_a_sentence() -> None:
    with pytest.raises(Preflight, match=r"no plan fits 1 GPUs of 79 GiB.*use more GPUs"):
        plan_of("tar-bio-full-size", 1, 79.0)


def test_without_a_word_the_declared_setting_stays() -> None:
    catalog = Catalog()
    pins = catalog.pins("tar-bio-full-size")
    arguments: dict[str, Any] = {
        "pins": {pin.id: pin for pin in pins.pins},
        "digests": PinStore(Path("/nowhere"), pins),
        "registry": load_registry(),
        "machine": Machine(gpus=[Gpu(index="0", name="x", arch="sm_90", memory_gb=20.0)]),
        "rehearsal": True,
    }
    plan = make_plan(catalog.manifest("tar-bio-full-size"), "paper", **arguments)
    assert step(plan, "tar").resources.gpus == 4
    assert not any("GPUs: " in note for note in plan.notes)


def test_the_declared_setting_is_the_plan_for_four_gpus_of_80_gb() -> None:
    """The manifest's own figures come from the solver."""
    for experiment in ("tar-bio-full-size", "tar-red-team-full-size", "tar-cyber", "tar-chem"):
        manifest = Catalog().manifest(experiment)
        declared = manifest.profiles["paper"].resources
        solved = plan_of(experiment, 4, 79.0)
        for id in SHARED:
            one = step(solved, id)
            assert declared[id].gpu_memory_gb >= one.resources.gpu_memory_gb, (experiment, id)
            assert declared[id].gpu_memory_gb <= 1.15 * one.resources.gpu_memory_gb, id
            written = manifest.profiles["paper"].set[id]
            for name in ("rows", "outer_state", "snapshot", "reference", "weights_stay"):
                if name in written:
                    assert getattr(written[name], "value", None) == one.params[name], (id, name)


def test_an_axis_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no axis 'sees'"):
        plan_of("tar-bio-full-size", 4, 79.0, only=("sees=0",))
    with pytest.raises(UsageError, match="has no '9'"):
        plan_of("tar-bio-full-size", 4, 79.0, only=("seed=0,9",))


def test_what_is_left_out_by_only_takes_the_steps_along_that_nothing_reads() -> None:
    plan = plan_of("tar-red-team-full-size", 4, 79.0, only=("seed=0", "method=random-mapping"))
    assert {one.step for one in plan.instances} == {"data", "random-mapping", "attack", "table"}
    assert not any(note.startswith("tar:") for note in plan.notes)
    assert {use.pin for one in plan.instances for use in one.pins.values()} == {
        pin.id for pin in plan.pins
    }


def test_a_chosen_setting_is_not_solved_away() -> None:
    plan = plan_of(
        "tar-bio-full-size", 2, 139.0, only=("seed=0", "method=tar"), overrides=["tar.rows=5"]
    )
    (tar,) = (one for one in plan.instances if one.step == "tar")
    assert tar.params["rows"] == 5
    assert any("5 rows a pass" in note for note in plan.notes)


def test_the_table_of_a_shortened_red_team_asks_for_the_attacks_end() -> None:
    plan = plan_of("tar-red-team-full-size", 4, 79.0, only=("seed=0",), fraction=0.1)
    steps = {one.params["steps"] for one in plan.instances if one.step == "attack"}
    (table,) = (one for one in plan.instances if one.step == "table")
    assert [*steps] == table.params["steps"] == [50]


def test_refusal_training_is_fitted_to_gpus_and_shortened() -> None:
    only = ("seed=0", "method=tar", "adversary=adversary-1")
    plan = plan_of("tar-refusal-full-size", 2, 139.0, fraction=0.02, only=only)
    loop, attack = step(plan, "loop"), step(plan, "attack")
    assert loop.params["outer_steps"] == 2
    assert attack.params["steps"] == attack.params["measure_every"] == 4
    assert step(plan, "recovery").params["steps"] == 2
    assert sorted(step(plan, "requests").params["published"]) == [
        "attack=64", "benign=64", "held-out=64", "rejected=64",
    ]  # fmt: skip
    for one in (loop, attack):
        assert one.resources.gpus == 2
        assert one.resources.gpu_memory_gb < 139
        assert one.params["rows"] != 4  # the declared ones are for four GPUs of 80 GB
    assert any(note.startswith("loop: GPUs: 2, zero-3") for note in plan.notes)
