"""The Process Run Crate under an independent reader: roc-validator, by SHACL shapes of the profile.

The validator brings forty packages, so it lives in the environment of `make test-exports`.
"""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

from kit.report.crate import export_crate
from kit.report.files import read_run
from tests.engine.export.tools import tool
from tests.report.runs import write_run

VALIDATE = Path(__file__).with_name("validate_crate.py")


def issues(crate: Path) -> list[str]:
    python = Path(tool("rocrate-validator")).with_name("python")
    done = subprocess.run(
        [str(python), str(VALIDATE), str(crate)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_every_requirement_of_both_specifications_is_met(tmp_path: Path) -> None:
    crate = export_crate(
        read_run(write_run(tmp_path / "run")), tmp_path / "out.zip", agent="A. Reader"
    )
    assert issues(crate) == []
    # A crate whose actions name no tool, and one without a licence, are noticed.
    with zipfile.ZipFile(crate) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for type, key in (("CreateAction", "instrument"), ("Dataset", "license")):
        document = json.loads(parts["ro-crate-metadata.json"])
        for entity in document["@graph"]:
            if entity["@type"] == type:
                entity.pop(key, None)
        damaged = tmp_path / f"no-{key}.zip"
        with zipfile.ZipFile(damaged, "w") as archive:
            for name, data in {**parts, "ro-crate-metadata.json": json.dumps(document)}.items():
                archive.writestr(name, data)
        assert issues(damaged)
