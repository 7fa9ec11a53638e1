"""From manifests to plans: instances, keys, what changes a key and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.engine.environment import Machine
from kit.engine.hardware import Gpu
from kit.engine.planner import fraction_overrides
from kit.engine.registry import REGISTRY
from kit.errors import InvalidInput, UsageError
from kit.results.plan import read_plan
from tests.engine.conftest import MACHINE, manifest, plan_of


def steps(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The toy manifest's steps with some replaced, by id."""
    made = msgspec.to_builtins(manifest())["steps"]
    for change in changes:
        for one in made:
            if one["id"] == change["id"]:
                one.update(change)
    return [{k: v for k, v in one.items() if v is not None} for one in made]


def profile(**changes: Any) -> dict[str, Any]:
    """Profiles with the mini one changed."""
    base = {
        "summary": "small",
        "matrix": {"seed": [0, 1, 2]},
        "set": {"make": {"seed": "${seed}", "size": 1000}},
    }
    return {"profiles": {"mini": {**base, **changes}}}


def keys(plan: Any) -> dict[str, str]:
    return {one.id: one.key for one in plan.instances}


def test_instances_in_an_order_they_can_run_in() -> None:
    made = manifest(steps=list(reversed(steps())))
    ids = [one.id for one in plan_of(made).instances]
    assert ids[-1] == "table"
    assert ids.index("make[seed=2]") < ids.index("mix[seed=0]")
    assert len(ids) == 7


def test_inputs_match_by_axes() -> None:
    plan = plan_of()
    assert plan.by_id["mix[seed=1]"].steps["data"].instances == ["make[seed=1]"]
    assert plan.by_id["table"].steps["numbers"].instances == [f"mix[seed={i}]" for i in range(3)]


def test_the_plan_is_complete_on_disk(tmp_path: Path) -> None:
    plan = plan_of()
    (tmp_path / "plan.json").write_bytes(plan.to_json())
    assert read_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_not_a_plan(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        read_plan(path)
    assert (caught.value.where, caught.value.exit_code) == (str(path), 4)
    assert "kit plan EXP --json" in caught.value.next_step
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_plan(tmp_path / "other.json")


@pytest.mark.parametrize(("format", "words"), [(99, "a newer kit"), (1, "an older kit")])
def test_a_plan_of_another_format(tmp_path: Path, format: int, words: str) -> None:
    path, text = tmp_path / "plan.json", plan_of().to_json()
    changed = text.replace(b'"schema_version":2', f'"schema_version":{format}'.encode(), 1)
    assert changed != text
    path.write_bytes(changed)
    with pytest.raises(InvalidInput, match=f"schema_version {format}; this kit reads 2") as caught:
        read_plan(path)
    assert words in caught.value.why
    assert "kit run EXP" in caught.value.next_step


# What leaves keys alone.


def test_matrix_order_and_new_values_leave_keys_alone() -> None:
    before = keys(plan_of())
    after = keys(plan_of(manifest(**profile(matrix={"seed": [2, 0, 1]}))))
    assert before == after
    more = keys(plan_of(manifest(**profile(matrix={"seed": [0, 1, 2, 3]}))))
    assert {id: key for id, key in more.items() if id in before and id != "table"} == {
        id: key for id, key in before.items() if id != "table"
    }
    assert more["table"] != before["table"]


def test_names_and_resources_leave_keys_alone() -> None:
    before = keys(plan_of())
    renamed = steps({"id": "make"})
    renamed[0]["id"] = "produce"
    renamed[1]["inputs"]["data"]["step"] = "produce"
    made = manifest(
        id="other",
        steps=renamed,
        **profile(
            set={"produce": {"seed": "${seed}", "size": 1000}},
            resources={"mix": {"minutes": 99, "memory_gb": 3}},
        ),
    )
    after = keys(plan_of(made))
    assert after["produce[seed=0]"] == before["make[seed=0]"]
    assert after["table"] == before["table"]


def test_renaming_a_record_redoes_only_who_reads_its_name() -> None:
    def plan(name: str) -> dict[str, str]:
        cells = [{"id": name, "seed": 0}, {"id": "b", "seed": 1}]
        each = [
            {"id": "make", "each": ["cell"]},
            {"id": "mix", "each": ["cell"]},
        ]
        made = manifest(
            steps=steps(*each),
            **profile(matrix={"cell": cells}, set={"make": {"seed": "${cell.seed}"}}),
        )
        return keys(plan_of(made))

    before, after = plan("a"), plan("aa")
    assert before["make[cell=a]"] == after["make[cell=aa]"]
    assert before["mix[cell=a]"] == after["mix[cell=aa]"]
    assert before["table"] != after["table"]  # its cells are called after the record


# What changes keys.


def test_a_parameter_changes_its_step_and_what_follows() -> None:
    before, after = keys(plan_of()), keys(plan_of(overrides=["mix.factor=5"]))
    assert before["make[seed=0]"] == after["make[seed=0]"]
    assert before["mix[seed=0]"] != after["mix[seed=0]"]
    assert before["table"] != after["table"]


def test_the_environment_changes_only_keys_of_kinds_that_depend_on_it() -> None:
    newer = Machine(versions={"torch": "3.0"})
    assert keys(plan_of()) == keys(plan_of(machine=newer))  # toy kinds name only the device


def test_rehearsals_never_share_with_runs() -> None:
    assert not set(keys(plan_of()).values()) & set(keys(plan_of(rehearsal=True)).values())


def test_a_gpu_changes_the_key_by_its_architecture() -> None:
    made = manifest(**profile(resources={"make": {"gpus": 1}}))
    found = []
    for arch in ("sm_80", "sm_90"):
        gpu = Gpu(index="0", name="x", arch=arch, memory_gb=80)
        found.append(plan_of(made, machine=Machine(gpus=[gpu])))
    assert keys(found[0])["make[seed=0]"] != keys(found[1])["make[seed=0]"]
    environment = found[0].instances[0].environment
    assert environment == {"device": "cuda", "gpu_arch": "sm_80"}


def test_pin_attributes_enter_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    made = manifest(
        steps=[
            {
                "id": "read",
                "kind": "toy/pinned",
                "version": 1,
                "inputs": {"source": {"pin": "${pins.text}"}},
            }
        ],
        results="read",
        **profile(pins={"text": "words"}, matrix={}, set={}),
    )
    before = plan_of(made)
    assert before.instances[0].pins["source"].pin == "words"
    assert [pin.id for pin in before.pins] == ["words"]
    from tests.engine import conftest

    other = msgspec.structs.replace(conftest.PIN, attributes={"format": "other"})
    monkeypatch.setattr(conftest, "PIN", other)
    assert keys(before) != keys(plan_of(made))


# Overrides and seeds.


def test_overrides_are_recorded() -> None:
    plan = plan_of(overrides=["mix.factor=5"])
    assert plan.modified
    assert plan.overrides == ["mix.factor=5"]
    assert plan.by_id["mix[seed=2]"].params == {"factor": 5}
    assert not plan_of().modified


def test_seed_moves_the_matrix() -> None:
    plan = plan_of(seed=5)
    assert [one.params["seed"] for one in plan.instances[:3]] == [5, 6, 7]
    assert plan.modified
    assert plan.seed == 5
    assert not plan_of(seed=0).modified  # as the manifest has it


def test_fraction_goes_where_there_is_such_a_parameter() -> None:
    assert fraction_overrides(manifest(), "mini", REGISTRY, 0.5) == ["make.fraction=0.5"]
    without = manifest(steps=steps()[1:])
    with pytest.raises(UsageError, match="no effect"):
        fraction_overrides(without, "mini", REGISTRY, 0.5)
    failing = manifest(
        steps=[{"id": "f", "kind": "toy/fail", "version": 1}],
        results="f",
        **profile(matrix={}, set={}),
    )
    with pytest.raises(UsageError, match="no effect"):
        fraction_overrides(failing, "mini", REGISTRY, 0.5)


# Axes.


def cells(**changes: Any) -> Any:
    """Data for each seed, mixed with each factor, but not all of them."""
    mini = {
        "summary": "s",
        "matrix": {"seed": [0, 1], "factor": [2, 3]},
        "exclude": [{"seed": 1, "factor": 3}],
        "set": {"make": {"seed": "${seed}"}, "mix": {"factor": "${factor}"}},
    }
    axes = {"seed": "replicate", "factor": "setting"}
    mixed = steps({"id": "mix", "each": ["seed", "factor"]})
    return manifest(**{"axes": axes, "steps": mixed, "profiles": {"mini": mini}, **changes})


def test_roles_reach_whoever_may_look_at_axes() -> None:
    made = plan_of(cells())
    assert made.roles == {"seed": "replicate", "factor": "setting"}
    assert made.by_id["table"].roles == made.roles  # its list has both
    assert made.by_id["mix[seed=0,factor=2]"].roles == {}  # no key of theirs knows the axes


def test_a_role_is_in_the_keys_that_axes_are_in() -> None:
    other = plan_of(cells(axes={"seed": "replicate", "factor": "group"}))
    before = plan_of(cells())
    moved = [id for id in before.by_id if before.by_id[id].key != other.by_id[id].key]
    assert moved == ["table"]


def test_combinations_may_be_excluded() -> None:
    made = plan_of(cells())
    mixed = [one.id for one in made.instances if one.step == "mix"]
    assert mixed == ["mix[seed=0,factor=2]", "mix[seed=0,factor=3]", "mix[seed=1,factor=2]"]
    assert made.by_id["table"].steps["numbers"].instances == mixed
    # With other seeds the same corner is left out.
    moved = [one.id for one in plan_of(cells(), seed=7).instances if one.step == "mix"]
    assert moved == ["mix[seed=7,factor=2]", "mix[seed=7,factor=3]", "mix[seed=8,factor=2]"]


def test_a_reader_whose_inputs_are_all_excluded_is_an_error() -> None:
    """A step over seeds that lists the factors of each: none is left for seed 1."""
    listing = [
        *cells().steps[:2],
        {
            "id": "each",
            "kind": "toy/table",
            "version": 1,
            "each": ["seed"],
            "inputs": {"numbers": {"step": "mix"}},
        },
        *cells().steps[2:],
    ]
    made = msgspec.to_builtins(cells())
    made["steps"] = msgspec.to_builtins(listing)
    made["profiles"]["mini"]["exclude"] = [{"seed": 1, "factor": 2}, {"seed": 1, "factor": 3}]
    with pytest.raises(InvalidInput, match="leaves no instance of 'mix' for each\\[seed=1\\]"):
        plan_of(msgspec.convert(made, type(cells())))


def test_an_axis_without_a_role_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"axis 'factor' has no role \(manifests of kit 0.1.0"):
        plan_of(cells(axes={"seed": "replicate"}))


# Errors.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": steps({"id": "mix", "kind": "toy/nothing"})}, "unknown step kind"),
        ({"steps": steps({"id": "mix", "version": 9})}, "version 9"),
        ({"steps": steps({"id": "mix", "inputs": {}})}, "needs the input 'data'"),
        ({"steps": steps({"id": "mix", "inputs": {"data": {"step": "gone"}}})}, "'gone'"),
        ({"steps": steps({"id": "mix", "inputs": {"data": {"step": "mix"}}})}, "wait for each"),
        (
            {"steps": steps({"id": "mix", "inputs": {"data": {"pin": "words"}}})},
            "is a step, not what",
        ),
        ({"steps": steps({"id": "mix", "inputs": {"data": {}}})}, "needs exactly one of"),
        ({"steps": steps({"id": "mix", "each": []})}, "is one instance, but 'make' also"),
        ({"steps": steps({"id": "mix", "each": ["cell"]})}, "axis 'cell'"),
        ({"steps": steps({"id": "make", "profiles": ["paper"]})}, "no step 'make'"),
        ({"results": "mix"}, "there must be one table"),
        ({"results": "gone"}, "is no step of profile"),
        (profile(set={"make": {"seed": "${seed}"}, "gone": {"x": 1}}), "'gone'"),
        (profile(resources={"gone": {}}), "'gone'"),
        (profile(set={"make": {"seed": "${cell}"}}), "no axis 'cell'"),
        (profile(set={"make": {"seed": -5}}), "-5' is no seed"),
        (profile(set={"make": {"seed": "${seed}", "size": 10**15}}), "the limit is 10,000,000"),
        (profile(matrix={"seed": [0, 1, 0]}), "'0' twice"),
        (profile(matrix={"seed": list(range(500_000))}), "500,000 combinations"),
    ],
)
def test_manifests_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        plan_of(manifest(**changes))
    assert caught.value.where


def test_an_input_may_belong_to_some_profiles_only() -> None:
    spare = {**steps()[0], "id": "spare", "profiles": ["mini"]}
    mix = {"data": {"step": "make"}, "more": {"step": "spare", "profiles": ["mini"]}}
    both = profile(set={step: {"seed": "${seed}", "size": 10} for step in ("make", "spare")})
    mini = both["profiles"]["mini"]
    paper = {**mini, "set": {"make": mini["set"]["make"]}}
    made = manifest(
        steps=[spare, *steps({"id": "mix", "kind": "toy/mix-two", "inputs": mix})],
        profiles={"mini": mini, "paper": paper},
    )
    assert set(plan_of(made).by_id["mix[seed=1]"].steps) == {"data", "more"}
    assert set(plan_of(made, profile="paper").by_id["mix[seed=1]"].steps) == {"data"}


def test_unknown_pin() -> None:
    made = manifest(
        steps=[
            {
                "id": "read",
                "kind": "toy/pinned",
                "version": 1,
                "inputs": {"source": {"pin": "gone"}},
            }
        ],
        results="read",
        **profile(matrix={}, set={}),
    )
    with pytest.raises(InvalidInput, match="no pin 'gone'"):
        plan_of(made)


def test_unknown_profile() -> None:
    with pytest.raises(UsageError, match="no profile 'paper'"):
        plan_of(profile="paper")


def test_unknown_step_of_a_plan() -> None:
    with pytest.raises(UsageError, match="no step 'x'"):
        plan_of().instance("x")
    with pytest.raises(UsageError) as caught:
        plan_of().instance("mix")
    assert caught.value.next_step == "steps are, for example: mix[seed=0], mix[seed=1], mix[seed=2]"


def test_totals() -> None:
    made = manifest(**profile(resources={"mix": {"gpus": 2, "minutes": 30, "gpu_memory_gb": 40}}))
    plan = plan_of(made)
    totals = plan.totals({"mix[seed=0]"})
    assert (totals.instances, totals.to_run, totals.gpus) == (7, 6, 2)
    assert totals.gpu_hours == pytest.approx(2.0)
    assert totals.gpu_memory_gb == 40
    assert plan.totals(set(plan.by_id)).to_run == 0


def test_versions_stand_in_the_plan() -> None:
    assert plan_of().environment["versions"] == MACHINE.versions


@pytest.mark.parametrize(
    ("names", "minutes"),
    [
        (["NVIDIA H100 80GB HBM3"], 9.0),
        (["NVIDIA H200"], 4.0),
        (["NVIDIA H200", "NVIDIA H100 PCIe"], 9.0),
        ([], 4.0),
    ],
)
def test_minutes_are_those_of_the_machines_card(names: list[str], minutes: float) -> None:
    gpus = [Gpu(index="0", name=name, arch="sm_90", memory_gb=80.0) for name in names]
    needs = {"gpus": 1, "gpu_memory_gb": 1.0, "minutes": 4.0, "minutes_on": {"H100": 9.0}}
    made = manifest(**profile(resources={"make": needs, "mix": {**needs, "gpus": 0}}))
    plan = plan_of(made, machine=Machine(gpus=gpus))
    assert plan.by_id["make[seed=0]"].resources.minutes == minutes
    assert plan.by_id["mix[seed=0]"].resources.minutes == 4.0  # on no GPU
    assert all(not one.resources.minutes_on for one in plan.instances)
    same = plan_of(made, machine=Machine(gpus=gpus[:1] or gpus))
    assert keys(same) == keys(plan)
