"""The base image: `pin` records its digest, `base` says what to build from.

`images.json` is completed on a machine that reaches the registry (`make pin-images`); until then
the digest is unconfirmed, builds take the tag, and say so. Standard library only.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FILE = Path(__file__).resolve().with_name("images.json")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Failed(Exception):
    """A tool did not give a digest; the text is its own last line."""


def _out(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Failed(lines[-1] if lines else f"exit status {done.returncode}")
    return done.stdout


def _skopeo(reference: str) -> str:
    raw = _out("skopeo", "inspect", "--raw", f"docker://{reference}")
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _docker(reference: str) -> str:
    form = ("--format", "{{.Manifest.Digest}}")
    return _out("docker", "buildx", "imagetools", "inspect", reference, *form).decode()


def _podman(reference: str) -> str:
    _out("podman", "pull", "-q", reference)
    return _out("podman", "image", "inspect", "--format", "{{.Digest}}", reference).decode()


def _buildah(reference: str) -> str:
    _out("buildah", "pull", "-q", reference)
    form = ("--type", "image", "--format", "{{.FromImageDigest}}")
    return _out("buildah", "inspect", *form, reference).decode()


TOOLS: dict[str, Callable[[str], str]] = {
    "skopeo": _skopeo,
    "docker": _docker,
    "podman": _podman,
    "buildah": _buildah,
}
"""Asked in this order; the first two do not download the image."""


def pin() -> int:
    """Record the digest that the tag stands for today; 4 if no tool could tell."""
    image = json.loads(FILE.read_text())
    reasons = []
    for tool, resolve in TOOLS.items():
        if shutil.which(tool) is None:
            reasons.append(f"{tool}: not installed")
            continue
        try:
            found = DIGEST.fullmatch(resolve(image["reference"]).strip())
        except Failed as error:
            reasons.append(f"{tool}: {error}")
            continue
        if found is None:
            reasons.append(f"{tool}: gave no digest")
            continue
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        image |= {"digest": found[0], "status": "confirmed", "resolved_with": tool, "date": today}
        FILE.write_text(json.dumps(image, indent=2) + "\n")
        print(f"{image['reference']} is {found[0]} ({tool}); commit requirements/images.json")
        return 0
    print(f"error: the digest of {image['reference']} cannot be resolved here", file=sys.stderr)
    print(f"  why:  {'; '.join(reasons)}", file=sys.stderr)
    print("  next: make pin-images on a machine that reaches the registry", file=sys.stderr)
    return 4


def base() -> int:
    """Print what to build from; on stderr, how sure that is."""
    image = json.loads(FILE.read_text())
    reference, digest = image["reference"], image["digest"]
    if image["status"] == "confirmed" and digest and DIGEST.fullmatch(digest):
        # Without its tag: some engines refuse a tag and a digest together.
        print(f"{reference.rsplit(':', 1)[0]}@{digest}")
        print(f"image: base {reference} as pinned on {image['date']}", file=sys.stderr)
    else:
        print(reference)
        print(
            f"image: base {reference} by its tag: its digest is unconfirmed (make pin-images)",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit({"pin": pin, "base": base}[sys.argv[1]]())
