"""Times, memory and hardware of a run or of a manifest, for the appendix, the crate and the log."""

from __future__ import annotations

from typing import Any

from kit.manifest.types import Manifest, Profile
from kit.plural import plural
from kit.report.files import Run
from kit.report.text import seconds_word


def hardware_line(hardware: dict[str, Any]) -> str:
    """``2 x NVIDIA H100, AMD EPYC 9554 (16 cores, 128 GB)``."""
    names: dict[str, int] = {}
    for gpu in hardware.get("gpus") or []:
        name = str(gpu.get("name", "GPU")) if isinstance(gpu, dict) else str(gpu)
        names[name] = names.get(name, 0) + 1
    parts = [f"{count} x {name}" for name, count in names.items()]
    processor = str(hardware.get("cpu") or "processor not recorded")
    size = [plural(hardware["cores"], "core")] if hardware.get("cores") else []
    size += [f"{hardware['memory_gb']:g} GB"] if hardware.get("memory_gb") else []
    parts.append(f"{processor} ({', '.join(size)})" if size else processor)
    return ", ".join(parts)


def measured_resources(run: Run) -> list[tuple[str, str]]:
    """What the steps of a run really took, and on what."""
    if run.record is None:
        return []
    steps = run.record.steps.values()
    ran = [step for step in steps if step.state == "run"]
    rows = [
        ("hardware", hardware_line(run.record.hardware)),
        ("wall time of this run", seconds_word(run.record.seconds)),
        ("steps", f"{len(ran)} run, {len(list(steps)) - len(ran)} from the store or not run"),
        ("time of all steps, one after another", seconds_word(sum(s.seconds for s in steps))),
    ]
    memory = max((step.peak_memory_gb for step in steps), default=0.0)
    gpu_memory = max((step.peak_gpu_memory_gb for step in steps), default=0.0)
    rows += [("largest memory of a step", f"{memory:.1f} GB")] if memory else []
    rows += [("largest GPU memory of a step", f"{gpu_memory:.1f} GB")] if gpu_memory else []
    return rows


def declared_resources(manifest: Manifest, profile: Profile) -> list[tuple[str, str]]:
    """What a manifest says its steps need, before anything was run."""
    known = {step.id for step in manifest.steps}
    needs = [need for id, need in profile.resources.items() if id in known]
    if not needs:
        return [("resources", "not declared in the manifest; `kit plan` estimates them")]
    rows = [("steps with declared needs", plural(len(needs), "step"))]
    gpus = max(need.gpus for need in needs)
    rows.append(("GPUs", str(gpus) if gpus else "none"))
    if gpus:
        most = max(need.gpu_memory_gb for need in needs)
        rows.append(("memory of each GPU", f"{most:g} GB"))
    rows.append(("memory", f"{max(need.memory_gb for need in needs):g} GB"))
    rows.append(("time, once a step", seconds_word(60 * sum(need.minutes for need in needs))))
    return rows
