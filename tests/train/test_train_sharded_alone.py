"""A sharded engine of a single process, in this one: what it does equals one that shards nothing.

The tests over two processes say that pieces come together; these say the same of everything that
needs no second process, in seconds.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from kit.tampering.run import Attacked
from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import TRAINING, Precision, Progress
from kit.train.engines import FSDP, ZERO3, engine_factory
from kit.train.single_process import SingleProcess
from tests.train import sharded_processes as checks
from tests.train import two_processes
from tests.train.tiny import llama, mean_loss, tokens

CHECKS = {
    "restored": lambda folder: checks.restored("cpu", "bfloat16", None),
    "restored fp32": lambda folder: checks.restored("cpu", "float32", "cpu"),
    "uneven": lambda folder: checks.uneven("cpu"),
    "partial": lambda folder: checks.partial("cpu"),
    "offloaded": lambda folder: checks.offloaded("cpu"),
    "variants": lambda folder: checks.variants("cpu"),
    "resumed": lambda folder: checks.resumed("cpu", folder),
}


@pytest.fixture(scope="module", autouse=True)
def _group(tmp_path_factory):
    """This process as the only rank."""
    at = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{at}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def _fsdp(monkeypatch):
    """DeepSpeed changes what torch compiles in its process for good: it stays in its own."""
    monkeypatch.setattr(checks, "NAME", FSDP)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", CHECKS)
def test_every_check_of_the_two_processes_holds_in_one(check, tmp_path):
    assert {name: bool(held) for name, held in CHECKS[check](tmp_path).items() if not held} == {}


@pytest.mark.filterwarnings("ignore")
def test_a_run_equals_one_that_shards_nothing(tmp_path):
    """Losses, gradients, inner trajectories, the way back, clipping and averaged weights."""
    ours = two_processes.run(checks.sharded("cpu"), tmp_path / "ours")
    theirs = two_processes.run(SingleProcess(llama(), two_processes.OUTER), tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name].to(value.dtype), value, rtol=1e-6, atol=1e-6, msg=name
        )


@pytest.mark.filterwarnings("ignore")
def test_wrong_use_is_named(tmp_path):
    engine = checks.sharded("cpu")
    ids = tokens(0)
    refused = [
        ("process 0 has no micro-batch", lambda: engine.accumulate(mean_loss, [])),
        ("is no scalar", lambda: engine.accumulate(lambda m, b: m(input_ids=b).logits, [ids])),
        ("no gradient was collected as 'x'", lambda: engine.add_collected("x")),
        ("has shape", lambda: engine.cut("model.norm.weight", torch.zeros(3))),
    ]
    for said, act in refused:
        with pytest.raises(ValueError, match=said):
            act()
        engine.zero_gradient()
    with engine.inner(checks.INNER):
        with pytest.raises(ValueError, match="at work already"), engine.inner(checks.INNER):
            pass
        with pytest.raises(ValueError, match="between two outer steps"):
            engine.save(CheckpointFolder(tmp_path / "c"), Progress(1))
    engine.accumulate(mean_loss, [ids])
    engine.collect("kept")
    with pytest.raises(ValueError, match="between two outer steps"):
        engine.save(CheckpointFolder(tmp_path / "c"), Progress(1))
    engine.add_collected("kept")
    assert engine.gradient_norm() > 0
    assert engine.resume(CheckpointFolder(tmp_path / "c")) is None
    engine.save(CheckpointFolder(tmp_path / "c"), Progress(1))
    larger = checks.sharded("cpu", model=llama(head_dim=16))
    with pytest.raises(ValueError, match="is of another model"):
        larger.resume(CheckpointFolder(tmp_path / "c"))


@pytest.mark.filterwarnings("ignore")
def test_norms_changes_and_clipping_are_those_of_the_weights():
    engine, whole = checks.sharded("cpu"), llama()
    before, kept = dict(whole.state_dict()), engine.snapshot()
    engine.accumulate(mean_loss, [tokens(0)])
    mean_loss(whole, tokens(0)).backward()
    norm = float(torch.cat([p.grad.flatten() for p in whole.parameters()]).norm())
    assert engine.gradient_norm() == pytest.approx(norm, rel=1e-5)
    assert engine.clip(10 * norm) == pytest.approx(norm, rel=1e-5)
    assert engine.gradient_norm() == pytest.approx(norm, rel=1e-5)  # nothing to clip
    assert engine.clip(norm / 4) == pytest.approx(norm, rel=1e-5)
    assert engine.gradient_norm() == pytest.approx(norm / 4, rel=1e-4)
    assert engine.largest_change(kept) == 0
    engine.step(0.0)
    engine.accumulate(mean_loss, [tokens(0)])
    engine.step(0.25)
    assert engine.gradient_norm() == 0
    with engine.evaluating(TRAINING) as model:
        moved = max(float((p - before[n]).abs().max()) for n, p in model.named_parameters())
    assert engine.largest_change(kept) == pytest.approx(moved)
    assert moved > 0.05
    assert (engine.any_process(True), engine.any_process(False)) == (True, False)


@pytest.mark.filterwarnings("ignore")
def test_processes_wait_for_what_the_first_writes_and_removes(tmp_path, monkeypatch):
    """A damaged file is removed by the first process alone, and is no checkpoint to any."""
    engine, waited = checks.sharded("cpu"), []
    real = dist.barrier
    monkeypatch.setattr(dist, "barrier", lambda: waited.append(real()))
    folder = CheckpointFolder(tmp_path / "c")
    for act in (
        lambda: engine.save(folder, Progress(1)),
        lambda: engine.resume(folder),
        lambda: engine.save_model(tmp_path / "m"),
    ):
        act()
        assert waited == [None]
        waited.clear()
    damaged = folder.path(2)
    damaged.write_bytes(b"cut short")
    other = SingleProcess(llama(), two_processes.OUTER)
    for tried in (engine, other):
        for rank in (1, 0):
            damaged.write_bytes(b"cut short")
            with monkeypatch.context() as patch:
                patch.setattr(type(tried), "rank", property(lambda self, rank=rank: rank))
                assert tried.resume(folder).step == 1
            assert damaged.exists() is bool(rank)
    assert all(not p.numel() and not p.requires_grad for p in engine._shell.parameters())


@pytest.mark.filterwarnings("ignore")
def test_a_loss_may_begin_anywhere_in_the_model():
    """The whole model gathers, whatever a loss calls first."""
    engine, whole = checks.sharded("cpu"), llama()

    def embedded(model, ids):
        return model.model.embed_tokens(ids).square().mean()

    loss = engine.accumulate(embedded, [tokens(0)])
    expected = embedded(whole, tokens(0))
    expected.backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    gradient = engine.gradients()["model.embed_tokens.weight"]
    torch.testing.assert_close(gradient, whole.model.embed_tokens.weight.grad)


@pytest.mark.filterwarnings("ignore")
def test_the_average_can_be_kept_for_good():
    engine = checks.sharded("cpu")
    checks.steps(engine, range(3))
    trained, average = checks.outputs(engine), checks.outputs(engine, "averaged")
    assert not torch.equal(trained, average)
    assert torch.equal(checks.outputs(engine), trained)
    engine.keep_averaged()
    assert torch.equal(checks.outputs(engine), average)
    with pytest.raises(ValueError, match="weights"), engine.evaluating("best"):
        pass


@pytest.mark.parametrize("engine_name", [FSDP, ZERO3])
def test_what_is_asked_of_the_factory_is_what_the_engine_has(engine_name, monkeypatch):
    """Every setting by its name; leaves where all of the model is trained."""
    made = []
    module, sort = ("zero3", "Zero3") if engine_name == ZERO3 else ("fsdp", "Fsdp")
    monkeypatch.setattr(
        f"kit.train.{module}.{sort}", lambda *_, settings, device: made.append((settings, device))
    )
    common = {"outer_state": "offloaded", "collected": "offloaded", "communication": "bfloat16"}
    for stays, frozen in ((False, False), (True, True)):
        model = llama()
        model.model.norm.requires_grad_(not frozen)
        factory = engine_factory(engine_name, "cpu", weights_stay=stays, **common)
        factory(model, two_processes.OUTER, Precision())
    for name, value in common.items():
        assert {getattr(settings, name) for settings, _ in made} == {value}
    if engine_name == ZERO3:
        assert [settings.leaf_layers for settings, _ in made] == [True, False]
    else:
        assert [settings.gather_twice for settings, _ in made] == [True, False]
    for name in ("compiled", "checkpointing"):
        assert {getattr(settings, name) for settings, _ in made} == {False}
    assert {device for _, device in made} == {"cpu"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapter", [False, True])
def test_an_attacked_sharded_model_is_saved_by_its_engine(monkeypatch, tmp_path, adapter):
    engine, saved = checks.sharded("cpu"), []

    class Tokenizer:
        def save_pretrained(self, folder):
            saved.append(folder)

    model = engine.model
    if adapter:
        model.get_base_model = lambda: None
    done = Attacked(model, None, engine)
    assert not done.whole
    with pytest.raises(ValueError, match="whole in no process"):
        done.merged()
    if adapter:
        with pytest.raises(ValueError, match="cannot be merged"):
            done.save(tmp_path / "m", Tokenizer())
        return
    done.save(tmp_path / "m", Tokenizer())
    assert saved == [tmp_path / "m"]
    done.save(tmp_path / "n", None)
    assert {path.name for path in (tmp_path / "n").iterdir()} >= {"config.json"}
    monkeypatch.setattr(type(engine), "rank", property(lambda self: 1))
    done.save(tmp_path / "o", Tokenizer())
    assert saved == [tmp_path / "m"]
