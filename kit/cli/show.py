"""``kit show``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from kit.cli.state import JSON, console, print_json, state
from kit.plural import plural

if TYPE_CHECKING:
    from kit.manifest.catalog import Catalog
    from kit.manifest.types import Manifest


@click.command("show")
@click.argument("experiment")
@click.option("--profile", "profiles", multiple=True, help="Only this profile (repeatable).")
@JSON
@click.option("--template", is_flag=True, help="The empty table for `kit verify --results` (CSV).")
def command(experiment: str, profiles: tuple[str, ...], as_json: bool, template: bool) -> None:
    """Show one experiment: claims, inputs, resources, the source of every value.

    EXPERIMENT is an id (see `kit list`) or the path of a manifest.
    """
    from kit.manifest.catalog import Catalog
    from kit.manifest.summary import describe

    if template:
        click.echo(_template(experiment, profiles), nl=False)
        return
    catalog = Catalog()
    about = describe(catalog, experiment, list(profiles))
    for name, profile in about["profiles"].items():
        profile["not_carried"] = _not_carried(catalog, experiment, name)
    if as_json:
        print_json(about)
        return
    out = console()
    for line, style in _lines(about):
        out.print(line, style=style or None, markup=False, soft_wrap=state().mode() == "plain")


def _not_carried(catalog: Catalog, experiment: str, profile: str) -> str:
    """What no faithful repeat can show; see :func:`kit.verify.published.not_carried`."""
    from kit.verify.published import not_carried

    path = catalog.expectation_path(experiment, profile)
    return not_carried(path) if path is not None else ""


def _template(experiment: str, profiles: tuple[str, ...]) -> str:
    from kit.errors import UsageError
    from kit.manifest.catalog import Catalog
    from kit.verify.tables import template

    catalog = Catalog()
    profile = profiles[0] if profiles else _published(catalog.manifest(experiment))
    expected = catalog.expectation(experiment, profile)
    if expected is None:
        raise UsageError(f"{experiment} has no expectation at profile {profile!r}")
    return template(expected)


def _published(manifest: Manifest) -> str:
    """The profile that is compared with printed numbers; the first one where none is."""
    names = [name for name, profile in manifest.profiles.items() if profile.compares == "published"]
    return names[0] if names else next(iter(manifest.profiles))


def _lines(about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{about['id']}: {about['title']}", "bold"
    yield about["summary"], ""
    counterpart = f", counterpart {about['counterpart']}" if about["counterpart"] else ""
    yield f"{about['family']}, {about['variant']}, version {about['version']}{counterpart}", "dim"
    for document in about["documents"]:
        yield f"document {document['id']}: {document['title']} ({document['cite']})", ""
    for note in about["notes"]:
        yield f"note: {note}", "yellow"
    for name, profile in about["profiles"].items():
        yield "", ""
        yield f"profile {name}: {profile['summary']}", "bold"
        yield from _profile(profile)


def _profile(profile: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if profile["claims"]:
        yield f"  claims ({plural(profile['cells'], 'cell')})", "bold"
    for claim in profile["claims"]:
        mark = "primary" if claim["primary"] else "also"
        yield f'    [{mark}] {claim["id"]}: "{claim["sentence"]}" ({claim["place"]})', ""
    for note in profile["notes"]:
        yield f"    note: {note}", "yellow"
    if profile["not_carried"]:
        yield f"    beforehand: {profile['not_carried']}", "yellow"
    yield "  inputs", "bold"
    yield from _inputs(profile["inputs"])
    for name, model in profile["models"].items():
        at = ", ".join(f"{axis}={value}" for axis, value in model["at"].items())
        made = f"made by step {model['step']}" + (f" at {at}" if at else "")
        yield f"  model {name}: {made if model['step'] else model['pin']}", ""
    for axis, values in profile["matrix"].items():
        names = [str(v.get("id", v)) if isinstance(v, dict) else str(v) for v in values]
        yield f"  axis {axis} ({profile['roles'][axis] or 'no role'}): {', '.join(names)}", ""
    for entry in profile["exclude"]:
        yield f"  without {', '.join(f'{axis}={value}' for axis, value in entry.items())}", ""
    yield "  steps", "bold"
    for step in profile["steps"]:
        yield from _step(step)


def _inputs(pins: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """One line for all that ships with the kit under a licence; the others one by one."""
    shipped: dict[str, list[str]] = {}
    for pin in pins:
        if pin.get("kind") == "package" and not (pin["unconfirmed"] or pin["unavailable"]):
            shipped.setdefault(pin["licence"], []).append(pin["id"])
        else:
            yield from _input(pin)
    for licence, ids in shipped.items():
        named = ids if len(ids) <= 4 else [*ids[:2], "...", ids[-1]]
        yield f"    {', '.join(named)} ({plural(len(ids), 'input')}, in the kit)", ""
        yield f"      licence: {licence}", "dim"


def _input(pin: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "problem" in pin:
        yield f"    {pin['id']}: {pin['problem']}", "red"
        return
    revision = f" @ {pin['revision']}" if pin["revision"] else ""
    size = f", {pin['bytes']:,} bytes" if pin["bytes"] is not None else ""
    gated = ", gated" if pin["gated"] else ""
    yield f"    {pin['id']}: {pin['title']} ({pin['kind']}{gated}{size})", ""
    if pin["at"]:
        yield f"      {pin['at']}{revision}", "dim"
    yield f"      licence: {pin['licence']}", "dim"
    for mark in ("unconfirmed", "unavailable"):
        if pin[mark]:
            yield f"      {mark}: {pin[mark]}", "yellow"


def _step(step: dict[str, Any]) -> Iterator[tuple[str, str]]:
    times = f", {step['instances']} times over {', '.join(step['each'])}" if step["each"] else ""
    yield f"    {step['id']} ({step['kind']}{times})", ""
    needs = step["resources"]
    if needs:
        gpus = f"{needs['gpus']} GPU x {needs['gpu_memory_gb']:g} GB, " if needs["gpus"] else ""
        source = f" ({needs['source']})" if needs["source"] else ""
        yield (
            f"      needs {gpus}{needs['memory_gb']:g} GB memory, {needs['minutes']:g} min, "
            f"{needs['disk_gb']:g} GB disk{source}",
            "dim",
        )
    for name, entry in step["set"].items():
        source = f"  [{entry['source']}]" if entry["source"] else ""
        yield f"      {name} = {json.dumps(entry['value'], ensure_ascii=False)}{source}", ""
