"""Prompting defences: sentences that a developer adds around the untrusted data."""

from __future__ import annotations

from dataclasses import dataclass

from kit.methods.defensive_tokens.samples import Sample


@dataclass(frozen=True)
class PromptDefence:
    """What is added to the trusted turn and behind the untrusted data (DTP, section 4.2).

    Attributes:
        after_instruction: Appended to the instruction (Reminder), as it is: what stands between
            the two (a space) is its beginning.
        after_data: Appended to the data turn, behind any attack (Sandwich); ``{instruction}`` is
            replaced by the sample's instruction. The authors begin it with two line ends.
    """

    after_instruction: str = ""
    after_data: str = ""

    def instruction(self, sample: Sample) -> str:
        """The trusted turn."""
        return sample.instruction + self.after_instruction

    def data(self, sample: Sample, data: str) -> str:
        """The untrusted turn, attack included."""
        return data + self.after_data.replace("{instruction}", sample.instruction)


NO_DEFENCE = PromptDefence()
