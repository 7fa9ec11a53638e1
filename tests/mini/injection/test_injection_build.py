"""Building again from seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.mini.injection import build, record, release
from kit.mini.injection.entry import Entry
from kit.mini.injection.paths import WEIGHTS_DIR, mini_model_names
from kit.mini.injection.pretrain import NEWER, SOURCE
from kit.mini.injection.record import passed
from kit.mini.record import judge

Json = dict[str, Any]


def _tried(seed: int, source: bool, newer: bool | None) -> Json:
    return {
        "seed": seed,
        "source": {"admitted": source},
        "newer": None if newer is None else {"admitted": newer},
    }


def test_the_first_admitted_seeds_are_taken_in_order() -> None:
    tried = [
        _tried(4, True, True),
        _tried(0, False, None),
        _tried(1, True, True),
        _tried(2, True, False),
        _tried(3, True, True),
    ]
    statuses = [(row["seed"], row["status"]) for row in judge(tried, 2, passed)]
    assert statuses == [
        (0, "rejected"),
        (1, "admitted"),
        (2, "rejected"),
        (3, "admitted"),
        (4, "surplus"),
    ]
    assert judge(judge(tried, 2, passed), 2, passed) == judge(tried, 2, passed)


def test_a_short_rebuild_repeats_bit_by_bit(tmp_path: Path) -> None:
    source = replace(SOURCE, steps=3, batch_size=4)
    newer = replace(NEWER, steps=3, batch_size=4)
    hashes = []
    for name in ("one", "two"):
        root = tmp_path / name
        for kind, recipe in (("source", source), ("newer", newer)):
            folder, loss = build.train_model(root, kind, 7, recipe)
            assert folder == root / f"{kind}-7"
            assert loss > 0
        hashes.append(record.file_hashes(root))
    assert hashes[0] == hashes[1]
    assert hashes[0]["source-7/model.safetensors"] != hashes[0]["newer-7/model.safetensors"]
    assert mini_model_names(root=tmp_path / "one") == ["source-7", "newer-7"]


def test_files_are_readable_by_everybody(tmp_path: Path) -> None:
    folder, _ = build.train_model(tmp_path, "source", 1, replace(SOURCE, steps=1, batch_size=2))
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())


def test_a_finished_build_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = judge([_tried(seed, True, True) for seed in range(3)], 2, passed)
    start = record.read_record(tmp_path)
    record.write_record(tmp_path, start | {"seeds": rows})
    monkeypatch.setattr(build, "release", lambda root: {})
    said: list[str] = []
    build.build(tmp_path, 2, 1, said.append)
    assert record.read_record(tmp_path) == start | {"seeds": rows}
    assert said == []
    assert (tmp_path / release.RELEASED_FILE.name).is_file()


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    stale = record.read_record(tmp_path)
    stale["recipe"]["source"]["steps"] = 1
    record.write_record(tmp_path, stale)
    with pytest.raises(ValueError, match="another recipe"):
        build.build(tmp_path, 1, 1, print)


def test_importing_the_world_loads_no_torch() -> None:
    code = (
        "import sys, kit.mini.worlds, kit.mini.injection.world, kit.mini.injection.page;"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_fresh_seed_has_the_statistics_of_the_shipped_models(tmp_path: Path) -> None:
    """Statistics, not bits: another machine may add in another order."""
    made = build.build_seed(tmp_path, 1000)
    shipped = json.loads((WEIGHTS_DIR / "build_record.json").read_text(encoding="utf-8"))["seeds"]
    for kind in ("source", "newer"):
        tried = [row[kind] for row in shipped if row[kind]]
        assert made[kind] is not None
        # Half of the observed range on either side, at least five points.
        for read in (lambda n: n["accuracy"], lambda n: max(n["attack_success"].values())):
            low, high = min(map(read, tried)), max(map(read, tried))
            margin = max(0.05, (high - low) / 2)
            assert low - margin <= read(made[kind]) <= high + margin
        assert made[kind]["guarded_success"][kind] <= 0.1


@pytest.mark.parametrize("admitted", [False, True])
def test_a_newer_version_is_trained_of_an_admitted_source_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, admitted: bool
) -> None:
    """What ships is measured: the model that was written and read back."""
    clock, trained = [7.0], []
    entry = Entry(8, 1.0, {}, {}, {}, 0.0)

    def train(root: Path, kind: str, seed: int, recipe: Any) -> tuple[Path, float]:
        trained.append((root, kind, seed, recipe))
        clock[0] += 12.34
        return root / kind, 1.23456

    def measure(model: Path) -> Entry:
        assert model.name in ("source", "newer")
        clock[0] += 100.0
        return entry

    monkeypatch.setattr(build, "train_model", train)
    monkeypatch.setattr(build, "load_model", lambda folder: folder)
    monkeypatch.setattr(build, "measure", measure)
    monkeypatch.setattr(build.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Entry, "admitted", property(lambda self: admitted))
    row = build.build_seed(tmp_path, 4)
    kinds = ["source", "newer"][: 1 + admitted]
    assert [kind for _, kind, _, _ in trained] == kinds
    assert {(root, seed) for root, _, seed, _ in trained} == {(tmp_path, 4)}
    assert row["seed"] == 4
    assert (row["newer"] is not None) == admitted
    for kind in kinds:
        assert row[kind]["admitted"] is admitted
        assert (row[kind]["loss"], row[kind]["train_seconds"]) == (1.2346, 12.3)
