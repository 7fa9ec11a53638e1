"""The page: its sections, what it loads (nothing), what hostile text does to it (nothing)."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec import structs

from kit.manifest.expectation_types import Expectation, ExpectedCell, Reference
from kit.manifest.types import Document, Manifest, StepSpec
from kit.report.files import read_run
from kit.report.html import render
from kit.verify.verdict import CanaryReport
from tests.report.builders import cell, claim, tiny_cells, verdict
from tests.report.extremes import HOSTILE, write_hostile
from tests.report.runs import record, write_run

SECTIONS = [
    "verdict", "claims", "tables", "forest", "curves", "calibration", "environment", "inputs",
    "deviations", "not-run", "commands", "notes",
]  # fmt: skip

TAGS = set(
    """
    a article b blockquote body br circle clippath code dd defs details div dl dt figcaption figure
    footer form g h1 h2 h3 head html i input label li link main meta nav ol option output p path pre
    rect script section select span strong style summary svg table tbody td text th thead title tr
    ul use
    """.split()  # noqa: SIM905
)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(read_run(write_run(tmp_path_factory.mktemp("tiny") / "run")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(read_run(write_hostile(tmp_path_factory.mktemp("hostile") / "run")))


def loads(page: Page) -> list[str]:
    """Everything in a page that a browser could fetch or follow."""
    names = ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction")
    return [v for _, attributes in page.tags for n in names if (v := attributes.get(n))]


def test_sections_stand_in_order_and_in_the_contents(tiny: str) -> None:
    page = Page(tiny)
    assert [section["id"] for section in page.all("section")] == SECTIONS
    links = {link["href"] for link in page.all("a")}
    assert {f"#{name}" for name in SECTIONS} <= links


def test_every_inner_link_has_a_target_and_ids_are_unique(tiny: str) -> None:
    page = Page(tiny)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {v[1:] for v in loads(page) if v.startswith("#")}
    assert targets - {"contents"} <= set(ids)


@pytest.mark.parametrize("which", ["tiny", "hostile"])
def test_nothing_is_loaded(which: str, request: pytest.FixtureRequest) -> None:
    source: str = request.getfixturevalue(which)
    page = Page(source)
    assert {v for v in loads(page) if not v.startswith("#")} == {"data:,"}
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_page_states_verdict_coverage_and_marks(tmp_path: Path) -> None:
    made = verdict(verdict="REHEARSED", exit_code=0, modified=True, overrides=["adapt.steps=3"])
    text = Page(render(read_run(write_run(tmp_path / "r", verdict=made)))).text
    for said in ("REHEARSED", "rehearsal", "modified", "adapt.steps=3", "as-reported", "mini"):
        assert said in text
    assert "It covers 3 primary claims" in text
    assert "It says nothing about" in text


def test_numbers_stand_in_the_table_with_margin_and_source(tiny: str) -> None:
    text = Page(tiny).text
    assert "33.7" in text
    assert "[28.0, 40.8]" in text
    assert "chosen by convention: five points separate" in text
    assert "five points separate a working defence from a weak one" in text
    assert "deviates" in text
    assert "no-gpu: needs eight GPUs." in text
    assert "unconfirmed" in text
    assert "kit step runs/run/plan.json 'evaluate[pair=newer-0]'" in text
    assert "Evaluation and self-labels share prompts" in text


def test_machine_paths_of_the_command_stay_out(tiny: str) -> None:
    assert "/somewhere" not in tiny


def test_two_renders_are_equal(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert render(run) == render(run)


def test_hostile_text_changes_no_tag(hostile: str) -> None:
    page = Page(hostile)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert len(page.all("script")) == 1
    assert len(page.all("style")) == 1
    handlers = [n for _, attributes in page.tags for n in attributes if n.startswith("on")]
    assert handlers == []
    assert "{{ 7 * 7 }}" in page.text  # shown, not computed


def test_no_unseen_sign_survives(hostile: str) -> None:
    assert (
        re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", hostile)
        == []
    )
    assert "\u241b[31m" in hostile
    assert "\u27e8U+202E\u27e9" in hostile
    hostile.encode("utf-8")


def test_policy_allows_only_the_page_s_own_script(tiny: str) -> None:
    import base64
    import hashlib

    script = tiny[tiny.index("<script>") + 8 : tiny.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(m["content"] for m in Page(tiny).all("meta") if "http-equiv" in m)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "style=" not in re.sub(r"<svg.*?</svg>", "", tiny, flags=re.DOTALL)


RESPONSE = (
    '{"set": "none", "sample_id": 3, "response": "HARMFUL <b onclick=x>' + "y" * 3000 + '"}\n'
)


def test_generations_are_redacted_unless_asked_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "responses.jsonl").write_text(RESPONSE)
    run = read_run(folder)
    page = render(run)
    assert "HARMFUL" not in page
    assert "--show-generations" in page
    shown = Page(render(run, show_generations=True))
    assert "HARMFUL <b onclick=x>" in shown.text
    assert "more characters]" in shown.text
    assert "y" * 700 not in shown.text
    assert [s["id"] for s in shown.all("section")] == [*SECTIONS, "generations"]


def test_generations_of_every_kind_come_before_more_of_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    lines = [
        json.dumps({"set": name, "condition": attack, "data": f"<{attack}>", "response": f"r{i}"})
        for name in ("none", "native")
        for attack in ("ignore", "completion")
        for i in range(150)
    ]
    (folder / "responses.jsonl").write_text("\n".join(lines))
    text = Page(render(read_run(folder), show_generations=True)).text
    assert "200 are shown" in text
    assert "native, ignore" in text
    assert "given: <completion>" in text
    assert text.count("native, completion") == 1


def test_generations_are_found_in_the_store(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    run = read_run(folder)
    assert run.record is not None
    step = next(iter(run.record.steps.values()))
    step.outputs = {"responses.jsonl": next(iter(step.outputs.values()))}
    place = tmp_path / "home" / "store" / step.key[:2] / step.key
    place.mkdir(parents=True)
    (place / "responses.jsonl").write_text(RESPONSE)
    assert "HARMFUL" not in render(run, home=tmp_path / "home")
    assert "HARMFUL" in render(run, home=tmp_path / "home", show_generations=True)


def test_table_and_verdict_make_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", plan=None, record=None)
    text = Page(render(read_run(folder))).text
    assert "This run has no record of where it ran." in text
    assert "variant" in text


def test_empty_verdict_makes_a_report(tmp_path: Path) -> None:
    made = verdict(cells=[], claims=[], canaries=[], omnibus=[], notes=[], not_covered=[])
    text = Page(render(read_run(write_run(tmp_path / "run", verdict=made, plan=None)))).text
    assert "The expectation lists no claims." in text
    assert "Everything that the expectation lists was run and compared." in text


def test_manifest_and_expectation_add_title_documents_and_reference(tmp_path: Path) -> None:
    manifest = Manifest(
        schema_version=1, id="tiny-adapt", family="defensive_tokens", version="1-A",
        title="Repairing <i>transferred</i> tokens", summary="In 200 steps.", variant="corrected",
        documents=[Document(id="n", title="The note", cite="some/repository")],
        steps=[StepSpec(id="table", kind="a/b", version=1)], results="table", profiles={},
    )  # fmt: skip
    reference = Reference(
        mean="2.1", sd="0.4", n_seeds=2, values=["1.7", "2.5"], record="records/x.json"
    )
    expectation = Expectation(
        schema_version=1, experiment="tiny-adapt", profile="mini", version="1-A", claims=[],
        cells=[ExpectedCell(id="asr/step-25", status="reported", unit="percent", place="p",
                            reference=reference, note="measured twice")],
    )  # fmt: skip
    run = read_run(write_run(tmp_path / "run"))
    text = Page(render(run, manifest=manifest, expectation=expectation)).text
    for said in (
        "Repairing <i>transferred</i> tokens",
        "The note",
        "2.1 \u00b1 0.4",
        "measured twice",
    ):
        assert said in text
    assert "range of the kit\u2019s reference runs" in text


def test_failing_claim_and_broken_check_are_explained(tmp_path: Path) -> None:
    broken = cell("asr/x", verdict="invalid", detail="The attack string is absent.")
    made = verdict(
        verdict="NOT REPRODUCED", exit_code=1, cells=[*tiny_cells(), broken],
        claims=[claim("worse", outcome="fails", detail="It rose.")],
    )  # fmt: skip
    source = render(read_run(write_run(tmp_path / "run", verdict=made)))
    section = source[source.index('id="deviations"') : source.index('id="not-run"')]
    assert "It rose." in section
    assert section.index("The attack string is absent.") < section.index("6.7")


def test_cell_without_published_number_has_no_column_of_dashes(tmp_path: Path) -> None:
    only = structs.replace(cell("new/a"), published=None, difference=None, status="reference")
    made = verdict(cells=[only], claims=[], omnibus=[])
    source = render(read_run(write_run(tmp_path / "run", verdict=made)))
    assert "Published</th>" not in source


def test_hostile_strings_all_reach_the_reader(hostile: str) -> None:
    text = Page(hostile).text
    for one in HOSTILE:
        if one.isprintable():
            assert one in text


def test_repeated_checks_are_cut_and_failed_ones_kept(tmp_path: Path) -> None:
    checks = [
        CanaryReport(id=f"check-{i}", passed=i != 500, detail="seen", source="step")
        for i in range(501)
    ]
    folder = write_run(tmp_path / "run", verdict=verdict(canaries=checks))
    text = Page(render(read_run(folder))).text
    assert "check-500" in text
    assert "421 further checks stand in verdict.json" in text


def test_steps_name_their_job_and_link_their_logs(tmp_path: Path) -> None:
    made = record()
    logs = ["logs/align[pair=newer-0].log", "slurm/12_3_0_log.err"]
    bad = ["javascript:alert(1)", "logs/../../etc/passwd", "https://example.org/x", "/logs/x"]
    made["steps"]["align[pair=newer-0]"] |= {"job": "12_3", "logs": [*logs, *bad]}
    page = Page(render(read_run(write_run(tmp_path / "r", record=made))))
    assert {v for v in loads(page) if not v.startswith("#")} == {
        "data:,",
        "logs/align%5Bpair%3Dnewer-0%5D.log",
        "slurm/12_3_0_log.err",
    }
    assert "SLURM job 12_3" in page.text
    assert "logs/align[pair=newer-0].log" in page.text
