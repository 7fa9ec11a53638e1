"""One thread, and the tiny world of ``tests/lm``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

# Test folders are no packages, so a shared helper has to be put on the path.
sys.path.insert(0, str(Path(__file__).parents[2] / "lm"))
torch.set_num_threads(1)
