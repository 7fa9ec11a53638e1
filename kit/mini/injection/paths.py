"""Where the shipped files of the miniature world lie."""

from __future__ import annotations

import re
from pathlib import Path

_HERE = Path(__file__).resolve().parent
DATA_DIR = _HERE / "data"
ATTACKS_FILE = DATA_DIR / "attacks.json"
WEIGHTS_DIR = _HERE / "weights"
RECORD_FILE = WEIGHTS_DIR / "build_record.json"
HASHES_FILE = WEIGHTS_DIR / "sha256.json"

_NAME = re.compile(r"(source|newer)-(\d+)")


def mini_model_names(kind: str | None = None, root: Path = WEIGHTS_DIR) -> list[str]:
    """Names of the shipped models, sources first, by ascending seed.

    Args:
        kind: ``"source"`` or ``"newer"``; ``None`` lists both.
        root: The folder that holds one folder a model.
    """
    shipped = []
    for folder in root.iterdir() if root.is_dir() else ():
        match = _NAME.fullmatch(folder.name)
        if match and (folder / "model.safetensors").is_file() and kind in (None, match[1]):
            shipped.append((match[1] != "source", int(match[2]), folder.name))
    return [name for _, _, name in sorted(shipped)]


def mini_model_dir(name: str, root: Path = WEIGHTS_DIR) -> Path:
    """Folder of one shipped model, in Hugging Face layout, tokenizer included.

    Raises:
        ValueError: No such model; the message lists the shipped ones.
    """
    known = mini_model_names(root=root)
    if name not in known:
        raise ValueError(f"unknown miniature model {name!r}; shipped: {', '.join(known) or 'none'}")
    return root / name
