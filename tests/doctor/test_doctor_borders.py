"""The doctor where a machine has just enough, or just not."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct
from packaging.requirements import Requirement

from kit.doctor import containers, gpus, inputs, machine, overview, sharing, software
from kit.doctor.core import Needs, step_needs
from kit.doctor.overview import Runnable
from kit.engine.hardware import Gpu
from kit.errors import Preflight, UsageError
from kit.manifest.types import Profile, Resources, StepSpec
from tests.doctor.test_doctor_gpus import check, gpu, smi, versions

HUNDRED = Needs(gpus=1, gpu_memory_gb=100)
"""97 GB do: a card reports a little less than its name says."""
DO, SHORT = 97 * 1024, 97 * 1024 - 1


@pytest.mark.parametrize(("memory", "level"), [(97.0, "OK"), (96.99, "FAIL"), (103.0, "OK")])
def test_a_card_reports_a_little_less(memory: float, level: str) -> None:
    assert check([gpu(memory)], HUNDRED)["gpus"].level == level


@pytest.mark.parametrize(
    ("free", "said"),
    [
        ((DO, 0), ""),
        ((SHORT, DO), "export CUDA_VISIBLE_DEVICES=1"),
        ((SHORT, SHORT), "wait, or look outside"),
        ((SHORT, 102 * 1024), "export CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_what_is_left_of_a_card_just_does(free: tuple[int, int], said: str) -> None:
    memory = "".join(f"{at}, GPU-{at}, {left}\n" for at, left in enumerate(free))
    found = check([gpu(120), gpu(120, index="1")], HUNDRED, smi(memory))
    assert ("gpu processes" in found) == bool(said)
    if said:
        assert found["gpu processes"].mend.startswith(said)


def test_of_several_free_cards_as_many_as_needed_are_named() -> None:
    memory = "".join(f"{at}, GPU-{at}, {1 if at == 0 else 80000}\n" for at in range(4))
    needs = Needs(gpus=2, gpu_memory_gb=70)
    cards = [gpu(index=str(at)) for at in range(4)]
    mend = check(cards, needs, smi(memory))["gpu processes"].mend
    assert mend == "export CUDA_VISIBLE_DEVICES=1,2"


def test_five_others_are_named_and_a_card_without_an_index_is_nobodys() -> None:
    apps = "".join(f"GPU-0, {pid}, 10\n" for pid in range(101, 108))
    memory = "0, GPU-0, 99999\n1, GPU-1, 99999\n"
    detail = check([gpu()], HUNDRED, smi(memory, apps))["gpu processes"].detail
    assert [f"pid {pid}" in detail for pid in range(101, 108)] == [True] * 5 + [False] * 2
    assert "gpu processes" not in check([gpu(index="")], HUNDRED, smi("0, GPU-0, 1\n"))
    by_index = check([gpu(index="1")], HUNDRED, smi(memory, apps))
    assert "gpu processes" not in by_index


@pytest.mark.parametrize(
    ("cuda", "driver", "level"),
    [("13", "580", "OK"), ("13", "579.99", "FAIL"), ("12", "525", "OK"), ("12", "524.1", "FAIL"),
     ("11", "579", "FAIL"), ("11", "580", "OK")],
)  # fmt: skip
def test_the_oldest_driver_of_a_runtime(cuda: str, driver: str, level: str) -> None:
    """CUDA release notes, table 3; of an unknown runtime the newest is wanted."""
    version = versions(nvidia_cuda_runtime=f"{cuda}.1.2")
    assert check([gpu(driver=driver)], Needs(), version=version)["driver"].level == level


@pytest.mark.parametrize(
    ("known", "said"),
    [({"nvidia_cuda_runtime": "12.9"}, "580 (CUDA 12)"), ({}, "580 (CUDA 13 (no CUDA build")],
)
def test_the_runtime_is_named(known: dict[str, str], said: str) -> None:
    found = check([gpu(driver="580")], Needs(), version=versions(**known))["driver"]
    assert found.detail.startswith(said)


@pytest.mark.parametrize(
    ("known", "major"),
    [({"nvidia_cuda_runtime": "12.9", "nvidia_cuda_runtime_cu13": "13.0"}, 12),
     ({"nvidia_cuda_runtime_cu12": "12.8", "torch": "2+cu130"}, 12),
     ({"torch": "2.10.0+cu128"}, 12), ({"torch": "2.11.0"}, None), ({}, None)],
)  # fmt: skip
def test_the_runtime_that_torch_carries(known: dict[str, str], major: int | None) -> None:
    assert gpus.cuda_major(versions(**known)) == major


def test_a_program_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho $1; echo no driver >&2; exit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpus.nvidia_smi("-L") == (9, "-L\nno driver\n")


@pytest.mark.parametrize("there", [(True, False), (False, True), (True, True), (False, False)])
def test_gpus_are_described_in_any_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[bool, bool]
) -> None:
    files = (tmp_path / "a", tmp_path / "b")
    for file, made in zip(files, there, strict=True):
        if made:
            file.touch()
    monkeypatch.setattr(containers, "INSIDE", ())
    found = containers.check_engines(
        Needs(gpus=1), say=lambda name: (0, "nvidia") if name == "podman" else None, cdi=files
    )
    assert [one.level for one in found] == ["OK" if any(there) else "WARN"]
    monkeypatch.setattr(containers, "INSIDE", files)
    assert containers.inside() is any(there)


class _Params(Struct):
    gpus: int = 0


@pytest.mark.parametrize(("written", "gpus"), [(3, 3), ("3", 0), (3.5, 0)])
def test_parameters_that_do_not_convert_ask_for_nothing(written: Any, gpus: int) -> None:
    kind = SimpleNamespace(params=_Params, resources=lambda p, gpu: Resources(gpus=p.gpus))
    kinds: Any = SimpleNamespace(names=lambda: ["k"], get=lambda name: kind)
    profile = Profile(summary="s", set={"x": {"gpus": written}})
    assert step_needs(profile, StepSpec(id="x", kind="k", version=1), kinds) == Resources(gpus=gpus)


def _plan(*memory: float, notes: int = 2) -> Any:
    return SimpleNamespace(
        notes=["note"] * notes,
        instances=[SimpleNamespace(resources=Resources(gpu_memory_gb=gb)) for gb in memory],
        totals=lambda cached, pins: SimpleNamespace(gpu_hours=12.6),
    )


def test_usual_gpus_by_what_they_would_hold() -> None:
    def planned(*, machine: Any, gpus: int, gpu_gb: float) -> Any:
        assert machine.gpus == []
        if (gpus, gpu_gb) == (4, 79.0):
            raise Preflight("too small")
        return _plan(gpus, 70.5, 60.0)

    (words,) = sharing._choices(planned, 1)
    parts = words.partition("; computed")[0].split("; ")
    assert parts[0] == "2 x 79 GB do (70.5 GB used, 13 GPU hours)"
    assert parts[1] == "4 x 79 GB do not do"
    assert [part.partition(" GB")[0] for part in parts] == [
        "2 x 79", "4 x 79", "8 x 79", "2 x 139", "4 x 139"
    ]  # fmt: skip
    assert sharing._choices(lambda **_: _plan(1.0, notes=1), 1) == ()

    def refused(**_: Any) -> Any:
        raise UsageError("no")

    assert sharing._choices(refused, 1) == ()


@pytest.mark.parametrize(
    ("cards", "asked", "said"),
    [
        ((80.0, 80.0), Needs(gpus=2, gpu_memory_gb=80), ""),
        ((80.0, 79.0), Needs(gpus=2, gpu_memory_gb=80), "add --gpus 2"),
        ((0.0, 0.0), Needs(gpus=2, gpu_memory_gb=80), ""),
        ((80.0,), Needs(gpus=2, gpu_memory_gb=80), "add --gpus 1"),
        ((80.0, 80.0, 80.0), Needs(gpus=2, gpu_memory_gb=80), ""),
    ],
)
def test_cards_that_are_here(
    cards: tuple[float, ...], asked: Needs, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [Gpu(index="0", name="c", arch="sm_90", memory_gb=gb) for gb in cards]
    monkeypatch.setattr(sharing, "this_machine", lambda: SimpleNamespace(gpus=here))
    fitted = Needs(gpu_memory_gb=70, memory_gb=300)
    found = sharing.here_instead(lambda *, gpus: fitted, asked, "kit doctor x")
    assert found.startswith(said)
    assert bool(found) == bool(said)
    if said:
        assert "with 70 GB each and 300 GB of the machine's memory" in found


def test_a_line_for_what_runs_and_one_for_each_reason() -> None:
    def made() -> Iterator[Runnable]:
        for name, reasons in (("a", []), ("b", ["x: y", "z: w"]), ("c", []), ("d", ["x: y"])):
            yield Runnable(experiment=name, profile="mini", runs=not reasons, reasons=reasons)
        yield Runnable(experiment="a", profile="a", runs=False, reasons=["x: y"])

    found = [(one.level, one.what, one.detail, one.mend) for one in overview.lines(list(made()))]
    assert found == [
        ("WARN", "profile a", "cannot run here: a (x: y)", "kit doctor a --profile a"),
        ("OK", "profile mini", "can run here: a, c", ""),
        ("WARN", "profile mini", "cannot run here: b (x: y; z: w)", "kit doctor b --profile mini"),
        ("WARN", "profile mini", "cannot run here: d (x: y)", "kit doctor d --profile mini"),
    ]


class _Store:
    """Pins in a state that is said."""

    def __init__(self, kind: str, **state: Any) -> None:
        self.kind = kind
        base = {"ready": False, "own": False, "status": "absent", "problems": [], "missing": []}
        self._state = SimpleNamespace(**{**base, **state})

    def pin(self, id: str) -> Any:
        return SimpleNamespace(kind=self.kind, unavailable="withdrawn")

    def state(self, id: str) -> Any:
        return self._state


@pytest.mark.parametrize(
    ("kind", "state", "detail", "mend"),
    [
        ("package", {"status": "wrong"}, "a; b", "git restore kit"),
        ("file", {"own": True, "status": "wrong"}, "a; b", "kit fetch e --profile p --pin x=PATH"),
        ("file", {"status": "wrong"}, "a; b", "kit fetch e --profile p"),
        ("file", {"status": "unavailable"}, "withdrawn", "kit fetch e --profile p --pin x=PATH"),
    ],
)
def test_two_problems_of_an_input_are_named(
    kind: str, state: dict[str, Any], detail: str, mend: str
) -> None:
    store: Any = _Store(kind, problems=["a", "b", "c"], **state)
    (found,) = inputs.inputs(store, ["x"], "e", "p")
    assert (found.level, found.what, found.detail) == ("FAIL", "input x", detail)
    assert found.mend.startswith(mend)


@pytest.mark.parametrize(("kind", "size", "unknown"), [("file", 30, 2), ("package", 0, 0),
                                                       ("unavailable", 0, 0)])  # fmt: skip
def test_what_is_to_be_fetched(kind: str, size: int, unknown: int) -> None:
    files = [SimpleNamespace(size=size) for size in (10, None, 5)]
    store: Any = _Store(kind, missing=files)
    found = inputs.download(store, ["x", "y"])
    assert (found.size, found.unknown) == (size, unknown)


def test_many_inputs_that_are_here_share_a_line() -> None:
    store: Any = _Store("file", ready=True, own=True, status="ok")
    (found,) = inputs.inputs(store, [f"x{at}" for at in range(8)], "e", "p")
    assert found.detail.startswith("8 here: x0 (your own), ")
    assert "x5 (your own)" in found.detail
    assert "x6" not in found.detail
    store = _Store("file", ready=True, status="unchecked")
    assert [one.level for one in inputs.inputs(store, ["x"], "e", "p")] == ["OK", "WARN"]


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 11, 0), "OK"), ((3, 10, 99), "FAIL"), ((3, 12), "OK"), ((4, 0), "OK"), ((2, 99), "FAIL")],
)
def test_the_oldest_python(version: tuple[int, ...], level: str) -> None:
    assert software.python_version(version).level == level
    assert software.python_version().detail == platform.python_version().rstrip("+")


def test_a_run_without_needs_asks_for_nothing() -> None:
    assert machine.memory(0.0, Needs()).level == "OK"
    assert machine.memory(3.9, Needs(memory_gb=4)).level == "FAIL"
    assert machine.memory(4.0, Needs(memory_gb=4)).detail == "4.0 GB"


@pytest.mark.parametrize(
    ("text", "installed", "problem"),
    [
        ("x; python_version < '3'", None, ""),
        ("x; python_version >= '3'", None, "x is missing"),
        ("x", None, "x is missing"),
        ("x>=2", "1.9", "x is 1.9, wanted >=2"),
        ("x>=2", "2.0+cpu", ""),
        ("x>=2", "2.1rc1", ""),
    ],
)
def test_a_requirement_of_another_machine_is_none(
    text: str, installed: str | None, problem: str
) -> None:
    assert software._problem(Requirement(text), lambda name: installed) == problem


def test_two_hundred_characters_of_a_complaint_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "error " + "x" * 400
    monkeypatch.setattr(containers, "INSIDE", ())
    (found,) = containers.check_engines(
        Needs(), say=lambda name: (1, long) if name == "podman" else None, cdi=()
    )
    for check_ in (found, check([], HUNDRED, smi(plain=(9, long)))["gpus"]):
        assert check_.detail.endswith(": " + long[:200])


def test_profiles_are_looked_at_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = ("small", "paper", "mini")
    catalog: Any = SimpleNamespace(
        root=tmp_path, ids=lambda: ["a", "b"], pins=lambda id: None,
        manifest=lambda id: SimpleNamespace(profiles=dict.fromkeys(profiles)),
        needed_pins=lambda id, profile: [],
    )  # fmt: skip
    monkeypatch.setattr(overview, "PinStore", lambda home, pins: None)
    monkeypatch.setattr(overview, "estimate", lambda manifest, profile: Needs())
    monkeypatch.setattr(overview, "unfit", lambda *_: [])
    found = overview.overview(catalog, tmp_path)
    assert [(one.experiment, one.profile, one.runs) for one in found] == [
        (id, profile, True) for id in "ab" for profile in ("mini", "paper", "small")
    ]
    assert {one.experiment for one in overview.overview(catalog, tmp_path, only="c")} == {"c"}
