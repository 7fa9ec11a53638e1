"""A stand-in for kubectl and the cluster behind it: containers become processes of this machine.

It understands what ``apply.sh`` says and nothing else: ``apply --server-side -f FILE``,
``get job/NAME -o JSONPATH``, ``logs job/NAME``. Pods run one after another when their Job is
applied. Paths below /data and /plan are mapped into the folder KUBE_FOLDER; retries
and exit codes follow the Job's own backoff and failure policy.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

FOLDER = Path(os.environ["KUBE_FOLDER"])


def apply(file: str) -> None:
    for item in YAML(typ="safe", pure=True).load_all(Path(file).read_bytes()):
        name = item["metadata"]["name"]
        if item["kind"] == "ConfigMap":
            place = FOLDER / "plan" / name
            place.mkdir(parents=True, exist_ok=True)
            for key, value in item["binaryData"].items():
                (place / key).write_bytes(base64.b64decode(value))
        elif item["kind"] == "Job" and not (FOLDER / f"{name}.json").exists():
            state = run_job(item)
            (FOLDER / f"{name}.json").write_text(json.dumps(state))
        print(f"{item['kind'].lower()}/{name} serverside-applied")


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    spec = job["spec"]
    retries = spec["backoffLimitPerIndex"] if "completions" in spec else spec["backoffLimit"]
    rules = spec["podFailurePolicy"]["rules"]
    fatal = {code for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])}
    good, attempts, output = True, 0, ""
    for index in range(spec.get("completions", 1)):
        for _ in range(retries + 1):
            attempts += 1
            code, output = run_pod(spec["template"]["spec"], index)
            if code == 0 or code in fatal:
                break
        good = good and code == 0
    return {"condition": "Complete" if good else "Failed", "attempts": attempts, "output": output}


def run_pod(pod: dict[str, Any], index: int) -> tuple[int, str]:
    (container,) = pod["containers"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    (source,) = volumes["plan"]["projected"]["sources"]
    plan = FOLDER / "plan" / source["configMap"]["name"]
    places = {"/data": str(FOLDER / "data"), "/plan": str(plan)}

    def mapped(text: str) -> str:
        text = text.replace("$(JOB_COMPLETION_INDEX)", str(index))
        for inside, outside in places.items():
            if text.startswith(inside + "/"):
                return outside + text.removeprefix(inside)
        return text

    environment = {one["name"]: mapped(one["value"]) for one in container["env"] if "value" in one}
    done = subprocess.run(
        [mapped(part) for part in container["command"]],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stderr, file=sys.stderr)
    return done.returncode, done.stdout


def state(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())  # type: ignore[no-any-return]


def main(arguments: list[str]) -> None:
    match arguments:
        case ["apply", "--server-side", "-f", file]:
            apply(file)
        case ["get", job, "-o", path] if path.startswith("jsonpath={range .status.conditions"):
            # A Job has the condition that announces the end before the one that is the end.
            found = state(job.removeprefix("job/"))["condition"]
            early = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[found]
            print(early, found, end=" ")
        case ["logs", job, "--tail=1"]:
            print(state(job.removeprefix("job/"))["output"].splitlines()[-1])
        case _:
            sys.exit(f"unknown: {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
