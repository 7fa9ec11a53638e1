"""TAR's published setting through its steps at a small shape, on stand-ins, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.lm.standin import read_shape
from kit.steps.tampering import kinds as tampering
from kit.steps.tampering.params import Attack
from kit.steps.tar import kinds as tar
from kit.steps.tar import params
from tests.steps.contexts import Steps, rehearsed_steps
from tests.steps.test_kinds import plan

PUBLISHED = [
    "pile-bio-all=20",
    "camel-bio-all=10",
    "adversary-retain=12",
    "chat=4",
    "wmdp=6",
    "retain=6",
]


@pytest.fixture
def rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return rehearsed_steps(tmp_path, monkeypatch, "reference")


def test_biology_is_rehearsed_from_data_to_table(rehearsed: Steps) -> None:
    run = rehearsed.run
    data = run("data", tar.run_data, params.Data(domain="bio", width=12, published=PUBLISHED))
    assert data.canaries["counts-as-published"][0], data.canaries
    texts = {path.stem: path for path in (data.out / "texts").iterdir()}
    assert len(texts["pile-bio-forget"].read_text(encoding="utf-8").splitlines()) == 16
    both = {"forget": ["pile-bio-forget", "camel-bio-forget"], "retain": ["adversary-retain"]}
    mapping = params.Safeguard(
        method="random-mapping",
        seed=0,
        steps=2,
        learning_rate=1e-3,
        batch=2,
        optimizer="schedule-free-adamw",
        **both,
    )
    safeguard = run("random-mapping", tar.run_safeguard, mapping, data="data")
    assert safeguard.canaries["weights-moved"][0]
    settings = params.Train(
        seed=0,
        preset="paper",
        domain="bio",
        held_out=["pile-bio-held-out", "camel-bio-held-out"],
        retain=["adversary-retain", "chat"],
        outer_steps=2,
        outer_warmup=1,
        inner_steps=2,
        every=1,
        forget_batch=2,
        inner_retain_batch=2,
        held_out_batch=2,
        retain_batch=2,
        width=12,
    )
    trained = run("tar", tar.run_train, settings, data="data")
    assert trained.canaries["weights-moved"][0]
    steps = json.loads((trained.out / tar.TRAINING).read_text(encoding="utf-8"))
    assert steps
    attack = Attack(
        seed=1,
        optimizer="adamw",
        learning_rate=1e-3,
        steps=2,
        batch=2,
        data=["pile-bio-forget"],
        questions=["wmdp", "retain"],
        measure_every=1,
    )
    attacked = run("attack", tampering.run_attack, attack, data="data")
    points = json.loads((attacked.out / tampering.TRAJECTORY).read_text(encoding="utf-8"))["points"]
    assert [step for step, _ in points] == [0, 1, 2]
    assert set(points[0][1]) >= {"wmdp", "retain", "trained-loss"}


def test_sets_that_were_divided_before_are_not_divided_anew(rehearsed: Steps) -> None:
    rehearsed.run(
        "data", tar.run_data, params.Data(domain="cyber", width=12, published=["retain=4"])
    )
    settings = params.Train(
        seed=0, preset="paper", domain="cyber", held_out=["cyber-held-out"], redraw=True
    )
    with pytest.raises(ValueError, match="cannot be divided anew"):
        rehearsed.run("tar", tar.run_train, settings, data="data")


def test_on_one_gpu_only_sizes_and_the_engine_differ_from_the_published_setting(
    tmp_path: Path,
) -> None:
    """The cut keeps every layer's shape, rows of a pass and dtypes."""
    made = {}
    for profile in ("paper", "one-gpu"):
        _, planned = plan("tar-bio-full-size", profile, tmp_path)
        made[profile] = {one.step: one for one in planned.instances}
    assert made["paper"].keys() == made["one-gpu"].keys()
    differ = set()
    for step, cut in made["one-gpu"].items():
        assert cut.resources.gpus <= 1
        whole = made["paper"][step].params
        differ |= {f"{step}.{name}" for name, value in cut.params.items() if whole[name] != value}
        assert cut.params.get("engine", "single-process") == "single-process"
    assert {name.split(".")[1] for name in differ} == {
        *("published", "steps", "warmup", "outer_steps", "outer_warmup", "inner_steps", "seed"),
        *("engine", "outer_state", "reference", "compiled", "weights_stay", "measure_every"),
    }
    whole_shape, cut_shape = read_shape("llama-3-8b"), read_shape("llama-3-8b-2-layers")
    assert {**cut_shape.config, "num_hidden_layers": 32} == whole_shape.config
    assert cut_shape.control == whole_shape.control
    assert whole_shape.parameters is not None
    assert cut_shape.parameters is not None
    # 218,112,000 parameters a block.
    assert whole_shape.parameters - cut_shape.parameters == 30 * 218_112_000
