"""What a family costs in miniature, from its reference records.

python -m benchmarks.family_time checkpoint_transfer

Experiments share steps: today's plans say which are the same step, the records how long it took.
A step that several experiments share counts once; where several records have it, the longest and
the shortest time are summed apart. Steps of one thread on two cores take half of the sum.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run

ROOT = Path(__file__).parent.parent


def seconds_by_step(family: str) -> tuple[list[str], dict[str, list[float]]]:
    """Experiments that have a record, and the seconds of each different step of their plans."""
    names, found = list[str](), dict[str, list[float]]()
    for manifest in sorted((ROOT / "manifests" / family).glob("*.yaml")):
        record = ROOT / "expected_results" / "reference" / f"{manifest.stem}.mini.jsonl"
        if not record.is_file():
            continue
        names.append(manifest.stem)
        head = json.loads(record.read_text(encoding="utf-8").splitlines()[0])["record"]
        asked = ["kit", "plan", manifest.stem, "--seed", str(head["seed"]), "--json"]
        printed = run(asked, check=True, capture_output=True, text=True).stdout
        keys = {one["id"]: one["key"] for one in json.loads(printed)["instances"]}
        for id, step in head["steps"].items():
            found.setdefault(keys[id], []).append(step["seconds"])
    return names, found


def main() -> None:
    names, found = seconds_by_step(sys.argv[1])
    shortest, longest = (sum(map(pick, found.values())) / 60 for pick in (min, max))
    print(
        f"{len(names)} experiments, {len(found)} different steps of {sum(map(len, found.values()))}"
    )
    print(f"one thread: {shortest:.0f} to {longest:.0f} minutes")
    print(f"two cores: {shortest / 2:.0f} to {longest / 2:.0f} minutes")


if __name__ == "__main__":
    main()
