"""What an engine of vLLM imports when it starts, taken together: ten to twenty seconds.

Importing this asks nothing of a GPU. Most of it vLLM names as text in its own configuration, so
that importing ``vllm`` alone leaves it to the engine's start.
"""

from __future__ import annotations

import os
from importlib import import_module

from kit.lm.vllm_backend import ENVIRONMENT

NAMES = (
    "vllm",
    "vllm.entrypoints.llm",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.model_executor.models.llama",
)

os.environ.update(ENVIRONMENT)  # read when vLLM is imported
for _name in NAMES:
    import_module(_name)
