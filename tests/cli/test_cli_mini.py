"""``kit mini``: help, and builds of no and of one pair with training replaced."""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from kit.mini import trials
from kit.mini.injection import build, record, release
from kit.mini.injection.paths import WEIGHTS_DIR, mini_model_dir
from kit.mini.record import Json
from kit.mini.worlds import get_world
from tests.cli.conftest import Kit


class InProcess(Executor):
    """Computes at once and here, so that replaced functions are used."""

    def __init__(self, *settings: Any) -> None:
        self.settings = settings

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Training that copies shipped files; seed 0 does not pass. Returns what was trained."""
    calls: list[str] = []

    def build_seed(root: Path, seed: int) -> Json:
        calls.append(f"seed {seed}")
        for kind in ("source", "newer"):
            folder = root / f"{kind}-{seed}"
            folder.mkdir(exist_ok=True)
            shipped = mini_model_dir(f"{kind}-{seed}") / "model.safetensors"
            (folder / "model.safetensors").write_bytes(shipped.read_bytes())
        passed = {"admitted": seed > 0}
        return {"seed": seed, "source": passed, "newer": passed}

    def train_tokens(folder: Path) -> list[list[float]]:
        calls.append(f"tokens {folder.name}")
        return [[1.0, 0.1]] * 5

    monkeypatch.setattr(trials, "ProcessPoolExecutor", InProcess)
    monkeypatch.setattr(build, "build_seed", build_seed)
    monkeypatch.setattr(release, "train_tokens", train_tokens)
    return calls


def test_help(kit: Kit) -> None:
    assert "build Train the models of WORLD again" in " ".join(kit("mini", "--help").out.split())
    found = kit("mini", "build", "--help")
    assert found.code == 0
    for text in ("WORLD FOLDER", "--seeds", "--jobs", "default: 1"):
        assert text in found.out


def test_one_pair(kit: Kit, quick: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "models"
    found = kit("mini", "build", "injection", str(folder), "--seeds", "1")
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines() == ["tried seed 0", "tried seed 1", str(folder)]
    assert quick == ["seed 0", "seed 1", "tokens source-1", "tokens newer-1"]
    made = {path.name for path in folder.iterdir()}
    assert made == {
        "source-1",
        "newer-1",
        "build_record.json",
        "sha256.json",
        "defensivetokens.json",
    }
    assert list(json.loads((folder / "defensivetokens.json").read_text())) == [
        "source-1",
        "newer-1",
    ]
    hashes = json.loads((folder / "sha256.json").read_text())
    known = json.loads((WEIGHTS_DIR / "sha256.json").read_text())
    name = "source-1/model.safetensors"
    assert hashes[name] == known[name]


def test_a_second_call_goes_on(kit: Kit, quick: list[str], tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert kit("mini", "build", "injection", folder, "--seeds", "1").code == 0
    assert kit("mini", "build", "injection", folder, "--seeds", "2").code == 0
    assert [call for call in quick if call.startswith("seed")] == ["seed 0", "seed 1", "seed 2"]


@pytest.mark.parametrize("pairs", ["0", "-1", "many"])
def test_fewer_than_one_pair_is_wrong_usage(
    kit: Kit, quick: list[str], tmp_path: Path, pairs: str
) -> None:
    found = kit("mini", "build", "injection", str(tmp_path / "models"), "--seeds", pairs)
    assert found.code == 2
    assert "--seeds" in found.err
    assert not (tmp_path / "models").exists()
    assert kit("mini", "build", "injection", str(tmp_path / "models"), "--jobs", "0").code == 2


def test_a_folder_of_another_recipe_is_one_clear_message(
    kit: Kit, quick: list[str], tmp_path: Path
) -> None:
    stale = record.read_record(tmp_path)
    stale["recipe"]["source"]["steps"] = 1
    record.write_record(tmp_path, stale)
    found = kit("mini", "build", "injection", str(tmp_path), "--seeds", "1")
    assert found.code == 4
    assert found.err.startswith("error: ")
    assert "was built by another recipe; build into an empty folder" in found.err
    assert "unexpected" not in found.err
    assert quick == []


def test_a_file_in_the_way(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert kit("mini", "build", "injection", str(tmp_path / "file")).code == 2
    assert kit("mini", "built").code == 2


def test_an_unknown_world_is_named_with_the_known(kit: Kit, tmp_path: Path) -> None:
    found = kit("mini", "build", "atlantis", str(tmp_path))
    assert found.code == 2
    assert "unknown miniature world 'atlantis'; known: injection" in found.err


def test_the_data_of_a_world_are_written(kit: Kit, tmp_path: Path) -> None:
    assert kit("mini", "files", "injection", str(tmp_path)).code == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == get_world("injection").files()
