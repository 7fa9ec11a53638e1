"""`requirements/image.sh` against engines that write down their arguments."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.container.conftest import ROOT, Box

SCRIPT = str(ROOT / "requirements" / "image.sh")


def build(box: Box, **environment: str) -> subprocess.CompletedProcess[str]:
    return box.call(SCRIPT, PYTHON=sys.executable, **environment)


def arguments(box: Box) -> list[str]:
    """What the engine was told to build."""
    (found,) = [call["argv"] for call in box.calls if "build" in call["argv"]]
    assert found[-1] == "."
    return list(found)


def build_argument(box: Box, name: str) -> str:
    (found,) = [word for word in arguments(box) if word.startswith(f"{name}=")]
    return found.partition("=")[2]


@pytest.mark.parametrize(
    ("engine", "target"),
    [("docker", "cpu"), ("docker", "gpu"), ("podman", "cpu"), ("buildah", "gpu")],
)
def test_the_image_carries_commit_and_date(box: Box, engine: str, target: str) -> None:
    box.add(engine)
    done = build(box, TARGET=target, IMAGE="kit-image")
    assert done.returncode == 0, done.stderr
    argv = arguments(box)
    assert argv[:5] == ["build", "--target", target, "--tag", f"kit-image:{target}"]
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert build_argument(box, "COMMIT").removesuffix("-dirty") == head
    epoch = build_argument(box, "SOURCE_DATE_EPOCH")
    assert int(epoch) > 1.6e9
    assert ("--timestamp" in argv) == (engine != "docker")
    assert "--secret" not in argv


def test_the_base_is_said_to_be_unconfirmed_or_pinned(box: Box) -> None:
    box.add("docker")
    done = build(box)
    assert build_argument(box, "BASE").startswith("docker.io/library/python")
    assert "image: base docker.io/library/python:" in done.stderr
    assert ("unconfirmed" in done.stderr) == ("@sha256:" not in build_argument(box, "BASE"))


def test_any_base_and_a_mirror_s_settings_come_from_outside(box: Box) -> None:
    box.add("buildah")
    done = build(
        box,
        BASE="localhost/own:1",
        PIP_CONF="/etc/pip.conf",
        CA_BUNDLE="/etc/ca.crt",
        BUILD_ARGS="--isolation chroot",
        BUILDAH_OPTIONS="--storage-driver vfs",
    )
    assert "image: base localhost/own:1, as given" in done.stderr
    (call,) = [call for call in box.calls if "build" in call["argv"]]
    argv = call["argv"]
    assert argv[:3] == ["--storage-driver", "vfs", "build"]
    assert "BASE=localhost/own:1" in argv
    assert "id=pip_conf,src=/etc/pip.conf" in argv
    assert "id=ca_bundle,src=/etc/ca.crt" in argv
    assert argv[-3:] == ["--isolation", "chroot", "."]


def test_no_engine_is_one_message(box: Box) -> None:
    box.add("docker", down=True)
    done = build(box)
    assert done.returncode == 4
    assert done.stderr.splitlines()[0] == "error: no docker, podman or buildah answers here"
    assert done.stderr.count("error") == 1


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_a_named_engine_that_is_absent_or_down(box: Box, engine: str) -> None:
    absent = build(box, ENGINE=engine)
    box.add(engine, down=True)
    down = build(box, ENGINE=engine)
    assert (absent.returncode, down.returncode) == (4, 4)
    assert f"error: {engine} is not installed here" in absent.stderr
    assert f"error: {engine} does not answer\n  why:  Cannot connect to the daemon" in down.stderr


def test_a_failed_build(box: Box) -> None:
    box.add("docker", build=17)
    done = build(box)
    assert done.returncode == 4
    assert "error: docker could not build safety-repro-kit:cpu (status 17)" in done.stderr
    assert "is ready" not in done.stderr


@pytest.mark.parametrize("wrong", [{"TARGET": "tpu"}, {"ENGINE": "lxc"}])
def test_wrong_usage(box: Box, wrong: dict[str, str]) -> None:
    done = build(box, **wrong)
    assert done.returncode == 2
    assert "not 'tpu'" in done.stderr or "not 'lxc'" in done.stderr
