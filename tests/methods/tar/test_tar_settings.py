"""Weights of inner steps, presets with their sources, and the list of differences."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from kit.methods.tar.differences import DIFFERENCES
from kit.methods.tar.presets import (
    CORRECTED,
    DOMAINS,
    PAPER,
    PRESETS,
    RELEASED_CODE,
    preset,
    sourced,
)
from kit.methods.tar.settings import TarSettings
from kit.methods.tar.weighting import inner_weights


def test_sums_of_the_published_weights():
    uniform = inner_weights(64, 4, 4.0, scheme="uniform")
    exponential = inner_weights(64, 4, 4.0, scheme="exponential")
    assert list(uniform) == list(exponential) == list(range(3, 64, 4))
    assert sum(uniform.values()) == pytest.approx(1.0)
    assert sum(exponential.values()) == pytest.approx(17.75, abs=0.005)
    assert exponential[63] == 4.0
    assert exponential[3] / 4 == pytest.approx(0.0235, abs=5e-5)
    assert sum(inner_weights(64, 4, 4.0, scheme="mean-of-evaluated").values()) == pytest.approx(4)


def test_weights_follow_a_second_formula():
    weights = inner_weights(12, 3, 2.0, rate=0.5)
    assert weights == pytest.approx({s: 2.0 * math.e ** ((s - 11) / 2) for s in (2, 5, 8, 11)})


@pytest.mark.parametrize(("steps", "every"), [(64, 5), (3, 4), (0, 1), (8, 0)])
def test_gaps_that_do_not_divide_are_refused(steps, every):
    with pytest.raises(ValueError, match="do not divide"):
        inner_weights(steps, every, 1.0)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="unknown weighting 'linear'"):
        inner_weights(4, 1, 1.0, scheme="linear")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_preset_is_a_run_and_every_value_has_a_source(name, domain):
    made = preset(name, domain)
    assert made.inner_steps == 64
    for key, entry in sourced(name, domain).items():
        assert getattr(made, key) == entry.value
        assert len(entry.source) > 5
        assert key in {f.name for f in fields(TarSettings)}


@pytest.mark.parametrize("domain", DOMAINS)
def test_both_published_presets_name_every_disputed_setting(domain):
    disputed = {name for d in DIFFERENCES for name in d.settings} - {"weighting_rate"}
    for name in (PAPER, RELEASED_CODE):
        assert disputed <= set(sourced(name, domain)), name


def test_each_difference_is_a_difference_somewhere_or_says_why_not():
    for difference in DIFFERENCES:
        if not difference.settings:
            assert difference.why_none, difference.item
            continue
        assert any(
            getattr(preset(PAPER, domain), name) != getattr(preset(RELEASED_CODE, domain), name)
            for domain in DOMAINS
            for name in difference.settings
        ), difference.item


def test_the_numbered_differences_are_all_there():
    assert len(DIFFERENCES) >= 13
    assert [d.settings[:1] for d in DIFFERENCES[:4]] == [
        ("weighting",),
        ("distance",),
        ("entropy_padding",),
        ("forget_batch",),
    ]


@pytest.mark.parametrize("domain", DOMAINS)
def test_corrected_is_the_released_code_shuffled_and_masked(domain):
    code, repaired = preset(RELEASED_CODE, domain), preset(CORRECTED, domain)
    changed = {
        f.name for f in fields(TarSettings) if getattr(code, f.name) != getattr(repaired, f.name)
    }
    assert changed <= {
        "entropy_padding",
        "representation_padding",
        "shuffle_adversary",
        "shuffle_held_out",
        "shuffle_retain",
        "held_out_split",
        "retain_split",
        "special_token_labels",
    }
    assert repaired.shuffle_adversary
    assert repaired.shuffle_held_out
    assert repaired.shuffle_retain
    assert repaired.entropy_padding == repaired.representation_padding == "masked"
    assert repaired.held_out_split == "own"


def test_what_the_domains_are_known_for():
    bio = preset(RELEASED_CODE, "bio")
    assert bio.adversary_learning_rates == (2e-6, 2e-5, 4e-5)
    assert [a.name for a in bio.adversaries] == [
        "pile-bio-forget",
        "camel-bio-forget",
        "retain-then-forget",
    ]
    assert not bio.shuffle_adversary
    assert preset(RELEASED_CODE, "cyber").shuffle_adversary
    assert preset(PAPER, "chem").tamper_scale == 3.0
    refusal = preset(PAPER, "refusal")
    assert (refusal.objective, refusal.outer_steps, refusal.tamper_scale) == ("dpo", 100, 0.1)
    # Passes of a run that the rebuttal counts: adversary, tamper-resistance and retain.
    assert bio.outer_steps * (bio.inner_steps + len(bio.weights()) + 1) == 60750


def test_weights_are_shared_among_adversaries():
    two = preset(RELEASED_CODE, "bio", adversaries_a_step=2)
    assert sum(two.weights().values()) == pytest.approx(17.75 / 2, abs=0.005)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": "mse"}, "objective is 'mse'"),
        ({"saved_weights": "z"}, "saved_weights is 'z'"),
        ({"layers": "last"}, "layers is 'last'"),
        ({"inner_steps": 63}, "do not divide"),
        ({"adversaries": ()}, "needs an adversary"),
        ({"adversary_learning_rates": (0.0,)}, "learning rates"),
        ({"adversary_learning_rates": (float("nan"),)}, "learning rates"),
        ({"held_out_batch": 0}, "held_out_batch is 0"),
        ({"weighting": "none"}, "unknown weighting"),
    ],
)
def test_impossible_settings_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        preset(PAPER, "bio", **changes)


def test_unknown_presets_and_domains_are_refused():
    with pytest.raises(ValueError, match="unknown preset"):
        preset("v1", "bio")
    with pytest.raises(ValueError, match="unknown domain"):
        preset(PAPER, "nuclear")
