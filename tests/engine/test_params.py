"""Typed parameters and overrides."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from msgspec import Struct

from kit.engine.params import Override, parameter_faults, parse_override, typed
from kit.engine.registry import REGISTRY, StepKind, params_of
from kit.errors import InvalidInput, UsageError
from kit.manifest.types import Profile, StepSpec


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    """Of every type that manifests know."""

    steps: int
    rate: float = 0.1
    name: str = "x"
    mode: Literal["a", "b"] = "a"
    flags: list[bool] = []
    maybe: int | None = None


KIND = StepKind("toy/typed", 1, Params, lambda context, params: None, {}, ())


def convert(values: dict[str, Any], *overrides: str) -> Any:
    chosen = [parse_override(text, ["train", "train.more"]) for text in overrides]
    return typed(KIND, values, chosen, step="train")


def test_values_and_defaults() -> None:
    assert convert({"steps": 3, "rate": 1}) == Params(steps=3, rate=1.0)


def test_an_integer_given_for_a_float_keys_as_a_float() -> None:
    made = msgspec.to_builtins(convert({"steps": 3, "rate": 1}))
    assert isinstance(made["rate"], float)


def test_unknown_parameter_suggests() -> None:
    with pytest.raises(UsageError, match="no parameter 'stepz'") as caught:
        convert({"steps": 3}, "train.stepz=3")
    assert caught.value.where == "train.stepz"
    assert "did you mean 'steps'" in caught.value.next_step


def test_missing_parameter() -> None:
    with pytest.raises(InvalidInput, match="missing required field `steps`"):
        convert({})


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"steps": "3"}, "train.steps"),
        ({"steps": 3.5}, "train.steps"),
        ({"steps": 3, "mode": "c"}, "train.mode"),
        ({"steps": 3, "flags": [1]}, "train.flags[0]"),
    ],
)
def test_ill_typed_values_name_the_place(values: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        convert(values)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("train.steps=7", "steps", 7),
        ("train.rate=1e-5", "rate", 1e-5),
        ("train.rate=2", "rate", 2.0),
        ("train.name=7", "name", "7"),
        ("train.name=a=b", "name", "a=b"),
        ("train.name=", "name", ""),
        ("train.mode=b", "mode", "b"),
        ("train.flags=[true,false]", "flags", [True, False]),
        ("train.maybe=null", "maybe", None),
    ],
)
def test_overrides_are_read_by_the_type(text: str, field: str, value: object) -> None:
    assert getattr(convert({"steps": 3}, text), field) == value


def test_the_last_override_wins() -> None:
    assert convert({"steps": 3}, "train.steps=4", "train.steps=5").steps == 5


def test_the_longest_step_wins() -> None:
    assert parse_override("train.more.x=1", ["train", "train.more"]) == Override(
        "train.more", "x", "1"
    )


@pytest.mark.parametrize("text", ["train.steps", "steps=3", "=3", ""])
def test_malformed_overrides(text: str) -> None:
    with pytest.raises(UsageError, match=r"not of the form step\.param=value"):
        parse_override(text, ["train"])


def test_override_of_an_unknown_step() -> None:
    with pytest.raises(UsageError, match="no step") as caught:
        parse_override("eval.x=1", ["train"])
    assert "train" in caught.value.next_step


@pytest.mark.parametrize("text", ["train.steps=many", "train.nothing=1", "train.mode=c"])
def test_bad_override_is_the_users_mistake(text: str) -> None:
    with pytest.raises(UsageError):
        convert({"steps": 3}, text)


def test_an_override_of_the_wrong_type_shows_how_one_is_written() -> None:
    override = parse_override("train.flags=true,false", ["train"])
    with pytest.raises(UsageError) as caught:
        typed(KIND, {"steps": 1, "flags": [True, False]}, [override], step="train")
    assert caught.value.next_step == "as the manifest has it: --set 'train.flags=[true,false]'"


@pytest.mark.parametrize(
    "text",
    [
        *("train.rate=NaN", "train.rate=1e999", "train.rate=-Infinity"),
        *("train.steps=9223372036854775808", "train.steps=" + "9" * 5000),
        "train.flags=" + "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_number_that_no_key_can_hold(text: str) -> None:
    with pytest.raises(UsageError, match="--set train"):
        convert({"steps": 3}, text)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (10**15, "the limit is 10,000,000"),
        (-(10**15), "the limit is 10,000,000"),
        (2**63, "the limit is 10,000,000"),
    ],
)
def test_a_size_out_of_all_proportion_is_refused_before_it_is_tried(value: int, said: str) -> None:
    """A schedule of 10**15 steps took 24 GB before anything said that it was too long."""
    kind = REGISTRY.get("toy/make")
    with pytest.raises(InvalidInput, match=said):
        typed(kind, {"seed": 1, "size": value}, [], step="make")
    with pytest.raises(UsageError, match=said):
        typed(kind, {"seed": 1}, [Override("make", "size", str(value))], step="make")


def test_the_largest_size_and_the_largest_seed_pass() -> None:
    kind = REGISTRY.get("toy/make")
    typed(kind, {"seed": 2**32 - 1, "size": 10_000_000}, [], step="make")
    with pytest.raises(InvalidInput, match="the limit is 4,294,967,295"):
        typed(kind, {"seed": 2**32}, [], step="make")
    with pytest.raises(InvalidInput, match="not a finite number"):
        typed(kind, {"seed": 1, "fraction": float("inf")}, [], step="make")


class Drawing(msgspec.Struct, frozen=True):
    """Parameters of a training."""

    steps: int
    batch: int = 4
    warmup_steps: int = 0
    held_out_batch: int = 1
    learning_rate: float = 0.1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 10**7, "batch": 10**7}, "steps times batch is 100,000,000,000,000"),
        ({"steps": 3 * 10**6}, "steps times batch is 12,000,000"),
        ({"steps": 1, "warmup_steps": 10**7}, "warmup_steps times batch is 40,000,000"),
        ({"steps": 10**6, "held_out_batch": 11}, "steps times held_out_batch is 11,000,000"),
    ],
)
def test_draws_out_of_all_proportion_are_refused_where_each_number_is_small(
    values: dict[str, int], said: str
) -> None:
    """In the manifest, on the command line, and in a plan that `kit step` is given."""
    kind = StepKind("toy/drawing", 1, Drawing, lambda *_: None, {}, ())
    with pytest.raises(InvalidInput, match=said) as caught:
        typed(kind, values, [], step="train")
    assert caught.value.where == f"train.{said.partition(' ')[0]}"
    profile = Profile(summary="s", set={"train": values})
    (hit,) = parameter_faults(
        "mini", profile, StepSpec(id="train", kind=kind.name, version=1), kind
    )
    assert said in hit.message
    with pytest.raises(msgspec.ValidationError, match=said):
        params_of(kind, values)


def test_as_many_draws_as_are_allowed_pass() -> None:
    kind = StepKind("toy/drawing", 1, Drawing, lambda *_: None, {}, ())
    typed(kind, {"steps": 10**6, "batch": 10}, [], step="train")
    typed(kind, {"steps": 10**7, "batch": 1}, [], step="train")
