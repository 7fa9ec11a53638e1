"""Errors: what each leaves with, and what is printed of it."""

from __future__ import annotations

import pytest

from kit import errors
from kit.errors import InvalidInput, KitError, Many, Preflight, StepFailed, UsageError


def test_every_kind_has_its_exit_code_as_help_says() -> None:
    from kit.cli.main import cli

    help_ = " ".join((cli.help or "").split())
    said = "0 reproduced or done; 1 a primary claim fails; 2 wrong usage; 3 not decided; 4 invalid"
    assert said in help_
    assert "5 a step failed; 130 interrupted" in help_
    assert [errors.EXIT_OK, errors.EXIT_CLAIM_FAILED, errors.EXIT_INCOMPLETE] == [0, 1, 3]
    kinds = (UsageError, InvalidInput, Preflight, StepFailed, errors.Interrupted, KitError)
    assert [kind("x").exit_code for kind in kinds] == [2, 4, 4, 5, 130, 4]


def test_a_message_has_a_line_for_each_part_that_there_is() -> None:
    assert KitError("w").render() == "error: w"
    whole = KitError("w", where="f:1", why="y", next_step="n")
    assert whole.render().splitlines() == ["error: f:1: w", "  why:  y", "  next: n"]
    assert (str(whole), str(KitError("w"))) == ("f:1: w", "w")
    acting = KitError("a\x1b[31m" + "b" * errors.LONGEST).render()
    assert "\x1b" not in acting
    assert len(acting) < errors.LONGEST + 100


def test_several_are_reported_together_with_the_gravest_code() -> None:
    one, two = UsageError("a"), StepFailed("b")
    many = Many([one, two])
    assert (many.exit_code, many.what) == (5, "2 problems")
    assert many.render() == "error: a\nerror: b"
    with pytest.raises(ValueError, match="at least one"):
        Many([])
    errors.raise_all([])
    with pytest.raises(UsageError) as alone:
        errors.raise_all([one])
    assert alone.value is one
    with pytest.raises(Many):
        errors.raise_all([one, two])


def test_places_of_a_document_add_up_outwards() -> None:
    with pytest.raises(InvalidInput) as caught, errors.at("a", 1), errors.at("b"):
        raise InvalidInput("x", path=("c",))
    assert caught.value.path == ("a", 1, "b", "c")
