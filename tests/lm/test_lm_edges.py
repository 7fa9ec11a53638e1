"""Which way is taken at an edge: decoding, scoring, chat templates, vLLM, stand-in folders."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from kit.lm import generate, standin, static_decode
from kit.lm.backend import check_pairs
from kit.lm.chat import Special, Text
from kit.lm.formats import read_format
from kit.lm.forward import unlike_plain_head
from kit.lm.generate import TransformersBackend
from kit.lm.load import load_model, load_tokenizer, save_model
from kit.lm.static_decode import GROUPED, _grouped_attention, unlike_static
from kit.lm.template import _cut, _pad
from kit.lm.vllm_backend import MIXED_SIZES, SIZES, VllmBackend, _likelihood
from kit.lm.vocabulary import control_ids, renamed_control_ids
from kit.mini.chat import MINI
from tests.lm.families import tiny
from tests.lm.test_lm_files import fake
from tests.lm.test_vllm_backend import PROMPTS, ROWS, STOP, backend  # noqa: F401
from tests.lm.tiny_world import mini_tokenizer, tiny_llama


@pytest.mark.parametrize(
    ("continuation", "known"),
    [([0, 63], True), ([5, 64], False), ([64, 5], False), ([-1, 5], False), ([5, -1], False)],
)
def test_every_id_of_a_continuation_is_in_the_vocabulary(
    continuation: list[int], known: bool
) -> None:
    pairs = [([1], [2]), ([1], continuation)]
    if known:
        check_pairs(pairs, 64)
    else:
        with pytest.raises(ValueError, match="pair 1 continues with an id"):
            check_pairs(pairs, 64)


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logits_scaling", "logit_scale"])
@pytest.mark.parametrize(
    ("value", "plain"), [(None, True), (1.0, True), (3.0, False), (0.5, False)]
)
def test_scores_that_a_model_changes_are_not_those_of_its_output_matrix(
    name: str, value: float | None, plain: bool
) -> None:
    config: Any = SimpleNamespace(model_type="llama", **{name: value})
    said = unlike_plain_head(config)
    assert (said is None) is plain
    assert said is None or f"{name}: {value}" in said


def test_scores_of_a_batch_take_a_gibibyte_and_buffers_fit_an_attention_kernel() -> None:
    """A kernel reads a mask in float16 by 16 bytes at a time; a row must be whole ones."""
    assert generate.MOST_SCORES * torch.float32.itemsize == 2**30
    assert static_decode.COLUMNS * torch.float16.itemsize % 16 == 0
    widths = [static_decode._rounded(width) for width in range(1, 200)]
    assert all(width <= made < width + 16 for width, made in enumerate(widths, 1))
    assert not [made for made in widths if made * torch.float16.itemsize % 16]


def test_graphs_are_recorded_for_powers_of_two_and_then_for_multiples_of_eight() -> None:
    few = [size for size in SIZES if size < 8]
    assert few == [1, 2, 4]
    assert not [size for size in SIZES[len(few) :] if size % 8]
    assert list(SIZES) == sorted(set(SIZES))
    # As documented: steps of many tokens are padded by 6 % on average.
    many = range(257, 2049)
    padding = [min(size for size in MIXED_SIZES if size >= n) / n - 1 for n in many]
    assert sum(padding) / len(many) == pytest.approx(0.06, abs=0.015)


@pytest.mark.parametrize(
    ("kind", "static", "way"),
    [
        ("llama", None, "decode_batch"),
        ("llama", False, "decode_batch"),
        ("llama", True, "decode_static"),
        ("falcon", None, "decode_batch"),
        ("falcon", False, "decode_batch"),
    ],
)
def test_a_cpu_decodes_in_fixed_shapes_only_when_asked(
    kind: str, static: bool | None, way: str
) -> None:
    made: Any = TransformersBackend(tiny(kind), 0, static=static)._decoder()
    assert made.func.__name__ == way


def test_no_prompts_need_no_room() -> None:
    model = tiny_llama(max_position_embeddings=16)
    whole = TransformersBackend(model, 0)
    assert whole.generate([], max_new_tokens=16, stop_ids=[]) == []
    with pytest.raises(ValueError, match="prompt 1 has 2 tokens and 15 more"):
        whole.generate([[1], [1, 2], [3]], max_new_tokens=15, stop_ids=[])


@pytest.mark.parametrize(
    ("attention", "keys", "inside"),
    [("sdpa", 2, GROUPED), ("sdpa", 4, "sdpa"), ("eager", 2, "eager"), ("eager", 4, "eager")],
)
def test_attention_is_by_groups_where_keys_are_shared_and_it_is_the_plain_kernel(
    attention: str, keys: int, inside: str
) -> None:
    model = tiny_llama(num_key_value_heads=keys)
    model.config._attn_implementation = attention
    with _grouped_attention(model):
        assert model.config._attn_implementation == inside
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("kind", ["empty", "elsewhere"])
@pytest.mark.parametrize("name", ["lm_head", "model.norm"])
def test_a_model_with_a_single_weight_that_is_not_here_cannot_decode_in_fixed_shapes(
    kind: str, name: str
) -> None:
    model = tiny_llama()
    assert unlike_static(model) is None
    weight = torch.empty(0) if kind == "empty" else torch.empty(3, device="meta")
    model.get_submodule(name).weight = torch.nn.Parameter(weight, requires_grad=False)
    assert "not whole on a single device" in (unlike_static(model) or "")


@pytest.mark.parametrize(("free", "pad"), [(("<x>",), "<x>"), ((), None)])
def test_what_fills_batches_is_a_control_token_that_the_format_does_not_need(
    free: tuple[str, ...], pad: str | None
) -> None:
    names = {name: i for i, name in enumerate(("<s>", "</s>", *free))}
    tokens: Any = fake(names, special=tuple(names.values()))
    tokens.pad_token, tokens.unk_token = "</s>", None
    if pad is None:
        with pytest.raises(ValueError, match="no token that could fill batches"):
            _pad(tokens, {"<s>", "</s>"})
    else:
        assert _pad(tokens, {"<s>", "</s>"}) == pad
    assert _pad(tokens, {"<s>"}) == "</s>"


def test_of_control_tokens_that_begin_alike_the_longest_is_meant() -> None:
    tokens: Any = fake({"<s>": 0, "<s>x": 1, "a": 2}, special=(0, 1))
    assert _cut(tokens, "<s>xa<s>a", None) == (
        Special("<s>x"),
        Text("a"),
        Special("<s>"),
        Text("a"),
    )


@pytest.mark.parametrize(
    ("ranks", "greedy"), [((1, 1), True), ((1, 2), False), ((2, 1), False), ((2, 2), False)]
)
def test_a_continuation_is_greedy_where_each_of_its_tokens_is_the_best(
    ranks: tuple[int, int], greedy: bool
) -> None:
    entries = [
        {token: SimpleNamespace(logprob=-float(token), rank=rank)}
        for token, rank in zip((5, 6, 7), (9, *ranks), strict=True)
    ]
    made = _likelihood([None, *entries], [4, 5, 6, 7], 2)
    assert (made.total, made.tokens, made.greedy) == (-13.0, 2, greedy)


def test_only_ids_that_there_are_can_be_banned(backend: VllmBackend) -> None:  # noqa: F811
    backend.generate([[1]], max_new_tokens=1, stop_ids=STOP, banned_ids=(-1, 0, 63, 64))
    ((_, asked),) = backend.engine.seen
    assert set(asked.logit_bias) == {0, 63, *ROWS}
    assert asked.temperature == 0


def test_scoring_is_of_the_unchanged_distribution(backend: VllmBackend) -> None:  # noqa: F811
    backend.loglikelihoods([([1, 5], [6])])
    ((_, asked),) = backend.engine.seen
    assert (asked.temperature, asked.max_tokens, asked.prompt_logprobs) == (0, 1, 0)
    assert not asked.detokenize


def test_a_prefix_may_have_fewer_vectors_than_there_are_rows(
    backend: VllmBackend,  # noqa: F811
) -> None:
    plain, prefix = TransformersBackend(tiny_llama(), pad_id=0), torch.randn(2, 32)
    how: dict[str, Any] = {"max_new_tokens": 6, "stop_ids": STOP, "prefix": prefix}
    prompts = [[64, 65, 1, 5], PROMPTS[0]]
    assert backend.generate(prompts, **how) == plain.generate(prompts, banned_ids=ROWS, **how)


SHAPE = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "vocab_size": 400,
    "eos_token_id": 301,
}


def folder(path: Path, **values: Any) -> Path:
    shape = standin.Shape(SHAPE | values, 400, {"<end>": 301}, ("<r{}>", 390))
    return standin.make_folder(path, shape, words=("river",))


def test_a_stand_in_folder_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_stand_in_s_control_tokens_are_known_as_such(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder(tmp_path))
    assert control_ids(tokenizer) == {301, *range(390, 400)}
    assert tokenizer.decode([301, 390], skip_special_tokens=True) == ""
    assert tokenizer.eos_token == "<end>"
    assert tokenizer.bos_token is None
    known = tokenizer.get_vocab()
    assert tokenizer.encode("river river", add_special_tokens=False) == [
        known["river"],
        known["Ġriver"],
    ]
    text = " a  river,\n\nx12"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("seed", [0, 1])
def test_random_weights_follow_their_own_seed_alone(tmp_path: Path, seed: int) -> None:
    made = folder(tmp_path)
    weights = []
    for around in (3, 4):
        torch.manual_seed(around)
        model = standin.load_random_model(made, dtype="float32", seed=seed)
        weights.append(model.get_input_embeddings().weight.detach())
    assert torch.equal(*weights)
    other = standin.load_random_model(made, dtype="float32", seed=seed + 1)
    assert not torch.equal(other.get_input_embeddings().weight, weights[0])
    assert float(weights[0].std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
@pytest.mark.parametrize("bars", [True, False])
def test_what_transformers_may_say_is_as_before_after_loading(
    tmp_path: Path, level: int, bars: bool
) -> None:
    before, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity(level)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
        save_model(tiny("llama"), None, tmp_path)
        load_model(tmp_path)
        assert logging.get_verbosity() == level
        assert logging.is_progress_bar_enabled() is bars
    finally:
        logging.set_verbosity(before)
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()


def test_differing_ids_come_in_order_and_the_first_is_named() -> None:
    ids = (64, 8, 1)
    first = fake({f"<a{i}>": i for i in ids}, special=ids)
    second = fake({f"<b{i}>": i for i in ids}, special=ids)
    assert renamed_control_ids(first, second) == [1, 8, 64]
    with pytest.raises(ValueError, match="first at id 1:"):
        renamed_control_ids(fake({f"a{i}": i for i in ids}), fake({f"b{i}": i for i in ids}))


def test_parts_that_a_format_lacks_are_named_in_order() -> None:
    lacking = ["data", "end", "generate", "instruction", "pad", "response", "stop"]
    with pytest.raises(ValueError, match="lines of a chat format") as caught:
        read_format({"z": 1, "y": 2, "x": 3, "w": 4, "v": 5})
    named = ", ".join([*(f"unknown: {k}" for k in "vwxyz"), *(f"missing: {k}" for k in lacking)])
    assert f"({named})" in str(caught.value)


def test_text_that_a_format_repeats_is_encoded_once() -> None:
    words, asked = mini_tokenizer(), Counter[str]()
    plain = words.encode

    def counted(text: str, **how: Any) -> Any:
        asked[text] += 1
        return plain(text, **how)

    words.encode = counted
    chat = replace(MINI, instruction=(Special("[INST]"), Text("copy"), Text("{content}")))
    for content in ("cat", "cat", "dog"):
        chat.prompt_ids(words, content, None)
    assert asked["copycat"] + asked["cat"] == 2, "what somebody writes is not kept"
    assert asked["copy"] == 1


def test_nothing_is_asked_of_a_hub_and_no_code_of_a_folder_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    for maker in (AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast):
        plain = maker.from_pretrained

        def noted(*given: Any, plain: Any = plain, **how: Any) -> Any:
            asked.append(how)
            return plain(*given, **how)

        monkeypatch.setattr(maker, "from_pretrained", noted)
    save_model(tiny("llama"), mini_tokenizer(), tmp_path)
    load_model(tmp_path)
    load_tokenizer(tmp_path)
    standin.load_random_model(tmp_path, dtype="float32")
    assert len(asked) == 4
    assert all(how["local_files_only"] for how in asked)
    assert not any(how.get("trust_remote_code") for how in asked)
    assert [how["use_safetensors"] for how in asked if "use_safetensors" in how] == [True]


def test_control_tokens_of_a_shape_come_in_the_order_of_their_ids() -> None:
    shape = standin.Shape({}, 12, {"<c>": 11, "<a>": 2, "<b>": 9}, ("<r{}>", 8))
    assert list(shape.control_ids().items()) == [
        ("<a>", 2),
        ("<r0>", 8),
        ("<b>", 9),
        ("<r1>", 10),
        ("<c>", 11),
    ]
