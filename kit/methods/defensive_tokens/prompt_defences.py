"""Prompting defences: sentences that a developer adds around the untrusted data.

A user's own defence is written ``NAME=text with {data}``, where ``{data}`` stands for the untrusted
turn and ``{instruction}`` for the sample's instruction, or ``NAME=module:function``: a function of
the untrusted turn and the instruction that gives the turn which the model sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from kit.methods.defensive_tokens.samples import Sample


@dataclass(frozen=True)
class PromptDefence:
    """What is added to the trusted turn and behind the untrusted data (DTP, section 4.2).

    Attributes:
        after_instruction: Appended to the instruction (Reminder), as it is: what stands between
            the two (a space) is its beginning.
        after_data: Appended to the data turn, behind any attack (Sandwich); ``{instruction}`` is
            replaced by the sample's instruction. The authors begin it with two line ends.
        rewrite: (data turn, instruction) -> data turn, before anything is added.
    """

    after_instruction: str = ""
    after_data: str = ""
    rewrite: Callable[[str, str], str] | None = None

    def instruction(self, sample: Sample) -> str:
        """The trusted turn."""
        return sample.instruction + self.after_instruction

    def data(self, sample: Sample, data: str) -> str:
        """The untrusted turn, attack included.

        Raises:
            ValueError: A user's function gave no text.
        """
        if self.rewrite is not None:
            data = self.rewrite(data, sample.instruction)
            if not isinstance(data, str):
                raise ValueError(f"a defence gave {type(data).__name__} for a data turn, no text")
        return data + self.after_data.replace("{instruction}", sample.instruction)


NO_DEFENCE = PromptDefence()

_OWN = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)=(?P<value>.+)", re.DOTALL)
_FUNCTION = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")
HOW_TO = "NAME=text with {data} in it, or NAME=module:function"


def own_defence(written: str) -> tuple[str, str, str]:
    """Name, and either template and nothing, or module and function, of a user's defence.

    Raises:
        ValueError: Written otherwise.
    """
    own = _OWN.fullmatch(written)
    function = _FUNCTION.fullmatch(own["value"]) if own else None
    if own and function:
        return own["name"], function["module"], function["function"]
    if own and "{data}" in own["value"]:
        return own["name"], own["value"], ""
    raise ValueError(f"no defence: {written!r}; write {HOW_TO}")


def load_defence(written: str) -> tuple[str, PromptDefence]:
    """Name and defence of a user's entry; a function's module is imported.

    Raises:
        ValueError: Written otherwise, or there is no such function.
    """
    name, where, function = own_defence(written)
    if not function:
        return name, PromptDefence(rewrite=_around(where))
    try:
        rewrite = getattr(import_module(where), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the defence {name!r}: {error}") from error
    if not callable(rewrite):
        raise ValueError(f"the defence {name!r}: {where}:{function} is no function")
    return name, PromptDefence(rewrite=rewrite)


def _around(template: str) -> Callable[[str, str], str]:
    # The data last: what an attacker writes is never read as a slot.
    before, _, after = template.partition("{data}")
    return lambda data, instruction: (
        before.replace("{instruction}", instruction)
        + data
        + after.replace("{instruction}", instruction)
    )
