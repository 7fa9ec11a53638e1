"""Every reader of JSON that the kit did not make a moment ago, and what each may do with garbage.

Machinery refuses with a ``KitError`` of exit code 4 that names the file, or says that an entry is
damaged (the store, which makes it again). Science refuses with a ``ValueError`` that names the
file. Nothing else is raised. :mod:`tests.fuzz.hour` is a campaign.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec

from kit.engine.events import read_events
from kit.engine.locks import holder
from kit.engine.store import RECORD, Store, StoredStep
from kit.errors import EXIT_INVALID, KitError, Many
from kit.evals import sets
from kit.lm import files as lm_files
from kit.lm.formats import read_format
from kit.lm.standin import read_shape
from kit.manifest.reference_record import read_record
from kit.methods.checkpoint_transfer import affine_files, states
from kit.methods.defensive_tokens import alpaca, attack_texts, released
from kit.mini import record as mini_record
from kit.mini.facts import files as facts_files
from kit.pins.store import HashMemory, OwnPaths
from kit.report import generations, log, pooled
from kit.report.files import Run
from kit.report.markdown import render_markdown
from kit.results.labels import read_labels
from kit.results.plan import read_plan
from kit.results.run import open_run
from kit.verify.diverge import Unreadable, read_records
from kit.verify.tables import read_table
from kit.verify.whole import absences
from tests import run_files
from tests.fuzz.mutate import mutate
from tests.report import runs
from tests.verify.builders import expectation, expected_cell

KEY = "0" * 64
_ODD = (b"NaN", b"1e999", b'"\\ud800"', b"\x00", b"-", b"9" * 5000)
SECONDS = 20.0


class Broken(AssertionError):
    """The invariant does not hold."""


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        file: Where the garbage is put, below an empty folder.
        seed: A document that it reads; of JSON lines, several.
        read: Reads the file (given as path) as the kit does.
        science: Whether a ``ValueError`` that names the file is its way to refuse.
        unnamed: It is given values, not a file: its messages cannot name one.
    """

    file: str
    seed: bytes
    read: Callable[[Path], Any]
    science: bool = False
    unnamed: bool = False


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _lines(*values: Any) -> bytes:
    return b"".join(_json(value) + b"\n" for value in values)


def _run_of(name: str) -> Callable[[Path], Any]:
    """The run directory around a file: read, and written as the short report."""

    def read(path: Path) -> None:
        parts: dict[str, Any] = {name: None}
        if name == "results":  # which would be refused for its hash alone
            parts |= {"record": None, "verdict": None}
        runs.write_run(path.parent, **parts)
        run = open_run(path.parent)
        _ = run.plan, run.record, run.notes, run.overrides, run.rehearsal
        if name != "results":
            render_markdown(Run(path.parent))

    return read


def _whole(path: Path) -> None:
    """What a run is said to lack, its events being these."""
    runs.write_run(path.parent)
    absences(open_run(path.parent), _EXPECTED)


def _store(path: Path) -> None:
    look = Store(path.parents[3]).look(KEY, "all")
    assert look.entry or look.problem or look.outdated


def _index(path: Path) -> None:
    (path.parent / "a.safetensors").touch()
    lm_files.weight_files(path.parent)


def _states(path: Path) -> None:
    (path.parent / "a").touch()
    states.FileStates(path.parent)


def _released(path: Path) -> None:
    released.read_released(path, "m", n=2)


def _verified() -> tuple[bytes, bytes]:
    """The verdict of a made-up run, and its entry in the log."""
    with tempfile.TemporaryDirectory() as folder:
        found = Run(runs.write_run(Path(folder)))
        return _json(found.verdict), _json(log.entry(found))


def _compared(path: Path) -> None:
    try:
        read_records(path)
    except Unreadable:
        return


_STEP = StoredStep(
    kind="made/step", version=1, instance="a", params={"x": 1}, files={}, started="s", seconds=1.0
)
_WEIGHTS = {"metadata": {}, "weight_map": {"x": "a.safetensors"}}
_FORMAT = {
    "instruction": ["a{content}", {"token": "<x>"}], "data": ["b{content}"], "generate": ["c"],
    "response": ["d{content}"],
    "end": [{"token": "<y>"}], "stop": ["<y>"], "pad": "<p>",
}  # fmt: skip
_SHAPE = {"config": {"hidden_size": 4, "vocab_size": 9}, "tokens": 8, "control": {"<x>": 3}}
_REAL = {"response_delimiter": "r", "instruction_delimiter": "i"}
_FAKE = [{"response": "r", "instruction": "i"}]
_ATTACKS = {
    "injected_word": "w", "injected_prompt": "say w", "ignore_test": ["a"], "ignore_train": ["b"],
    "completion_real": _REAL, "fake_delimiters_train": _FAKE,
    "fake_delimiters_test": [{"response": "s", "instruction": "j"}],
}  # fmt: skip
_ALPACA = [{"instruction": "i", "input": "", "output": "o"}] * 2
_QUESTION = {"id": "q", "prompt": "p", "options": ["a", "b"], "answer": 1}
_VERDICT, _ENTRY = _verified()
_LABELS = {"id": "a", "items": ["x", "y"], "labels": [0, 1]}
_NO_TOKENIZER: Any = lambda text: SimpleNamespace(input_ids=[1, 2, 3])  # noqa: E731
_EXPECTED = expectation([expected_cell("t/a")])
_BEGAN = _lines(
    {"event": "run-started", "time": "2026-11-21T10:00:00Z", "experiment": "x", "profile": "mini"}
)

READERS: dict[str, Reader] = {
    "results": Reader("results.json", _json(runs.results()), _run_of("results")),
    "plan of a run": Reader("plan.json", _json(runs.plan()), _run_of("plan")),
    "record": Reader("record.json", _json(runs.record()), _run_of("record")),
    "verdict": Reader("verdict.json", _VERDICT, _run_of("verdict")),
    "plan": Reader(
        "plan.json",
        run_files.plan(run_files.instance("a"), run_files.instance("b", before=("a",))).to_json(),
        read_plan,
    ),
    "step": Reader(f"store/00/{KEY}/{RECORD}", _json(_STEP), _store),
    "labels": Reader("labels.jsonl", _lines(_LABELS, _LABELS | {"id": "b"}), read_labels),
    "table": Reader(
        "t.json", _json(runs.results().cells[:3]), lambda path: read_table(path, _EXPECTED)
    ),
    "table as CSV": Reader(
        "t.csv",
        b"cell,value,unit,k,n,seed,labels\nt/a,50,percent,1,2,0,01\nt/a,100,percent,2,2,1,11\n",
        lambda path: read_table(path, _EXPECTED),
    ),
    "events of a whole run": Reader("events.jsonl", _BEGAN, _whole),
    "reference record": Reader(
        "r.jsonl",
        _lines(
            {"run": "a"},
            {
                "id": "t/a",
                "unit": "percent",
                "value": 1.5,
                "seeds": [{"seed": "0", "value": 1.0}, {"seed": "1", "value": 2.0}],
            },
        ),
        read_record,
    ),
    "generations": Reader(
        "generations.jsonl",
        _lines({"response": "r", "data": "d", "set": "s"}, {"response": "q"}),
        lambda path: list(generations._read(path)),
    ),
    "log": Reader("log/a.json", _ENTRY, lambda p: pooled.page(p.parent)),
    "compared": Reader("x.jsonl", _lines({"id": 1, "prompt": "p"}, {"id": 2}), _compared),
    "events": Reader(
        "events.jsonl", _lines({"event": "a", "t": "x"}, {}), lambda p: list(read_events(p))
    ),
    "lock": Reader("lock", _json({"pid": 1, "host": "h", "since": "s"}), holder),
    "own paths": Reader(
        "pins/own-paths.json", _json({"a": "/x"}), lambda p: OwnPaths(p.parents[1]).get("a")
    ),
    "hash memory": Reader(
        "m.json",
        _json({"x": [1, 2, KEY]}),
        lambda path: [HashMemory(path).remembered(Path("x")), HashMemory(path).sha256(path)],
    ),
    "config": Reader(
        "config.json",
        _json({"model_type": "llama", "vocab_size": 9, "tie_word_embeddings": True}),
        lambda path: lm_files.read_config(path.parent),
        science=True,
    ),
    "index of weights": Reader(lm_files.INDEX_FILE, _json(_WEIGHTS), _index, True),
    "alpaca": Reader("a.json", _json(_ALPACA), alpaca.read_alpaca, True),
    "alpaca lines": Reader("a.jsonl", _lines(*_ALPACA), alpaca.read_alpaca, True),
    "attack texts": Reader("a.json", _json(_ATTACKS), attack_texts.read_json, True),
    "released tokens": Reader("r.json", _json({"m": [[1.5, 2.0], [0, 1]]}), _released, True),
    "questions": Reader(
        "questions/q.jsonl",
        _lines(_QUESTION, _QUESTION | {"id": "r"}),
        lambda path: sets.read_questions(path.parents[1], "q"),
        science=True,
    ),
    "texts": Reader(
        "texts/q.jsonl",
        _lines({"id": "a", "text": "t"}, {"id": "b", "ids": [1, 2]}),
        lambda path: sets.text_examples(path.parents[1], ["q"], _NO_TOKENIZER),
        science=True,
        unnamed=True,  # a text with nothing to predict is named by its id
    ),
    "facts": Reader(
        "questions/q.jsonl",
        _lines(_QUESTION),
        lambda path: facts_files.read_questions(path.parents[1], "q"),
        science=True,
    ),
    "affine maps": Reader(
        "m.json",
        _json({"layer_indices": [1, 2], "hidden_dim": 4}),
        affine_files._declared,
        science=True,
    ),
    "states": Reader(states.INDEX, _json({"0": "a"}), _states, True),
    "record of a world": Reader(
        "r.json",
        _json({"wanted": 1, "recipe": {}, "seeds": []}),
        lambda path: mini_record.read_record(path, {}, 1),
        science=True,
    ),
    "chat format": Reader(
        "f.json", _json(_FORMAT), lambda p: read_format(_mapping(p)), True, unnamed=True
    ),
    "shape": Reader(
        "s.json", _json(_SHAPE), lambda p: read_shape(_mapping(p)).control_ids(), True, True
    ),
}


def _mapping(path: Path) -> dict[str, Any]:
    """What a pin's attribute can be: an object, by the reader of pins."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError("refused before") from None
    if not isinstance(value, dict):
        raise ValueError("refused before")
    return value


def garbage(reader: Reader, number: int) -> bytes:
    """The reader's document, changed: as a tree, in a line of several, or in its bytes."""
    chance = Random(number)
    several = reader.file.endswith(("l", "csv"))
    lines = reader.seed.split(b"\n") if several else [reader.seed]
    at = chance.randrange(len(lines))
    if chance.random() < 0.75:
        lines[at] = mutate(lines[at], number)
        return b"\n".join(lines)
    data = bytearray(b"\n".join(lines))
    place = chance.randrange(len(data))
    act = chance.randrange(5)
    if act == 0:
        data[place] = chance.randrange(256)
    elif act == 1:
        del data[place:]
    elif act == 2:
        data[place:place] = b"\xff"
    elif act == 3:
        data[place:place] = chance.choice((b"[", b'{"a":')) * 50_000
    else:
        data[place:place] = chance.choice(
            (b"NaN", b"1e999", b'"\\ud800"', b"\x00", b"-", b"9" * 5000)
        )
    return bytes(data)


def check(name: str, data: bytes, folder: Path) -> str:
    """Put a document through its reader; returns whether it was ``read`` or ``refused``.

    Raises:
        Broken: A message that names no file, another exit code, or too long.
        Exception: Whatever the reader let through.
    """
    reader = READERS[name]
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    started = time.process_time()
    try:
        reader.read(path)
        ended = "read"
    except KitError as error:
        for one in error.errors if isinstance(error, Many) else (error,):
            if one.exit_code != EXIT_INVALID or str(folder) not in one.render():
                raise Broken(f"exit {one.exit_code}: {one.render()}") from error
        ended = "refused"
    except ValueError as error:
        if not reader.science:
            raise
        if not reader.unnamed and path.name not in str(error):
            raise Broken(f"names no file: {error}") from error
        ended = "refused"
    seconds = time.process_time() - started
    if seconds > SECONDS:
        raise Broken(f"took {seconds:.1f} s of processor time")
    return ended
