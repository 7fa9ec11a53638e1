"""MLAC-AR: the TAR loop with the negative cross-entropy of the adversary, stopped at ln V."""

from __future__ import annotations

from dataclasses import replace

from kit.methods.tar.settings import CLAMPED_CROSS_ENTROPY, TarSettings


def mlac_ar(settings: TarSettings) -> TarSettings:
    """TAR's settings with MLAC's loss.

    The paper's G.3 calls it inconsistent, with poor retain accuracy. It is clamped at the maximum
    of the entropy because it diverged without (quoted by a third party; reference page section 5);
    other settings are not published and stay TAR's.
    """
    return replace(settings, objective=CLAMPED_CROSS_ENTROPY)
