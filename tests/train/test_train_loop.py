"""The fine-tuning loop: steps, measuring, stopping, resuming."""

from __future__ import annotations

import math

import pytest
import torch

from kit.train.batches import examples_of_tokens, micro_batches
from kit.train.checkpoints import CheckpointFolder
from kit.train.errors import TrainingDiverged
from kit.train.loop import FineTuning, finetune, trained_weights
from kit.train.losses import language_model_loss
from kit.train.optimizers import SGD, AdamW, ScheduleFreeAdamW
from kit.train.schedules import Schedule
from kit.train.single_process import SingleProcess
from kit.train.streams import Stream, Streams
from tests.train.tiny import VOCABULARY, llama, same

TEXTS = examples_of_tokens(
    {
        f"t{i}": torch.randint(
            0, VOCABULARY, (3 + i % 5,), generator=torch.Generator().manual_seed(i)
        ).tolist()
        for i in range(10)
    }
)
SPEC = AdamW(0.01, 0.01)


class Setup:
    def __init__(self, spec=SPEC, seed=0, **settings):
        self.engine = SingleProcess(llama(seed, **settings), spec)
        self.streams = Streams(Stream("forget", TEXTS, 4, seed=3))
        self.stop_at = None

    def batches(self, step):
        drawn = self.streams["forget"].take()
        if step == self.stop_at:
            torch.rand(5)
            raise KeyboardInterrupt
        return micro_batches(drawn, self.engine, rows=3, pad_id=0)

    def run(self, plan, **more):
        return finetune(
            self.engine, language_model_loss, self.batches, plan, streams=self.streams, **more
        )


def held_out(model, step):
    ids = torch.arange(8)[None]
    return {"loss": model(input_ids=ids, labels=ids).loss.item(), "step": step}


def test_equals_a_loop_written_out_with_torch():
    setup = Setup()
    plan = FineTuning(5, Schedule("linear", warmup=2), clip=0.5)
    result = setup.run(plan)
    model, stream = llama(), Stream("forget", TEXTS, 4, seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    for step in range(5):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(e.ids) for e in stream.take()], batch_first=True, padding_value=-1
        )
        labels = ids.masked_fill(ids < 0, -100)
        inputs, mask = ids.clamp(min=0), (ids >= 0).long()
        optimizer.zero_grad()
        loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = result.rates[step]
        optimizer.step()
        assert result.losses[step] == pytest.approx(loss.item(), rel=1e-5)
        assert result.norms[step] == pytest.approx(float(norm), rel=1e-4)
    assert result.rates == pytest.approx([0.005, 0.01, 0.01, 0.01 * 2 / 3, 0.01 / 3])
    for ours, theirs in zip(setup.engine.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert min(result.norms) > 0.5  # The clip had something to do.


def test_the_trajectory_is_measured_where_asked_and_does_not_disturb():
    quiet, watched = Setup(attention_dropout=0.2), Setup(attention_dropout=0.2)
    torch.manual_seed(1)
    expected = quiet.run(FineTuning(6))

    def measure(model, step):
        torch.rand(9)
        return held_out(model, step)

    torch.manual_seed(1)
    result = watched.run(FineTuning(6, measure_at=(0, 2, 6)), measure=measure)
    assert [step for step, _ in result.trajectory] == [0, 2, 6]
    assert [values["step"] for _, values in result.trajectory] == [0, 2, 6]
    assert result.losses == expected.losses
    assert same(quiet.engine.model, watched.engine.model)
    start = held_out(llama(attention_dropout=0.2).eval(), 0)
    assert result.trajectory[0] == (0, start)


@pytest.mark.parametrize("spec", [SPEC, ScheduleFreeAdamW(0.02, 0.0, warmup_steps=2)])
def test_stopped_anywhere_and_resumed_equals_uninterrupted(tmp_path, spec):
    """Stopped by a signal in the middle of step 4: the work of steps 0 to 3 is kept."""
    plan = FineTuning(
        7, Schedule("cosine"), clip=1.0, measure_at=(0, 3, 4, 7), save_seconds=math.inf
    )
    whole = Setup(spec, attention_dropout=0.2)
    torch.manual_seed(1)
    expected = whole.run(plan, measure=held_out)
    stopped = Setup(spec, attention_dropout=0.2)
    stopped.stop_at = 4
    torch.manual_seed(1)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(plan, measure=held_out, folder=CheckpointFolder(tmp_path))
    assert CheckpointFolder(tmp_path).steps() == [4]
    resumed = Setup(spec, seed=8, attention_dropout=0.2)
    seen = []
    result = resumed.run(
        plan,
        measure=held_out,
        folder=CheckpointFolder(tmp_path),
        on_step=lambda step, loss: seen.append(step),
    )
    assert seen == [5, 6, 7]
    assert result == expected
    assert same(resumed.engine.model, whole.engine.model)


def test_checkpoints_come_by_steps_and_by_time(tmp_path):
    setup = Setup()
    setup.run(
        FineTuning(7, save_every=3, save_seconds=math.inf),
        folder=CheckpointFolder(tmp_path / "steps", keep=None),
    )
    assert CheckpointFolder(tmp_path / "steps").steps() == [3, 6]
    setup = Setup()
    setup.run(
        FineTuning(3, save_seconds=0.0), folder=CheckpointFolder(tmp_path / "time", keep=None)
    )
    assert CheckpointFolder(tmp_path / "time").steps() == [1, 2, 3]


def test_a_checkpoint_that_is_slow_to_write_comes_seldom(tmp_path, monkeypatch):
    """It takes 4 s of a clock on which a step takes 1: after the first, 40 s of training."""
    now = [0.0]
    monkeypatch.setattr("kit.train.loop.time.monotonic", lambda: now[0])
    setup, folder = Setup(), CheckpointFolder(tmp_path, keep=None)
    save = setup.engine.save

    def slow(*arguments):
        save(*arguments)
        now[0] += 4

    setup.engine.save = slow
    on_step = lambda step, loss: now.__setitem__(0, now[0] + 1)  # noqa: E731
    setup.run(FineTuning(50, save_seconds=2.0), folder=folder, on_step=on_step)
    assert folder.steps() == [2, 42]


def test_eight_billion_weights_are_first_saved_after_a_quarter_of_an_hour(tmp_path, monkeypatch):
    """12 bytes a weight at 1 GB/s are 96 s, a tenth of 960."""
    now = [0.0]
    monkeypatch.setattr("kit.train.loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr("kit.train.loop.trained_weights", lambda model: 8_000_000_000)
    setup, folder = Setup(), CheckpointFolder(tmp_path, keep=None)
    on_step = lambda step, loss: now.__setitem__(0, now[0] + 120)  # noqa: E731
    setup.run(FineTuning(9, save_seconds=120.0), folder=folder, on_step=on_step)
    assert folder.steps()[0] == 8


def test_trained_weights_are_counted_wherever_they_are():
    model = llama()
    whole = sum(p.numel() for p in model.parameters())
    assert trained_weights(model) == whole
    first = next(model.parameters())
    first.ds_numel = first.numel()  # as DeepSpeed leaves a parameter of which it keeps a piece
    first.data = first.data.new_empty(0)
    assert trained_weights(model) == whole
    first.requires_grad = False
    assert trained_weights(model) == whole - first.ds_numel


def test_a_finished_run_trains_no_more(tmp_path):
    plan = FineTuning(3, measure_at=(3,), save_every=3)
    first = Setup().run(plan, measure=held_out, folder=CheckpointFolder(tmp_path))
    again = Setup()
    assert again.run(plan, measure=held_out, folder=CheckpointFolder(tmp_path)) == first


def test_a_diverging_run_stops_with_the_examples_or_goes_on_marked():
    wild = SGD(1e4, 0.0, momentum=0.0)
    with pytest.raises(TrainingDiverged, match=r"step 1 .*last good checkpoint: none") as caught:
        Setup(wild).run(FineTuning(4))
    assert set(caught.value.batch_ids) <= {e.id for e in TEXTS}
    assert len(caught.value.batch_ids) == 4
    result = Setup(wild).run(FineTuning(4, diverged="go-on"))
    assert result.diverged_at[0] == 1
    assert len(result.losses) == 4


def test_growth_over_the_first_loss_diverges_too():
    calm = Setup(AdamW(0.3, 0.0)).run(FineTuning(6))
    worst = max(calm.losses) / calm.losses[0]
    assert worst > 1.0
    with pytest.raises(TrainingDiverged, match="times the first"):
        Setup(AdamW(0.3, 0.0)).run(FineTuning(6, highest_growth=(1 + worst) / 2))


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="does not fit 3 steps"):
        FineTuning(3, measure_at=(4,))
    with pytest.raises(ValueError, match="diverged is"):
        FineTuning(3, diverged="maybe")


@pytest.mark.parametrize("saving", [False, True])
def test_the_clock_is_told_where_a_step_is(tmp_path, saving):
    """Each part once it is done: what follows belongs to the next."""

    class Told:
        def __init__(self):
            self.marks = []

        def mark(self, part):
            self.marks.append(part)

    told, folder = Told(), CheckpointFolder(tmp_path) if saving else None
    plan = FineTuning(2, measure_at=(0, 2), save_every=1)
    Setup().run(plan, clock=told, measure=held_out, folder=folder)
    step, saved = ["passes", "update"], ["saving"] * saving
    assert told.marks == [
        "starting", "measuring", *step, *saved, *step, "measuring", *saved,
    ]  # fmt: skip
