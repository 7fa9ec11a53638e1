"""What commands print, line by line, from what they know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import click
import msgspec
import pytest
from msgspec import Meta, Struct

from kit.cli import doctor, kinds, show
from kit.cli.state import State
from kit.doctor.core import Check
from kit.doctor.overview import Runnable
from kit.engine.registry import Registry, StepKind
from tests.cli.conftest import Kit

# -- kit show

PIN: dict[str, Any] = {
    "id": "p", "kind": "hf-model", "title": "T", "licence": "L", "revision": "r1", "bytes": 12345,
    "gated": True, "at": "a/b", "unconfirmed": None, "unavailable": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("pin", "said"),
    [
        (PIN, ["    p: T (hf-model, gated, 12,345 bytes)", "      a/b @ r1", "      licence: L"]),
        (PIN | {"bytes": None, "gated": False, "revision": None},
         ["    p: T (hf-model)", "      a/b", "      licence: L"]),
        (PIN | {"bytes": 0, "gated": False, "at": "", "unconfirmed": "u"},
         ["    p: T (hf-model, 0 bytes)", "      licence: L", "      unconfirmed: u"]),
        (PIN | {"kind": "package", "at": "", "gated": False, "unavailable": "gone"},
         ["    p: T (package, 12,345 bytes)", "      licence: L", "      unavailable: gone"]),
        ({"id": "p", "problem": "there is no such pin"}, ["    p: there is no such pin"]),
    ],
)  # fmt: skip
def test_an_input_says_where_it_comes_from_and_what_is_known(
    pin: dict[str, Any], said: list[str]
) -> None:
    assert [line for line, _ in show._inputs([pin])] == said


@pytest.mark.parametrize(
    ("count", "named"),
    [(1, "a0 (1 input,"), (4, "a0, a1, a2, a3 (4 inputs,"), (5, "a0, a1, ..., a4 (5 inputs,")],
)
def test_a_few_inputs_of_the_kit_are_all_named(count: int, named: str) -> None:
    about = {"kind": "package", "licence": "L", "unconfirmed": None, "unavailable": None}
    (first, style), (second, dim) = show._inputs([{**about, "id": f"a{i}"} for i in range(count)])
    assert first == f"    {named} in the kit)"
    assert (second, style, dim) == ("      licence: L", "", "dim")


NEEDS = {"gpus": 2, "gpu_memory_gb": 24.5, "memory_gb": 3, "minutes": 1.5, "disk_gb": 1,
         "source": "measured"}  # fmt: skip
STEP: dict[str, Any] = {"id": "s", "kind": "k/k", "instances": 6, "each": ["a", "b"], "set": {},
                        "resources": None}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (STEP, ["    s (k/k, 6 times over a, b)"]),
        (STEP | {"each": []}, ["    s (k/k)"]),
        (STEP | {"each": [], "resources": NEEDS},
         ["    s (k/k)",
          "      needs 2 GPU x 24.5 GB, 3 GB memory, 1.5 min, 1 GB disk (measured)"]),
        (STEP | {"each": [], "resources": NEEDS | {"gpus": 0, "source": ""}},
         ["    s (k/k)", "      needs 3 GB memory, 1.5 min, 1 GB disk"]),
        (STEP | {"each": [], "set": {"x": {"value": "\u00e9", "source": "doc"},
                                     "y": {"value": [1], "source": ""}}},
         ["    s (k/k)", '      x = "\u00e9"  [doc]', "      y = [1]"]),
    ],
)  # fmt: skip
def test_a_step_says_how_often_what_it_needs_and_its_settings(
    step: dict[str, Any], said: list[str]
) -> None:
    assert [line for line, _ in show._step(step)] == said


def test_an_experiment_is_shown_from_its_title_to_its_last_step() -> None:
    claim = {"id": "c", "sentence": "S.", "place": "p. 1", "primary": True}
    profile = {
        "summary": "P.", "cells": 1, "claims": [claim, claim | {"id": "d", "primary": False}],
        "notes": ["n2"], "not_carried": "open", "inputs": [],
        "models": {"m": {"step": "s", "at": {"a": 1, "b": 2}, "pin": None},
                   "n": {"step": "s", "at": {}, "pin": None},
                   "o": {"step": None, "at": {}, "pin": "p"}},
        "matrix": {"a": [{"id": "x"}, 3], "b": ["y"]}, "roles": {"a": "group", "b": None},
        "exclude": [{"a": "x", "b": "y"}], "steps": [STEP],
    }  # fmt: skip
    about = {
        "id": "e", "title": "T", "summary": "S", "family": "f", "variant": "v", "version": "1-A",
        "counterpart": "other", "documents": [{"id": "d", "title": "D", "cite": "C"}],
        "notes": ["n1"], "profiles": {"mini": profile},
    }  # fmt: skip
    made = list(show._lines(about))
    assert [line for line, _ in made] == [
        "e: T", "S", "f, v, version 1-A, counterpart other", "document d: D (C)", "note: n1", "",
        "profile mini: P.", "  claims (1 cell)", '    [primary] c: "S." (p. 1)',
        '    [also] d: "S." (p. 1)', "    note: n2", "    beforehand: open", "  inputs",
        "  model m: made by step s at a=1, b=2", "  model n: made by step s", "  model o: p",
        "  axis a (group): x, 3", "  axis b (no role): y", "  without a=x, b=y", "  steps",
        "    s (k/k, 6 times over a, b)",
    ]  # fmt: skip
    assert {style for line, style in made if "note:" in line} == {"yellow"}
    bare = about | {"counterpart": None, "profiles": {
        "mini": profile | {"claims": [], "notes": [], "not_carried": ""}}}  # fmt: skip
    lines = [line for line, _ in show._lines(bare)]
    assert "f, v, version 1-A" in lines
    assert not any(word in line for line in lines for word in ("claims", "beforehand"))


# -- kit kinds


class Params(Struct, frozen=True):
    """Of the kind below."""

    steps: Annotated[int, Meta(ge=1, lt=9)]
    """How many."""
    way: Literal["a", "b"] = "a"
    names: list[str] = []
    rate: float | None = None


class Nothing(Struct, frozen=True):
    """None."""


def kind(**fields: Any) -> StepKind:
    """A kind of two inputs."""

    def run(context: Any, params: Any) -> None:
        """Do it."""

    about = {"inputs": {"x": "pin", "m": "model"}, "outputs": ("o.json", "p.json")}
    return StepKind("t/k", 3, run=run, **({"params": Params} | about | fields))  # type: ignore[arg-type]


def test_a_kind_says_what_it_takes_and_leaves() -> None:
    made = kinds._plain(kind(optional=("x",), needs={"m": ("chat_format",)}, canaries=("c1", "c2")))
    assert made["parameters"]["steps"] == {
        "type": "int >= 1, < 9", "required": True, "default": None, "doc": "How many.",
    }  # fmt: skip
    assert made["parameters"]["names"] == {
        "type": "list[str]", "required": False, "default": [], "doc": "",
    }  # fmt: skip
    assert (made["parameters"]["way"]["type"], made["parameters"]["way"]["default"]) == (
        "a | b", "a",
    )  # fmt: skip
    assert made["parameters"]["rate"]["type"] == "float | nothing"
    assert made["inputs"] == {
        "x": {"sort": "pin", "optional": True, "needs": []},
        "m": {"sort": "model", "optional": False, "needs": ["chat_format"]},
    }
    lines = list(
        kinds._lines(kind(needs={"m": ("chat_format",)}, optional=("x",), canaries=("c",)))
    )
    assert lines[0].startswith("t/k, version 3: ")
    assert lines[1:] == [
        "parameters", "  steps: int >= 1, < 9  How many.", '  way: a | b = "a"',
        "  names: list[str] = []", "  rate: float | nothing = null", "inputs",
        "  x: pin, optional", "  m: model; needs of a pin: chat_format",
        "outputs: o.json, p.json", "canaries: c",
    ]  # fmt: skip
    bare = list(kinds._lines(kind(params=Nothing, inputs={})))
    assert bare[1:] == ["parameters: none", "inputs: none", "outputs: o.json, p.json"]


def test_kinds_are_listed_in_columns(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    monkeypatch.setattr("kit.engine.registry.load_registry", lambda: registry)
    rows = kit("kinds").out.splitlines()
    assert [row.split()[:2] for row in rows] == [
        ["demo/evaluate", "1"], ["demo/table", "1"], ["demo/train", "2"],
    ]  # fmt: skip
    assert len({row.index(f"  {row.split()[1]}  ") for row in rows}) == 1
    assert len(msgspec.json.decode(kit("kinds", "--json").out)) == 3
    assert kit("kinds", "demo/train").out.startswith("demo/train, version 2")


# -- kit doctor


def check(level: Any, what: str) -> Check:
    return Check(level=level, what=what, detail="d")


@pytest.mark.parametrize(
    ("experiment", "levels", "said"),
    [
        (None, ["OK"], "this machine"),
        (None, ["FAIL"], "this machine: 1 thing is wrong with it"),
        ("e", ["OK", "WARN"], "e --profile p: can run here"),
        ("e", ["FAIL", "OK", "FAIL"], "e --profile p: cannot run here, 2 things are in the way"),
    ],
)
def test_the_first_line_says_whether_it_can(
    experiment: str | None, levels: list[str], said: str
) -> None:
    checks = [check(level, "x") for level in levels]
    assert doctor._headline(experiment, "p", checks) == said


def test_what_stands_in_the_way_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [check(*of) for of in (("OK", "a"), ("WARN", "b"), ("FAIL", "c"), ("OK", "d"),
                                    ("FAIL", "e"))]  # fmt: skip
    with click.Context(click.Command("x"), obj=State(progress="plain")):
        doctor._print("head [bold]", checks)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "head [bold]"
    assert [line.split()[1] for line in lines[1:]] == ["c:", "e:", "b:", "a:", "d:"]


@pytest.mark.parametrize("experiment", [None, "e"])
@pytest.mark.parametrize("runs", [True, False])
def test_the_last_lines_say_what_can_run_instead(
    capsys: pytest.CaptureFixture[str], experiment: str | None, runs: bool
) -> None:
    fitting = [Runnable(experiment="e", profile="large", runs=False),
               Runnable(experiment="e", profile="mini", runs=runs)]  # fmt: skip
    doctor._closing(
        experiment, [check("FAIL", "a"), check("WARN", "b"), check("WARN", "c")], fitting
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 failure, 2 warnings"
    instead = ["can run here: kit reproduce e --profile mini"] if experiment and runs else []
    assert lines[:-1] == instead
