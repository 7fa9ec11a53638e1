"""Decoding in fixed shapes: token by token what the plain loop and transformers produce."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kit.lm import static_decode
from kit.lm.generate import TransformersBackend
from kit.lm.static_decode import StepGraphs, grouped_attention, unlike_static
from tests.lm.families import FAMILIES, VOCABULARY, WINDOW, tiny
from tests.lm.tiny_world import tiny_llama

STOP = 2
LENGTHS = (3, 2 * WINDOW + 3, 5, 2 * WINDOW, 9, 1)
TOKENS = 23
STATIC = [name for name in FAMILIES if name != "falcon"]
GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def prompts(slots=0):
    rng = torch.Generator().manual_seed(0)
    prefix = [VOCABULARY + i for i in range(slots)]
    return [
        [*prefix, 1, *torch.randint(3, VOCABULARY, (n,), generator=rng).tolist()] for n in LENGTHS
    ]


def generate(model, *, static, stop=(STOP,), slots=0, prefix=None, banned=(), tokens=TOKENS):
    return TransformersBackend(model, 0, static=static).generate(
        prompts(slots), max_new_tokens=tokens, stop_ids=stop, prefix=prefix, banned_ids=banned
    )


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch):
    """Several stretches, the last of them shorter."""
    monkeypatch.setattr(static_decode, "STRETCH", 5)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("name", STATIC)
def test_equals_the_plain_loop(name, device):
    """With three vectors of a prefix, padding, a banned id, and rows that stop at other times."""
    model = tiny(name, seed=4).to(device)
    width = model.get_input_embeddings().weight.shape[1]
    prefix = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    settings = {"slots": 3, "prefix": prefix}
    settings["banned"] = [generate(model, static=False, stop=(), **settings)[1].ids[0], 999]
    unstopped = generate(model, static=False, stop=(), **settings)
    settings["stop"] = {unstopped[0].ids[2], unstopped[3].ids[11]}
    plain = generate(model, static=False, **settings)
    assert generate(model, static=True, **settings) == plain
    assert plain != unstopped


@pytest.mark.parametrize("name", ["qwen2", "qwen2-window", "mistral-window", "gpt_neox", "gemma2"])
def test_equals_generate_of_transformers(name):
    model = tiny(name, seed=4)
    for prompt, ours in zip(prompts(), generate(model, static=True), strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=STOP,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert [token for token in theirs if token != STOP] == list(ours.ids)


@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 7])
def test_any_limit_is_kept(tokens):
    model = tiny("qwen2", seed=4)
    made = generate(model, static=True, stop=(), tokens=tokens)
    assert made == generate(model, static=False, stop=(), tokens=tokens)
    assert {len(generation.ids) for generation in made} == {tokens}


def test_rows_that_stopped_are_computed_no_further(monkeypatch):
    """Each stretch has the rows that were alive when it began, and is as wide as it becomes."""
    model = tiny("qwen2", seed=4)
    free = [g.ids for g in generate(model, static=False, stop=())]
    # The id that ends the rows at the most different places.
    ends = {token: {ids.index(token) for ids in free if token in ids} for token in range(64)}
    stop = [max(ends, key=lambda token: len(ends[token]))]
    shapes, real = [], static_decode.last_scores

    def watched(given, count, **inputs):
        layer = inputs["past_key_values"].layers[0]
        shapes.append((len(inputs["inputs_embeds"]), layer.keys.shape[2]))
        return real(given, count, **inputs)

    monkeypatch.setattr(static_decode, "last_scores", watched)
    made = generate(model, static=True, stop=stop)
    longest = max(map(len, prompts()))
    for first in range(1, TOKENS, 5):
        alive = sum(len(g.ids) >= first for g in made)
        if not alive:
            break
        end = min(first + 5, TOKENS)
        assert set(shapes[first - 1 : end - 1]) == {(alive, -(-(longest + end - 1) // 16) * 16)}
    assert len({rows for rows, _ in shapes}) > 1
    assert len({width for _, width in shapes}) > 1


def test_grouped_attention_is_that_of_repeated_keys():
    rng = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(3, n, t, 8, generator=rng) for n, t in ((6, 1), (2, 5), (2, 5))
    )
    mask = torch.zeros(3, 1, 1, 5)
    mask[1, ..., :3] = torch.finfo(torch.float32).min
    out, _ = grouped_attention(torch.nn.Module(), query, key, value, mask, scaling=0.3)
    wide = (half.repeat_interleave(3, dim=1) for half in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, *wide, attn_mask=mask, scale=0.3
    )
    torch.testing.assert_close(out, expected.transpose(1, 2))


def test_attention_is_as_before_afterwards_and_grouped_within(monkeypatch):
    model = tiny("qwen2", seed=4)
    within, real = set(), static_decode.last_scores

    def watched(given, count, **inputs):
        within.add(given.config._attn_implementation)
        return real(given, count, **inputs)

    monkeypatch.setattr(static_decode, "last_scores", watched)
    generate(model, static=True)
    assert within == {static_decode.GROUPED}
    assert model.config._attn_implementation == "sdpa"
    monkeypatch.setattr(static_decode, "last_scores", lambda *_args, **_more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(model, static=True)
    assert model.config._attn_implementation == "sdpa"


def test_a_cpu_decodes_as_ever_unless_asked(monkeypatch):
    monkeypatch.setattr(static_decode, "decode_static", lambda *_args, **_more: 1 / 0)
    assert generate(tiny("qwen2"), static=None) == generate(tiny("qwen2"), static=False)
    with pytest.raises(ZeroDivisionError):
        generate(tiny("qwen2"), static=True)


class _Watched(TorchDispatchMode):
    """What is called while ``on``."""

    def __init__(self):
        super().__init__()
        self.on, self.names = False, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.on:
            self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", STATIC)
def test_a_step_asks_the_host_for_nothing(name, monkeypatch):
    """No number is read and no tensor is made from Python's numbers: neither can be recorded."""
    calls, real = _Watched(), static_decode._Batch._step

    def watched(batch, count):
        step, made = real(batch, count)

        def observed():
            calls.on = True
            step()
            calls.on = False

        return observed, made

    monkeypatch.setattr(static_decode._Batch, "_step", watched)
    with calls:
        generate(tiny(name), static=True, banned=[5])
    assert "aten::index_copy_" in calls.names
    forbidden = ("_local_scalar_dense", "nonzero", "lift_fresh", "is_nonzero", "equal")
    assert not {call for call in calls.names if call.split("::")[1].split(".")[0] in forbidden}


def test_models_whose_step_cannot_be_repeated_are_refused():
    assert unlike_static(tiny("qwen2")) is None
    moving = tiny_llama(
        64, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    )
    assert "rotary embedding" in (unlike_static(moving) or "")
    with pytest.raises(ValueError, match="static decoding cannot be had"):
        generate(moving, static=True)
    assert "cannot be recorded" in (unlike_static(tiny("falcon")) or "")


@pytest.mark.gpu
def test_steps_are_recorded_and_replayed():
    """Bit for bit what the same steps give when the host runs them, in bf16 at a real width."""
    model = tiny("qwen2", seed=4).to("cuda", torch.bfloat16)
    recorded = TransformersBackend(model, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = recorded.generate(prompts(), max_new_tokens=TOKENS, stop_ids=[STOP])
    assert recorded._graphs is not None
    assert recorded._graphs.recorded > 1
    by_host = TransformersBackend(model, 0)
    by_host._graphs = StepGraphs(torch.device("cuda"))
    by_host._graphs.usable = False
    assert by_host.generate(prompts(), max_new_tokens=TOKENS, stop_ids=[STOP]) == made
    assert by_host._graphs.recorded == 0


@pytest.mark.gpu
def test_a_step_that_cannot_be_recorded_is_run_by_the_host():
    graphs = StepGraphs(torch.device("cuda"))
    seen = []

    def step():
        seen.append(float(torch.ones(1, device="cuda").sum()))

    with graphs.stream(), pytest.warns(UserWarning, match="without a CUDA graph"):
        repeat = graphs.record(step)
    repeat()
    assert seen == [1.0]
    assert not graphs.usable


class _Played:
    """What recording uses of ``torch.cuda``; ``fails`` is how often a recording fails."""

    def __init__(self, fails=0):
        self.fails, self.pools, self.said = fails, [], []

    def Stream(self, device):
        return self

    def current_stream(self, device):
        outside = _Played()
        outside.said, outside.wait_stream = self.said, lambda other: self.said.append("out waits")
        return outside

    def wait_stream(self, other):
        self.said.append("in waits")

    @contextmanager
    def stream(self, chosen):
        assert chosen is self
        self.said.append("in")
        yield
        self.said.append("out")

    def CUDAGraph(self):
        graph = SimpleNamespace(replay=lambda: self.said.append("replayed"))
        graph.pool = lambda: graph
        return graph

    @contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        assert stream is self
        self.pools.append((graph, pool))
        yield
        if self.fails:
            self.fails -= 1
            raise RuntimeError("cannot be captured")


@pytest.fixture
def played(monkeypatch):
    made = _Played()
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(made, name))
    return made


def test_every_recording_goes_into_the_memory_of_the_last(played):
    graphs, runs = StepGraphs(torch.device("cpu")), []
    assert (graphs.usable, graphs.recorded) == (True, 0)
    repeats = [graphs.record(lambda: runs.append(1)) for _ in range(3)]
    assert (graphs.usable, graphs.recorded, len(runs)) == (True, 3, 3)
    recorded = [graph for graph, _ in played.pools]
    assert [pool for _, pool in played.pools] == [None, *recorded[:2]]
    repeats[0]()
    assert played.said == ["replayed"]
    assert len(runs) == 3


def test_after_a_failed_recording_steps_are_run_as_they_are(played):
    graphs, runs = StepGraphs(torch.device("cpu")), []
    played.fails = 1

    def step():
        runs.append(1)

    with pytest.warns(UserWarning, match="without a CUDA graph, slower") as said:
        assert graphs.record(step) is step
    assert said[0].filename == __file__  # whoever asked for it
    assert (graphs.usable, graphs.recorded) == (False, 0)
    assert graphs.record(step) is step
    assert (len(played.pools), len(runs)) == (1, 1)


def test_recorded_work_is_in_order_with_what_is_around_it(played):
    graphs = StepGraphs(torch.device("cpu"))
    with graphs.stream():
        played.said.append("work")
    assert played.said == ["in waits", "in", "work", "out", "out waits"]
