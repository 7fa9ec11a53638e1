"""The world's released DefensiveTokens: five trained vectors for every shipped model.

They play the part of the published ``defensivetokens.json`` and are in its format. The recipe is
full training as the ``full-dt`` experiment does it, with a seed that no experiment uses.
"""

from __future__ import annotations

import json
from pathlib import Path

from kit.mini.injection.paths import WEIGHTS_DIR, mini_model_dir, mini_model_names

RELEASED_FILE = WEIGHTS_DIR / "defensivetokens.json"
SEED = 7
STEPS = 300
BATCH = 16


def release(root: Path = WEIGHTS_DIR) -> dict[str, list[list[float]]]:
    """Train the tokens of every model below ``root``; model name -> 5 x d numbers."""
    return {name: train_tokens(mini_model_dir(name, root)) for name in mini_model_names(root=root)}


def train_tokens(folder: Path) -> list[list[float]]:
    """Five vectors for one model: StruQ data, labels of its own, 300 steps from random vectors."""
    from kit.lm.generate import TransformersBackend
    from kit.lm.load import load_model, load_tokenizer
    from kit.lm.model import embedding_matrix
    from kit.methods.defensive_tokens import attacks, struq
    from kit.methods.defensive_tokens.alpaca import read_alpaca
    from kit.methods.defensive_tokens.attack_texts import read_json
    from kit.methods.defensive_tokens.examples import Encoding
    from kit.methods.defensive_tokens.layouts import BEFORE_BOS
    from kit.methods.defensive_tokens.prefix_training.config import PrefixTraining
    from kit.methods.defensive_tokens.prefix_training.state import start
    from kit.methods.defensive_tokens.recipe import Recipe, fit, plan_run
    from kit.methods.defensive_tokens.self_label import NO_TURN, make_labels
    from kit.methods.defensive_tokens.transfer import vocabulary_init
    from kit.mini.chat import MINI
    from kit.mini.injection.paths import ATTACKS_FILE, DATA_DIR

    model, tokenizer = load_model(folder), load_tokenizer(folder)
    recipe = Recipe(
        mixture=struq.PROPER,
        encoding=Encoding(layout=BEFORE_BOS),
        training=PrefixTraining(steps=STEPS, micro_batch=BATCH, accumulation=1),
        seed=SEED,
    )
    plan = plan_run(
        read_alpaca(DATA_DIR / "alpaca.json"), read_json(ATTACKS_FILE), attacks.MINI, recipe
    )
    labels = make_labels(
        TransformersBackend(model, MINI.pad_id(tokenizer)),
        tokenizer,
        MINI,
        list(plan.samples.values()),
        layout=BEFORE_BOS,
        max_new_tokens=6,
        empty_data=NO_TURN,
    )
    first = start(vocabulary_init(embedding_matrix(model), 5, SEED))
    run = fit(model, tokenizer, MINI, plan, labels, recipe, first)
    vectors: list[list[float]] = run.state.prefix.tolist()
    return vectors


def write_released(path: Path, tokens: dict[str, list[list[float]]]) -> None:
    """One line a vector, float32 printed exactly."""
    models = []
    for name, rows in tokens.items():
        vectors = ",\n".join("  " + json.dumps([float(f"{v:.9g}") for v in row]) for row in rows)
        models.append(f"{json.dumps(name)}: [\n{vectors}\n]")
    path.write_text("{\n" + ",\n".join(models) + "\n}\n", encoding="utf-8")
