"""What a failed step tells."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from kit.engine.events import encode, event
from kit.engine.failures import Carried, Failure, died, failure_of, step_failed
from kit.errors import InvalidInput, KitError, Preflight, StepFailed
from kit.manifest.types import Resources
from kit.results.plan import StepInstance

HOME = Path("/somewhere/home")
STEP = StepInstance(
    id="train[seed=1]",
    step="train",
    kind="toy/make",
    version=1,
    params={},
    resources=Resources(memory_gb=3),
    key="k",
)
ON_GPU = msgspec.structs.replace(STEP, resources=Resources(gpus=2, gpu_memory_gb=70))


def raised(error: BaseException) -> BaseException:
    """The error as it is after having been raised."""
    try:
        raise error
    except BaseException as caught:
        return caught


def told(error: BaseException, instance: StepInstance = STEP, log: Path | None = None) -> KitError:
    """What the user sees of an exception, after its way through JSON."""
    failure = failure_of(raised(error), home=HOME, step=instance.id)
    again = msgspec.json.decode(msgspec.json.encode(failure), type=Failure)
    return step_failed(again, instance, log)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class TrainingDiverged(ValueError):
    """As training code names it."""


def test_value_errors_speak_for_themselves() -> None:
    error = told(ValueError("rank must be positive"))
    assert str(error) == "train[seed=1]: rank must be positive"
    assert "finished steps are kept" in error.next_step


def test_other_errors_name_their_type() -> None:
    assert told(KeyError("weights")).what == "KeyError: 'weights'"
    assert told(ValueError()).what == "ValueError: "


def test_kit_errors_keep_why_and_next() -> None:
    error = told(InvalidInput("bad row", where="data.json:7", why="no id", next_step="add one"))
    assert error.what == "data.json:7: bad row"
    assert (error.why, error.next_step) == ("no id", "add one")
    assert isinstance(error, Preflight), "an input that is refused: exit code 4"
    assert told(StepFailed("x", where=STEP.id)).what == "x"


def test_preflight_stays_preflight() -> None:
    assert isinstance(told(Preflight("no such driver")), Preflight)


@pytest.mark.parametrize(
    ("error", "instance", "words"),
    [
        (OutOfMemoryError("Tried to allocate 20.00 GiB. GPU 0"), ON_GPU, "expected 70 GB a GPU"),
        (MemoryError(), STEP, "the plan expected 3 GB"),
        (MemoryError("Unable to allocate 9 GiB for an array"), STEP, "Unable to allocate"),
    ],
)
def test_out_of_memory(error: Exception, instance: StepInstance, words: str) -> None:
    made = told(error, instance)
    assert "out of memory" in made.what
    assert words in made.why
    # toy/make declares no setting that would help: none is invented.
    assert "--set" not in made.next_step
    assert ("--jobs" in made.next_step) == (instance is STEP)


def test_what_was_asked_for() -> None:
    made = told(OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0"))
    assert made.what == "the GPU is out of memory: it asked for 512.00 MiB more"


def test_kit_errors_are_never_taken_for_a_shortage() -> None:
    assert told(InvalidInput("Cannot allocate memory is what line 3 says")).what.startswith(
        "Cannot"
    )


def test_how_far_it_came_is_kept_short_and_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "very-secret-value")
    error = MemoryError()
    error.add_note("3 of 20 steps were done")
    error.add_note("x" * 5000 + " very-secret-value")
    failure = failure_of(raised(error), home=HOME, step="s")
    assert len(failure.left) == 500
    assert "very-secret" not in failure.left


def test_divergence() -> None:
    made = told(TrainingDiverged("loss is nan at step 3"), log=Path("logs/x.log"))
    assert made.what == "training diverged: loss is nan at step 3"
    assert "logs/x.log" in made.next_step


def os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (os_error(errno.ENOSPC, "/tmp/x"), StepFailed, "the disk is full"),
        (os_error(errno.EDQUOT), StepFailed, "the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), StepFailed, "is full"),
        (os_error(errno.EROFS, str(HOME / "tmp")), Preflight, "cannot write"),
        (os_error(errno.EACCES, str(HOME / "tmp")), Preflight, "cannot write"),
        (os_error(errno.EACCES, "/etc/shadow"), StepFailed, "PermissionError"),
        (os_error(errno.ENOENT, "/data/x"), StepFailed, "FileNotFoundError"),
        (os_error(errno.EIO, str(HOME / "tmp")), StepFailed, "input/output error"),
    ],
)
def test_disks(error: Exception, kind: type[KitError], words: str) -> None:
    made = told(error)
    assert type(made) is kind
    assert words in made.what


def test_messages_have_a_limit_and_fit_one_write() -> None:
    """A rank's failure must fit the 4,096 bytes that a pipe writes in one piece... almost:
    ranks also take turns, so a long message of multi-byte text is still safe."""
    failure = failure_of(raised(ValueError("x" * 100_000)), home=HOME, step="s")
    assert len(failure.message) == 2000
    assert len(failure.traceback) <= 2400
    assert len(encode(event("step-failed", failure=msgspec.to_builtins(failure)))) < 8192


def test_tracebacks_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "very-secret-value")
    failure = failure_of(raised(ValueError("token very-secret-value")), home=HOME, step="s")
    assert "very-secret" not in str(failure)


def test_a_failure_of_another_process_is_passed_on() -> None:
    failure = Failure(type="ValueError", bases=["Exception"], message="from rank 3")
    assert failure_of(Carried(failure), home=HOME, step="s") is failure


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-9, "was killed by SIGKILL"),
        (-11, "was killed by SIGSEGV"),
        (-99, "was killed by signal 99"),
        (3, "ended with status 3"),
    ],
)
def test_the_death_of_a_process(status: int, words: str) -> None:
    made = died(STEP, status, Path("logs/f.log"), "last words")
    assert words in made.what
    assert "last words" in made.why
    assert ("memory runs out" in made.why) == (status == -9)
    assert ("--jobs 1" in made.next_step) == (status == -9)
    assert "logs/f.log" in made.next_step


def test_a_kill_that_the_kernel_counted_or_did_not() -> None:
    sure = died(STEP, -9, None, "", oom_killed=True)
    assert sure.what == "the step's process was killed by SIGKILL: out of memory"
    assert "the plan expected 3 GB" in sure.why
    other = died(STEP, -9, None, "", oom_killed=False)
    assert other.what == "the step's process was killed by SIGKILL"
    assert "counted no such kill" in other.why
    assert "memory" not in other.next_step
    # A count that rose says nothing about a process that ended in another way.
    assert died(STEP, -11, None, "", oom_killed=True).what.endswith("SIGSEGV")


def test_a_silent_death() -> None:
    assert died(STEP, 1, None, "").why == "it printed nothing"


def test_of_what_is_too_long_the_telling_end_is_kept() -> None:
    """Messages begin with what they are about, tracebacks and notes end with it."""
    error = raised(ValueError("begin" + "x" * 5000 + "end"))
    for number in range(200):
        error.add_note(f"note {number}")
    made = failure_of(error, home=HOME, step="s")
    assert made.message.startswith("begin")
    assert not made.message.endswith("end")
    assert made.left.endswith("note 199")
    assert "note 0;" not in made.left
    assert made.traceback.rstrip().endswith("note 199")
    assert 0 < len(made.left) < len(made.message) < len(made.traceback)


def test_the_type_of_a_failure_is_its_own_and_all_that_it_is() -> None:
    class Own(KeyError):
        pass

    made = failure_of(raised(Own("k")), home=HOME, step="s")
    assert made.type == "Own"
    assert made.bases[:2] == ["KeyError", "LookupError"]
    assert "Own" not in made.bases
    assert not made.preflight


@pytest.mark.parametrize(
    ("where", "message"), [("", "what"), ("s", "what"), ("other", "other: what")]
)
def test_where_an_error_was_is_said_unless_it_is_the_step(where: str, message: str) -> None:
    error = raised(InvalidInput("what", where=where, why="why", next_step="next"))
    made = failure_of(error, home=HOME, step="s")
    assert (made.message, made.why, made.next_step) == (message, "why", "next")
    assert made.preflight
    assert made.shortage is None


@pytest.mark.parametrize("oom_killed", [None, True, False])
def test_who_killed_a_process_is_said_as_far_as_it_is_known(oom_killed: bool | None) -> None:
    error = died(STEP, -9, Path("log"), "bye", oom_killed=oom_killed)
    assert ("out of memory" in error.what) is (oom_killed is True)
    assert ("the plan expected 3 GB" in error.why) is (oom_killed is not False)
    assert ("it counted no such kill" in error.why) is (oom_killed is False)
    assert ("ended a process at that time" in error.why) is (oom_killed is True)
    assert "its last output: bye" in error.why
    assert "see log; " in error.next_step
    plain = died(STEP, 3, None, "")
    assert plain.why == "it printed nothing"
    assert "see" not in plain.next_step
