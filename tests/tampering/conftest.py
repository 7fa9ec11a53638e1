"""One thread for every test of this folder: other people's tests run beside them."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
