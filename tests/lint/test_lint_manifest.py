"""Lint over manifests and pins: each rule fires on its fault, at its place, and on nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit.engine.registry import Registry
from kit.lint import all_rules, lint_manifest, lint_pins
from kit.lint.core import Finding
from kit.manifest.catalog import Catalog
from kit.manifest.load import read_pins

MANIFEST = Path("manifests/defensive_tokens/demo.yaml")
PINS = Path("manifests/pins.yaml")


def lint(repo: Path, registry: Registry) -> list[Finding]:
    catalog = Catalog(repo)
    return lint_manifest(catalog.load("demo"), catalog, registry)


def change(repo: Path, file: Path, *changes: tuple[str, str]) -> None:
    text = (repo / file).read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (repo / file).write_text(text)


def test_the_demo_is_clean(repo: Path, registry: Registry) -> None:
    found = lint(repo, registry)
    assert [finding.rule for finding in found] == ["no-expectation"]
    assert found[0].level == "info"
    assert "no expectation for profile 'mini'" in found[0].message


@pytest.mark.parametrize(
    ("old", "new", "rule", "line", "said"),
    [
        ("- id: evaluate", "- id: train", "duplicate-step", 19, "a second step 'train'"),
        (
            'cite: "example note, revision 1"}',
            "cite: a}\n  - {id: note, title: b, cite: c}",
            "duplicate-document",
            11,
            "a second document 'note'",
        ),
        ("results: table", "results: tabel", "results-step", 31, "is no step of profile 'mini'"),
        (
            "    kind: demo/table\n",
            "    kind: demo/table\n    each: [seed]\n",
            "results-step",
            28,
            "the results step has 'each'",
        ),
        (
            "data: {pin: tiny-data}",
            "data: {}",
            "input-source",
            18,
            "exactly one of 'pin', 'step' and 'model'",
        ),
        (
            "data: {pin: tiny-data}",
            "data: {pin: a, step: table}",
            "input-source",
            18,
            "exactly one",
        ),
        ("tokens: {step: train}", "tokens: {step: trian}", "input-source", 24, "no step 'trian'"),
        (
            "    version: 2\n",
            "    version: 2\n    profiles: [mini]\n",
            "input-source",
            25,
            "profile 'paper' does not have step 'train'",
        ),
        (
            'model: {pin: "${pair.target}"}',
            "model: {step: evaluate}",
            "cyclic-steps",
            12,
            "steps wait for each other: train, evaluate, table",
        ),
        ("cells: {step: evaluate}", "cells: {step: train}", "unused-step", 19, "'evaluate'"),
        ("kind: demo/train", "kind: demo/trian", "step-kind", 13, "unknown step kind 'demo/trian'"),
        ("version: 2", "version: 3", "step-kind", 14, "version 3, this kit has version 2"),
        ("      data: {pin: tiny-data}\n", "", "kind-inputs", 17, "needs the input 'data' (pin)"),
        ("      data: {pin", "      date: {pin", "kind-inputs", 18, "has no input 'date'"),
        (
            "tokens: {step: train}",
            "tokens: {step: train, profiles: [mini]}",
            "kind-inputs",
            24,
            "needs the input 'tokens' in every profile",
        ),
        ("tokens: {step: train}", "tokens: {pin: tiny-data}", "kind-inputs", 24, "is a step, not"),
        (
            "each: [pair, seed]\n    inputs:\n      tokens",
            "each: [pair]\n    inputs:\n      tokens",
            "kind-inputs",
            24,
            "'train' also runs over seed",
        ),
        ("each: [pair, seed]", "each: [pair, sed]", "axis-known", 15, "no axis 'sed'"),
        ("each: [pair, seed]", "each: [pair, pair]", "axis-known", 15, "axis 'pair' twice"),
        (
            'tokens: {step: train}\n      model: {pin: "${pair.target}"}',
            "tokens: {step: train}\n      model: {model: victim}",
            "models",
            25,
            "profile 'mini' has no model 'victim', which input 'model' of step 'evaluate' reads",
        ),
        (
            "summary: Small models that ship with the kit.",
            "summary: Small\n    models: {spare: {step: train}}",
            "models",
            35,
            "step 'train' (demo/train) writes no model",
        ),
        (
            "summary: Small models that ship with the kit.",
            "summary: Small\n    models: {spare: {pin: tiny-odl}}",
            "pin-known",
            35,
            "there is no pin 'tiny-odl'",
        ),
        (
            "summary: Small models that ship with the kit.",
            "summary: Small\n    models: {spare: {pin: tiny-old}}",
            "unused-model",
            35,
            "no step of profile 'mini' reads the model 'spare'",
        ),
        ("seed: [1, 2]", "seed: []", "axis-values", 40, "axis 'seed' has no values"),
        ("seed: [1, 2]", "seed: [1, 1]", "axis-values", 40, "has '1' twice"),
        (
            "axes: {pair: replicate, seed: replicate}",
            "axes: {pair: replicate}",
            "axis-role",
            40,
            "axis 'seed' has no role (manifests of kit 0.1.0 gave none)",
        ),
        (
            "seed: replicate}",
            "seed: replicate, rate: setting}",
            "axis-role",
            63,
            "no profile has the axis 'rate'",
        ),
        (
            "seed: [1, 2]",
            "seed: [1, 2]\n    exclude: [{pair: up, sed: 2}]",
            "exclude",
            41,
            "there is no axis 'sed'",
        ),
        (
            "seed: [1, 2]",
            "seed: [1, 2]\n    exclude: [{pair: up, seed: 3}]",
            "exclude",
            41,
            "axis 'seed' has no value '3'",
        ),
        (
            "seed: [1, 2]",
            "seed: [1, 2]\n    exclude: [{pair: up}, {pair: down}]",
            "exclude",
            15,
            "'exclude' leaves no combination for step 'train'",
        ),
        ("seed: [1, 2]", "seed: [1, 2]\n    exclude: [{}]", "exclude", 41, "an empty combination"),
        ("seed: [1, 2]", "seed: [1, 2]\n      lr: [0.1]", "unused-axis", 41, "over axis 'lr'"),
        ("new: tiny-new", "new: tiny-nwe", "pin-known", 35, "no pin 'tiny-nwe'"),
        ("data: {pin: tiny-data}", "data: {pin: tiny-dta}", "pin-known", 18, "no pin 'tiny-dta'"),
        ("${pair.target}", "${pair.traget}", "pin-known", 17, "has no field 'traget'"),
        ("old: tiny-old,", "old: tiny-old, spare: tiny-old,", "unused-pin-name", 35, "pins.spare"),
        (
            "      train: {learning_rate",
            "      tarin: {learning_rate",
            "unknown-step",
            42,
            "has no step 'tarin'",
        ),
        (
            "      train: {minutes",
            "      tarin: {minutes",
            "unknown-step",
            44,
            "has no step 'tarin'",
        ),
        ("steps: 20, ", "", "parameters", 42, "needs the parameter 'steps'"),
        ("steps: 20", "stpes: 20", "parameters", 42, "has no parameter 'stpes'"),
        ("steps: 20", "steps: twenty", "parameters", 42, "Expected `int`, got `str`"),
        ('seed: "${seed}", name', 'seed: "${pair}", name', "parameters", 42, "(pair=up)"),
        (
            "steps: 20",
            'steps: "${nothing}"',
            "parameters",
            42,
            "no axis 'nothing' here (axes: pair, seed)",
        ),
        (
            'learning_rate: {value: 0.1, source: "note, section 2"}',
            "learning_rate: 0.1",
            "source",
            53,
            "train.learning_rate has no source",
        ),
        ('source: "note, section 2"', "source: TODO", "source", 53, "'TODO' is not a source"),
        ('source: "note, section 2"', "source: '???'", "source", 53, "'???' is not a source"),
        ('"unspecified: any seed will do"', "'unspecified:'", "source", 55, "needs a reason"),
        ('source: "note, section 2"', "source: table 7", "source-document", 53, "none of the doc"),
        ("id: demo", "id: demonstration", "file-name", 2, "the file is named 'demo'"),
        ("family: defensive_tokens", "family: tar", "file-name", 3, "the folder is"),
        (
            "counterpart: demo-corrected",
            "counterpart: none-such",
            "counterpart",
            8,
            "no experiment",
        ),
        ("variant: as-reported", "variant: corrected", "counterpart", 8, "is corrected too"),
        ("counterpart: demo-corrected", "counterpart: demo", "counterpart", 8, "as-reported too"),
        (
            "counterpart: demo-corrected",
            "counterpart: demo-corrected\nfull_size: none-such",
            "full-size",
            9,
            "there is no experiment 'none-such'",
        ),
        (
            "counterpart: demo-corrected",
            "counterpart: demo-corrected\nfull_size: demo-corrected",
            "full-size",
            9,
            "no profile of 'demo-corrected' needs a GPU",
        ),
    ],
)
def test_a_fault_is_found(
    repo: Path, registry: Registry, old: str, new: str, rule: str, line: int, said: str
) -> None:
    change(repo, MANIFEST, (old, new))
    found = lint(repo, registry)
    hits = [f for f in found if f.rule == rule and said in f.message]
    assert hits, [finding.render() for finding in found]
    assert re.search(rf"demo\.yaml:{line}:[1-9][0-9]*$", hits[0].where)


def test_optional_inputs_may_be_left_out(repo: Path, registry: Registry) -> None:
    change(repo, MANIFEST, ("      data: {pin: tiny-data}\n", ""))
    kind = registry.get("demo/train")
    object.__setattr__(kind, "optional", frozenset({"data"}))
    assert "kind-inputs" not in [finding.rule for finding in lint(repo, registry)]


def test_a_counterpart_that_does_not_point_back(repo: Path, registry: Registry) -> None:
    other = Path("manifests/defensive_tokens/demo-corrected.yaml")
    change(repo, other, ("counterpart: demo\n", ""))
    (hit,) = [f for f in lint(repo, registry) if f.rule == "counterpart"]
    assert "does not point back" in hit.message
    (repo / other).write_text("id: [")
    (hit,) = [f for f in lint(repo, registry) if f.rule == "counterpart"]
    assert "cannot be read" in hit.message


def test_an_empty_list_of_profiles_is_a_step_that_never_runs(
    repo: Path, registry: Registry
) -> None:
    change(repo, MANIFEST, ("    version: 2\n", "    version: 2\n    profiles: []\n"))
    assert "step-profiles" in [f.rule for f in lint(repo, registry)]


def test_suggestions(repo: Path, registry: Registry) -> None:
    change(repo, MANIFEST, ("steps: 20", "stpes: 20"))
    (hit,) = [f for f in lint(repo, registry) if "stpes" in f.message]
    assert hit.next_step == "did you mean 'steps'?"


def test_every_rule_has_an_id_and_a_sentence() -> None:
    rules = all_rules()
    assert len({rule.id for rule in rules}) == len(rules) > 35
    assert all(rule.doc.endswith(".") for rule in rules)


def pins(repo: Path) -> list[Finding]:
    return lint_pins(read_pins(repo / PINS), Catalog(repo))


def test_the_demo_pins_are_clean(repo: Path) -> None:
    assert {finding.level for finding in pins(repo)} == {"info"}


@pytest.mark.parametrize(
    ("old", "new", "rule", "said"),
    [
        ("id: tiny-old", "id: tiny-data", "duplicate-pin", "a second pin"),
        ("    repo: example/big-new\n", "", "pin-fields", "hf-model needs 'repo'"),
        ("    path: mini\n", "", "pin-fields", "package needs 'path'"),
        ("    unavailable: never released\n", "", "pin-fields", "needs 'unavailable'"),
        (
            "    path: mini\n",
            "    path: mini\n    repo: a/b\n",
            "pin-fields",
            "package has no 'repo'",
        ),
        (
            '    revision: "89abcdef0123456789abcdef0123456789abcdef"\n',
            "",
            "unpinned",
            "no revision: the repository can change under it",
        ),
        ("/raw/0123456789012345678901234567890123456789/", "/raw/main/", "", ""),
        (
            "    url: https",
            '    revision: "ffffffffffffffffffffffffffffffffffffffff"\n    url: https',
            "unpinned",
            "does not contain the revision",
        ),
        (
            '    unconfirmed: "hashes: the repository is gated"\n',
            "",
            "missing-sha256",
            "config.json has no sha256",
        ),
        ("url: https://example.org", "url: http://example.org", "address", "is not https"),
        ("url: https://example.org", "url: https://me:pw@example.org", "address", "credentials"),
        ("url: https://example.org", "url: https://[example.org", "address", "is no address"),
        ("url: https://example.org", "url: https://example.org:x", "address", "is no address"),
        (
            "gated: true",
            "gated: true\n    mirrors: [https://example.org/x]",
            "address",
            "by hash only",
        ),
        ("{path: model.safetensors, size: 1000}", "{path: config.json}", "file-path", "twice"),
        ("path: mini", "path: no-such-folder", "package-files", "does not exist"),
        (
            "path: mini",
            "path: mini\n    files: [{path: none}]",
            "package-files",
            "mini/none does not",
        ),
        (
            "      - path: items.json",
            "      - {path: b}\n      - path: items.json",
            "pin-fields",
            "a 'file' pin is one file",
        ),
    ],
)
def test_a_fault_of_a_pin_is_found(repo: Path, old: str, new: str, rule: str, said: str) -> None:
    change(repo, PINS, (old, new))
    found = pins(repo)
    if not rule:  # an address without a revision is fine when the hash is known
        assert "error" not in {finding.level for finding in found}
        return
    hits = [f for f in found if f.rule == rule and said in f.message]
    assert hits, [f.render() for f in found]
    assert re.search(r"pins\.yaml:[1-9][0-9]*:[1-9][0-9]*$", hits[0].where)


def test_nothing_to_run(repo: Path, registry: Registry) -> None:
    text = (repo / MANIFEST).read_text()
    first, last = text.index("profiles:\n  mini:"), text.index("notes:\n  - The note")
    (repo / MANIFEST).write_text(f"{text[:first]}profiles: {{}}\n{text[last:]}")
    (hit,) = [f for f in lint(repo, registry) if f.rule == "no-profile"]
    assert hit.where.endswith("demo.yaml:32:11")


def test_what_nobody_could_confirm_is_repeated(repo: Path) -> None:
    hits = [finding for finding in pins(repo) if finding.rule == "unconfirmed"]
    assert hits
    assert all(hit.level == "info" and "pins.yaml:" in hit.where for hit in hits)


def test_a_pin_that_does_not_say_where_its_hashes_come_from(repo: Path) -> None:
    line = "    source: computed from the file  # kept by whoever made it\n"
    before = sum(finding.rule == "pin-source" for finding in pins(repo))
    change(repo, PINS, (line, ""))
    hits = [finding for finding in pins(repo) if finding.rule == "pin-source"]
    assert len(hits) == before + 1
    assert all(hit.level == "info" and "pins.yaml:" in hit.where for hit in hits)


def test_every_rule_has_a_failing_example() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_lint_*.py"))
    assert [rule.id for rule in all_rules() if f'"{rule.id}"' not in tests] == []


def test_an_address_without_revision_or_hash(repo: Path) -> None:
    change(
        repo,
        PINS,
        ("/raw/0123456789012345678901234567890123456789/", "/raw/main/"),
        (
            '        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"\n',
            "",
        ),
    )
    assert any("no revision in the address, no hash" in f.message for f in pins(repo))


def test_steps_and_files_by_their_names(repo: Path, registry: Registry) -> None:
    """A step for a profile that is gone, and a manifest under another's name."""
    change(
        repo, MANIFEST, ("    kind: demo/table\n", "    kind: demo/table\n    profiles: [mini]\n")
    )
    text = (repo / MANIFEST).read_text()
    (repo / MANIFEST).write_text(text[: text.index("  mini:\n")] + text[text.index("  paper:\n") :])
    said = [one.message for one in lint(repo, registry)]
    assert any("the manifest has no profile 'mini'" in one for one in said), said
    own = repo / "own.yaml"
    own.write_text((repo / MANIFEST).read_text())
    catalog = Catalog(repo)
    found = lint_manifest(catalog.load(str(own)), catalog, registry)
    assert not [one for one in found if one.rule == "file-name"], "a user's own file has any name"


def test_two_rules_of_one_name_are_a_mistake() -> None:
    from kit.lint.core import MANIFEST as rules

    with pytest.raises(ValueError, match="registered twice"):
        rules.rule("file-name")(lambda context: [])
