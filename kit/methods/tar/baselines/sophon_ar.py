"""SOPHON-AR, first order: the TAR loop with SOPHON's inverse cross-entropy."""

from __future__ import annotations

from dataclasses import replace

from kit.methods.tar.settings import INVERSE_CROSS_ENTROPY, TarSettings


def sophon_ar(settings: TarSettings) -> TarSettings:
    """TAR's settings with the loss -log(1 - p(label)).

    The paper's G.3 says that it fails to converge. Its other settings are not published and stay
    TAR's. SOPHON itself uses K = 50 and several fine-tuning strategies an outer step.
    """
    return replace(settings, objective=INVERSE_CROSS_ENTROPY)
