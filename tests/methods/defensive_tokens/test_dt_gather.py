"""Stage folders read back: which axes show in ids, what is pooled, the series."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kit.methods.defensive_tokens.gather import StageFolder, Utility, tabulate
from kit.methods.defensive_tokens.stage_numbers import training_facts
from kit.results.types import Curve, Point

LABELS = [1, 0, 0, 1]


@pytest.fixture
def folder(tmp_path):
    """Write one stage's file; returns the stage."""

    def make(instance, name, content, axes):
        path = tmp_path / instance
        path.mkdir(exist_ok=True)
        (path / name).write_text(json.dumps(content), encoding="utf-8")
        return StageFolder(instance, path, axes)

    return make


def pair(id="p1", group="near", **more):
    return {"pair": {"id": id, "group": group, "seed": 7, **more}}


def scores(*sets):
    one = {
        "items": ["a", "b", "c", "d"],
        "asr": {"ignore": LABELS},
        "refusal": {"as-reported": [0, 0, 0, 0]},
        "accuracy": {},
    }
    return dict.fromkeys(sets or ("undefended",), one)


def training(label="adapt", losses=(4.0, 2.0, 1.0, 1.0)):
    checkpoints = {2: torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 10: torch.ones(2, 2)}
    return json.loads(json.dumps(training_facts(label, losses, checkpoints)))


ALIGNMENT = {
    "residual": 2.0,
    "relative_residual": 0.25,
    "distance_from_identity": 0.5,
    "mean_trace": 0.9,
    "orthogonality_error": 1e-14,
    "singular_values": [8.0, 4.0, 2.0, 1.0, 0.5],
    "smallest_singular_value": 0.5,
    "sum_of_singular_values": 15.5,
}
NORMS = (
    *("norm_mean", "norm_min", "norm_max", "norm_l1_mean", "norm_l1_max"),
    *("cosine_native", "cosine_source"),
)


def table(evaluations=(), alignments=(), transfers=(), trainings=(), **settings):
    options = {"native": "native", "published_full": None, "refusal_rule": "as-reported"}
    return tabulate(
        evaluations=evaluations,
        alignments=alignments,
        transfers=transfers,
        trainings=trainings,
        **{**options, "loss_window": 2, **settings},
    )


def ids(tables):
    return {cell.id for cell in tables.cells}


def test_one_pair_with_every_kind_of_stage(folder):
    geometry = {"copy": dict.fromkeys(NORMS, 1.5)}
    found = table(
        [folder("evaluate", "scores.json", scores(), pair())],
        [folder("align", "alignment.json", ALIGNMENT, pair())],
        [folder("transfer", "geometry.json", geometry, pair())],
        [folder("adapt", "training.json", training(), pair())],
    )
    cells = {cell.id: cell for cell in found.cells}
    assert cells["near/asr-max/undefended"].value == 50.0
    assert cells["near/alignment/residual"].value == 2.0
    assert cells["near/alignment/relative-residual"].value == 25.0
    assert cells["near/norm-l1-max/copy"].value == 1.5
    assert cells["near/cosine-native/copy"].unit == "number"
    assert cells["near/loss-first/adapt"].value == 3.0
    assert cells["near/loss-last/adapt"].value == 1.0
    assert cells["near/norm-max/adapt-2"].value == 5.0
    assert cells["near/norm-min/adapt-2"].value == 1.0
    assert cells["near/norm-mean/adapt-2"].value == 3.0
    assert cells["near/trained-parameters/adapt"].value == 4.0
    assert cells["near/loss-first/adapt"].step == "adapt"
    assert not [id for id in cells if id.startswith("all/")], "one group is not pooled"
    assert not [id for id in cells if "@" in id]


def test_the_checkpoint_that_is_chosen_differs_between_replicates(folder):
    def evaluated(id, hits):
        table = scores("undefended", "adapt-2", "adapt-10")
        table["adapt-2"] = {**table["adapt-2"], "asr": {"ignore": hits}}
        return folder(f"evaluate-{id}", "scores.json", table, pair(id))

    def trained(id, losses):
        facts = {**training(), "heldout_losses": losses}
        return folder(f"adapt-{id}", "training.json", facts, pair(id))

    found = table(
        [evaluated("p1", [0, 0, 0, 0]), evaluated("p2", [0, 0, 0, 0])],
        trainings=[trained("p1", {"2": 0.5, "10": 0.7}), trained("p2", {"2": 0.9, "10": 0.7})],
    )
    cells = {cell.id: cell for cell in found.cells}
    assert [one.value for one in cells["near/chosen-step/adapt"].seeds] == [2, 10]
    assert [one.value for one in cells["near/asr-max/adapt-chosen"].seeds] == [0, 50]
    assert [one.value for one in cells["near/loss-heldout/adapt-2"].seeds] == [0.5, 0.9]
    curves = {line.id: line.lines for line in found.series}
    assert curves["loss-heldout/near"] == {
        "adapt": [
            Curve(seed="p1/7", points=[Point(2.0, 0.5), Point(10.0, 0.7)]),
            Curve(seed="p2/7", points=[Point(2.0, 0.9), Point(10.0, 0.7)]),
        ]
    }


def test_several_groups_are_also_pooled(folder):
    found = table(
        [
            folder("e1", "scores.json", scores(), pair("p1", "near")),
            folder("e2", "scores.json", scores(), pair("p2", "far")),
        ]
    )
    cells = {cell.id: cell for cell in found.cells}
    assert cells["near/asr-max/undefended"].k == 2
    assert len(cells["all/asr-max/undefended"].seeds) == 2
    assert {line.id.split("/")[0] for line in found.labels} == {"near", "far"}


def test_only_axes_with_more_than_one_value_show(folder):
    def stage(name, lr, layout):
        axes = {**pair(), "lr": lr, "layout": {"id": layout, "other": 1}}
        return folder(name, "scores.json", scores(), axes)

    varied = table([stage("e1", 0.1, "front"), stage("e2", 0.01, "front")])
    assert "near/asr-max/undefended@0.1" in ids(varied)
    assert "near/asr-max/undefended@0.01" in ids(varied)
    assert not [id for id in ids(varied) if "front" in id]
    both = table([stage("e1", 0.1, "front"), stage("e2", 0.01, "back")])
    assert "near/asr-max/undefended@0.01@back" in ids(both)
    same = table([stage("e1", 0.1, "front")])
    assert "near/asr-max/undefended" in ids(same)


def test_stages_that_lack_a_varied_axis_have_no_suffix(folder):
    found = table(
        [
            folder("e1", "scores.json", scores(), {**pair(), "lr": 0.1}),
            folder("e2", "scores.json", scores(), {**pair(), "lr": 0.2}),
        ],
        [folder("align", "alignment.json", ALIGNMENT, pair())],
    )
    assert "near/alignment/residual" in ids(found)
    assert "near/asr-max/undefended@0.2" in ids(found)


def test_two_stages_of_one_replicate_are_refused(folder):
    stages = [folder(name, "scores.json", scores(), pair()) for name in ("e1", "e2")]
    with pytest.raises(ValueError, match="measured twice in one replicate"):
        table(stages)


def test_the_seed_is_part_of_the_replicate(folder):
    stages = [
        folder("e1", "scores.json", scores(), pair(seed=1)),
        folder("e2", "scores.json", scores(), pair(seed=2)),
    ]
    found = table(stages)
    (cell,) = [c for c in found.cells if c.id == "near/asr-max/undefended"]
    assert [entry.seed for entry in cell.seeds] == ["p1/1", "p1/2"]
    unseeded = folder("e3", "scores.json", scores(), {"model": {"id": "m", "group": "near"}})
    assert "#m" in table([unseeded]).labels[0].id


def test_the_roles_of_axes_decide_what_is_a_replicate(folder):
    """Seeds that stand behind the setting in the manifest are replicates all the same."""
    roles = {"victim": "group", "rate": "setting", "seed": "replicate"}
    stages = [
        folder(
            f"e{rate}-{seed}",
            "scores.json",
            scores(),
            {"victim": "near", "rate": rate, "seed": seed},
        )
        for rate in (0.1, 0.2)
        for seed in (0, 1, 2)
    ]
    cells = {cell.id: cell for cell in table(stages, roles=roles).cells}
    for rate in ("0.1", "0.2"):
        seeds = cells[f"near/asr-max/undefended@{rate}"].seeds
        assert [one.seed for one in seeds] == ["0", "1", "2"]


def test_a_stage_without_a_group_is_in_the_group_of_all(folder):
    found = table([folder("evaluate", "scores.json", scores(), {})])
    assert "all/asr-max/undefended" in ids(found)


def test_series_of_checkpoints_and_of_losses(folder):
    sets = ("undefended", "native", "adapt-25", "adapt-5")
    found = table(
        [folder("evaluate", "scores.json", scores(*sets), pair())],
        trainings=[
            folder("t1", "training.json", training(losses=(4.0, 2.0)), pair("p1")),
            folder("t2", "training.json", training(losses=(2.0, 1.0)), pair("p2")),
            folder("t3", "training.json", training("scratch", (9.0,)), pair("p1")),
        ],
    )
    series = {one.id: one for one in found.series}
    assert series["asr-max/near"].lines == {
        "adapt": [Curve(points=[Point(5.0, 50.0, 2, 4), Point(25.0, 50.0, 2, 4)])]
    }
    assert "gap-closed/near" not in series, "there is no gap in these scores"
    assert series["loss/near"].lines == {
        "adapt": [
            Curve(seed="p1/7", points=[Point(1.0, 4.0), Point(2.0, 2.0)]),
            Curve(seed="p2/7", points=[Point(1.0, 2.0), Point(2.0, 1.0)]),
        ],
        "scratch": [Curve(seed="p1/7", points=[Point(1.0, 9.0)])],
    }


def test_l1_norms_come_from_the_saved_prefixes(folder):
    from kit.methods.defensive_tokens.prefix_sets import save_sets

    stage = folder("adapt", "training.json", training(), pair())
    save_sets(stage.path / "prefixes.safetensors", {"adapt-2": torch.tensor([[3.0, -4.0], [0, 1]])})
    cells = {cell.id: cell.value for cell in table(trainings=[stage]).cells}
    assert cells["near/norm-l1-mean/adapt-2"] == 4.0
    assert cells["near/norm-l1-max/adapt-2"] == 7.0


def test_rows_whose_utility_nobody_judged_are_declared(folder):
    stage = folder("evaluate", "scores.json", scores(), pair())
    brought = Utility(["undefended", "native"], "no judge", {"near/native": 27.1})
    cells = {cell.id: cell for cell in table([stage], utility=brought).cells}
    assert cells["near/winrate/undefended"].not_run == "no judge"
    assert cells["near/winrate/undefended"].value is None
    assert cells["near/winrate/native"].value == 27.1
    assert not [id for id in ids(table([stage])) if "winrate" in id]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"near/other": 5.0}, "near/other; rows here: near/undefended"),
        ({"near/undefended": 101.0}, "no percentage"),
    ],
)
def test_a_judgement_that_fits_no_row_is_refused(folder, given, message):
    stage = folder("evaluate", "scores.json", scores(), pair())
    with pytest.raises(ValueError, match=message):
        table([stage], utility=Utility(["undefended"], "no judge", given))


def test_the_spectrum_of_every_alignment_is_a_line_of_its_groups_figure(folder):
    from safetensors.numpy import save_file

    stages = [folder(f"align-{id}", "alignment.json", ALIGNMENT, pair(id)) for id in ("p1", "p2")]
    values = np.linspace(500.0, 0.0, 300)
    save_file({"singular_values": values}, str(stages[0].path / "alignment.safetensors"))
    (figure,) = table(alignments=stages).series
    assert figure.id == "spectrum/near"
    assert list(figure.lines) == ["p1/7"], "the other folder has no tensors"
    (curve,) = figure.lines["p1/7"]
    line = [(point.x, point.value) for point in curve.points]
    assert (line[0], line[-1]) == ((1.0, 1.0), (300.0, 0.0))
    assert len(line) == 64
    assert [y for _, y in line] == [values[int(x) - 1] / 500.0 for x, _ in line]


def test_losses_of_a_varied_axis_are_lines_of_their_own(folder):
    found = table(
        trainings=[
            folder("t1", "training.json", training(), {**pair(), "lr": 0.1}),
            folder("t2", "training.json", training(), {**pair(), "lr": 0.2}),
        ]
    )
    (loss,) = found.series
    assert set(loss.lines) == {"adapt @ 0.1", "adapt @ 0.2"}


def test_nothing_measured_is_an_empty_table():
    assert table() == type(table())([], [], [])


def test_facts_of_a_training():
    prefix = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    facts = training_facts("full", [1.5, 1.0], {0: torch.zeros(2, 2), 300: prefix})
    assert facts == {
        "label": "full",
        "losses": [1.5, 1.0],
        "norms": {0: [0.0, 0.0], 300: [5.0, 2.0]},
        "trained_parameters": 4,
    }
    assert set(json.loads(json.dumps(facts))["norms"]) == {"0", "300"}


def test_the_mixture_that_was_drawn_from_is_counted(folder):
    facts = training() | {"mixture": {"clean": 6, "ignore": 3, "completion": 3}}
    stages = [folder("adapt", "training.json", facts, pair())]
    aligned = [folder("align", "alignment.json", ALIGNMENT | {"rows": 302}, pair())]
    cells = {cell.id: cell for cell in table(alignments=aligned, trainings=stages).cells}
    assert cells["near/items/adapt"].value == 12
    shares = [cells[f"near/items-{kind}/adapt"] for kind in ("clean", "ignore", "completion")]
    assert [(share.k, share.n, share.value) for share in shares] == [
        (6, 12, 50.0),
        (3, 12, 25.0),
        (3, 12, 25.0),
    ]
    assert cells["near/alignment/rows"].value == 302


def test_norms_of_large_vectors_do_not_overflow():
    facts = training_facts("full", [1.0], {1: torch.full((2, 4), 1e30)})
    assert facts["norms"][1] == pytest.approx([2e30, 2e30])


def test_the_printed_loss_is_what_the_follow_ups_log_would_have_said(folder):
    # transfer/tiny_adapt.py: each micro-batch's loss / accumulation is backpropagated and summed,
    # and the sum of ten steps is divided by ten x accumulation before it is logged.
    accumulation, steps = 4, 20
    micro = [[0.3 - 0.001 * (4 * s + i) for i in range(accumulation)] for s in range(steps)]

    def logged(ten):
        return sum(loss / accumulation for step in ten for loss in step) / (10 * accumulation)

    made = training(losses=tuple(sum(step) / accumulation for step in micro))
    stage = folder("adapt", "training.json", made, pair())
    cells = {c.id: c.value for c in table(trainings=[stage], loss_window=10).cells}
    assert "near/loss-first-printed/adapt" not in cells
    asked = table(trainings=[stage], loss_window=10, loss_divisor=accumulation).cells
    printed = {c.id: c.value for c in asked}
    assert printed["near/loss-first-printed/adapt"] == pytest.approx(logged(micro[:10]))
    assert printed["near/loss-last-printed/adapt"] == pytest.approx(logged(micro[-10:]))
    assert {id: v for id, v in printed.items() if not id.endswith("-printed/adapt")} == cells
