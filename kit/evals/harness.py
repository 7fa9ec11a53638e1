"""Multiple choice through lm-evaluation-harness: the same questions, scored by its own code.

At full size the published numbers were made with the harness. Its tasks are loaded from the hub
under names that move; here its scorer is given the questions of pinned files, so that what is asked
is fixed by the pin and how it is scored by the harness. On shared items both scorers agree to 1e-6
(tests/evals/test_evals_choices.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kit.evals.multiple_choice import DELIMITER, Question, Scored, items_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 2048
"""Tokens of a prompt with its option; the published models' context."""


def task_of(name: str, questions: Sequence[Question]) -> Any:
    """A multiple-choice task of the harness over questions in memory, without examples."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    rows = [{"prompt": q.prompt, "options": list(q.options), "answer": q.answer} for q in questions]

    def in_memory(**_: Any) -> dict[str, Any]:
        return {"test": datasets.Dataset.from_list(rows)}

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": in_memory,
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "options",
            "doc_to_target": "answer",
            "target_delimiter": DELIMITER,
            "num_fewshot": 0,
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
    )


def harness_score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    batch: int = 16,
) -> list[Scored]:
    """What :func:`kit.evals.multiple_choice.score` returns, by the harness.

    Args:
        model: Of transformers.
        tokenizer: Its own; the harness encodes the texts.
        questions: With ids of their own.
        batch: Sequences of a forward pass.

    Raises:
        ValueError: No questions, or one that cannot be scored; an answer that the harness left
            out. The published scripts counted a missing result as .25.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    def encode(text: str) -> list[int]:
        ids: Any = tokenizer.encode(text, add_special_tokens=False)
        return list(ids)

    items = items_of(questions, encode)
    scorer = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch,
        device=str(model.device),
        max_length=LONGEST,
        add_bos_token=False,
    )
    results = simple_evaluate(scorer, tasks=[task_of("questions", questions)], bootstrap_iters=0)
    samples = {sample["doc_id"]: sample["resps"] for sample in results["samples"]["questions"]}
    if sorted(samples) != list(range(len(items))):
        raise ValueError(f"the harness answered {len(samples)} of {len(items)} questions")
    return [
        Scored(
            item.id,
            item.options,
            tuple(float(response[0]) for (response,) in samples[at]),
            item.characters,
            item.answer,
        )
        for at, item in enumerate(items)
    ]
