"""Bad input from end to end: one clear message each, the right exit code, nothing half-written.

Every case starts the command line as a user does. What is covered so elsewhere: a crash, a full
disk and a kill in ``tests/engine/test_crash.py``; out of memory in
``tests/engine/test_failures.py``; a hub that misbehaves in ``tests/manifest/test_fetch_hub.py``;
vocabularies without a shared token in ``tests/lm/test_lm_vocabulary.py`` (no step reaches that:
whole vocabularies are compared first).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from kit.errors import EXIT_FAILED, EXIT_INCOMPLETE, EXIT_INVALID, EXIT_OK, EXIT_USAGE
from kit.mini.injection.paths import DATA_DIR, WEIGHTS_DIR, mini_model_dir
from tests.demo.hub_server import REVISION, FakeHub, Repo, serve
from tests.steps import small

ROOT = Path(__file__).parents[1]
Done = subprocess.CompletedProcess[str]


def kit(*arguments: str, **environment: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "kit.cli.main", "--progress", "plain", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def refused(done: Done, code: int, *words: str) -> str:
    """The one message of a failed command."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "unexpected" not in errors[0]
    message = done.stderr[done.stderr.index("error: ") :]
    for word in words:
        assert word in message
    return message


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One kit home for all runs here: what they share is computed once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(store: Path, tmp_path: Path) -> Callable[..., Done]:
    def call(manifest: Path, *extra: str, **environment: str) -> Done:
        arguments = ["run", str(manifest), "--runs-dir", str(tmp_path / "runs"), "--jobs", "1"]
        return kit(*arguments, *extra, **{"KIT_HOME": str(store), **environment})

    return call


def own(folder: Path, replaced: str, path: Path, **attributes: str) -> tuple[Path, dict[str, str]]:
    """The small experiment with one pin replaced by a file or folder of one's own."""
    pin = {
        "id": "my-own",
        "kind": "unavailable",
        "title": "My own",
        "licence": "none",
        "unavailable": "made by this test",
        "attributes": attributes,
    }
    (folder / "pins.yaml").write_text(json.dumps({"schema_version": 1, "pins": [pin]}))
    manifest = small.write(folder)
    text = manifest.read_text(encoding="utf-8")
    assert f'"{replaced}"' in text
    manifest.write_text(text.replace(f'"{replaced}"', '"my-own"'), encoding="utf-8")
    return manifest, {"KIT_PIN_MY_OWN": str(path)}


def own_model(folder: Path, change: Callable[[Path], None]) -> tuple[Path, dict[str, str]]:
    """The small experiment with a changed copy of its target model."""
    copy = folder / "model"
    shutil.copytree(mini_model_dir("source-6"), copy)
    change(copy)
    return own(folder, "mini-source-6", copy, chat_format="mini", released_tokens_key="source-6")


# What the user types


def test_an_unknown_experiment() -> None:
    refused(
        kit("run", "tiny-adpt"),
        EXIT_USAGE,
        "unknown experiment 'tiny-adpt'",
        "did you mean 'tiny-adapt'?",
    )


def test_an_unknown_profile(tmp_path: Path) -> None:
    refused(kit("run", "tiny-adapt", "--profile", "huge"), EXIT_USAGE, "no profile 'huge'")


# What stands in files


@pytest.mark.parametrize(
    ("line", "place", "said"),
    [
        ("id: [full-dt", "bad.yaml:3:", "expected"),
        ("id: full-dt\nid: other", "bad.yaml:3:1", "duplicate key"),
        ("id: &name full-dt", "bad.yaml:2:5", "anchor"),
        ("idd: full-dt", "bad.yaml:2:1", "idd"),
    ],
    ids=["malformed", "duplicate-key", "anchor", "unknown-key"],
)
def test_a_manifest_that_is_no_manifest(tmp_path: Path, line: str, place: str, said: str) -> None:
    shipped = ROOT / "manifests" / "defensive_tokens" / "full-dt.yaml"
    head, id, *rest = shipped.read_text(encoding="utf-8").splitlines()
    assert (head, id) == ("schema_version: 1", "id: full-dt")
    path = tmp_path / "bad.yaml"
    path.write_text("\n".join([head, line, *rest]), encoding="utf-8")
    done = kit("run", str(path))
    assert done.returncode == EXIT_INVALID
    assert "Traceback" not in done.stderr
    assert any(place in one and said in one for one in done.stderr.splitlines()), done.stderr
    if not line.startswith("idd"):  # an unknown key is also a missing one
        refused(done, EXIT_INVALID)


def hub_pin(**changes: Any) -> dict[str, Any]:
    config = mini_model_dir("source-6") / "config.json"
    return {
        "id": "my-own",
        "kind": "hf-model",
        "title": "A model",
        "licence": "Example Licence",
        "repo": "example/model",
        "revision": REVISION,
        "files": [
            {"path": "config.json", "sha256": hashlib.sha256(config.read_bytes()).hexdigest()}
        ],
        "attributes": {"chat_format": "mini", "released_tokens_key": "source-6"},
        **changes,
    }


def pinned(folder: Path, pin: dict[str, Any]) -> Path:
    """The small experiment with its target from a hub."""
    manifest, _ = own(folder, "mini-source-6", folder)
    (folder / "pins.yaml").write_text(json.dumps({"schema_version": 1, "pins": [pin]}))
    return manifest


@pytest.mark.parametrize("revision", ["main", "v1.0", REVISION[:12]])
def test_an_unpinned_revision(tmp_path: Path, revision: str) -> None:
    manifest = pinned(tmp_path, hub_pin(revision=revision))
    refused(kit("run", str(manifest)), EXIT_INVALID, "pins.yaml:1:", "revision")


# What comes from a hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[FakeHub, dict[str, str]]]:
    """A hub on this machine, and the environment that points to it without a token."""
    fake = FakeHub()
    server = serve(fake)
    yield (
        fake,
        {
            "HF_ENDPOINT": fake.url,
            "NO_PROXY": "127.0.0.1",
            "HF_TOKEN": "",
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "0",
            "KIT_OFFLINE": "",
            "KIT_HOME": str(tmp_path / "home"),
        },
    )
    server.shutdown()
    server.server_close()


def test_a_file_with_another_hash(tmp_path: Path, hub: tuple[FakeHub, dict[str, str]]) -> None:
    fake, environment = hub
    fake.repos["example/model"] = Repo(files={"config.json": b'{"other": 1}'})
    done = kit("fetch", str(pinned(tmp_path, hub_pin())), **environment)
    refused(done, EXIT_INVALID, "config.json", "sha256")
    assert not list((tmp_path / "home").rglob("config.json"))


def test_a_gated_model_without_a_token(tmp_path: Path, hub: tuple[FakeHub, dict[str, str]]) -> None:
    fake, environment = hub
    fake.repos["example/model"] = Repo(files={"config.json": b"{}"}, gated=True)
    done = kit("fetch", str(pinned(tmp_path, hub_pin(gated=True))), **environment)
    refused(done, EXIT_INVALID, "gated and there is no token", "hf auth login")


def test_a_model_that_was_not_fetched(tmp_path: Path, hub: tuple[FakeHub, dict[str, str]]) -> None:
    done = kit("run", str(pinned(tmp_path, hub_pin())), **hub[1])
    refused(done, EXIT_INVALID, "config.json is missing", "kit fetch")


# What is on this machine


def test_a_missing_model_file(tmp_path: Path, run: Callable[..., Done]) -> None:
    """A pin that lists its files: found before anything runs."""
    copy = tmp_path / "copy"
    shutil.copytree(mini_model_dir("source-6"), copy)
    (copy / "model.safetensors").unlink()
    done = run(small.write(tmp_path), KIT_PIN_MINI_SOURCE_6=str(copy))
    refused(done, EXIT_INVALID, "model.safetensors is missing", "next: check the path")
    assert not (tmp_path / "runs").exists()


def test_a_damaged_model_file(tmp_path: Path, run: Callable[..., Done]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(mini_model_dir("source-6"), copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x00\x01\x02")
    done = run(small.write(tmp_path), KIT_PIN_MINI_SOURCE_6=str(copy))
    refused(done, EXIT_INVALID, "pin 'mini-source-6' is not what it must be", "sha256")


def test_nothing_at_a_path_of_ones_own(tmp_path: Path, run: Callable[..., Done]) -> None:
    manifest, environment = own(tmp_path, "mini-alpaca", tmp_path / "nothing.json")
    done = run(manifest, **environment)
    refused(done, EXIT_INVALID, "there is nothing at", "KIT_PIN_MY_OWN=PATH")


def _forget(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _shorten(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _other_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[5:7]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (_forget("model.safetensors"), EXIT_INVALID, "index.json or model.safetensors in"),
        (_forget("tokenizer.json"), EXIT_INVALID, "no tokenizer.json in"),
        (_shorten, EXIT_INVALID, "is not a readable safetensors file"),
        # Each of the two models is fine by itself.
        (_other_vocabulary, EXIT_FAILED, "the tokenizers differ first at id 5"),
    ],
    ids=["no-weights", "no-tokenizer", "cut-weights", "other-vocabulary"],
)
def test_a_model_of_ones_own_that_cannot_be_used(
    tmp_path: Path,
    run: Callable[..., Done],
    change: Callable[[Path], None],
    code: int,
    words: str,
) -> None:
    manifest, environment = own_model(tmp_path, change)
    refused(run(manifest, **environment), code, "align[pair=other-5]: ", words)


def test_weights_that_give_no_finite_loss(tmp_path: Path, run: Callable[..., Done]) -> None:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"][:] = 3e38  # finite; the scores are not
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    manifest, environment = own_model(tmp_path, spoil)
    refused(
        run(manifest, **environment),
        EXIT_FAILED,
        "adapt[pair=other-5]: training diverged: step 0 has a loss that is not finite",
        "lower the learning rate",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:4], "4 vectors, 5 wanted"),
        (lambda rows: [row[:32] for row in rows], "vectors of width 32, the model has 64"),
        (lambda rows: [[v * 1e40 for v in row] for row in rows], "not finite"),
    ],
    ids=["too-few", "too-narrow", "too-large"],
)
def test_released_tokens_that_do_not_fit(
    tmp_path: Path,
    run: Callable[..., Done],
    change: Callable[[list[list[float]]], list[list[float]]],
    words: str,
) -> None:
    table = json.loads((WEIGHTS_DIR / "defensivetokens.json").read_text(encoding="utf-8"))
    table["source-5"] = change(table["source-5"])
    (tmp_path / "tokens.json").write_text(json.dumps(table))
    manifest, environment = own(tmp_path, "mini-defensive-tokens", tmp_path / "tokens.json")
    message = refused(run(manifest, **environment), EXIT_FAILED, "transfer[pair=other-5]: ")
    assert f"source-5: {words}" in message or words in message


@pytest.mark.slow
def test_rows_with_control_tokens_markup_and_escapes(
    tmp_path: Path, store: Path, run: Callable[..., Done]
) -> None:
    """A hostile evaluation set runs like any other; nothing of it acts in terminal or report."""
    rows = json.loads((DATA_DIR / "alpaca_farm.json").read_text(encoding="utf-8"))
    evil = "</s> <s> <unk> <script>alert(1)</script> \x1b[2J \x9b2J \u202e {{7*7}} ${x} %s"
    rows = [{**row, "input": f"{evil} {row['input']}"} for row in rows]
    (tmp_path / "farm.json").write_text(json.dumps(rows))
    manifest, environment = own(tmp_path, "mini-alpaca-farm", tmp_path / "farm.json")
    done = run(manifest, **environment)
    assert done.returncode == EXIT_OK, done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    folder, report = done.stdout.splitlines()[-1], tmp_path / "report.html"
    nothing = {"schema_version": 1, "experiment": "small", "profile": "mini", "version": "1-A"}
    (tmp_path / "none.json").write_text(json.dumps({**nothing, "cells": [], "claims": []}))
    verified = kit("verify", folder, "--expectation", str(tmp_path / "none.json"))
    assert verified.returncode in (EXIT_OK, EXIT_INCOMPLETE), verified.stderr
    assert "\x1b" not in verified.stdout
    arguments = ("report", folder, "-o", str(report), "--show-generations")
    made = kit(*arguments, KIT_HOME=str(store))
    assert made.returncode == EXIT_OK, made.stderr
    page = report.read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert not {"\x1b", "\x9b", "\u202e"} & set(page)


def test_a_row_of_ten_million_characters(tmp_path: Path, run: Callable[..., Done]) -> None:
    rows = json.loads((DATA_DIR / "alpaca_farm.json").read_text(encoding="utf-8"))
    rows[3]["input"] = "x" * 10_000_000
    (tmp_path / "farm.json").write_text(json.dumps(rows))
    manifest, environment = own(tmp_path, "mini-alpaca-farm", tmp_path / "farm.json")
    message = refused(run(manifest, **environment), EXIT_FAILED, "has 10,000,000 characters")
    assert "row 3" in message
    assert len(message) < 2000


def test_no_eligible_sample(tmp_path: Path, run: Callable[..., Done]) -> None:
    rows = json.loads((DATA_DIR / "alpaca_farm.json").read_text(encoding="utf-8"))
    (tmp_path / "farm.json").write_text(json.dumps([{**row, "input": ""} for row in rows]))
    manifest, environment = own(tmp_path, "mini-alpaca-farm", tmp_path / "farm.json")
    refused(
        run(manifest, **environment),
        EXIT_FAILED,
        "evaluate[pair=other-5]: ",
        "none of 208 rows has",
    )


def test_a_checkpoint_behind_the_end(tmp_path: Path, run: Callable[..., Done]) -> None:
    manifest = small.write(tmp_path, **{"adapt.checkpoints": [9]})
    refused(run(manifest), EXIT_FAILED, "checkpoint 9 lies behind the last of 6 steps")


def test_a_damaged_store_entry_is_done_again(
    tmp_path: Path, store: Path, run: Callable[..., Done]
) -> None:
    manifest = small.write(tmp_path)
    first = run(manifest)
    assert first.returncode == EXIT_OK, first.stderr
    results = (Path(first.stdout.splitlines()[-1]) / "results.json").read_bytes()
    (record,) = (
        path
        for path in store.glob("store/*/*/step.json")
        if json.loads(path.read_text())["kind"] == "defensive-tokens/training-data"
    )
    items = record.parent / "items.jsonl"
    items.chmod(0o644)
    items.write_text(items.read_text().replace("alpaca", "alpaka", 1))
    again = run(manifest)
    assert again.returncode == EXIT_OK, again.stderr
    assert "1 run" in again.stderr
    assert "7 cached" in again.stderr
    assert "alpaka" not in items.read_text()
    after = json.loads((Path(again.stdout.splitlines()[-1]) / "results.json").read_bytes())
    assert after["cells"] == json.loads(results)["cells"]
