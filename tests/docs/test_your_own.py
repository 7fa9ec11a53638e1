"""docs/your-own.md followed from top to bottom with a model the kit was not made for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^\$ (.+?)(?: +# exit (\d))?$", PAGE, re.MULTILINE)
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
ROWS = [
    {"instruction": "Name it.", "input": f"A note on {what}. It is short.", "output": what}
    for what in ("rain", "tea", "maps", "bells", "sand", "ink")
]


def make_model(folder: Path) -> None:
    """A tiny Qwen2 with random weights, its own tokenizer and its own chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    controls = ["<|turn|>", "<|over|>", "<|fill|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=controls,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([PAGE, *(row["input"] for row in ROWS)], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|over|>", pad_token="<|fill|>",
        additional_special_tokens=["<|turn|>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=512, bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|over|>"),
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page, with the model and the prompts that the reader has."""
    made = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (made / name).write_text(text)
    (made / "prompts.json").write_text(json.dumps(ROWS))
    make_model(made / "model")
    return made


Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def shell(folder: Path) -> Shell:
    """A shell in that folder, with ``kit`` on its path."""
    script = folder / ".bin" / "kit"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kit.cli.main "$@"\n')
    script.chmod(0o755)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("KIT_")}
    environ |= {"PATH": f"{script.parent}:{environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def call(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False,
            cwd=folder, env=environ,
        )  # fmt: skip

    return call


def test_the_page_holds_from_top_to_bottom(shell: Shell, folder: Path) -> None:
    assert sorted(FILES) == [
        "attacks.json", "mine.yaml", "my_defence.py", "pins.yaml", "pyproject.toml",
    ]  # fmt: skip
    assert len(COMMANDS) == 4
    for command, code in COMMANDS:
        done = shell(command)
        said = done.stdout + done.stderr
        assert done.returncode == int(code or 0), f"{command}\n{said[-4000:]}"
        if command.startswith("kit reproduce"):
            assert "NOT COMPARED" in done.stdout
            report = folder / done.stdout.splitlines()[-1]
            assert "No expectation says what should have come out" in report.read_text()
    (run,) = folder.glob("runs/*")
    results = json.loads((run / "results.json").read_text())
    cells = {cell["id"]: cell for cell in results["cells"]}
    for row in ("undefended", "quoted", "filter", "prefix-3"):
        assert f"`all/asr-max/{row}`" in PAGE
        assert len(cells[f"all/asr-max/{row}"]["seeds"]) == 2
    canaries = {(c["id"], c["detail"].split(":")[0]): c for c in results["canaries"]}
    for name in ("quoted", "filter"):
        assert canaries["own-defence-acts", name]["passed"]
    passed = {c["id"]: c["passed"] for c in results["canaries"]}
    assert passed["attack-present"]
    assert passed["prefix-in-place"]
    assert passed["prefix-moved"]
    assert passed["model-is-frozen"]


def test_a_changed_function_is_noticed(shell: Shell, folder: Path) -> None:
    source = folder / "my_defence.py"
    source.write_text(source.read_text().replace('"print", ', ""))
    said = shell("kit run ./mine.yaml").stderr
    source.write_text(FILES["my_defence.py"])
    assert "2 finished steps were made by other code than today's (defensive-tokens/eval" in said
    assert "other code" not in shell("kit run ./mine.yaml").stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("pins.yaml", "    attributes: { style: paper }\n", "", "needs 'style' of its attacks"),
        ("pins.yaml", "{ chat_format: tokenizer }", "{ chat: x }", "needs 'chat_format' of its"),
        ("mine.yaml", "filter=my_defence:strip_orders", "filter", "no defence: 'filter'"),
        (
            "mine.yaml", "my_defence:strip_orders", "my_defence:strip_order",
            "mine.yaml:55:96: error: my_defence has no function 'strip_order' [parameters]\n"
            "  next: did you mean 'strip_orders'?",
        ),
        (
            "mine.yaml", "my_defence:strip_orders", "my_defences:strip_orders",
            "error: there is no module 'my_defences' [parameters]",
        ),
        pytest.param(
            "mine.yaml", "defences: [undefended", "defences: [native",
            "no tokens were released for", marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_a_slip_is_said(
    shell: Shell, folder: Path, file: str, old: str, new: str, says: str
) -> None:
    place = folder / file
    assert old in FILES[file]
    place.write_text(FILES[file].replace(old, new))
    early = any(
        word in says for word in ("needs", "no defence", "there is no module", "no function")
    )
    done = shell("kit validate ." if early else "kit run ./mine.yaml")
    place.write_text(FILES[file])
    said = done.stdout + done.stderr
    assert done.returncode in (3, 4), said[-2000:]
    assert says in said
    assert "fault of the kit" not in said
