"""Whole runs of toy plans: what is done, what is taken from the store, what failures say."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kit.engine import process
from kit.engine.events import read_events
from kit.engine.preflight import finished
from kit.engine.registry import REGISTRY
from kit.engine.session import Options, Session
from kit.engine.store import Store
from kit.errors import EXIT_FAILED, EXIT_INVALID, KitError, Many, Preflight, StepFailed
from kit.results.types import Results
from tests.engine.conftest import ToyPins, manifest, plan_of

Run = Callable[..., Path]


def failing(how: str, each: bool = False, **values: Any) -> Any:
    """A plan of one failing step, or of three, one a seed."""
    step = {"id": "f", "kind": "toy/fail", "version": 1}
    table = {"id": "t", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "f"}}}
    profile: dict[str, Any] = {"summary": "s", "set": {"f": {"how": how, **values}}}
    if each:
        step["each"] = ["how"]  # type: ignore[assignment]
        profile["matrix"] = {"how": how.split("+")}
        profile["set"]["f"]["how"] = "${how}"
    return plan_of(manifest(steps=[step, table], results="t", profiles={"mini": profile}))


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())  # type: ignore[no-any-return]


def states(folder: Path) -> dict[str, str]:
    return {id: step["state"] for id, step in record(folder)["steps"].items()}


def only_run(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_a_run_leaves_everything(run_toy: Run) -> None:
    folder = run_toy()
    assert {path.name for path in folder.iterdir()} == {
        "plan.json",
        "events.jsonl",
        "record.json",
        "results.json",
        "labels.jsonl",
        "SHA256SUMS",
    } | ({"logs"} if (folder / "logs").exists() else set())
    import msgspec

    results = msgspec.json.decode((folder / "results.json").read_bytes(), type=Results)
    assert (results.experiment, results.version, results.profile) == ("toy", "1-A", "mini")
    assert [cell.id for cell in results.cells] == ["number.0", "number.1", "number.2"]
    assert [canary.step for canary in results.canaries] == [f"make[seed={i}]" for i in range(3)]
    names = [item["event"] for item in read_events(folder / "events.jsonl")]
    assert names[0] == "run-started"
    assert names[-1] == "run-finished"
    assert names.count("step-done") == 7
    assert names.count("metric") == 3
    record = json.loads((folder / "record.json").read_text())
    assert record["results_sha256"] == sha256((folder / "results.json").read_bytes()).hexdigest()
    assert set(states(folder).values()) == {"run"}


def closed(folder: Path) -> list[str]:
    """Names in ``SHA256SUMS``, all of which are as the run left them."""
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    return [line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]


def test_a_run_is_closed_by_the_hashes_of_what_it_left(run_toy: Run) -> None:
    folder = run_toy()
    files = ["plan.json", "results.json", "labels.jsonl", "events.jsonl", "record.json"]
    assert closed(folder) == files
    for name in files:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before + b" ")
        with pytest.raises(subprocess.CalledProcessError):
            closed(folder)
        (folder / name).write_bytes(before)


def test_a_failed_run_is_closed_too(tmp_path: Path, run_toy: Run) -> None:
    with pytest.raises(StepFailed):
        run_toy(failing("value"))
    assert closed(only_run(tmp_path)) == ["plan.json", "events.jsonl", "record.json"]


def test_the_second_run_takes_everything_from_the_store(run_toy: Run) -> None:
    first, second = run_toy(), run_toy()
    assert first != second
    assert set(states(second).values()) == {"cached"}
    assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()
    assert not (second / "logs").exists()  # no worker was started


def test_order_of_work_does_not_change_the_tables(run_toy: Run, tmp_path: Path) -> None:
    first = run_toy(jobs=1)
    other = Session(
        plan_of(),
        home=tmp_path / "other",
        pins=ToyPins(tmp_path),
        options=Options(jobs=3, runs_dir=tmp_path / "runs"),
        argv=[],
    ).run()
    for name in ("results.json", "labels.jsonl"):
        assert (first / name).read_bytes() == (other / name).read_bytes()
    assert record(other)["blind"] is None  # nobody asked for it


def test_a_changed_parameter_redoes_what_follows(run_toy: Run) -> None:
    run_toy()
    found = states(run_toy(plan_of(overrides=["mix.factor=5"])))
    assert {id for id, state in found.items() if state == "cached"} == {
        f"make[seed={seed}]" for seed in range(3)
    }
    assert record_modified(run_toy, "mix.factor=5")


def record_modified(run_toy: Run, override: str) -> bool:
    made = record(run_toy(plan_of(overrides=[override])))
    return made["modified"] is True and made["overrides"] == [override]


def damage(path: Path) -> None:
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")


def test_damaged_outputs_are_redone_with_a_message(run_toy: Run, tmp_path: Path) -> None:
    first, plan, store = run_toy(), plan_of(), Store(tmp_path / "home")
    damage(store.path(plan.by_id["make[seed=1]"].key) / "data.txt")
    second = run_toy()
    assert states(second)["make[seed=1]"] == "run"
    assert sorted(states(second).values()).count("cached") == 6  # the same came out, so it ends
    told = [i for i in read_events(second / "events.jsonl") if i["event"] == "step-damaged"]
    assert [item["step"] for item in told] == ["make[seed=1]"]
    assert "sha256" in told[0]["problem"]
    assert (store.home / "tmp" / told[0]["moved_to"]).is_dir()
    assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()


def test_large_damage_is_found_with_check(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy()
    store = Store(tmp_path / "home")
    monkeypatch.setattr("kit.engine.store.SMALL", 10)
    damage(store.path(plan_of().by_id["make[seed=1]"].key) / "data.txt")
    assert set(states(run_toy()).values()) == {"cached"}
    assert states(run_toy(check="all"))["make[seed=1]"] == "run"


def test_what_was_made_from_other_outputs_is_redone(run_toy: Run, tmp_path: Path) -> None:
    """An upstream step that comes out differently takes its readers with it."""
    run_toy()
    plan, store = plan_of(), Store(tmp_path / "home")
    make = plan.by_id["make[seed=1]"]
    entry = store.look(make.key).entry
    assert entry is not None
    with store.lock(make.key), store.workspace(make.key) as workspace:
        out = workspace / "out"
        out.mkdir()
        (out / "data.txt").write_text("came out differently")
        import msgspec

        def again(**fields: Any) -> Any:
            return msgspec.structs.replace(entry, **fields)

        store.commit(make.key, out, again)
    assert "mix[seed=1]" not in finished(plan, store)
    found = states(run_toy())
    assert {id for id, state in found.items() if state == "run"} == {"mix[seed=1]", "table"}


def test_the_order_of_the_matrix_redoes_nothing(run_toy: Run) -> None:
    run_toy()
    profile = {
        "summary": "s",
        "matrix": {"seed": [2, 0, 1]},
        "set": {"make": {"seed": "${seed}", "size": 1000}},
    }
    again = run_toy(plan_of(manifest(profiles={"mini": profile})))
    assert set(states(again).values()) == {"cached"}


def test_equal_steps_are_done_once(run_toy: Run) -> None:
    cells = [{"id": name, "seed": 7} for name in "abcd"]
    steps = [
        {"id": "make", "kind": "toy/make", "version": 2, "each": ["cell"]},
        {
            "id": "mix",
            "kind": "toy/mix",
            "version": 1,
            "each": ["cell"],
            "inputs": {"data": {"step": "make"}},
        },
        {"id": "table", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "mix"}}},
    ]
    profile = {
        "summary": "s",
        "matrix": {"cell": cells},
        "set": {"make": {"seed": "${cell.seed}", "seconds": 0.1}},
    }
    folder = run_toy(plan_of(manifest(steps=steps, profiles={"mini": profile})))
    found = list(states(folder).values())
    assert found.count("run") == 3
    assert found.count("cached") == 6
    results = json.loads((folder / "results.json").read_text())
    assert [cell["id"] for cell in results["cells"]] == [f"number.{name}" for name in "abcd"]


# Failures.


@pytest.mark.parametrize(
    ("how", "words", "also"),
    [
        ("value", "^f: the rank must be positive$", "logs"),
        ("type", "^f: TypeError: unexpected$", "logs"),
        (
            "nan",
            "training diverged: loss is nan at step 7",
            "--set f.rate=0.05 (other numbers); or",
        ),
        ("oom", r"the GPU is out of memory: it asked for 2\.50 GiB more", "--set f.rows=4 (slower"),
        ("host", r"^f: out of memory: it asked for 3\.638 TiB more", "--jobs 1"),
        ("kill", "was killed by SIGKILL", "logs"),
        ("exit", "ended with status 7", "logs"),
        ("forget", "without its output 'number.json'", "finished steps are kept"),
        ("link", "link or a special file", "finished steps are kept"),
        ("axes", "reads axes, which are not part of its key", "logs"),
        ("undeclared", "declares no input 'model'", "logs"),
    ],
)
def test_failures_are_clear(run_toy: Run, tmp_path: Path, how: str, words: str, also: str) -> None:
    with pytest.raises(StepFailed, match=words) as caught:
        run_toy(failing(how))
    assert caught.value.exit_code == EXIT_FAILED
    assert caught.value.where == "f"
    assert also in caught.value.render()
    folder = only_run(tmp_path)
    assert record(folder)["status"] == "failed"
    assert states(folder) == {"f": "failed", "t": "blocked"}
    assert (folder / "logs" / "f.log").read_text().startswith(f"about to {how}\n")
    assert not (folder / "results.json").exists()
    assert not list((tmp_path / "home" / "tmp").iterdir())


def test_out_of_memory_says_plan_device_progress_and_cure(run_toy: Run, tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        run_toy(failing("oom"))
    said = caught.value
    assert "1.07 GiB of 79.11 GiB of the GPU was free; process 4242 holds 40.00 GiB" in said.why
    assert "the plan expected 1 GB" in said.why
    assert "3 of 20 steps were done" in said.why
    kept = next((tmp_path / "home" / "scratch").glob("*/state-2"))
    assert f"what it kept is in {kept.parent}" in said.why
    assert said.next_step.startswith("--set f.rows=4 (slower, same numbers); or end the other")
    assert "flag" not in said.next_step  # a cure that is used up is not offered


def test_torchs_own_exception_in_a_worker(run_toy: Run) -> None:
    with pytest.raises(StepFailed, match=r"^f: the GPU is out of memory: it asked for 2\.50 GiB"):
        run_toy(failing("cuda"))


def test_what_is_offered_can_be_typed(run_toy: Run) -> None:
    """Following the advice to its end: each value is accepted, and the last offers none."""
    rows = [8]
    while True:
        with pytest.raises(StepFailed) as caught:
            run_toy(failing("oom", rows=rows[-1]))
        offered = re.search(r"--set f\.rows=(\d+)", caught.value.next_step)
        if offered is None:
            break
        rows.append(int(offered.group(1)))
    assert rows == [8, 4, 2, 1]


def test_the_kernel_as_the_killer(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real SIGKILL; only the kernel's count of it is made up."""
    counter = tmp_path / "vmstat"
    counter.write_text("nr_free_pages 1\noom_kill 7\n")
    monkeypatch.setattr(process, "OOM_COUNTERS", (counter, tmp_path / "absent"))
    monkeypatch.setattr("kit.engine.local._repeatable", lambda instance: False)
    with pytest.raises(StepFailed, match=r"was killed by SIGKILL$") as caught:
        run_toy(failing("kill"))
    assert "it counted no such kill" in caught.value.why
    assert "memory" not in caught.value.next_step

    calls = iter([7, 8])
    for room in ("process", "local"):
        monkeypatch.setattr(f"kit.engine.{room}.oom_kills", lambda: next(calls))
    with pytest.raises(StepFailed, match=r"SIGKILL: out of memory$") as caught:
        run_toy(failing("kill"))
    assert "the plan expected 1 GB" in caught.value.why
    assert "--jobs 1" in caught.value.next_step
    assert "--set f.rows=4" in caught.value.next_step


def starts_and_repeats(folder: Path) -> tuple[int, list[str]]:
    items = list(read_events(folder / "events.jsonl"))
    repeats = [item["reason"] for item in items if item["event"] == "step-repeated"]
    return sum(item["event"] == "step-started" for item in items), repeats


def test_a_killed_step_is_tried_once_more_and_that_is_said(
    run_toy: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = run_toy(failing("kill", flag=str(tmp_path / "flag")))
    started, repeats = starts_and_repeats(folder)
    assert started == 3  # the step twice, and the table
    (reason,) = repeats
    assert "killed by SIGKILL" in reason
    assert "tried once more" in reason
    assert "[f] repeated" in capfd.readouterr().err
    assert states(folder) == {"f": "run", "t": "run"}


def test_a_step_that_is_killed_twice_fails_the_run(run_toy: Run, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="killed by SIGKILL") as caught:
        run_toy(failing("kill"))
    assert "tried twice" in caught.value.why
    started, repeats = starts_and_repeats(only_run(tmp_path))
    assert (started, len(repeats)) == (2, 1)


@pytest.mark.parametrize("how", ["exit", "value"])
def test_a_step_that_ends_by_itself_is_not_tried_again(
    run_toy: Run, tmp_path: Path, how: str
) -> None:
    with pytest.raises(StepFailed):
        run_toy(failing(how, flag=str(tmp_path / "flag")))
    assert starts_and_repeats(only_run(tmp_path)) == (1, [])


def test_a_step_that_is_not_repeatable_is_not_repeated(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = dataclasses.replace(REGISTRY.get("toy/fail"), repeatable=False)
    monkeypatch.setitem(REGISTRY._kinds, "toy/fail", once)
    with pytest.raises(StepFailed, match="killed by SIGKILL") as caught:
        run_toy(failing("kill", flag=str(tmp_path / "flag")))
    assert "tried" not in caught.value.why
    assert starts_and_repeats(only_run(tmp_path)) == (1, [])


def test_a_dead_process_shows_its_last_words(run_toy: Run) -> None:
    with pytest.raises(StepFailed) as caught:
        run_toy(failing("exit"))
    assert "about to exit | leaving early" in caught.value.why


def test_traceback_is_in_the_events(run_toy: Run, tmp_path: Path) -> None:
    with pytest.raises(StepFailed):
        run_toy(failing("type"))
    (item,) = [
        i for i in read_events(only_run(tmp_path) / "events.jsonl") if i["event"] == "step-failed"
    ]
    assert "in fail" in item["failure"]["traceback"]


def test_running_steps_finish_after_a_failure(run_toy: Run, tmp_path: Path) -> None:
    profile = {
        "summary": "s",
        "matrix": {"seed": [0, 1, 2, 3]},
        "set": {"make": {"seed": "${seed}", "seconds": 0.8}, "f": {"how": "value"}},
    }
    steps = [
        {"id": "f", "kind": "toy/fail", "version": 1},
        {"id": "make", "kind": "toy/make", "version": 2, "each": ["seed"]},
    ]
    plan = plan_of(manifest(steps=steps, results="f", profiles={"mini": profile}))
    with pytest.raises(StepFailed):
        run_toy(plan)
    found = states(only_run(tmp_path))
    assert found == {
        "f": "failed",
        "make[seed=0]": "run",
        "make[seed=1]": "waiting",
        "make[seed=2]": "waiting",
        "make[seed=3]": "waiting",
    }


def test_keep_going_does_what_can_be_done(run_toy: Run, tmp_path: Path) -> None:
    with pytest.raises(Many) as caught:
        run_toy(failing("value+ok+exit+type", each=True), keep_going=True, jobs=1)
    assert caught.value.exit_code == EXIT_FAILED
    assert len(caught.value.errors) == 3
    found = states(only_run(tmp_path))
    assert found["f[how=ok]"] == "run"
    assert found["t"] == "blocked"


def test_after_mending_the_run_goes_on(run_toy: Run, tmp_path: Path) -> None:
    plan = failing("exit", flag=str(tmp_path / "flag"))
    with pytest.raises(StepFailed):
        run_toy(plan)
    assert set(states(run_toy(plan)).values()) == {"run"}


def test_secrets_of_a_message_are_hidden(run_toy: Run, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"log in with \[redacted\]"):
        run_toy(failing("secret"))
    for path in only_run(tmp_path).iterdir():
        if path.is_file():
            assert "xY" * 12 not in path.read_text()


# What steps see.


def pinned_plan(**options: Any) -> Any:
    steps = [
        {
            "id": "read",
            "kind": "toy/pinned",
            "version": 1,
            "inputs": {"source": {"pin": "words"}},
        },
        {"id": "mix", "kind": "toy/mix", "version": 1, "inputs": {"data": {"step": "read"}}},
        {"id": "table", "kind": "toy/table", "version": 1, "inputs": {"numbers": {"step": "mix"}}},
    ]
    return plan_of(manifest(steps=steps, profiles={"mini": {"summary": "s"}}), **options)


def seen(tmp_path: Path, plan: Any) -> dict[str, Any]:
    path = Store(tmp_path / "home").path(plan.by_id["read"].key) / "data.txt"
    found = json.loads(path.read_text())
    del found["pid"]
    return found  # type: ignore[no-any-return]


def test_steps_get_pins_and_no_credentials(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    (tmp_path / "pins" / "words").mkdir(parents=True)
    (tmp_path / "pins" / "words" / "text.txt").write_text("hello")
    plan = pinned_plan()
    folder = run_toy(plan)
    assert seen(tmp_path, plan) == {
        "text": "hello",
        "format": "plain",
        "token": False,
        "threads": "1",
        "gpus": "",
        "torch": False,
    }
    assert record(folder)["pins"]["words"]["digest"] == "digest-of-words"
    assert "secretsecret" not in (folder / "record.json").read_text()


def test_missing_pins_stop_the_run_before_it_starts(run_toy: Run, tmp_path: Path) -> None:
    with pytest.raises(Preflight, match="not fetched") as caught:
        run_toy(pinned_plan())
    assert caught.value.next_step == "kit fetch toy --profile mini"
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_needs_no_pins(run_toy: Run, tmp_path: Path) -> None:
    (tmp_path / "pins" / "words").mkdir(parents=True)
    (tmp_path / "pins" / "words" / "text.txt").write_text("hello")
    run_toy(pinned_plan())
    (tmp_path / "pins" / "words" / "text.txt").unlink()
    (tmp_path / "pins" / "words").rmdir()
    assert set(states(run_toy(pinned_plan())).values()) == {"cached"}


def test_a_rehearsal_needs_no_pins(run_toy: Run, tmp_path: Path) -> None:
    plan = pinned_plan(rehearsal=True)
    folder = run_toy(plan)
    assert seen(tmp_path, plan)["text"] == "stand-in"
    assert "rehearsal" in folder.name
    assert record(folder)["rehearsal"] is True


def test_threads_are_the_same_however_many_run(run_toy: Run, tmp_path: Path) -> None:
    plan = pinned_plan(rehearsal=True)
    run_toy(plan, jobs=1, threads=3)
    assert seen(tmp_path, plan)["threads"] == "3"


def test_too_few_gpus_stop_the_run_before_it_starts(
    run_toy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    profile = {
        "summary": "s",
        "matrix": {"seed": [0]},
        "set": {"make": {"seed": "${seed}"}},
        "resources": {"make": {"gpus": 8}},
    }
    with pytest.raises(Preflight, match=r"needs 8 GPUs, this machine has 0") as caught:
        run_toy(plan_of(manifest(profiles={"mini": profile})))
    assert caught.value.exit_code == EXIT_INVALID


def test_results_must_be_results(run_toy: Run) -> None:
    steps = [{"id": "mix", "kind": "toy/make", "version": 2}]
    profile = {"summary": "s", "set": {"mix": {"seed": 1}}}
    with pytest.raises(StepFailed, match=r"left no results\.json"):
        run_toy(plan_of(manifest(steps=steps, results="mix", profiles={"mini": profile})))


def test_the_parent_never_imports_torch(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['x', sys.argv[1], sys.argv[2]]\n"
        "from tests.engine.driver import main\n"
        "assert main() == 0\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "home"), str(tmp_path / "runs")],
        check=True,
        timeout=120,
        env=os.environ,
    )


def test_errors_are_kit_errors(run_toy: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the runs should go")
    with pytest.raises(KitError) as caught:
        run_toy()
    assert "--runs-dir" in caught.value.next_step


@pytest.mark.parametrize(("runs", "home", "said"), [(0, 9, "--runs-dir"), (9, 0, "KIT_HOME")])
def test_the_disk_that_is_full_is_named(
    run_toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, home: int, said: str
) -> None:
    """Results and store may be on two disks; a write that fails does not say on which."""

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kit.engine.session.write_atomic", full)
    monkeypatch.setattr(
        "kit.engine.session.free", lambda folder: runs if folder.name == "runs" else home
    )
    with pytest.raises(StepFailed, match="the disk is full") as caught:
        run_toy()
    place = tmp_path / ("runs" if said == "--runs-dir" else "home")
    assert str(place) in caught.value.what
    assert f"file system of {place}" in caught.value.next_step
    assert said in caught.value.next_step


def test_a_home_that_cannot_be_made_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    options = Options(runs_dir=tmp_path / "runs")
    session = Session(plan_of(), home=home, pins=ToyPins(tmp_path), options=options, argv=[])
    with pytest.raises(Preflight, match="cannot be made: Not a directory") as caught:
        session.run()
    assert caught.value.where == str(home)
    assert "KIT_HOME" in caught.value.next_step
    assert not (tmp_path / "runs").exists()
