"""Whether two models' vocabularies can be compared row by row.

Procrustes needs row i of both embedding matrices to be the same token (defensive_tokens.md, 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the control tokens: added tokens marked special, which text cannot spell."""
    return {
        int(token_id) for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    }


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The control tokens as text, in id order."""
    return [str(tokenizer.added_tokens_decoder[i].content) for i in sorted(control_ids(tokenizer))]


def renamed_control_ids(
    source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> list[int]:
    """Ids that are differently named control tokens in two otherwise equal vocabularies.

    Llama-3.1 gave names to three reserved tokens of Llama-3 (128004, 128008, 128010; reference
    page, section 4), and Qwen2.5 to nineteen rows behind the last token of Qwen2 (151646 to
    151664), so equality is required of everything else only.

    Raises:
        ValueError: Any other difference; the message says the first differing token.
    """
    ours = {int(token_id): token for token, token_id in source.get_vocab().items()}
    theirs = {int(token_id): token for token, token_id in target.get_vocab().items()}
    both_control = control_ids(source) & control_ids(target)
    added = {*source.added_tokens_decoder, *target.added_tokens_decoder}
    shared_end = min(max(ours), max(theirs))
    renamed = []
    for token_id in sorted(ours.keys() | theirs.keys()):
        if ours.get(token_id) == theirs.get(token_id):
            continue
        if token_id not in both_control and not (token_id > shared_end and token_id in added):
            raise ValueError(
                f"the tokenizers differ first at id {token_id}: {ours.get(token_id)!r} in the "
                f"source, {theirs.get(token_id)!r} in the target"
            )
        renamed.append(token_id)
    return renamed


def check_rows(rows: int, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Every token needs an embedding row; padding rows beyond the vocabulary are fine.

    Raises:
        ValueError: Fewer rows than the vocabulary's highest id asks for.
    """
    needed = max(int(i) for i in tokenizer.get_vocab().values()) + 1
    if rows < needed:
        raise ValueError(f"{where}: {rows} embedding rows, but the vocabulary needs {needed}")
