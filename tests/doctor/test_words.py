"""What is still to fetch, and the needs of a profile, in numbers."""

from __future__ import annotations

import msgspec
import pytest

from kit.doctor.core import Check, Needs, estimate, step_needs
from kit.doctor.inputs import Download
from kit.engine.registry import Registry
from kit.manifest.catalog import Catalog
from kit.manifest.types import Profile, Resources, StepSpec


@pytest.mark.parametrize(
    ("size", "unknown", "said"),
    [
        (0, 0, "less than 50 MB"),
        (50_000_000, 0, "less than 50 MB"),
        (60_000_000, 0, "0.1 GB"),
        (16_000_000_000, 0, "16.0 GB"),
        (0, 1, "1 file of unknown size"),
        (1, 2, "less than 50 MB and 2 files of unknown size"),
        (2_000_000_000, 3, "2.0 GB and 3 files of unknown size"),
    ],
)
def test_how_much_is_to_come_as_far_as_it_is_known(size: int, unknown: int, said: str) -> None:
    assert Download(size=size, unknown=unknown).words() == said


def test_a_check_is_a_line_and_its_remedy_another() -> None:
    assert Check(level="OK", what="a", detail="b").render() == "OK    a: b"
    assert Check(level="WARN", what="a", detail="b", mend="c").render().splitlines() == [
        "WARN  a: b", "      mend: c",
    ]  # fmt: skip


def test_needs_are_the_largest_of_a_step_and_the_disk_of_all(
    catalog: Catalog, registry: Registry
) -> None:
    manifest = catalog.manifest("demo")
    profile = manifest.profiles["mini"]
    each = {step.id: Resources(gpus=i, gpu_memory_gb=10 * i, memory_gb=5 - i, disk_gb=1)
            for i, step in enumerate(manifest.steps)}  # fmt: skip
    made = msgspec.structs.replace(profile, resources=each)
    whole = msgspec.structs.replace(manifest, profiles={"mini": made})
    needs = estimate(whole, "mini", registry)
    last = len(manifest.steps) - 1
    assert (needs.gpus, needs.gpu_memory_gb, needs.memory_gb) == (last, 10 * last, 5)
    assert (needs.extra, needs.without) == ("gpu", {"vllm"})
    instances = 1
    for values in profile.matrix.values():
        instances *= len(values)
    counts = [instances if step.each else 1 for step in manifest.steps]
    assert needs.disk_gb == sum(counts)
    none = msgspec.structs.replace(manifest, steps=[], profiles={"mini": made})
    assert estimate(none, "mini", registry) == Needs(without=frozenset({"vllm"}))


def test_a_step_that_cannot_be_asked_counts_as_small(registry: Registry) -> None:
    profile = Profile(summary="s")
    for kind in ("no/kind", "demo/train"):  # unknown; without its parameters
        assert step_needs(profile, StepSpec(id="x", kind=kind, version=1), registry) == Resources()
