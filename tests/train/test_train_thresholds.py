"""Where a number begins to count: at a limit, on either side of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kit.train.batches import chunks, examples_of_tokens, micro_batches, share_of_process
from kit.train.batching import Example, collate, even_groups, forward_groups
from kit.train.checkpoints import CheckpointFolder
from kit.train.errors import divergence
from kit.train.loop import FineTuning
from kit.train.optimizers import SGD, AdamW, make_optimizer
from kit.train.randomness import random_state
from kit.train.schedules import Schedule
from kit.train.single_process import SingleProcess
from kit.train.streams import DROP, Stream, split
from tests.refused import refused
from tests.train.tiny import llama, mean_loss, tokens


@pytest.mark.parametrize(("length", "wrong"), [(0, True), (1, True), (2, False)])
def test_two_tokens_are_needed_to_predict_any(length, wrong):
    refused(lambda: examples_of_tokens({"t": [1] * length}), wrong, "nothing is predicted")
    refused(lambda: examples_of_tokens({"t": [1] * 9}, max_length=length), wrong, "nothing is")


@pytest.mark.parametrize(
    ("settings", "lengths"),
    [({}, [3, 3, 2]), ({"most": 1}, [3]), ({"shortest": 3}, [3, 3]), ({"shortest": 4}, []),
     ({"most": 0}, [])],
)  # fmt: skip
def test_pieces_of_a_text(settings, lengths):
    assert [len(piece) for piece in chunks(range(8), 3, **settings)] == lengths


@pytest.mark.parametrize(("items", "wrong"), [(1, True), (2, False), (5, False)])
def test_every_process_has_an_item(items, wrong):
    def shares():
        return [
            list(share_of_process(range(items), SimpleNamespace(world_size=2, rank=rank)))
            for rank in range(2)
        ]

    refused(shares, wrong, "leaves some of 2 processes idle")
    if not wrong:
        first, second = shares()
        assert [*first, *second] == list(range(items))
        assert abs(len(first) - len(second)) <= 1


@pytest.mark.parametrize(
    ("prompt", "wrong"), [(0, True), (1, False), (3, False), (4, True), (-1, True)]
)
def test_a_prompt_is_a_part_of_its_example_or_all_of_it(prompt, wrong):
    refused(lambda: Example("x", (1, 2, 3), prompt), wrong, "at least one is needed")


def test_a_width_may_be_that_of_the_longest():
    examples = examples_of_tokens({"a": [1, 2, 3], "b": [4, 5]})
    for width, wrong in ((2, True), (3, False), (4, False)):
        refused(lambda w=width: collate(examples, 0, "cpu", width=w), wrong, "does not fit")
    batch = collate(examples, 9, "cpu", width=4)
    assert batch.ids.tolist() == [[1, 2, 3, 9], [4, 5, 9, 9]]
    assert batch.attention_mask.int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [[-100, 2, 3, -100], [-100, 5, -100, -100]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("rows", [0, 1])
def test_a_pass_needs_a_row(rows):
    engine = SimpleNamespace(world_size=1, rank=0, device="cpu")
    examples = examples_of_tokens({"a": [1, 2, 3]})
    for act in (
        lambda: forward_groups([1, 2], rows),
        lambda: even_groups([1, 2], rows),
        lambda: micro_batches(examples, engine, rows=rows, pad_id=0),
    ):
        refused(act, rows < 1, "at least one row")


def test_the_longest_go_first_into_the_shortest_pass_that_has_room():
    assert even_groups([5, 1, 4, 2], 2) == [[0, 1], [2, 3]]
    assert even_groups([3, 3, 3], 2) == [[0, 2], [1]]  # of equals the first
    assert forward_groups([3, 1, 2], 2) == [[1, 2], [0]]
    assert forward_groups([3, 1, 2], 2, by_length=False) == [[0, 1], [2]]


@pytest.mark.parametrize(("keep", "wrong"), [(0, True), (1, False), (None, False)])
def test_a_folder_keeps_a_checkpoint(tmp_path, keep, wrong):
    refused(
        lambda: CheckpointFolder(tmp_path / "deep" / "c", keep=keep), wrong, "nothing to resume"
    )
    if not wrong:
        CheckpointFolder(tmp_path / "deep" / "c", keep=keep)  # there already
        for name in ("state-10.safetensors", "state-9.safetensors", "state-x.safetensors"):
            (tmp_path / "deep" / "c" / name).touch()
        assert CheckpointFolder(tmp_path / "deep" / "c").steps() == [9, 10]


@pytest.mark.parametrize(
    ("items", "size", "settings", "wrong"),
    [(3, 3, {"tail": DROP}, False), (2, 3, {"tail": DROP}, True), (1, 3, {}, False),
     (0, 3, {}, True), (3, 1, {}, False), (3, 0, {}, True), (3, 1, {"tail": "x"}, True)],
)  # fmt: skip
def test_items_fill_batches(items, size, settings, wrong):
    refused(lambda: Stream("s", range(items), size, seed=0, **settings), wrong, "stream s")


def test_epochs_are_counted_by_the_items_that_they_give():
    whole = Stream("s", range(4), 2, seed=0)
    cut = Stream("s", range(5), 2, seed=0, tail=DROP)
    for stream in (whole, cut):
        assert stream.epoch == 0
        stream.take()
        assert stream.epoch == 0.5
        stream.take()
        assert stream.epoch == 1


@pytest.mark.parametrize(
    ("share", "first"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.5, 2), (0.99, 3), (1.0, 0)]
)
def test_both_parts_of_a_division_have_items(share, first):
    refused(lambda: split(range(4), share, seed=0), first == 0, "leaves a part empty")
    if first:
        assert [len(part) for part in split(range(4), share, seed=0)] == [first, 4 - first]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [({"warmup": 0}, False), ({"warmup": -1}, True), ({"growth": 0}, True),
     ({"floor": 0.0}, False), ({"floor": 1.0}, False), ({"floor": 1.01}, True),
     ({"floor": -0.01}, True), ({"period": 1}, True), ({"name": "restarts", "period": 0}, True),
     ({"name": "restarts", "period": 1}, False), ({"name": "odd"}, True)],
)  # fmt: skip
def test_schedules_that_can_be_meant(settings, wrong):
    refused(lambda: Schedule(**settings), wrong, "schedule")


def test_a_warm_up_ends_before_the_run_and_a_restart_begins_at_its_period():
    made = Schedule("restarts", warmup=2, period=2, growth=2)
    rates = [made.rate(step, peak=1.0, steps=100) for step in range(10)]
    assert rates == pytest.approx(
        [0.5, 1.0, 1.0, 0.5, 1.0, 0.853553, 0.5, 0.146447, 1.0, 0.96194], abs=1e-5
    )
    assert Schedule(warmup=2).rate(0, peak=1.0, steps=3) == 0.5
    with pytest.raises(ValueError, match="does not fit a run of 2"):
        Schedule(warmup=2).rate(0, peak=1.0, steps=2)
    assert Schedule("linear").rate(0, peak=1.0, steps=0) == 1.0


@pytest.mark.parametrize(
    ("steps", "at", "wrong"),
    [(0, (0,), False), (-1, (), True), (3, (0, 3), False), (3, (4,), True), (3, (-1,), True)],
)
def test_measuring_lies_within_the_run(steps, at, wrong):
    refused(lambda: FineTuning(steps, measure_at=at), wrong, "does not fit")


@pytest.mark.parametrize(
    ("loss", "limit", "bad"),
    [(5.0, 5.0, False), (5.01, 5.0, True), (float("nan"), 5.0, True), (float("inf"), 5.0, True),
     (-3.0, 5.0, False)],
)  # fmt: skip
def test_losses_that_have_diverged(loss, limit, bad):
    assert bool(divergence(loss, limit)) is bad


def test_nesterov_needs_a_momentum():
    """Without momentum torch would refuse; both mean the same then."""
    weight = {"w": torch.nn.Parameter(torch.ones(3))}.items()
    for momentum in (0.0, 0.5):
        make_optimizer(SGD(0.1, 0.0, momentum=momentum, nesterov=True), weight)


def test_a_process_that_was_not_there_draws_a_stream_of_its_own(tmp_path, monkeypatch):
    """The same whenever it resumes, another for each process and step."""
    engine, states = SingleProcess(llama(), AdamW(0.01, 0.0)), {}
    for step in (1, 2):
        engine.accumulate(mean_loss, [tokens(step)])
        engine.step()
        folder = CheckpointFolder(tmp_path / str(step))
        engine.save(folder, SimpleNamespace(step=step, positions={}, curves={}))
        kept = random_state()["torch"]
        for rank in (0, 1, 2, 1):
            torch.manual_seed(99 + len(states))
            other = SingleProcess(llama(), AdamW(0.01, 0.0))
            monkeypatch.setattr(SingleProcess, "rank", property(lambda self, rank=rank: rank))
            other.resume(folder)
            state = random_state()["torch"]
            assert states.setdefault((step, rank), state) == state
            assert (state == kept) == (rank == 0)
            monkeypatch.undo()
        torch.set_rng_state(torch.get_rng_state())
    others = [state for (_, rank), state in states.items() if rank]
    assert len({*others}) == len(others) == 4
