"""What is listed of experiments, pins and files: order, sums, and what stands for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from kit.errors import UsageError
from kit.manifest import shipped, tables
from kit.manifest.catalog import Catalog
from kit.manifest.expectation_types import Claim, Expectation
from kit.manifest.summary import ExperimentSummary, ProfileSummary, _input, describe
from kit.manifest.types import Profile, profile_of
from tests.manifest.test_catalog import pin_file


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that lists the last file first."""
    for name in ("glob", "rglob"):
        whole = getattr(Path, name)

        def listed(self: Path, pattern: str, whole: object = whole) -> Iterator[Path]:
            return iter(sorted(whole(self, pattern), reverse=True))  # type: ignore[operator]

        monkeypatch.setattr(Path, name, listed)


@pytest.mark.usefixtures("backwards")
def test_files_are_listed_by_name(repo: Path) -> None:
    folder = repo / "expected_results" / "defensive_tokens"
    for name in ("a.mini.yaml", "z.mini.yaml", "m.mini.json"):
        (folder / name).write_text("")
    (repo / "expected_results" / "reference").mkdir()
    (repo / "expected_results" / "reference" / "b.json").write_text("")
    names = [path.name for path in Catalog(repo).expectation_files()]
    assert names == ["a.mini.yaml", "demo.paper.yaml", "m.mini.json", "z.mini.yaml"]
    for name in ("pins.b.yaml", "pins.a.yaml"):
        (repo / "manifests" / name).write_text(pin_file(name[5]))
    assert [path.name for path in Catalog(repo).pin_files()] == [
        "pins.yaml", "pins.a.yaml", "pins.b.yaml",
    ]  # fmt: skip
    (text,) = shipped.files(repo).values()
    hashed = [Path(line.split()[-1]).name for line in text.splitlines()]
    assert hashed == ["a.mini.yaml", "demo.paper.yaml", "z.mini.yaml"]


def test_an_experiment_says_which_profiles_it_has(repo: Path) -> None:
    manifest = Catalog(repo).manifest("demo")
    profiles = {name: Profile(summary="") for name in ("small", "mini", "paper")}
    with pytest.raises(UsageError) as caught:
        profile_of(replace(manifest, profiles=profiles), "large")
    assert caught.value.next_step == "it has: mini, paper, small"
    with pytest.raises(UsageError) as caught:
        profile_of(replace(manifest, profiles={}, full_size="other"), "large")
    assert caught.value.next_step == "it has: none; at the published size: other"


def test_the_size_of_an_input_is_known_when_that_of_each_file_is(repo: Path) -> None:
    pins = {pin.id: pin for pin in Catalog(repo).pins().pins}
    known = {id: (_input(id, pin)["files"], _input(id, pin)["bytes"]) for id, pin in pins.items()}
    assert known == {
        "tiny-data": (1, 0),
        "tiny-old": (0, None),
        "tiny-new": (0, None),
        "big-old": (2, None),
        "big-new": (1, 2),
    }
    assert "no such pin" in _input("other", None)["problem"]


def test_profiles_are_listed_by_name_and_a_line_has_no_empty_cell(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(repo)
    profiles = catalog.manifest("demo").profiles
    changed = replace(
        catalog.manifest("demo"), profiles=dict(sorted(profiles.items(), reverse=True))
    )
    monkeypatch.setattr(Catalog, "manifest", lambda *_: changed)
    assert list(describe(catalog, "demo")["profiles"]) == sorted(profiles)
    known = ProfileSummary(profile="p", cells=2, primary_claims=1)
    recorded = replace(known, profile="q", cells=0, records=["r.jsonl"])
    for listed, cells in (
        ([known], ["p", "p: 2 cells, 1 primary claim", "-"]),
        ([recorded], ["q", "-", "q"]),
        ([known, recorded], ["p, q", "p: 2 cells, 1 primary claim", "q"]),
        ([], ["", "-", "-"]),
    ):
        item = ExperimentSummary(id="e", family="f", title="T", variant="v", profiles=listed)
        assert tables._row(item) == ["`e`", "T", "v", *cells]
    broken = ExperimentSummary(id="e", family="f", problem="bad")
    assert tables._row(broken)[1] == "bad"


def test_pins_beside_a_manifest_are_those_of_ones_own_manifest_only(repo: Path) -> None:
    beside = repo / "manifests" / "defensive_tokens" / "pins.yaml"
    beside.write_text(pin_file("beside"))
    catalog = Catalog(repo)
    assert beside not in catalog.pin_files("demo")
    assert beside not in catalog.pin_files()
    assert beside in catalog.pin_files(beside.with_name("demo.yaml"))
    (repo / "manifests" / "x.yaml").write_text("")
    assert catalog.pin_files(repo / "manifests" / "x.yaml") == [repo / "manifests" / "pins.yaml"]


@pytest.mark.parametrize(
    ("name", "content", "edited"),
    [("a.yaml", "1", False), ("a.yaml", "2", True), ("b.yaml", "2", False), ("none", None, False)],
)
def test_a_shipped_file_that_was_edited_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None, edited: bool
) -> None:
    known = {"expected/a.yaml": sha256(b"1").hexdigest(), "expected/none": "0" * 64}
    monkeypatch.setattr(shipped, "_shipped", lambda: known)
    folder = tmp_path / "root" / "expected"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / name).write_text(content)
    assert shipped.edited(folder / name, tmp_path / "root") == edited
    outside = tmp_path / "a.yaml"
    outside.write_text("2")
    assert not shipped.edited(outside, tmp_path / "root")


def test_pins_are_marked_or_not(repo: Path) -> None:
    lines = [line.split(" | ") for line in tables.pins(repo).splitlines()[2:]]
    marks = {cells[0].strip("| `"): cells[-1].strip("| ") for cells in lines}
    assert marks == {
        "tiny-data": "-",
        "tiny-old": "unavailable",
        "big-old": "gated, unconfirmed",
        "big-new": "-",
    }


def test_primary_claims_are_described_first(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(repo)
    expectation = catalog.expectation("demo", "paper")
    assert isinstance(expectation, Expectation)
    (first,) = expectation.claims[:1]

    def made(id: str, primary: bool) -> Claim:
        return replace(first, id=id, primary=primary)

    claims = [made("a", False), made("b", True), made("c", False), made("d", True)]
    changed = replace(expectation, claims=claims)
    monkeypatch.setattr(Catalog, "expectation", lambda *_: changed)
    said = describe(catalog, "demo", ["paper"])["profiles"]["paper"]
    assert [claim["id"] for claim in said["claims"]] == ["b", "d", "a", "c"]
    assert said["cells"] == len(expectation.cells)
    assert [step["instances"] for step in said["steps"]].count(0) == 0
