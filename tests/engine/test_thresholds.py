"""Where a number begins to count: at a limit, on either side of it."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine import inventory, local, registry
from kit.engine.batch import USUAL_GPU_GB, GpusToUse, share_of, solve
from kit.engine.environment import Machine
from kit.engine.failures import _how, _readable
from kit.engine.hardware import Gpu
from kit.engine.inventory import Checkpoints, Held, chosen
from kit.engine.keys import instance_key
from kit.engine.launch import Nodes, parse_nodes
from kit.engine.local import LocalExecutor
from kit.engine.process import rose
from kit.engine.registry import REGISTRY, Cards, Sized, draws_fault, size_fault
from kit.engine.secrets import redact
from kit.engine.slurm.options import SlurmOptions, minutes, request
from kit.engine.store import STORE_VERSION, Store
from kit.errors import InvalidInput, Preflight, UsageError
from kit.manifest.types import Resources
from tests.engine.conftest import plan_of
from tests.engine.toy import FailParams


@pytest.mark.parametrize(
    ("batch", "world", "most", "micro", "passes"),
    [(16, 1, 1, 1, 16), (16, 2, 8, 8, 1), (16, 2, 7, 4, 2), (12, 2, 5, 3, 2), (1, 1, 1, 1, 1)],
)
def test_the_largest_even_micro_batch_that_fits(
    batch: int, world: int, most: int, micro: int, passes: int
) -> None:
    split = solve(batch, world=world, largest_micro=most, where="s")
    assert (split.micro_batch, split.accumulation, split.world) == (micro, passes, world)
    assert split.global_batch == batch


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_batches_of_nothing_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match="must be at least 1"):
        solve(numbers[0], world=numbers[1], largest_micro=numbers[2], where="s")


def test_a_batch_that_no_gpus_share_names_those_that_would() -> None:
    with pytest.raises(Preflight, match="16 cannot be shared evenly by 5 GPUs") as caught:
        solve(16, world=5, largest_micro=9, where="s")
    assert "divide it: 1, 2, 4 (" in caught.value.next_step
    with pytest.raises(Preflight) as caught:
        solve(6, world=9, largest_micro=9, where="s")
    assert "divide it: 1, 2, 3, 6 (" in caught.value.next_step


@pytest.mark.parametrize(
    ("count", "fraction", "fewest", "left"),
    [(10, 0.25, 1, 3), (10, 0.2, 1, 2), (10, 0.01, 1, 1), (10, 0.01, 4, 4), (3, 0.01, 4, 3),
     (10, 1.0, 1, 10)],
)  # fmt: skip
def test_a_share_is_rounded_up_and_never_more_than_there_are(
    count: int, fraction: float, fewest: int, left: int
) -> None:
    assert share_of(count, fraction, fewest) == left


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "ended with status 0"), (7, "ended with status 7"), (-9, "was killed by SIGKILL"),
     (-1, "was killed by SIGHUP"), (-200, "was killed by signal 200")],
)  # fmt: skip
def test_how_a_process_ended(status: int, words: str) -> None:
    assert _how(status) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [("2.50 GiB", "2.50 GiB"), ("1023 bytes", "1023 bytes"), ("1024 bytes", "1 KiB"),
     ("1536 bytes", "1.5 KiB"), ("1048576 bytes", "1 MiB"), ("4000000000000 bytes", "3.638 TiB"),
     ("1073741824 bytes", "1 GiB")],
)  # fmt: skip
def test_sizes_in_their_unit(size: str, words: str) -> None:
    assert _readable(size) == words


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [(None, 3, None), (3, None, None), (3, 3, False), (3, 4, True), (3, 2, False), (0, 1, True)],
)
def test_kills_have_risen_or_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, before: int | None, now: int | None, said: bool | None
) -> None:
    monkeypatch.setattr("kit.engine.process.oom_kills", lambda: now)
    assert rose(before) is said


@pytest.mark.parametrize(
    ("rank", "address", "fine"),
    [(0, "h:1", True), (1, "h:65535", True), (2, "h:1", False), (-1, "h:1", False),
     (None, "h:1", False), (0, "h:0", False), (0, "h:65536", False), (0, "h", False),
     (0, ":1", False), (0, "h:x", False), (0, None, False), (0, "a:b:7", True)],
)  # fmt: skip
def test_a_place_among_nodes(rank: int | None, address: str | None, fine: bool) -> None:
    if fine:
        host, _, port = str(address).rpartition(":")
        assert parse_nodes(2, rank, address) == Nodes(
            count=2, rank=rank or 0, host=host, port=int(port)
        )
    else:
        with pytest.raises(UsageError, match=r"--rendezvous|--node-rank"):
            parse_nodes(2, rank, address)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [("n", registry.LARGEST_COUNT, False), ("n", registry.LARGEST_COUNT + 1, True),
     ("n", -registry.LARGEST_COUNT - 1, True), ("seed", registry.LARGEST_COUNT + 1, False),
     ("seed", registry.LARGEST_SEED, False), ("seed", registry.LARGEST_SEED + 1, True),
     ("x", math.inf, True), ("x", 1e300, False), ("x", [1, [math.nan]], True),
     ("x", {"a": {"b": registry.LARGEST_COUNT + 1}}, True), ("x", "text", False)],
)  # fmt: skip
def test_numbers_that_would_ask_for_all_memory_are_refused(
    name: str, value: Any, fault: bool
) -> None:
    assert bool(size_fault(name, value)) is fault


def test_draws_of_a_training_are_bounded_together() -> None:
    half = registry.LARGEST_COUNT // 1000
    assert draws_fault({"steps": 1000, "batch": half}) == ""
    said = draws_fault({"steps": 1000, "warm_steps": 3, "batch": half + 1, "rate": 0.5})
    assert said.startswith("steps times batch is")
    assert draws_fault({"inner_steps": 1000, "examples": half + 1}).startswith("inner_steps times")
    assert draws_fault({"steps": registry.LARGEST_COUNT}) == ""  # nothing is drawn a step


@pytest.mark.parametrize(("length", "hidden"), [(5, False), (6, True), (7, True), (40, True)])
def test_values_of_secret_variables_are_hidden_from_a_length_on(length: int, hidden: bool) -> None:
    value = "q1w2e3r4" * 5
    text = redact(f"with {value[:length]}.", {"MY_TOKEN": value[:length]})
    assert ("[redacted]" in text) is hidden


def test_the_longest_secret_is_hidden_first() -> None:
    environ = {"A_TOKEN": "q1w2e3r4", "B_TOKEN": "q1w2e3r4t5z6"}
    assert redact("q1w2e3r4t5z6", environ) == "[redacted]"


# What runs beside what.


def needing(**needs: Any) -> Any:
    one = plan_of().instances[0]
    return msgspec.structs.replace(one, resources=msgspec.structs.replace(one.resources, **needs))


@pytest.mark.parametrize(
    ("running", "asked", "fits"),
    [
        ([], {"memory_gb": 99}, True),  # too large for the machine: alone
        ([{"memory_gb": 4}], {"memory_gb": 4}, True),
        ([{"memory_gb": 4}], {"memory_gb": 4.1}, False),
        ([{}], {}, True),
        ([{}, {}], {}, False),  # two jobs at once
        ([{}, {}], {"gpus": 1}, True),
        ([], {"gpus": 2}, True),
        ([], {"gpus": 3}, False),
        ([{"gpus": 1}], {}, True),
        ([{"gpus": 1}, {}], {}, True),
    ],
)
def test_what_fits_beside_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: list[Any], asked: Any, fits: bool
) -> None:
    made = LocalExecutor(jobs=2, memory_gb=8, gpus=["0", "1"], logs=tmp_path)
    beside = [needing(**{"memory_gb": 1} | needs) for needs in running]
    monkeypatch.setattr(made, "_running", lambda: beside)
    assert made.fits(needing(**{"memory_gb": 1} | asked)) is fits
    made.close()


def test_a_death_of_a_worker_is_heard_in_its_log(tmp_path: Path) -> None:
    """The last words are the step's own, else the process's."""
    worker: Any = local.WorkerProcess.__new__(local.WorkerProcess)
    worker.errors = tmp_path / "worker.log"
    worker.errors.write_text("of the process\n")
    worker.job = None
    assert "of the process" in worker.last_lines()
    worker.job = SimpleNamespace(log=str(tmp_path / "step.log"))
    assert "of the process" in worker.last_lines()
    (tmp_path / "step.log").write_text("of the step\n")
    assert "of the step" in worker.last_lines()


# Times of SLURM.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90), ("0", 1), ("5:00", 5), ("5:01", 6), ("00:30", 1), ("01:30:00", 90),
     ("01:30:01", 91), ("00:00:00", 1), ("2-00", 2880), ("2-03", 3060), ("1-02:03", 1563),
     ("0-00:00:01", 1), ("1-02:03:01", 1564)],
)  # fmt: skip
def test_minutes_are_rounded_up_and_at_least_one(text: str, wanted: int) -> None:
    assert minutes(text) == wanted


def test_a_short_time_of_the_users_leaves_no_time_for_a_notice() -> None:
    """A quarter of it at most; what the step needs to save where there is time."""

    def notice(*parameters: str, **needs: Any) -> int:
        made = request(needing(**needs), SlurmOptions(parameters=parameters))
        return int(made["signal_delay_s"])

    usual = notice()
    assert notice("time=600") == usual
    assert notice("time=1") == 15
    assert notice("time=2") == 30
    assert notice(stop_seconds=1000) > 1000
    assert notice("time=20", stop_seconds=1000) == 300


# What lies in a home.


def held(**fields: Any) -> Held:
    plain = {"key": "k", "kind": "a/b", "instance": "i", "gb": 1.0, "days": 3.0, "dropped": False,
             "experiments": ["e"], "runs": ["r"]}  # fmt: skip
    return Held(**plain | fields)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, True), ({"older_than": 3.0}, True), ({"older_than": 3.01}, False),
        ({"older_than": 0}, True), ({"run": "r"}, True), ({"run": "s"}, False),
        ({"experiment": "e"}, True), ({"experiment": "f"}, False),
        ({"run": "r", "older_than": 4}, False), ({"run": "r", "experiment": "f"}, False),
    ],
)  # fmt: skip
def test_what_a_removal_is_about(asked: dict[str, Any], kept: bool) -> None:
    assert chosen([held()], **asked) == [held()] * kept
    assert chosen([held(runs=["r", "s"])], run="r") == []  # another run needs it
    assert chosen([held(experiments=["e", "f"])], experiment="e") == []


@pytest.mark.parametrize(
    ("days", "running", "abandoned"),
    [(6.99, False, False), (7.0, False, True), (8.0, False, True), (8.0, True, False)],
)
def test_checkpoints_are_abandoned_after_a_week(
    days: float, running: bool, abandoned: bool
) -> None:
    kept = Checkpoints(path=Path("x"), size=1, days=days, running=running)
    assert kept.abandoned is abandoned


def test_checkpoints_are_as_old_as_what_was_written_last(tmp_path: Path) -> None:
    for name, ages in (("old", (9, 4)), ("new", (9, 1)), ("empty", ())):
        folder = tmp_path / "scratch" / name
        folder.mkdir(parents=True)
        for number, age in enumerate(ages):
            (folder / str(number)).write_text("12345")
            at = time.time() - age * inventory.DAY
            os.utime(folder / str(number), (at, at))
        at = time.time() - 20 * inventory.DAY
        os.utime(folder, (at, at))
    (tmp_path / "scratch" / "file").touch()
    found = inventory.checkpoints(tmp_path)
    assert [(kept.path.name, round(kept.days)) for kept in found] == [
        ("empty", 20), ("old", 4), ("new", 1),
    ]  # fmt: skip
    assert {kept.size >= 10 for kept in found if kept.path.name != "empty"} == {True}
    assert not any(kept.running for kept in found)
    assert inventory.checkpoints(tmp_path / "nowhere") == []


def test_a_store_of_a_newer_kit_is_not_written_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for version, problem in ((STORE_VERSION + 1, "newer"), (STORE_VERSION - 1, "older")):
        folder = store.path("1" * 64)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "step.json").write_text(f'{{"schema_version": {version}}}')
        if problem == "newer":
            with pytest.raises(Preflight, match="written by a newer kit"):
                store.look("1" * 64)
        else:
            assert "an older kit made it" in (store.look("1" * 64).outdated or "")


def test_keys_do_not_depend_on_the_order_of_inputs() -> None:
    table = plan_of().by_id["table"]
    kind = REGISTRY.get(table.kind)
    sources = {one.id: one for one in plan_of().instances}
    turned = msgspec.structs.replace(
        table,
        steps={name: msgspec.structs.replace(use, instances=use.instances[::-1])
               for name, use in table.steps.items()},
    )  # fmt: skip
    assert instance_key(table, kind, sources, {}) == instance_key(turned, kind, sources, {})


# What a kind makes of the GPUs that there are.


@pytest.mark.parametrize(
    ("asked", "cards", "seen"),
    [
        ({"gpus": 3}, (), (3, USUAL_GPU_GB, math.inf)),
        ({"gpus": 3}, (80.0, 40.0), (3, 40.0, "here")),
        ({"gpus": 3}, (80.0, 0.0), (3, 80.0, "here")),  # one does not say
        ({"gpu_gb": 24.0}, (80.0,), (2, 24.0, math.inf)),  # another machine's
        ({"gpus": 1, "gpu_gb": 24.0}, (80.0,), (1, 24.0, math.inf)),
        ({}, (80.0,), None),
    ],
)
def test_a_step_is_sized_for_the_gpus_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], cards: tuple[float, ...], seen: Any
) -> None:
    """The smallest of this machine's where their memory is not given."""
    monkeypatch.setattr("kit.engine.batch.memory_gb", lambda: 123.0)
    machine = Machine(gpus=[Gpu(index="0", name="x", arch="sm_90", memory_gb=gb) for gb in cards])
    told: list[Cards] = []

    def sized(params: Any, models: Any, cards: Cards) -> Sized:
        told.append(cards)
        return Sized({"rows": 7}, 10.2, 20.7, minutes, "seven rows")

    minutes: float | None = None
    kind: Any = SimpleNamespace(sized=sized)
    params, needs = FailParams(rows=1), Resources(gpus=2, minutes=9.0)
    to_use = GpusToUse(asked.get("gpus"), asked.get("gpu_gb"), machine)

    def size(kind: Any = kind, needs: Resources = needs) -> tuple[Any, Resources, str]:
        return to_use.size(kind, params, needs, {}, "step[a=1]", frozenset({"kept"}))

    made, sizes, note = size()
    if seen is None:
        assert (made, sizes, note, told) == (params, needs, "", [])
        return
    gpus, gpu_gb, memory = seen
    assert told == [Cards(gpus, gpu_gb, 123.0 if memory == "here" else memory, frozenset({"kept"}))]
    assert (made.rows, note) == (7, "step: seven rows")
    assert (sizes.gpus, sizes.gpu_memory_gb, sizes.memory_gb) == (gpus, 11, 21)
    assert sizes.minutes == 9.0
    minutes = 4.0
    assert size()[1].minutes == 4.0
    assert size(needs=Resources(gpus=0))[2] == ""
    assert size(kind=SimpleNamespace(sized=None)) == (params, needs, "")
    assert size(kind=SimpleNamespace(sized=lambda *_: None)) == (params, needs, "")

    def refuse(*_: Any) -> None:
        raise ValueError("two more are needed")

    with pytest.raises(Preflight, match="two more are needed"):
        size(kind=SimpleNamespace(sized=refuse))
