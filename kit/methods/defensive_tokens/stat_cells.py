"""Cells ``stats/<group>/<token set>/<name>``: are the texts behind the numbers texts at all?

They are no results. `kit verify` looks at them first: a defended model that says nothing, or is cut
off, or refuses everything has a low attack success for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kit.methods.defensive_tokens.result_cells import ALL, Measurement, Replicate

BENIGN = "benign"
RATES = {"empty": "empty-rate", "truncated": "truncated-rate"}


def statistics(replicate: Replicate, refusal_rule: str) -> Iterable[Measurement]:
    """What the responses of one replicate look like, token set by token set.

    Empty and truncated shares are those of the worst condition. The mean length is that of the
    benign prompts, and left out where their one right answer is known: there ``accuracy`` says
    more, and the answers may be one word long.
    """
    for name, scores in replicate.scores.items():
        n, lengths = len(scores["items"]), scores.get("lengths", {})
        for key, metric in RATES.items() if lengths else ():
            yield _share(replicate, name, metric, max(one[key] for one in lengths.values()), n)
        refused = scores["refusal"].get(refusal_rule)
        if refused is not None:
            yield _share(replicate, name, "refusal-rate", sum(refused), n)
        if BENIGN in lengths and not scores["accuracy"]:
            mean = float(lengths[BENIGN]["mean_tokens"])
            yield Measurement(
                _id(replicate, name, "mean-tokens"), replicate.id, replicate.step, mean, "number"
            )


def over_all(measurement: Measurement) -> Measurement:
    """The same number in the group of all replicates."""
    stats, _, rest = measurement.cell.split("/", 2)
    return replace(measurement, cell=f"{stats}/{ALL}/{rest}")


def _id(replicate: Replicate, name: str, metric: str) -> str:
    return f"stats/{replicate.group}/{name}{replicate.suffix}/{metric}"


def _share(replicate: Replicate, name: str, metric: str, k: int, n: int) -> Measurement:
    return Measurement(
        _id(replicate, name, metric),
        replicate.id,
        replicate.step,
        100.0 * k / n,
        "percent",
        labels=(1,) * k + (0,) * (n - k),
        listed=False,
    )
