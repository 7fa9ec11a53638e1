"""Where methods meet the engine: importing this package registers every step kind.

A module here declares parameters and wires a step's inputs and outputs to functions of
``kit.methods``; it computes nothing itself and imports torch only inside its functions.
"""

from kit.steps import checkpoint_transfer, defensive_tokens, mini, tampering, tar

__all__ = ["checkpoint_transfer", "defensive_tokens", "mini", "tampering", "tar"]
