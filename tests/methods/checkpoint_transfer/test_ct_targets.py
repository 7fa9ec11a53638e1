"""Keeping targets does not change them; what is not needed is not computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from kit.methods.checkpoint_transfer import states
from kit.methods.checkpoint_transfer.beside import ReadAhead
from kit.methods.checkpoint_transfer.pairs import Pairs, batches
from kit.methods.checkpoint_transfer.states import (
    FileStates,
    MemoryStates,
    StateWriter,
    write_states,
)
from kit.methods.checkpoint_transfer.targets import (
    CachePlan,
    ForgetTargets,
    RetainReference,
    keep,
    keep_pairs,
    kept_states,
    plan_cache,
)
from tests.methods.checkpoint_transfer.small_run import pairs, recipe, setting
from tests.methods.checkpoint_transfer.tiny import model

GROUPS = [range(start, start + 4) for start in range(0, 16, 4)]


@pytest.fixture(scope="module")
def given():
    return setting()


@pytest.fixture
def targets(given) -> ForgetTargets:
    return ForgetTargets(given.teacher, given.maps, recipe())


def test_kept_rows_are_the_computed_ones(targets, tmp_path: Path) -> None:
    """In files, in memory and only in part; the batch has another order and other neighbours."""
    data, examples = pairs(), [5, 2, 11, 7]
    computed = targets.rows(data, examples)
    write_states(tmp_path, keep(targets.compute, data, "forget", GROUPS), shard=3)
    some = {e: rows for e, rows in keep(targets.compute, data, "forget", GROUPS) if e % 2}
    for kept in (FileStates(tmp_path), MemoryStates(some)):
        targets.kept = kept
        found = targets.rows(data, examples)
        assert found.keys() == computed.keys() == {0, 1}
        for block, rows in found.items():
            torch.testing.assert_close(rows, computed[block], rtol=1e-5, atol=1e-6)


def test_the_same_group_gives_the_same_bits(targets, tmp_path: Path) -> None:
    data = pairs()
    computed = targets.rows(data, GROUPS[1])
    write_states(tmp_path, keep(targets.compute, data, "forget", GROUPS))
    targets.kept = FileStates(tmp_path)
    for block, rows in targets.rows(data, GROUPS[1]).items():
        assert torch.equal(rows, computed[block])


def test_with_everything_kept_no_model_runs(given, targets, tmp_path: Path) -> None:
    data = pairs()
    reference = RetainReference(given.original)
    targets.kept = MemoryStates(keep(targets.compute, data, "forget", GROUPS))
    reference.kept = MemoryStates(keep(reference.compute, data, "retain", GROUPS))
    expected = given.original(*_padded(data)).logits[_padded(data)[1]]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a frozen model ran")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(given.teacher.model, "forward", refuse)
        patch.setattr(given.original.model, "forward", refuse)
        targets.rows(data, [3, 1])
        found = reference.logits(data, [3, 1])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def _padded(data: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    return data.batch("retain", [3, 1])


def test_the_teacher_stops_at_the_last_block_and_has_no_output(given, targets) -> None:
    """Layers 1 and 2 are what enters blocks 1 and 2: only blocks 0 and 1 run."""
    ran: list[int | str] = []
    layers = given.teacher.model.layers
    hooks = [
        layer.register_forward_hook(lambda *_, at=at: ran.append(at))
        for at, layer in enumerate(layers)
    ]
    hooks.append(given.teacher.lm_head.register_forward_hook(lambda *_: ran.append("head")))
    targets.rows(pairs(), [0, 1])
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1]


def test_targets_carry_no_gradient(given, targets) -> None:
    assert not any(rows.requires_grad for rows in targets.rows(pairs(), [0]).values())
    assert not RetainReference(given.original).logits(pairs(), [0]).requires_grad


def test_states_say_what_is_wrong(tmp_path: Path) -> None:
    rows = {0: torch.zeros(2, 3)}
    with pytest.raises(ValueError, match="example 1 has states already"):
        write_states(tmp_path / "a", [(1, rows), (1, rows)])
    with pytest.raises(ValueError, match="no states to write"):
        write_states(tmp_path / "b", [])
    with pytest.raises(ValueError, match="holds no states"):
        FileStates(tmp_path)
    assert write_states(tmp_path, [(1, rows), (4, rows)], shard=1) > 2 * 24
    kept = FileStates(tmp_path)
    assert list(kept) == [1, 4]
    assert 4 in kept
    assert 2 not in kept
    for found in (kept, MemoryStates({1: rows})):
        with pytest.raises(ValueError, match="no states are kept of example 2"):
            found.rows(2)
    kept.close()
    (tmp_path / "states.json").write_text(json.dumps({"1": "../elsewhere"}))
    with pytest.raises(ValueError, match="not a file beside it"):
        FileStates(tmp_path)


def test_closed_files_are_let_go_and_opened_again_when_asked(tmp_path: Path) -> None:
    states = {example: {0: torch.full((2, 3), float(example))} for example in range(5)}
    write_states(tmp_path, states.items(), shard=2)
    kept = FileStates(tmp_path)

    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text(encoding="utf-8")

    for _ in range(2):
        for example, rows in states.items():
            assert torch.equal(kept.rows(example)[0], rows[0])
        assert mapped()
        kept.close()
        assert not mapped()


def test_reference_of_a_model_with_scaled_scores_is_refused() -> None:
    scaled = model(0)
    scaled.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        RetainReference(scaled)


def test_plan_keeps_the_retain_reference_first() -> None:
    """At 6.9B: 16 MiB an example of reference, 96 MiB of targets (reference page, section 6)."""
    size = {
        "examples": 1024,
        "tokens": 2048,
        "width": 4096,
        "depth": 32,
        "blocks": (4, 9, 14, 19, 24, 29),
        "value_bytes": 2,
        "uses": 4,
    }
    mib = 1 << 20
    whole = plan_cache(**size, budget=1 << 40)
    assert whole == CachePlan(1024, 1024, 1024 * 112 * mib)
    some = plan_cache(**size, budget=48 * 1024 * mib)
    assert some == CachePlan(1024, 341, (1024 * 16 + 341 * 96) * mib)
    assert plan_cache(**size, budget=100 * mib) == CachePlan(6, 0, 96 * mib)
    assert plan_cache(**{**size, "uses": 1}, budget=1 << 40) == CachePlan(0, 0, 0)


def test_an_epoch_shows_every_pair_once_in_another_order() -> None:
    wanted = recipe(epochs=2)
    plan = batches(wanted, 3)
    assert [len(step) for step in plan] == [4] * 4
    orders = [[e for step in plan[at : at + 2] for m in step for e in m.examples] for at in (0, 2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(16))
    assert orders[0] != orders[1]
    assert [m.number for step in plan for m in step] == list(range(16))
    assert plan == batches(wanted, 3)
    assert plan != batches(wanted, 4)


def test_processes_share_a_micro_batch_number_and_one_alone_sees_its_share() -> None:
    together = batches(recipe(world=2), 3)
    assert [m.number for m in together[0]] == [0, 0, 1, 1]
    alone = batches(recipe("epoch-sweep", micro_batch=1), 3)
    seen = [e for step in alone for m in step for e in m.examples]
    assert len(seen) == len(set(seen)) == 4
    assert [m.number for step in alone for m in step] == [0, 1, 2, 3]


def test_pairs_are_whole() -> None:
    with pytest.raises(ValueError, match="1 forget texts, 2 retain texts"):
        Pairs([[3]], [[3], [4]], pad_id=0)
    with pytest.raises(ValueError, match="retain text 1 has no tokens"):
        Pairs([[3], [4]], [[3], []], pad_id=0)
    ids, mask = Pairs([[3, 4], [5]], [[6], [7, 8, 9]], pad_id=0).batch("retain", [1, 0])
    assert ids.tolist() == [[7, 8, 9], [6, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_states_come_in_any_order_and_are_read_before_they_are_asked_for() -> None:
    read = []

    class Noted(MemoryStates):
        def rows(self, example: int) -> dict[int, torch.Tensor]:
            read.append(example)
            return super().rows(example)

    noted = Noted({example: {0: torch.full((2, 3), float(example))} for example in range(6)})
    ahead = ReadAhead(noted, [4, 9, 1, 0, 5, 4, 1], "cpu", most=2)
    assert 5 in ahead
    assert 9 not in ahead
    for example in (4, 1, 0):
        assert ahead.rows(example)[0].unique().tolist() == [float(example)]
    ahead.rows(5)
    for example in (3, 1, 4):
        assert ahead.rows(example)[0].unique().tolist() == [float(example)]
    # The second turns of 4 and 1 were on their way before the 3, which nobody expected.
    assert read[:7] == [4, 1, 0, 5, 4, 1, 3]
    with pytest.raises(ValueError, match="no states are kept of example 8"):
        ahead.rows(8)


def test_files_are_written_while_more_is_computed(tmp_path: Path) -> None:
    """The only thread is held up until five states were taken; a sixth would wait for it."""
    held_up = Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(held_up.wait, 30)
        writer = StateWriter(tmp_path, pool, shard=2, pending=2)
        for example in range(5):
            writer.add(example, {0: torch.zeros(2, 3)})
        assert not list(tmp_path.glob("*.safetensors"))
        held_up.set()
        assert writer.finish() > 5 * 24
    assert list(FileStates(tmp_path)) == list(range(5))
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_what_is_written_is_what_a_pass_by_itself_gives(given, tmp_path: Path) -> None:
    """Bit for bit, of both kinds, into the last group, which is smaller; no further pair."""
    plan, written = _kept(given, tmp_path)
    assert (plan.retain, plan.forget) == (16, 10)
    by_hand = {
        "forget": (10, ForgetTargets(given.teacher, given.maps, recipe()).compute),
        "retain": (16, RetainReference(given.original).compute),
    }
    for kind, (count, compute) in by_hand.items():
        found = kept_states(tmp_path, kind)
        assert isinstance(found, FileStates)
        assert sorted(found) == list(range(count))
        for start in range(0, count, 4):
            group = range(start, min(start + 4, count))
            ids, mask = pairs().batch(kind, group)
            rows = compute(ids, mask)
            ends = torch.cumsum(mask.sum(1), 0).tolist()
            for example, begin, end in zip(group, [0, *ends], ends, strict=False):
                kept = found.rows(example)
                assert kept.keys() == rows.keys()
                for block, values in kept.items():
                    assert torch.equal(values, rows[block][begin:end])
    files = list(tmp_path.rglob("*.safetensors"))
    assert written == sum(file.stat().st_size for file in files)


@pytest.mark.parametrize("failing", ["pass", "disk"])
def test_states_of_a_run_that_stopped_are_not_believed(
    given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Files may be there, an index is not."""
    calls = []

    def fails_later(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) > 2:
                raise OSError("no space left on device")
            return real(*arguments)

        return called

    if failing == "disk":
        monkeypatch.setattr(states, "_save", fails_later(states._save))
        monkeypatch.setattr(
            states.StateWriter.__init__, "__kwdefaults__", {"shard": 4, "pending": 4}
        )
    else:
        monkeypatch.setattr(ForgetTargets, "compute", fails_later(ForgetTargets.compute))
    with pytest.raises(OSError, match="no space left"):
        _kept(given, tmp_path)
    assert len(calls) > 2
    for kind in ("forget", "retain"):
        assert (tmp_path / kind).is_dir()
        with pytest.raises(ValueError, match="holds no states"):
            kept_states(tmp_path, kind)


def _kept(given, folder: Path) -> tuple[CachePlan, int]:
    data = pairs()
    width, most = 16, max(map(len, (*data.forget, *data.retain)))
    return keep_pairs(
        folder,
        given.teacher,
        given.original,
        given.maps,
        recipe(),
        data,
        width=width,
        uses=2,
        budget=4 * width * most * (16 + 2 * 10),
        batch=4,
        dtype="float32",
    )


def test_of_texts_of_a_length_the_device_is_asked_nothing(
    given, targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer would have to be waited for. transformers asks a single thing itself."""
    data = pairs(examples=8)
    same = Pairs([text[:3] for text in data.forget], [text[:3] for text in data.retain], 0)
    asked = []
    for name in ("__bool__", "item", "tolist", "__int__", "__float__"):
        real = getattr(torch.Tensor, name)

        def ask(self: torch.Tensor, *_: Any, name: str = name, real: Any = real) -> Any:
            asked.append(name)
            return real(self)

        monkeypatch.setattr(torch.Tensor, name, ask)
    reference = RetainReference(given.original)
    for kind, compute in (("forget", targets.compute), ("retain", reference.compute)):
        list(keep(compute, same, kind, [range(4), range(4, 8)]))
    assert set(asked) <= {"__bool__"}
    assert len(asked) <= 4
    list(keep(targets.compute, data, "forget", [range(4)]))
    assert "__bool__" in asked[4:]


def test_a_batch_without_padding_has_no_mask() -> None:
    data = Pairs([[3, 4], [5, 6], [7]], [[3], [4], [5]], pad_id=0)
    ids, mask = data.inputs("forget", [1, 0])
    assert ids.tolist() == [[5, 6], [3, 4]]
    assert ids.dtype == torch.int64
    assert mask is None
    padded = data.inputs("forget", [1, 2])
    assert padded[1] is not None
    assert [part.tolist() for part in padded] == [[[5, 6], [7, 0]], [[True, True], [True, False]]]
    assert data.inputs("retain", [0, 2])[1] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_are_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    wide = torch.randn(7, 5).to(dtype)
    rows = {3: {0: wide[:4], 2: wide[4:]}, 1: {0: wide.T, 2: torch.zeros(0, 5, dtype=dtype)}}
    write_states(tmp_path, rows.items())
    (file,) = tmp_path.glob("*.safetensors")
    flat = {f"{e}/{b}": v.contiguous() for e, blocks in rows.items() for b, v in blocks.items()}
    found = load_file(file)
    assert found.keys() == flat.keys()
    for name, values in flat.items():
        assert torch.equal(found[name], values)
        assert found[name].dtype == dtype
    save_file({name: values.clone() for name, values in flat.items()}, tmp_path / "theirs")
    assert abs(file.stat().st_size - (tmp_path / "theirs").stat().st_size) <= 8
