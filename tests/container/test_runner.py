"""`requirements/runner.sh` against engines that write down their arguments."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from tests.container.conftest import ROOT, Box

RUNNER = str(ROOT / "requirements" / "runner.sh")
TOKEN = "hf_" + "aB3xY9" * 5
CALLER = f"{os.getuid()}:{os.getgid()}"


def reproduce(
    box: Box, profile: str = "mini", *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What `make reproduce-tiny-adapt PROFILE=...` calls."""
    settings = {
        "RUNNER": "auto",
        "PROFILE": profile,
        "TARGET": "gpu" if profile == "paper" else "cpu",
        "IMAGE": "kit-image",
        "VENV": ".venv",
        "GPU_VENV": ".venv-gpu",
        "MAKE": "make",
    }
    command = ("kit", "reproduce", "tiny-adapt", "--profile", profile, *arguments)
    return box.call(RUNNER, *command, **{**settings, **environment})


def value(argv: list[str], option: str) -> list[str]:
    """The values of a repeatable option."""
    return [after for before, after in itertools.pairwise(argv) if before == option]


def local(box: Box, venv: str) -> None:
    """A make that says its target and an environment with a kit that says its arguments."""
    box.script("make", '#!/usr/bin/env bash\necho "make $*"\n')
    place = box.folder / "work" / venv / "bin"
    place.mkdir(parents=True)
    (place / "kit").write_text('#!/usr/bin/env bash\necho "$0 $*"\nexit 3\n')
    (place / "kit").chmod(0o755)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_miniature_run_never_has_a_network(box: Box, engine: str) -> None:
    box.add(engine)
    done = reproduce(box, "mini", "--seed", "7", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"runner: {engine} ({engine} answers and has the image kit-image:cpu)" in done.stdout
    (argv,) = box.runs()
    assert value(argv, "--network") == ["none"]
    assert argv[-7:] == [
        "kit-image:cpu",
        "reproduce",
        "tiny-adapt",
        "--profile",
        "mini",
        "--seed",
        "7",
    ]
    assert "--gpus" not in argv
    assert "--device" not in argv
    assert not any("secrets" in word or "TOKEN" in word for word in argv)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_results_belong_to_the_caller(box: Box, engine: str) -> None:
    box.add(engine)
    reproduce(box)
    (argv,) = box.runs()
    assert value(argv, "--user") == [CALLER]
    work = box.folder / "work"
    assert f"{work}/runs:/experiment/runs" in value(argv, "-v")
    assert f"{work}/.kit:/experiment/.kit" in value(argv, "-v")
    assert f"{work}/.kit/container-cache:/cache" in value(argv, "-v")
    assert (work / "runs").is_dir()
    assert ("--userns=keep-id" in argv) == (engine == "podman" and os.getuid() != 0)


def test_in_a_rootless_docker_the_caller_is_root_inside(box: Box) -> None:
    box.add("docker", rootless=True)
    reproduce(box)
    assert value(box.runs()[0], "--user") == ["0:0"]


def test_podman_under_the_name_of_docker(box: Box) -> None:
    """Without keep-id the results would belong to a user that the caller does not know."""
    box.add("docker", version="podman version 4.9.4")
    reproduce(box, "paper")
    argv = box.runs()[-1]
    assert ("--userns=keep-id" in argv) == (os.getuid() != 0)
    assert "label=disable" in value(argv, "--security-opt")
    assert value(argv, "--device") == ["nvidia.com/gpu=all"]
    assert "--gpus" not in argv


def test_a_proxy_is_for_the_fetch_alone(box: Box) -> None:
    box.add("docker")
    reproduce(box, "paper", HTTPS_PROXY="http://me:pass@proxy:3128")
    fetch, run = box.runs()
    assert "HTTPS_PROXY" in value(fetch, "-e")
    assert not any("PROXY" in word for word in value(run, "-e"))
    assert not any("me:pass" in word for word in fetch + run)


def test_the_full_profile_fetches_first_and_then_has_neither_network_nor_token(box: Box) -> None:
    box.add("docker")
    hub = box.folder / "home/.cache/huggingface/hub"
    hub.mkdir(parents=True)
    done = reproduce(box, "paper", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    fetch, run = box.runs()
    assert fetch[-4:] == ["fetch", "tiny-adapt", "--profile", "paper"]
    assert "--network" not in fetch
    assert "--gpus" not in fetch
    assert f"{hub}:/hub:ro" in value(fetch, "-v")
    assert "HF_TOKEN_PATH=/run/secrets/hf_token" in value(fetch, "-e")
    assert value(run, "--network") == ["none"]
    assert value(run, "--gpus") == ["all"]
    assert "--ipc=host" in run
    assert "HF_HUB_OFFLINE=1" in value(run, "-e")
    assert not any("secrets" in word or "TOKEN" in word for word in run)


def test_what_fetch_linked_to_is_there_for_the_steps(box: Box) -> None:
    """A pin that the hub cache has becomes a link into /hub, because a mount is another disk."""
    box.add("docker")
    hub = box.folder / "home/.cache/huggingface/hub"
    hub.mkdir(parents=True)
    reproduce(box, "paper")
    fetch, run = box.runs()
    assert f"{hub}:/hub:ro" in value(fetch, "-v")
    assert f"{hub}:/hub:ro" in value(run, "-v")


def test_podman_gives_gpus_by_cdi(box: Box) -> None:
    box.add("podman")
    reproduce(box, "paper")
    assert value(box.runs()[-1], "--device") == ["nvidia.com/gpu=all"]


def test_the_token_is_a_private_file_that_goes_away(box: Box) -> None:
    box.add("docker", fetch=4)
    done = reproduce(box, "paper", HF_TOKEN=TOKEN)
    assert done.returncode == 4  # kit fetch's own status; nothing runs after it
    (call,) = [call for call in box.calls if "fetch" in call["argv"]]
    assert call["token"] == TOKEN
    assert call["modes"] == ["0o700", "0o600"]
    assert not Path(call["token_path"]).exists()
    assert TOKEN not in done.stdout + done.stderr
    for each in box.calls:
        assert TOKEN not in " ".join(each["argv"])
    assert TOKEN not in call["environment"].values()
    assert len(box.runs()) == 1


def test_a_stored_token_is_mounted_where_it_is(box: Box) -> None:
    box.add("docker")
    stored = box.folder / "home/.cache/huggingface/token"
    stored.parent.mkdir(parents=True)
    stored.write_text(TOKEN)
    reproduce(box, "paper")
    assert f"{stored}:/run/secrets/hf_token:ro" in value(box.runs()[0], "-v")
    assert stored.read_text() == TOKEN


def test_without_a_token_nothing_is_mounted(box: Box) -> None:
    box.add("docker")
    reproduce(box, "paper")
    assert not any("secrets" in word for word in box.runs()[0])


def test_a_rehearsal_fetches_nothing(box: Box) -> None:
    box.add("docker")
    done = box.call(
        *(RUNNER, "kit", "rehearse", "tiny-adapt"),
        **{"RUNNER": "docker", "PROFILE": "paper", "TARGET": "gpu", "IMAGE": "i"},
    )
    assert done.returncode == 0, done.stderr
    (argv,) = box.runs()
    assert value(argv, "--network") == ["none"]
    assert argv[-3:] == ["i:gpu", "rehearse", "tiny-adapt"]


@pytest.mark.parametrize("status", [1, 3, 4, 130])
def test_the_kit_s_status_is_the_runner_s(box: Box, status: int) -> None:
    box.add("docker", run=status)
    assert reproduce(box).returncode == status


@pytest.mark.parametrize("status", [125, 126, 127])
def test_an_engine_that_cannot_start_a_container(box: Box, status: int) -> None:
    box.add("docker", run=status)
    done = reproduce(box)
    assert done.returncode == 4
    assert f"error: docker could not start the container (status {status})" in done.stderr
    assert "RUNNER=local" in done.stderr


@pytest.mark.parametrize(
    ("engine", "mend"),
    [("docker", "nvidia-ctk runtime configure"), ("podman", "nvidia-ctk cdi generate")],
)
def test_an_engine_without_the_gpu(box: Box, engine: str, mend: str) -> None:
    box.add(engine, gpu=False)
    done = reproduce(box, "paper")
    assert done.returncode == 4
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: {engine} cannot give a container the GPU"
    # Not docker's last line, which is about its help.
    assert "could not select device driver" in lines[1]
    assert mend in lines[2]
    assert len(lines) == 3
    assert box.runs() == []


def test_an_engine_that_is_absent(box: Box) -> None:
    done = reproduce(box, RUNNER="podman")
    assert done.returncode == 4
    assert done.stderr.startswith("error: podman is not installed here\n")


def test_an_engine_that_does_not_answer(box: Box) -> None:
    box.add("docker", down=True)
    done = reproduce(box, RUNNER="docker")
    assert done.returncode == 4
    assert "error: docker does not answer\n  why:  Cannot connect to the daemon\n" in done.stderr


def test_an_engine_without_the_image(box: Box) -> None:
    box.add("docker", image=False)
    done = reproduce(box, "paper", RUNNER="docker")
    assert done.returncode == 4
    assert "error: docker has no image kit-image:gpu" in done.stderr
    assert "next: make image TARGET=gpu ENGINE=docker" in done.stderr


def test_an_unknown_runner_is_wrong_usage(box: Box) -> None:
    done = reproduce(box, RUNNER="lxc")
    assert done.returncode == 2
    assert "RUNNER must be auto, docker, podman or local, not 'lxc'" in done.stderr


def test_an_image_of_another_commit_is_said(box: Box) -> None:
    box.add("docker", revision="0" * 40)
    box.call("git", "init", "-q")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    box.call("git", *who, "commit", "-q", "--allow-empty", "-m", "first")
    done = reproduce(box)
    assert done.returncode == 0
    assert f"runner: the image is of commit {'0' * 40}, this checkout is at" in done.stdout


@pytest.mark.parametrize("broken", [{"down": True}, {"image": False}])
def test_auto_passes_by_what_does_not_work(box: Box, broken: dict[str, bool]) -> None:
    box.add("docker", **broken)
    box.add("podman")
    assert "runner: podman (" in reproduce(box).stdout


def test_auto_without_an_engine_is_local(box: Box) -> None:
    local(box, ".venv")
    done = reproduce(box)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "runner: local (no docker or podman with the image kit-image:cpu)",
        "make --no-print-directory -s setup",
        f"{box.folder / 'work' / '.venv'}/bin/kit reproduce tiny-adapt --profile mini",
    ]


def test_local_at_full_size_uses_the_gpu_environment(box: Box) -> None:
    local(box, ".venv-gpu")
    box.script("nvidia-smi", "#!/usr/bin/env bash\necho 'GPU 0: some'\n")
    done = reproduce(box, "paper", RUNNER="local")
    assert done.returncode == 3
    assert "make --no-print-directory -s setup-gpu" in done.stdout
    assert ".venv-gpu/bin/kit reproduce tiny-adapt --profile paper" in done.stdout


def test_local_at_full_size_without_a_gpu_installs_nothing(box: Box) -> None:
    local(box, ".venv-gpu")
    done = reproduce(box, "paper", RUNNER="local")
    assert done.returncode == 4
    assert "error: no NVIDIA GPU answers here" in done.stderr
    assert "make" not in done.stdout
