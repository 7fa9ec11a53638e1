"""The shipped files of this world as entries of ``manifests/pins.mini.yaml``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kit.mini.injection.paths import DATA_DIR, WEIGHTS_DIR, mini_model_dir, mini_model_names

_PACKAGE = Path(__file__).resolve().parents[2]
_TITLES = {"source": "Miniature source model", "newer": "Miniature newer version of source"}


def pins() -> list[str]:
    """The entries, models first."""
    entries = [_model(name) for name in mini_model_names()]
    entries += [
        _single("mini-alpaca", "Training samples of the miniature world", DATA_DIR / "alpaca.json"),
        _single(
            "mini-alpaca-farm",
            "Evaluation prompts of the miniature world",
            DATA_DIR / "alpaca_farm.json",
        ),
        _single(
            "mini-refusal",
            "Evaluation prompts of the miniature world, every second one a request that is refused",
            DATA_DIR / "refusal.json",
        ),
        _single(
            "mini-attacks",
            "Attack strings of the miniature world",
            DATA_DIR / "attacks.json",
            "    attributes:\n      style: mini\n",
        ),
        _single(
            "mini-defensive-tokens",
            "Released DefensiveTokens of the miniature models",
            WEIGHTS_DIR / "defensivetokens.json",
        ),
    ]
    return entries


def _model(name: str) -> str:
    kind, seed = name.split("-")
    folder = mini_model_dir(name)
    files = "".join(_file(path) for path in sorted(folder.iterdir()))
    return (
        _head(f"mini-{name}", f"{_TITLES[kind]} {seed}", folder)
        + f"    files:\n{files}"
        + f"    attributes:\n      chat_format: mini\n      released_tokens_key: {name}\n"
        + f"    source: made by `kit mini build injection`, seed {seed}\n"
    )


def _single(id: str, title: str, path: Path, attributes: str = "") -> str:
    return _head(id, title, path) + attributes + "    source: made by `kit mini build injection`\n"


def _head(id: str, title: str, path: Path) -> str:
    return (
        f"  - id: {id}\n    kind: package\n    title: {title}\n    licence: Apache-2.0\n"
        f"    path: {path.relative_to(_PACKAGE).as_posix()}\n"
    )


def _file(path: Path) -> str:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f'      - {{ path: {path.name}, sha256: "{digest}", size: {len(content)} }}\n'
