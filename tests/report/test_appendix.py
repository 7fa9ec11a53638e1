"""The artifact appendix: complete, and no longer than two pages."""

from __future__ import annotations

import re
from pathlib import Path

from kit.manifest.expectation_types import Claim, Expectation
from kit.manifest.pin_types import Pin
from kit.manifest.types import Document, Manifest, Profile, Resources, StepSpec
from kit.report.appendix import of_experiment, of_run
from kit.report.files import read_run
from tests.report.builders import claim, verdict
from tests.report.extremes import HOSTILE, large_verdict, write_hostile
from tests.report.runs import write_run

HEADINGS = ["Claims", "Time, resources, hardware", "Commands", "Inputs and licences",
            "Behaviour to expect"]  # fmt: skip
TWO_PAGES = 1100
"""Words; a set page of this kind holds about 550."""


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, flags=re.MULTILINE)


def test_of_a_run(tmp_path: Path) -> None:
    text = of_run(read_run(write_run(tmp_path / "run")))
    assert headings(text) == [*HEADINGS, "Not covered"]
    for said in ("AMD EPYC 9554 (2 cores, 7.8 GB)", "kit reproduce tiny-adapt --profile mini",
                 "Llama 3.1 Community", "**gated, unconfirmed**", "0.6 GB", "holds, p &lt; 0.001",
                 "a better number", "91 s"):  # fmt: skip
        assert said.replace("a better number", "better than the published") in text
    assert len(text.split()) < TWO_PAGES


def test_long_lists_are_cut_and_said(tmp_path: Path) -> None:
    many = [claim(f"claim-{i}") for i in range(40)]
    made = large_verdict(2000)
    folder = write_run(tmp_path / "run", verdict=verdict(cells=made.cells, claims=many))
    text = of_run(read_run(folder))
    assert "28 further claims" in text
    assert "\n\n\n" not in text
    assert len(text.split()) < TWO_PAGES


def test_without_plan_and_record(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", plan=None, record=None)
    assert "- not recorded" in of_run(read_run(folder))


def test_rehearsed_and_modified_are_said(tmp_path: Path) -> None:
    made = verdict(verdict="REHEARSED", exit_code=0, modified=True, overrides=["a.b=1"])
    text = of_run(read_run(write_run(tmp_path / "run", verdict=made)))
    assert "modified: a.b=1" in text
    assert "rehearsal: random weights and stand-in data" in text


def test_hostile_run_is_inert(tmp_path: Path) -> None:
    text = of_run(read_run(write_hostile(tmp_path / "run")))
    outside = re.sub(r"(`+)[^`].*?\1", "", re.sub(r"\\.", "", text))
    assert "<" not in outside
    assert headings(text) == [*HEADINGS, "Not covered"]


def manifest() -> Manifest:
    profile = Profile(
        summary="Small models.",
        resources={"train": Resources(gpus=2, gpu_memory_gb=80, memory_gb=64, minutes=150)},
    )
    return Manifest(
        schema_version=1, id="e", family="tar", version="2-B", title=HOSTILE[0], summary="What.",
        variant="corrected", documents=[Document(id="d", title="T", cite="C")],
        steps=[StepSpec(id="train", kind="a/b", version=1)], results="train",
        profiles={"mini": profile}, notes=["It warns about a missing file."],
    )  # fmt: skip


def test_of_an_experiment() -> None:
    expectation = Expectation(
        schema_version=1, experiment="e", profile="mini", version="2-B", cells=[],
        claims=[Claim(id="c", kind="order", sentence="A stays below B.", place="Table 1",
                      primary=True, cells=["a", "b"])],
    )  # fmt: skip
    pin = Pin(id="p", kind="hf-model", title="A model", licence="MIT", gated=True)
    text = of_experiment(manifest(), "mini", expectation, [pin])
    assert headings(text) == HEADINGS
    for said in ("A stays below B.", "primary", "80 GB", "2.5 h", "A model: MIT, **gated**",
                 "It warns about a missing file.", "&lt;script&gt;"):  # fmt: skip
        assert said in text


def test_of_an_experiment_without_expectation_or_resources() -> None:
    bare = manifest()
    text = of_experiment(
        Manifest(**{**{f: getattr(bare, f) for f in bare.__struct_fields__},
                    "profiles": {"paper": Profile(summary="Large.")}}),
        "paper", None, [],
    )  # fmt: skip
    assert "not declared in the manifest" in text
    assert "- none listed" in text
