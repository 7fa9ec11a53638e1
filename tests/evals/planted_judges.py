"""Judges that are a function of the text they are asked, behind the backend interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from kit.evals.judge_prompts import Template
from kit.lm.backend import Generation, LogLikelihood
from tests.lm.tiny_world import llama3_tokenizer

CHAT = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant"
    "<|end_header_id|>\n\n{% endif %}"
)
HARMBENCH = Template("[INST] B: {behavior} G: {generation} ? [/INST]")
RUBRIC = Template("U: {prompt}\nR: {response}\nRate.")
RATING = {
    "single-v1": Template("Q: {question} A: {answer}", "judge"),
    "single-math-v1": Template("Q: {question} A: {answer} REF: {ref_answer_1}", "judge"),
    "single-v1-multi-turn": Template("{question_1}|{answer_1}|{question_2}|{answer_2}", "both"),
    "single-math-v1-multi-turn": Template(
        "{question_1}|{answer_1}|{ref_answer_1}|{question_2}|{answer_2}|{ref_answer_2}", "both"
    ),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a chat template."""
    made = llama3_tokenizer()
    made.chat_template = CHAT
    made.eos_token, made.bos_token = "<|end_of_text|>", "<|begin_of_text|>"
    return made


class Planted:
    """Writes what a function says of the prompt's text; keeps the prompts' ids."""

    vocabulary_size = 1000

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says, self.tokenizer = says, tokenizer()
        self.asked: list[list[int]] = []
        self.most: list[int] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, **_: Any
    ) -> list[Generation]:
        """Whole answers, whatever their length in this tokenizer."""
        self.asked += [list(prompt) for prompt in prompts]
        self.most.append(max_new_tokens)
        wrote = [self.says(str(self.tokenizer.decode(list(prompt)))) for prompt in prompts]
        ids = [self.tokenizer.encode(text, add_special_tokens=False) for text in wrote]
        return [Generation(tuple(one), "stop") for one in ids]

    def loglikelihoods(self, pairs: Any, **_: Any) -> list[LogLikelihood]:
        raise NotImplementedError("no judge is read by likelihood")

    def texts(self) -> list[str]:
        """The prompts as text, control tokens included."""
        return [str(self.tokenizer.decode(prompt)) for prompt in self.asked]
