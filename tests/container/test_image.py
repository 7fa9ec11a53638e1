"""The image, really built and really used: `make test-image`. Without an engine it is not run.

What an ordinary build finds on its own can be given: ENGINE, BASE, PIP_CONF, CA_BUNDLE, BUILD_ARGS
(docs/container.md). The result goes to benchmarks/image-test.json, and from
there into docs/container.md.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.container import real
from tests.container.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.image, pytest.mark.timeout(3600)]
RECORD = ROOT / "benchmarks" / "image-test.json"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Engine]:
    """The machine's engine with the cpu image built; the seconds that took stand beside it."""
    name = real.found()
    if name is None:
        pytest.skip("not run: no docker, podman or buildah answers here")
    # A folder that other users may pass through, which pytest's own is not.
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"kit-image-{os.getpid()}"
    folder.mkdir(mode=0o755)
    made = real.Engine(name, folder, dict(os.environ))
    try:
        made.prepare()
        made.build()
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_image_is_closed_and_clean(engine: real.Engine) -> None:
    done = engine.shell("cat", "/proc/net/dev")
    interfaces = [line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]]
    assert interfaces == ["lo"], done.stderr
    # The mirror's settings were lent to the build; none of them stayed.
    left = engine.shell("find", "/etc/pip.conf", "/run/secrets", "-type", "f", "-size", "+0")
    assert left.stdout == ""
    shown = engine.shell("env").stdout
    for setting in ("HF_HUB_DISABLE_TELEMETRY=1", "DO_NOT_TRACK=1", "WANDB_MODE=disabled"):
        assert setting in shown
    assert engine.shell("id", "-u").stdout.strip() == str(real.ordinary_user())
    assert engine.shell("touch", "/opt/kit/x").returncode != 0


def test_wrong_usage_is_the_kit_s_own_message(engine: real.Engine) -> None:
    done = engine.kit("reproduce", "tiny-adopt")
    assert done.returncode == 2
    assert "tiny-adapt" in done.stderr + done.stdout


def test_tiny_adapt_is_reproduced_in_the_image(engine: real.Engine) -> None:
    begun = time.monotonic()
    done = engine.kit("reproduce", "tiny-adapt", "--profile", "mini")
    seconds = time.monotonic() - begun
    runs = sorted((engine.folder / "work" / "runs").glob("tiny-adapt-mini-*"))
    assert len(runs) == 1, done.stderr[-2000:]
    record = json.loads((runs[0] / "record.json").read_text())
    verdict = json.loads((runs[0] / "verdict.json").read_text())["verdict"]
    remember(engine, seconds, record, verdict)
    assert (verdict, done.returncode) == ("REPRODUCED", 0), done.stdout[-2000:]
    # Also when an earlier commit's image left its layers in the engine's cache.
    assert record["commit"] == head()
    assert (runs[0] / "report.html").stat().st_size > 100_000
    owners = {path.stat().st_uid for path in runs[0].rglob("*")}
    assert owners == {engine.owner}


def head() -> str:
    """The commit that `make image` builds."""
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()


def remember(engine: real.Engine, seconds: float, record: dict[str, Any], verdict: str) -> None:
    """Write the result down where `make test-image` asks for it."""
    if os.environ.get("KIT_IMAGE_RECORD") != "1":
        return
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": record["commit"],
        "dirty": record["dirty"],
        "engine": engine.version(),
        "base": engine.base,
        "user": engine.owner,
        "python": record["python"],
        "torch": record["versions"]["torch"],
        "cpu": record["hardware"]["cpu"],
        "cores": record["hardware"]["cores"],
        "run_seconds": round(seconds, 1),
        "steps": len(record["steps"]),
        "verdict": verdict,
    }
    results = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    results[engine.name] = found
    RECORD.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
