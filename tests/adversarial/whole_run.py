"""A whole run as the engine leaves it: two arms of five pairs, three attacks, a derived cell."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec

from kit.manifest.pin_types import Pin
from kit.results.axes import Axes
from kit.results.builder import TableBuilder
from kit.results.ids import Statistic
from kit.results.plan import PinUse
from kit.results.record import FileRecord, PinRecord
from tests import run_files

ATTACKS = ("ignore", "completion")
RATES = {"none": (0.9, 0.8), "adapted": (0.1, 0.05), "full": (0.02, 0.01)}
"""Row of the table -> success of each attack."""
N = 208
EXPECTATION = """\
schema_version: 1
experiment: made
profile: mini
version: 1-A
defaults:
  - match: "**"
    status: unreported
    unit: percent
    place: doc, table 1
  - match: "*/asr-max/*"
    n: 208
    labelled: true
    derived: {formula: max, cells: ["{group}/asr-ignore/{row}", "{group}/asr-completion/{row}"]}
  - match: "*/gap-closed/*"
    unit: ratio
    derived:
      formula: gap_closed
      cells: ["{group}/asr-max/none", "{group}/asr-max/{row}", "{group}/asr-max/full"]
cells:
  - id: "{near,far}/asr-max/{none,adapted,full}"
  - id: "{near,far}/gap-closed/adapted"
present:
  - "{near,far}/{asr-ignore,asr-completion}/{none,adapted,full}"
  - "stats/{near,far}/{none,adapted,full}/empty-rate"
claims:
  - id: defended
    kind: order
    sentence: The adapted tokens lower attack success.
    place: doc, section 1
    primary: true
    cells: [near/asr-max/adapted, near/asr-max/none]
  - id: closes-the-gap
    kind: threshold
    sentence: They close most of the gap.
    place: doc, section 1
    primary: true
    cells: [far/gap-closed/adapted]
    value: "0.85"
    side: at_least
"""


def _gap(none: float, this: float, full: float) -> float | None:
    return (none - this) / (none - full) if none != full else None


def write(folder: Path, without_gap: str = "") -> Path:
    """The run directory; in one pair the full tokens may leave no gap to be closed."""
    folder.mkdir(parents=True)
    pairs = [{"id": f"{arm}-{i}", "group": arm} for arm in ("near", "far") for i in range(5)]
    pin = PinUse(pin="questions", digest="0d" * 32)
    instances = [
        run_files.instance(
            f"evaluate[pair={pair['id']}]",
            axes={"pair": pair},
            pins={"questions": pin},
            canaries=["attack-present", "labels-differ"],
        )
        for pair in pairs
    ]
    before = tuple(one.id for one in instances)
    plan = run_files.plan(*instances, run_files.instance("table", before=before))
    plan.roles = {"pair": "replicate"}
    made = {"id": "questions", "kind": "package", "title": "Questions", "licence": "Apache-2.0"}
    plan.pins = [msgspec.convert(made, Pin)]
    table, axes, random = (
        TableBuilder(),
        Axes([one.axes for one in instances], plan.roles),
        Random(3),
    )
    for one in instances:
        here = table.at(axes.origin(one.id, one.axes))
        undefended: list[list[int]] = []
        for row, rates in RATES.items():
            drawn = [[int(random.random() < rate) for _ in range(N)] for rate in rates]
            if without_gap in one.id and row == "full" and without_gap:
                drawn = undefended
            undefended = drawn if row == "none" else undefended
            items = [f"q{i}" for i in range(N)]
            for attack, labels in zip(ATTACKS, drawn, strict=True):
                here.proportion(f"asr-{attack}", row, labels, items)
            here.proportion("asr-max", row, max(drawn, key=sum), items)
            here.count(Statistic.EMPTY, row, 0, N, unit="fraction")
        of = [("asr-max", row) for row in RATES]
        here.derived("gap-closed", "adapted", _gap, of, "ratio")
    table.build().write(folder)
    content = json.loads((folder / "results.json").read_text())
    content |= {"experiment": "made", "version": "1-A", "profile": "mini"}
    content["canaries"] = [
        {"id": id, "step": one.id, "passed": True, "detail": "made"}
        for one in instances
        for id in one.canaries
    ]
    (folder / "results.json").write_text(json.dumps(content))
    digests = {name: _sha256(folder / name) for name in ("results.json", "labels.jsonl")}
    steps = {one.id: run_files.ran(one.id) for one in plan.instances}
    steps["table"].outputs = {
        name: FileRecord(sha256=digest, size=1) for name, digest in digests.items()
    }
    run_files.write(
        folder,
        plan,
        run_files.record(
            steps=steps,
            results_sha256=digests["results.json"],
            commit="1" * 40,
            dirty=False,
            pins={"questions": PinRecord(kind="package", digest=pin.digest)},
        ),
    )
    event = {"event": "run-started", "time": run_files.STARTED, "experiment": "made"}
    (folder / "events.jsonl").write_text(json.dumps(event | {"profile": "mini"}) + "\n")
    run_files.close(folder)
    return folder


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
