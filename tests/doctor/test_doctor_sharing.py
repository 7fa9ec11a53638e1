"""Beforehand: what steps that share a model need of other GPUs than a profile declares."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kit.doctor import sharing
from kit.doctor.core import estimate
from kit.doctor.gpus import check_gpus
from kit.engine.environment import Machine
from kit.engine.hardware import Gpu
from kit.errors import Preflight, UsageError
from kit.manifest.catalog import Catalog
from kit.pins.store import PinStore

CATALOG = Catalog()
NAME = ("tar-bio-full-size", "paper")


@pytest.fixture
def store(tmp_path: Path) -> PinStore:
    return PinStore(tmp_path, CATALOG.pins(NAME[0]))


def cards(count: int, gb: float, monkeypatch: pytest.MonkeyPatch) -> list[Gpu]:
    made = [Gpu(index=str(i), name="card", arch="sm_90", memory_gb=gb) for i in range(count)]
    monkeypatch.setattr(sharing, "this_machine", lambda: Machine(gpus=made))
    return made


def test_gpus_that_are_named_are_fitted(store: PinStore) -> None:
    needs = sharing.needs_of(CATALOG, *NAME, store, gpus=2, gpu_gb=139.0)
    assert needs.gpus == 2
    declared = estimate(CATALOG.manifest(NAME[0]), NAME[1])
    assert (needs.disk_gb, needs.extra) == (declared.disk_gb, declared.extra)
    assert needs.memory_gb > 10, "that of the step that needs most"
    assert 110 < needs.gpu_memory_gb < 139
    assert [words.partition(":")[0] for words in needs.shared] == [
        "random-mapping",
        "tar",
        "attack",
    ]
    smaller = sharing.needs_of(CATALOG, *NAME, store, gpus=2, gpu_gb=79.0)
    assert smaller.gpu_memory_gb < 79
    assert "layers computed again" in smaller.shared[1]


def test_gpus_that_do_not_do_are_refused_in_a_sentence(store: PinStore) -> None:
    with pytest.raises(Preflight, match=r"no plan fits 1 GPUs of 79 GiB.*use more GPUs"):
        sharing.needs_of(CATALOG, *NAME, store, gpus=1, gpu_gb=79.0)
    with pytest.raises(UsageError, match="no step of tiny-adapt"):
        sharing.needs_of(CATALOG, "tiny-adapt", "mini", store, gpus=2)


def test_as_declared_it_says_which_usual_gpus_would_do(
    store: PinStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(0, 0.0, monkeypatch)
    monkeypatch.setattr(sharing, "USUAL", ((1, 79.0), (2, 139.0)))
    needs = sharing.needs_of(CATALOG, *NAME, store)
    assert (needs.gpus, needs.instead) == (4, "")
    (words,) = needs.shared
    assert words.startswith("1 x 79 GB do not do; 2 x 139 GB do (")


@pytest.mark.parametrize(
    ("gb", "said"),
    [(139.0, "add --gpus 2 to kit run: these do, with 1"), (24.0, "no plan fits 2 GPUs of 24 GiB")],
)
def test_the_gpus_that_are_here_are_tried(
    gb: float, said: str, store: PinStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cards(2, gb, monkeypatch)
    monkeypatch.setattr(sharing, "USUAL", ((2, gb),))
    monkeypatch.setattr("kit.engine.batch.memory_gb", lambda: 500.0)
    needs = sharing.needs_of(CATALOG, *NAME, store)
    assert said in needs.instead
    (check,) = (
        one
        for one in check_gpus(here, needs, ask=lambda *_: (127, ""), version=lambda _: None)
        if one.what == "gpus"
    )
    assert (check.level, check.mend) == ("FAIL", needs.instead)
    enough = msgspec.structs.replace(needs, gpus=2, gpu_memory_gb=gb)
    assert sharing.here_instead(lambda **_: needs, enough, "kit doctor") == ""
