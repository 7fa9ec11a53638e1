"""Steps ``align`` and ``transfer``: the map between two vocabularies, and what it carries over."""

from __future__ import annotations

from kit.engine.context import StepContext
from kit.engine.registry import REGISTRY
from kit.steps.common import model_imports
from kit.steps.defensive_tokens.files import SETS, write_json
from kit.steps.defensive_tokens.inputs import embeddings, full_prefix, tokenizer
from kit.steps.defensive_tokens.params import Align, Transfer


@REGISTRY.kind(
    "defensive-tokens/align",
    version=1,
    imports=model_imports,
    inputs={"source": "model", "target": "model"},
    outputs=("alignment.safetensors", "alignment.json"),
    canaries=("map-is-orthogonal", "map-is-unique"),
)
def run_align(ctx: StepContext, params: Align) -> None:
    """Fit the orthogonal map between two vocabularies."""
    from kit.lm.vocabulary import renamed_control_ids
    from kit.methods.defensive_tokens.alignment_files import describe, save_alignment
    from kit.methods.defensive_tokens.procrustes import orthogonal_map, unit_length_weights

    renamed_control_ids(tokenizer(ctx, "source"), tokenizer(ctx, "target"))
    source, target = embeddings(ctx, "source"), embeddings(ctx, "target")
    alignment = orthogonal_map(
        source,
        target,
        center=params.center,
        scale=params.scale,
        row_weights=unit_length_weights(source, target) if params.row_weights != "equal" else None,
        device=ctx.device,
    )
    save_alignment(ctx.out / "alignment.safetensors", alignment)
    facts = {**describe(alignment), "rows": int(source.shape[0])}
    write_json(ctx.out / "alignment.json", facts)
    ctx.canary(
        "map-is-orthogonal",
        facts["orthogonality_error"] < 1e-6,
        f"||W^T W - I||_F = {facts['orthogonality_error']:.1e}",
    )
    ctx.canary(
        "map-is-unique",
        bool(facts["unique"]),
        f"smallest singular value {facts['smallest_singular_value']:.3g}",
    )


@REGISTRY.kind(
    "defensive-tokens/transfer",
    version=2,
    inputs={
        "source": "model",
        "target": "model",
        "align": "step",
        "released": "pin",
        "source_trained": "step",
        "native": "step",
    },
    optional=frozenset({"released", "source_trained", "native"}),
    outputs=(SETS, "geometry.json"),
)
def run_transfer(ctx: StepContext, params: Transfer) -> None:
    """Carry the source's own prefix over, and make the controls."""
    from kit.methods.defensive_tokens.alignment_files import load_alignment
    from kit.methods.defensive_tokens.prefix_sets import save_sets
    from kit.methods.defensive_tokens.transfer_sets import transfer_geometry, transfer_sets

    alignment = load_alignment(ctx.step("align").path / "alignment.safetensors")
    own = full_prefix(ctx, "source", n=params.tokens, trained="source_trained")
    native = full_prefix(ctx, "target", n=params.tokens, trained="native")
    sets = transfer_sets(own, native, alignment, seed=params.seed, names=params.sets)
    save_sets(ctx.out / SETS, sets)
    write_json(ctx.out / "geometry.json", transfer_geometry(own, native, sets))
