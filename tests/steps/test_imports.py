"""What kinds name for a process that is started early is there, and what they import later."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from kit.steps.common import model_imports

PARAMS = [
    SimpleNamespace(),
    SimpleNamespace(backend="transformers", compile=False),
    SimpleNamespace(compile=True),
    SimpleNamespace(compiled=True),
    SimpleNamespace(backend="vllm"),
]


@pytest.mark.parametrize("params", PARAMS)
def test_every_module_is_there(params: SimpleNamespace) -> None:
    names = model_imports(params)
    assert names
    assert [name for name in names if find_spec(name) is None] == []


def test_what_is_named_is_what_takes_the_time() -> None:
    """After it, loading and compiling a model imports next to nothing of torch's compiler."""
    code = """
import sys
from importlib import import_module
from types import SimpleNamespace
from kit.steps.common import model_imports
for name in model_imports(SimpleNamespace(compile=True)):
    import_module(name)
before = set(sys.modules)
from kit.lm.load import load_model
from transformers import AutoConfig, AutoModelForCausalLM
import torch
torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
late = [n for n in set(sys.modules) - before if n.startswith(("torch.", "transformers."))]
print(len(late), torch.cuda.is_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    late, touched = done.stdout.split()[-2:]
    assert touched == "False"
    assert int(late) < 100
