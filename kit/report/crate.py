"""A run as a Process Run Crate 0.6: an RO-Crate 1.3 zip that archives can read.

Every executed step is a ``CreateAction`` with the step kind as its instrument, the plan, its pins
and the steps before it as objects, and its outputs as results. Outputs that stay in the store are
described by name and sha256, not copied. Properties follow the table "Requirements" of the profile
(Workflow Run RO-Crate working group, Process Run Crate 0.6, 2026-09-07). rocrate is imported here
only; it costs most of a second.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from kit.errors import InvalidInput
from kit.manifest.pin_types import Pin
from kit.report.details import step_command
from kit.report.facts import hardware_line
from kit.report.files import Run, needing, write_file
from kit.report.text import one_line
from kit.results.files import EVENTS, LABELS, PLAN, RECORD, RESULTS, SUMS
from kit.results.plan import StepInstance
from kit.results.record import Record, StepRecord
from kit.visible import shorten

PROFILE = "https://w3id.org/ro/wfrun/process/0.6"
TERMS = "https://w3id.org/ro/terms/workflow-run#"
LONGEST = 2000
"""Characters of an action's description."""
FILES = {
    RESULTS: ("Measured numbers", "application/json"),
    "verdict.json": ("Comparison with the published numbers", "application/json"),
    PLAN: ("Steps, parameters and keys", "application/json"),
    RECORD: ("What was run, where, with which versions", "application/json"),
    LABELS: ("Labels of each item", "application/jsonl"),
    EVENTS: ("Events of the run", "application/jsonl"),
    SUMS: ("Hashes of the files that the run left", "text/plain"),
    "report.html": ("The report", "text/html"),
}
"""Files of a run directory that belong to the crate. Responses of models do not."""


def export_crate(run: Run, out: Path, *, agent: str = "", licence: str = "") -> Path:
    """Write the crate of a run.

    Args:
        run: A verified run with plan and record.
        out: The zip file.
        agent: Name of whoever ran it; not stated when empty.
        licence: Licence of the outputs, as an address or a name.

    Raises:
        InvalidInput: The run has no plan or no record.
        Preflight: rocrate is not installed.
    """
    if run.plan is None or run.record is None:
        absent = PLAN if run.plan is None else RECORD
        raise InvalidInput(
            f"a crate needs {absent}",
            where=str(run.path),
            why="it describes every step of the run",
            next_step="export a run directory made by `kit run`",
        )
    crate = _Builder(run, run.record, agent, licence).build(run.plan.instances, run.plan.pins)
    with tempfile.TemporaryDirectory() as folder:
        written = crate.write_zip(Path(folder) / "crate.zip")
        write_file(out, Path(written).read_bytes())
    return out


class _Builder:
    """Puts one crate together; entities are named by counters, never by untrusted text."""

    def __init__(self, run: Run, record: Record, agent: str, licence: str) -> None:
        with needing("the crate"):
            from rocrate.model.contextentity import ContextEntity
            from rocrate.model.person import Person
            from rocrate.model.softwareapplication import SoftwareApplication
            from rocrate.rocrate import ROCrate
        self.run, self.record = run, record
        self.entity, self.software = ContextEntity, SoftwareApplication
        self.crate: Any = ROCrate(version="1.3")
        self.crate.metadata.extra_terms["environment"] = f"{TERMS}environment"
        self._describe(licence)
        self.files = {name: self._file(name) for name in FILES if (run.path / name).is_file()}
        who = {"name": one_line(agent) or "not stated"}
        self.agent = self.crate.add(Person(self.crate, "#agent", properties=who))
        commit = f"commit {record.commit}" if record.commit else "commit not recorded"
        self.kit = self._tool("#kit", "kit", record.kit_version, identifier=commit)
        self.kit["softwareRequirements"] = [
            self._tool(f"#library-{i}", name, version, url=f"https://pypi.org/project/{name}/")
            for i, (name, version) in enumerate(record.versions.items())
        ]
        self.variables = [
            self._add(f"#variable-{i}", "PropertyValue", name=name, value=value)
            for i, (name, value) in enumerate(record.variables.items())
        ]
        self.kinds: dict[tuple[str, int], Any] = {}
        self.results: dict[str, list[Any]] = {}

    def build(self, instances: list[StepInstance], pins: list[Pin]) -> Any:
        """The whole crate."""
        inputs = {pin.id: self._pin(i, pin) for i, pin in enumerate(pins)}
        actions = []
        for i, instance in enumerate(instances):
            step = self.record.steps.get(instance.id)
            if step is not None and step.state in ("run", "cached", "failed"):
                actions.append(self._step(i, instance, step, inputs))
        actions += self._comparison()
        self.crate.root_dataset["mentions"] = _plain(actions)
        self.crate.root_dataset["author"] = self.agent
        return self.crate

    def _add(self, id: str, type: str, **properties: Any) -> Any:
        made = self.entity(self.crate, id, properties={"@type": type, **properties})
        return self.crate.add(made)

    def _tool(self, id: str, name: str, version: str, **about: Any) -> Any:
        """Software; the kit's has no page of its own, and a package URL names it without one."""
        # RO-Crate 1.3 wants ``version``; the profile, not ``softwareVersion`` beside it.
        about |= {"name": one_line(name), "version": one_line(version)}
        about.setdefault("url", f"pkg:generic/safety-repro-kit@{self.record.kit_version}")
        return self.crate.add(self.software(self.crate, id, properties=about))

    def _describe(self, licence: str) -> None:
        verdict, record, root = self.run.verdict, self.record, self.crate.root_dataset
        root["name"] = (
            f"{one_line(verdict.experiment)}, {verdict.profile} profile: "
            f"{one_line(verdict.headline or verdict.verdict)}"
        )
        root["description"] = (
            f"One run of the experiment {one_line(verdict.experiment)} (version "
            f"{one_line(verdict.version)}, {one_line(record.variant)}) on "
            f"{one_line(hardware_line(record.hardware))}, with its comparison with the published "
            "numbers."
        )
        root["datePublished"] = later(record.ended or record.started, 0.0)
        types = {"@type": ["CreativeWork", "Profile"]}
        profile = self.entity(self.crate, PROFILE, properties=types)
        profile["name"], profile["version"] = "Process Run Crate", "0.6"
        root.append_to("conformsTo", self.crate.add(profile))
        said = one_line(licence) or "No licence was chosen for the outputs; inputs keep their own."
        id = licence if licence.startswith("https://") else "#licence-of-outputs"
        root["license"] = self._add(id, "CreativeWork", name=said, description=said)

    def _file(self, name: str) -> Any:
        title, media = FILES[name]
        path = self.run.path / name
        about = {"name": title, "encodingFormat": media, "contentSize": str(path.stat().st_size)}
        return self.crate.add_file(path, dest_path=name, properties=about)

    def _pin(self, index: int, pin: Pin) -> Any:
        licence = self._add(f"#licence-{index}", "CreativeWork", name=one_line(pin.licence))
        hashes = [
            f"sha256 {file.sha256} {one_line(file.path)}" for file in pin.files if file.sha256
        ]
        about: dict[str, Any] = {"name": one_line(pin.title), "license": licence}
        if hashes:
            about["identifier"] = _plain(hashes)
        if pin.revision:
            about["version"] = pin.revision
        if pin.repo:
            about["alternateName"] = one_line(pin.repo)
        remark = pin.unconfirmed or pin.unavailable
        if remark:
            about["description"] = one_line(remark)
        return self._add(f"#input-{index}", "CreativeWork", **about)

    def _step(
        self, index: int, instance: StepInstance, step: StepRecord, inputs: dict[str, Any]
    ) -> Any:
        objects = [self.files[PLAN]]
        objects += [inputs[use.pin] for use in instance.pins.values() if use.pin in inputs]
        for upstream in instance.upstream():
            objects += self.results.get(upstream, [])
        results = [
            self._add(
                f"#output-{index}-{i}",
                "CreativeWork",
                name=one_line(f"{path} of {instance.id}"),
                identifier=f"sha256 {one_line(file.sha256)}",
                description=f"{file.size} bytes, in the store under {one_line(step.key)}",
            )
            for i, (path, file) in enumerate(sorted(step.outputs.items()))
        ]
        self.results[instance.id] = results
        shown = list(results)
        if self.run.plan is not None and instance.id == self.run.plan.results:
            shown += [self.files[n] for n in (RESULTS, LABELS) if n in self.files]
        taken = " (taken from the store)" if step.state == "cached" else ""
        params = msgspec.json.encode(instance.params).decode()
        command = step_command(self.run, instance)
        action = self._action(
            f"#step-{index}",
            self._kind(instance),
            one_line(instance.id) + taken,
            f"{command} with {params}",
            objects,
            shown,
            started=step.started or self.record.started,
            seconds=step.seconds,
        )
        if step.state == "failed":
            action["actionStatus"] = "http://schema.org/FailedActionStatus"
        if step.state != "cached" and self.variables:
            action["environment"] = _plain(self.variables)
        return action

    def _kind(self, instance: StepInstance) -> Any:
        kind = (instance.kind, instance.version)
        if kind not in self.kinds:
            self.kinds[kind] = self._tool(
                f"#kind-{len(self.kinds)}", kind[0], str(kind[1]), isPartOf=self.kit
            )
        return self.kinds[kind]

    def _comparison(self) -> list[Any]:
        made = []
        ended = self.record.ended or self.record.started
        before = [self.files[RESULTS]] if RESULTS in self.files else []
        for name, command in (("verdict.json", "kit verify"), ("report.html", "kit report")):
            if name in self.files:
                made.append(
                    self._action(
                        f"#{name.partition('.')[0]}",
                        self.kit,
                        command,
                        f"{command} runs/{self.run.name}",
                        before,
                        [self.files[name]],
                        started=ended,
                        seconds=0.0,
                    )
                )
                before = [self.files[name]]
        return made

    def _action(
        self,
        id: str,
        instrument: Any,
        name: str,
        description: str,
        objects: list[Any],
        results: list[Any],
        *,
        started: str,
        seconds: float,
    ) -> Any:
        about = {
            "name": name,
            "description": shorten(one_line(description), LONGEST),
            "startTime": later(started, 0.0),
            "endTime": later(started, seconds),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        }
        action = self.crate.add_action(
            instrument,
            identifier=id,
            object=_plain(objects),
            result=_plain(results),
            properties=about,
        )
        action["agent"] = self.agent
        return action


def _plain(values: list[Any]) -> Any:
    """One value stands alone, as the specification asks."""
    return values[0] if len(values) == 1 else values


def later(started: str, seconds: float) -> str:
    """The ISO 8601 time ``seconds`` after ``started``; ``started`` where it is no time."""
    try:
        begun = datetime.fromisoformat(started)
    except ValueError:
        return started
    return (begun + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
