"""What the tests of sharded engines run in the processes that torchrun starts, on CPUs or GPUs.

Called as a module with a folder, a device and an engine; every rank leaves what it found out in the
folder.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from kit.methods.tar.outer_loop import outer_spec, train_tar
from kit.tampering.attack import Attack
from kit.tampering.run import run_attack
from kit.train.batches import examples_of_tokens
from kit.train.checkpoints import CheckpointFolder
from kit.train.engine import AVERAGED, TRAINING, Precision, Progress
from kit.train.engines import ZERO3, engine_factory
from kit.train.fsdp import Fsdp, FsdpSettings
from kit.train.lora import Lora
from kit.train.optimizers import AdamW, ScheduleFreeAdamW
from kit.train.residence import OFFLOADED
from kit.train.zero3 import Zero3, Zero3Settings
from tests.methods.checkpoint_transfer.tiny import model as frozen
from tests.methods.tar.conftest import build_model
from tests.methods.tar.test_tar_outer_loop import build_loop, settings
from tests.train.tiny import VOCABULARY, llama, mean_loss, share_of, tokens
from tests.train.two_processes import OUTER, run, weights

INNER = AdamW(0.003, 0.01)
SORTS = {"zero-3": (Zero3, Zero3Settings), "fsdp": (Fsdp, FsdpSettings)}
NAME = sys.argv[3] if len(sys.argv) > 3 else ZERO3
# Well-conditioned, so that rounding stays rounding: see two_processes.py. AdamW attacks are there.
TAR = settings(
    outer_steps=2,
    forget_batch=6,
    held_out_batch=8,
    retain_batch=5,
    outer_learning_rate=0.001,
    distance="squared-norm",  # the norm of a small difference is all rounding
    inner_optimizers=("sgd",),
    adversary_learning_rates=(0.001,),
)
TAR_OUTER = replace(outer_spec(TAR), eps=0.1)


def tar(engine):
    """Two outer steps of the outer loop itself; losses and weights.

    The norm of the gradient, 20 here, is left out: behind an attack it is equal to 1.4e-6 of itself
    only. The weights are what it did.
    """
    loop = build_loop(TAR, rows=2, engine=engine)
    loop.reference.to(engine.device)
    done = train_tar(loop)
    losses = [
        [*a["losses"], *(v for _, v in a["tamper"]), s.retain_loss]
        for s in done.steps
        for a in s.attacks
    ]
    result = {f"y/{n}": p for n, p in weights(engine, TRAINING).items()}
    return result | {"losses": torch.tensor(losses)}


def attacks(name, device, folder=None):
    """Fine-tuning attacks through the engine of that name: losses, weights, what was measured."""
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(1, VOCABULARY, (6 + i % 3,), generator=generator) for i in range(12)]
    data = {"forget": examples_of_tokens({f"t-{i}": r.tolist() for i, r in enumerate(rows)})}
    result = {}
    for key, optimizer, lora, victim in (
        ("adamw", AdamW(0.003, 0.01, eps=1e-3), None, llama),
        ("free", ScheduleFreeAdamW(0.003, 0.0, eps=1e-3), None, llama),
        ("adapter", AdamW(0.003, 0.01, eps=1e-3), Lora(2, 4.0), llama),
        # The architecture that checkpoint transfer attacks: parallel blocks, biases, untied output.
        ("neox", AdamW(0.003, 0.01, eps=1e-3), None, lambda: frozen(0, "gpt_neox")),
    ):
        done = run_attack(
            victim().to(device),
            data,
            Attack(key, optimizer, steps=3, batch=4, lora=lora, clip=1.0),
            pad_id=0,
            evaluate=lambda m, _: {"norm": float(m(tokens(7).to(device)).logits.float().norm())},
            at_steps=(0, 3),
            rows=1,
            make_engine=engine_factory(name, device),
        )
        with done.engine.evaluating(TRAINING) as whole:
            result |= {f"{key}/w/{n}": p.detach().clone() for n, p in whole.named_parameters()}
        result[f"{key}/losses"] = torch.tensor(done.trajectory.losses)
        result[f"{key}/seen"] = torch.tensor([v["norm"] for _, v in done.trajectory.points])
        if folder is not None and lora is None:
            done.save(folder / f"attacked-{key}", None)
    return result


def sharded(device, precision=None, model=None, **settings):
    engine, chosen = SORTS[NAME]
    model = model or llama()
    return engine(model, OUTER, precision, settings=chosen(**settings), device=device)


def bits(engine):
    """A copy of every local tensor that weights are in."""
    flat = [engine.partition.weights] if NAME == ZERO3 else []
    return [t.detach().clone() for t in (*engine.pieces.values(), *flat)]


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def outputs(engine, which=TRAINING):
    with engine.evaluating(which) as model:
        return model(input_ids=tokens(7).to(engine.device)).logits.float()


def steps(engine, numbers):
    for number in numbers:
        engine.accumulate(mean_loss, [tokens(number).to(engine.device)])
        engine.step()


def restored(device, dtype, where):
    """A snapshot, an attack, the way back: forward outputs and every local bit."""
    engine = sharded(device, precision=Precision(dtype))
    steps(engine, range(2))
    before, kept_bits = outputs(engine), bits(engine)
    kept = engine.snapshot(where)
    with engine.inner(INNER):
        steps(engine, range(5, 8))
        attacked = outputs(engine)
    moved = not equal(bits(engine), kept_bits)
    engine.restore(kept)
    loss = engine.accumulate(mean_loss, [tokens(7).to(engine.device)])
    return {
        "outputs": torch.equal(outputs(engine), before),
        "bits": equal(bits(engine), kept_bits),
        "attacked": not torch.equal(attacked, before) and moved,
        # The bf16 copy that a training pass reads is the one that was measured.
        "loss": bool(torch.isclose(loss, loss_of(before) * engine.world_size, rtol=1e-6)),
        "rounded": compute_types(engine) == {getattr(torch, dtype)},
    }


def compute_types(engine):
    with engine.evaluating(TRAINING) as model:
        return {p.dtype for p in model.parameters()}


def loss_of(logits):
    """Cross-entropy of the batch that ``outputs`` computes."""
    labels = tokens(7)[:, 1:].flatten().to(logits.device)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels)


def uneven(device):
    """Process 0 computes three rows in two passes, the others one each: the same gradient."""
    engine = sharded(device)
    rows = tokens(0, rows=2 + engine.world_size).to(engine.device)
    mine = rows[:3].split(2) if engine.rank == 0 else [rows[2 + engine.rank :][:1]]
    loss = engine.accumulate(share_of(len(rows)), mine)
    whole = llama().to(engine.device)
    expected = mean_loss(whole, rows)
    expected.backward()
    gradients = engine.gradients()
    ours = torch.stack([(gradients[n] - p.grad).abs().max() for n, p in whole.named_parameters()])
    return {
        "loss": bool(torch.isclose(loss, expected, rtol=1e-6)),
        "gradient": float(ours.max()) < 1e-6,
        "not nothing": engine.gradient_norm() > 1e-2,
    }


def partial(device):
    """A loss that reaches one layer leaves all other gradients 0; frozen weights stay."""
    model = llama()
    model.model.embed_tokens.requires_grad_(False)
    frozen = model.model.embed_tokens.weight.detach().clone()
    engine = sharded(device, model=model)
    steps(engine, range(2))
    engine.accumulate(mean_loss, [tokens(3).to(engine.device)])
    engine.zero_gradient()

    def first_layer(m, ids):
        return m(input_ids=ids, output_hidden_states=True).hidden_states[1].square().mean()

    engine.accumulate(first_layer, [tokens(4).to(engine.device)])
    reached = {n for n, g in engine.gradients().items() if g.abs().sum() > 0}
    now = weights(engine, TRAINING)["model.embed_tokens.weight"]
    return {
        "reached": bool(reached) and all(".layers.0." in n for n in reached),
        "frozen": torch.equal(now.cpu(), frozen),
    }


def offloaded(device):
    """What waits in the machine's memory during inner steps changes no bit."""
    results = []
    for where in ("resident", OFFLOADED):
        engine = sharded(device, outer_state=where, collected=where)
        for outer in range(2):
            kept = engine.snapshot("cpu")
            with engine.inner(INNER):
                for inner in range(2):
                    steps(engine, [10 * outer + inner])
                    engine.accumulate(mean_loss, [tokens(99).to(engine.device)], scale=-0.5)
                    engine.collect("tr")
                away = {t.device.type for t in outer_state(engine)}
                sums = {t.device.type for t in engine._collected["tr"]}
            engine.restore(kept)
            engine.add_collected("tr")
            steps(engine, [40 + outer])
        results.append(outputs(engine, AVERAGED))
    return {"equal": torch.equal(*results), "away": away == sums == {"cpu"}}


def outer_state(engine):
    """State tensors of the outer optimizer, which an inner one has pushed aside."""
    return [t for t in engine.outer_optimizer.tensors().values() if t.ndim]


def variants(device):
    """Settings of speed and memory: the same gradient."""
    own = {"leaf_layers": True} if NAME == ZERO3 else {"gather_twice": False}
    found = []
    tried = [{}, own, {**own, "checkpointing": True}]
    if device == "cuda":
        tried += [{**own, "compiled": True}, {**own, "compiled": True, "checkpointing": True}]
    for chosen in tried:
        engine = sharded(device, **chosen)
        engine.accumulate(mean_loss, [tokens(1).to(engine.device)])
        found.append(engine.gradients())
    return {
        f"equal {number}": max(float((other[n] - g).abs().max()) for n, g in found[0].items())
        < 1e-6
        for number, other in enumerate(found[1:])
    }


def resumed(device, folder):
    """A run goes on in a fresh engine with the bits of the run that was not interrupted."""
    engine = sharded(device)
    checkpoints = CheckpointFolder(folder / "again")
    steps(engine, range(2))
    engine.save(checkpoints, Progress(2, {"data": 5}))
    other = sharded(device, model=llama(3))
    progress = other.resume(checkpoints)
    for trained in (engine, other):
        steps(trained, range(2, 4))
    engine.save_model(folder / "x")
    engine.save_model(folder / "y", TRAINING)
    return {
        "progress": progress == Progress(2, {"data": 5}),
        "y": torch.equal(outputs(engine), outputs(other)),
        "x": torch.equal(outputs(engine, AVERAGED), outputs(other, AVERAGED)),
        "moved": not torch.equal(outputs(engine), outputs(engine, AVERAGED)),
    }


def main(folder, device):
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    engine = sharded(device)
    result = {f"run/{n}": t for n, t in run(engine, folder / "checkpoints").items()}
    engine = SORTS[NAME][0](build_model(0).float(), TAR_OUTER, device=device)
    result |= {f"tar/{n}": t for n, t in tar(engine).items()}
    checks = {f"restored-{d}": restored(device, d, None) for d in ("float32", "bfloat16")}
    checks["restored-cpu"] = restored(device, "bfloat16", "cpu")
    checks["uneven"] = uneven(device)
    checks["partial"] = partial(device)
    checks["offloaded"] = offloaded(device)
    checks["variants"] = variants(device)
    checks["resumed"] = resumed(device, folder)
    result |= {f"attack/{n}": t for n, t in attacks(NAME, device, folder).items()}
    flat = {
        f"check/{c}/{n}": torch.tensor(v) for c, names in checks.items() for n, v in names.items()
    }
    rank = dist.get_rank()
    save_file(
        {n: t.contiguous().cpu() for n, t in (result | flat).items()},
        str(folder / f"rank{rank}.safetensors"),
    )
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
