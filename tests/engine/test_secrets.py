"""Credentials reach neither records nor child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.engine.process import OFFLINE, worker_environment
from kit.engine.record import begin, code_state
from kit.engine.secrets import (
    HIDDEN,
    child_environment,
    is_secret_name,
    recorded_environment,
    redact,
    redact_argv,
)
from kit.errors import StepFailed
from kit.results.plan import Plan
from tests.engine.conftest import manifest, plan_of
from tests.engine.test_session import Run

FAKE = {
    "HF_TOKEN": "hf_" + "aB3" * 10,
    "WANDB_API_KEY": "0123456789abcdef0123",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "MY_PASSWORD": "correct horse",
    "GITHUB_TOKEN": "ghp_" + "x1Y2" * 9,
}
HARMLESS = ("TOKENIZERS_PARALLELISM", "PWD", "SSH_AUTH_SOCK", "PATH", "KEYBOARD", "MONKEY", "HOME")


@pytest.mark.parametrize("name", list(FAKE))
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("value", list(FAKE.values()))
def test_values_of_secret_variables_are_found_anywhere(value: str) -> None:
    assert redact(f"before {value} after", FAKE) == f"before {HIDDEN} after"


@pytest.mark.parametrize(
    "text",
    [
        FAKE["HF_TOKEN"],
        FAKE["GITHUB_TOKEN"],
        "sk-proj-abcdefghij0123456789",
        "AKIAABCDEFGHIJKLMNOP",
        "github_pat_11ABCDEFG0123456789abcd",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def_ghi",
    ],
)
def test_what_looks_like_a_secret_is_hidden_wherever_it_comes_from(text: str) -> None:
    assert redact(f"x={text};", {}) == f"x={HIDDEN};"


def test_credentials_in_addresses_and_headers() -> None:
    assert redact("https://me:pass@host/x", {}) == f"https://{HIDDEN}@host/x"
    assert redact("Authorization: Bearer abcdefgh12345", {}) == f"Authorization: Bearer {HIDDEN}"


def test_ordinary_text_stays() -> None:
    text = (
        "step train[seed=1] failed: shape (3, 4); see /data/task-of-the-second-week/x at 12:30:07"
    )
    assert redact(text, {}) == text


@pytest.mark.parametrize(
    ("argv", "clean"),
    [
        (["kit", "fetch", "--token", "abc"], ["kit", "fetch", "--token", HIDDEN]),
        (["kit", "--token=abc"], ["kit", f"--token={HIDDEN}"]),
        (["kit", "--hf-token", "abc", "run"], ["kit", "--hf-token", HIDDEN, "run"]),
        (["kit", "--set", "x.api_key=abc"], ["kit", "--set", f"x.api_key={HIDDEN}"]),
        (["kit", "--set", "train.tokens=5"], ["kit", "--set", "train.tokens=5"]),
        (["kit", "run", "toy", "--seed", "3"], ["kit", "run", "toy", "--seed", "3"]),
    ],
)
def test_command_lines(argv: list[str], clean: list[str]) -> None:
    assert redact_argv(argv, {}) == clean


def test_only_listed_variables_are_recorded() -> None:
    environ = {**FAKE, "CUDA_VISIBLE_DEVICES": "0", "SOMETHING": "else"}
    assert recorded_environment(environ) == {"CUDA_VISIBLE_DEVICES": "0"}


def test_children_get_no_credentials() -> None:
    proxies = {"HTTPS_PROXY": "http://me:pass@proxy:3128", "http_proxy": "http://proxy:3128"}
    given = {**FAKE, "PATH": "/bin", **proxies}
    assert child_environment(given) == {"PATH": "/bin", "http_proxy": "http://proxy:3128"}


def test_workers_are_offline_and_equal() -> None:
    made = worker_environment({**FAKE, "PATH": "/bin"}, threads=1, gpus=[])
    assert not set(FAKE) & set(made)
    assert made["CUDA_VISIBLE_DEVICES"] == ""
    assert made["OMP_NUM_THREADS"] == made["MKL_NUM_THREADS"] == "1"
    assert OFFLINE.items() <= made.items()
    gpu = worker_environment({"OMP_NUM_THREADS": "8"}, threads=None, gpus=["0", "3"])
    assert gpu["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert gpu["OMP_NUM_THREADS"] == "8"


@pytest.mark.parametrize(
    ("folder", "added"),
    [("checkout", True), ("lib/site-packages", False), ("dist-packages", False)],
)
def test_a_worker_runs_the_kit_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, added: bool
) -> None:
    """An installed kit is found anyway, and its folder would put all packages in front."""
    root = (tmp_path / folder).resolve()
    monkeypatch.setattr("kit.engine.process.kit.__file__", str(root / "kit/__init__.py"))
    made = worker_environment({"PATH": "/bin"}, threads=1, gpus=[])
    assert made.get("PYTHONPATH", "").split(":")[0] == (str(root) if added else "")


def test_what_is_compiled_lies_in_the_kits_home_and_survives_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    made = worker_environment({"VLLM_CACHE_ROOT": "/own"}, threads=None, gpus=["0"])
    assert made["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache/inductor")
    assert made["TRITON_CACHE_DIR"] == str(tmp_path / "cache/triton")
    assert made["VLLM_CACHE_ROOT"] == "/own"  # the user's own choice stays
    asked = "from torch._inductor.runtime.cache_dir_utils import cache_dir; print(cache_dir())"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": made["TORCHINDUCTOR_CACHE_DIR"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "cache/inductor")


def test_a_record_holds_none_of_them() -> None:
    record = begin(
        plan_of(overrides=["make.name=" + FAKE["HF_TOKEN"]]),
        argv=["kit", "run", "toy", "--token", "abc", FAKE["MY_PASSWORD"]],
        environ=FAKE,
        started="now",
        options={},
    )
    text = record.to_json().decode()
    for value in FAKE.values():
        assert value not in text
    assert record.argv == ["kit", "run", "toy", "--token", HIDDEN, HIDDEN]


def leaking(fail: bool) -> Plan:
    steps = [{"id": "leak", "kind": "toy/leak", "version": 1}]
    profile = {"summary": "s", "set": {"leak": {"fail": fail}}}
    return plan_of(manifest(steps=steps, results="leak", profiles={"mini": profile}))


def holding(folder: Path) -> set[str]:
    """Names of the files below a folder that hold any of the secrets, as text or as JSON."""
    return {
        path.name
        for path in folder.rglob("*")
        if path.is_file()
        and any(value in path.read_text(errors="replace") for value in FAKE.values())
    }


@pytest.mark.parametrize("fail", [False, True])
def test_no_file_of_a_run_holds_them_whatever_a_step_says(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: bool
) -> None:
    for name, value in FAKE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StepFailed):  # it leaves no table, if nothing else
        run_toy(leaking(fail))
    log = next(tmp_path.rglob("leak.log")).read_text()
    assert "CUDA_VISIBLE_DEVICES" in log, "the step spoke"
    assert holding(tmp_path) == set()


@pytest.mark.parametrize("fail", [False, True])
def test_what_a_step_reports_is_redacted_also_where_it_has_them(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: bool
) -> None:
    """The second net alone: with the first one off, what is merely printed does hold them."""
    monkeypatch.setattr("kit.engine.process.child_environment", dict)
    for name, value in FAKE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StepFailed):
        run_toy(leaking(fail))
    events = next(tmp_path.rglob("events.jsonl")).read_text()
    assert events.count(HIDDEN) >= 2 * len(FAKE), "note and canary"
    assert holding(tmp_path) == {"leak.log"}


def test_record_tells_what_ran_where(run_toy: Run) -> None:
    record = json.loads((run_toy() / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["argv"] == ["kit", "run", "toy"]
    assert record["hardware"]["cores"] >= 1
    assert record["hardware"]["memory_gb"] > 0
    assert record["versions"]["msgspec"]
    assert record["started"] < record["ended"]
    step = record["steps"]["make[seed=0]"]
    assert step["seconds"] >= 0
    assert step["peak_memory_gb"] > 0
    assert set(step["outputs"]) == {"data.txt", "canaries.json"}
    assert len(step["outputs"]["data.txt"]["sha256"]) == 64


def test_code_state_outside_of_git(tmp_path: Path) -> None:
    assert code_state(tmp_path) == (None, None)


def test_code_state_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state() == (None, None)


@pytest.mark.parametrize(
    ("built", "state"),
    [
        ("a" * 40, ("a" * 40, False)),
        ("a" * 40 + "-dirty", ("a" * 40, True)),
        ("unknown", (None, None)),
    ],
)
def test_code_state_in_an_image(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    built: str,
    state: tuple[str | None, bool | None],
) -> None:
    monkeypatch.setenv("KIT_COMMIT", built)
    assert code_state(tmp_path) == state
