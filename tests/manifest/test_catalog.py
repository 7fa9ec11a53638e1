"""Finding experiments, pins and expectations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kit.errors import InvalidInput, UsageError
from kit.manifest import home
from kit.manifest.catalog import Catalog, is_path
from kit.manifest.home import find_root, kit_home
from kit.manifest.matrix import BadReference, combinations, needed_pins, pin_ids, resolve
from kit.manifest.summary import summaries
from kit.manifest.types import InputRef, Profile, profile_of


def pin_file(id: str) -> str:
    """A pin file with one package pin."""
    pin = f"{{id: {id}, kind: package, title: t, licence: l, path: lm}}"
    return f"schema_version: 1\npins:\n  - {pin}\n"


def test_ids_without_opening_files(repo: Path) -> None:
    (repo / "manifests" / "tar").mkdir()
    (repo / "manifests" / "tar" / "broken.yaml").write_text("{")
    (repo / "manifests" / "schema").mkdir()
    (repo / "manifests" / "schema" / "manifest.json").write_text("{}")
    assert Catalog(repo).ids() == ["demo-corrected", "demo", "broken"]


def test_an_unknown_experiment_suggests_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.manifest("demmo")
    assert caught.value.exit_code == 2
    assert "did you mean 'demo'?" in caught.value.render()
    with pytest.raises(UsageError, match="unknown experiment 'zzz'") as caught:
        catalog.manifest("zzz")
    assert "kit list" in caught.value.next_step


def test_two_files_of_one_name_are_refused(repo: Path) -> None:
    (repo / "manifests" / "tar").mkdir()
    source = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    shutil.copy(source, repo / "manifests" / "tar" / "demo.yaml")
    with pytest.raises(InvalidInput, match="two manifests of the name 'demo'"):
        Catalog(repo).ids()


def test_the_root_is_found_from_a_subfolder(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIT_ROOT")
    monkeypatch.chdir(repo / "manifests" / "defensive_tokens")
    assert find_root() == repo
    assert Catalog().load("demo").value.id == "demo"


def test_the_root_by_environment(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Catalog().root == repo
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    with pytest.raises(UsageError, match="KIT_ROOT is"):
        find_root()


def test_the_root_falls_back_to_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KIT_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_root() == Path(home.__file__).resolve().parents[2]
    monkeypatch.setattr(home, "MARKER", Path("nothing-has-this"))
    with pytest.raises(UsageError, match="in any folder above, or in the installed"):
        find_root()


def test_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KIT_HOME", raising=False)
    assert kit_home() == tmp_path / ".kit"
    monkeypatch.setenv("KIT_HOME", "~/kit")
    assert kit_home() == Path.home() / "kit"


def test_expectations(catalog: Catalog) -> None:
    found = catalog.expectation("demo", "paper")
    assert found is not None
    assert found.cells[0].value == "69.2"
    assert catalog.expectation("demo", "mini") is None
    assert catalog.expectation("demo", "paper") is found


def test_pins_of_several_files_are_one_catalog(repo: Path) -> None:
    more = pin_file("extra")
    (repo / "manifests" / "pins.mini.yaml").write_text(more)
    catalog = Catalog(repo)
    assert "extra" in {pin.id for pin in catalog.pins().pins}
    (repo / "manifests" / "pins.zzz.yaml").write_text(more)
    with pytest.raises(InvalidInput, match="a second pin 'extra'") as caught:
        Catalog(repo).pins()
    assert caught.value.where.endswith("pins.zzz.yaml:3:10")


def test_a_manifest_of_ones_own(repo: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    source = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    (mine / "own.yaml").write_text(source.read_text().replace("tiny-data", "my-data"))
    (mine / "pins.yaml").write_text(pin_file("my-data"))
    results = repo / "expected_results" / "defensive_tokens" / "demo.paper.yaml"
    shutil.copy(results, mine / "own.paper.expected.yaml")
    catalog = Catalog(repo)
    own = str(mine / "own.yaml")
    assert catalog.manifest(own).id == "demo"
    assert "my-data" in {pin.id for pin in catalog.pins(own).pins}
    assert "my-data" not in {pin.id for pin in catalog.pins().pins}
    assert catalog.expectation(own, "paper") is not None
    assert catalog.expectation(own, "mini") is None
    with pytest.raises(UsageError, match="no manifest at"):
        catalog.manifest(str(mine / "none.yaml"))


@pytest.mark.parametrize("path", ["./demo", "demo.yaml", "demo.json", Path("x")])
def test_what_counts_as_a_path(path: str | Path) -> None:
    assert is_path(path)


@pytest.mark.parametrize("name", ["demo", "llama-3.1"])
def test_what_counts_as_an_id(name: str) -> None:
    assert not is_path(name)


def test_needed_pins_follow_references(catalog: Catalog) -> None:
    manifest = catalog.manifest("demo")
    assert needed_pins(manifest, "mini") == ["tiny-new", "tiny-old", "tiny-data"]
    assert needed_pins(manifest, "paper") == ["big-new", "tiny-data"]
    with pytest.raises(UsageError, match="has no profile 'huge'"):
        needed_pins(manifest, "huge")
    assert profile_of(manifest, "mini").summary.startswith("Small")


PROFILE = Profile(
    summary="",
    pins={"m": "model"},
    matrix={
        "pair": [{"id": "a", "seed": 1, "to": "${pins.m}"}, {"id": "b", "to": "x"}],
        "n": [1, 2],
    },
)
AXES = {"pair": PROFILE.matrix["pair"][0], "n": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        (3, 3),
        (["${n}", "x"], [2, "x"]),
        ("${n}", 2),
        ("${pair}", "a"),
        ("${pair.seed}", 1),
        ("${pair.to}", "model"),
        ("${pins.m}", "model"),
    ],
)
def test_references(text: object, value: object) -> None:
    assert resolve(text, AXES, PROFILE.pins) == value


@pytest.mark.parametrize(
    "text", ["${pins.x}", "${pair.none}", "${other}", "${other.seed}", "a${n}", "${n} b", "${n.x}"]
)
def test_references_that_lead_nowhere(text: str) -> None:
    with pytest.raises(BadReference):
        resolve(text, AXES, PROFILE.pins)


def test_combinations_vary_the_last_axis_fastest() -> None:
    found = [(point["pair"]["id"], point["n"]) for point in combinations(PROFILE, ["pair", "n"])]  # type: ignore[index, call-overload]
    assert found == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert list(combinations(PROFILE, [])) == [{}]
    assert len(list(combinations(PROFILE, ["pair", "n"], limit=3))) == 3
    assert pin_ids(InputRef(pin="${pair.to}"), PROFILE, ["pair", "n"]) == ["model", "x"]


def test_one_broken_manifest_does_not_hide_the_others(repo: Path) -> None:
    (repo / "manifests" / "defensive_tokens" / "broken.yaml").write_text("id: [")
    found = {item.id: item for item in summaries(Catalog(repo))}
    assert "broken.yaml" in found["broken"].problem
    assert found["demo"].problem == ""
    manifest = repo / "manifests" / "defensive_tokens" / "demo.yaml"
    turned = manifest.read_text().replace("  mini:", "  z-mini:")
    manifest.write_text(turned)
    again = next(item for item in summaries(Catalog(repo)) if item.id == "demo")
    assert [one.profile for one in again.profiles] == ["paper", "z-mini"]
    paper = found["demo"].profiles[1]
    assert (paper.profile, paper.cells, paper.primary_claims) == ("paper", 3, 1)
