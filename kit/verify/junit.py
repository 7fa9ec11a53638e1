"""JUnit XML: a test case for each cell and claim, so that CI shows the verdict."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from kit.verify.verdict import Verdict

_SKIPPED = frozenset({"not-run", "not-compared", "inconclusive", "undetermined", "not-evaluated"})
_FAILED = frozenset({"deviates", "fails"})
_BROKEN = frozenset({"invalid", "missing"})


def document(verdict: Verdict) -> bytes:
    """The document. Deviating cells and failing claims are failures."""
    suites = ET.Element("testsuites", name=f"{verdict.experiment}.{verdict.profile}")
    cells = ET.SubElement(suites, "testsuite", name="cells")
    for cell in verdict.cells:
        outcome = cell.verdict
        detail = cell.detail + (f"; to decide: {cell.needed}" if cell.needed else "")
        _add_test(cells, cell.table, cell.id, outcome, cell.verdict, detail)
    claims = ET.SubElement(suites, "testsuite", name="claims")
    for claim in verdict.claims:
        rank = "primary" if claim.primary else "secondary"
        _add_test(claims, rank, claim.id, claim.outcome, claim.outcome, claim.detail)
    canaries = ET.SubElement(suites, "testsuite", name="canaries")
    for canary in verdict.canaries:
        outcome = "match" if canary.passed else "invalid"
        _add_test(canaries, canary.source, canary.id, outcome, "failed", canary.detail)
    for suite in suites:
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
        suite.set("tests", str(len(suite)))
    ET.indent(suites)
    content: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content


def _add_test(
    suite: ET.Element, group: str, name: str, outcome: str, message: str, detail: str
) -> None:
    element = ET.SubElement(suite, "testcase", classname=_clean(group), name=_clean(name))
    for outcomes, tag in ((_FAILED, "failure"), (_BROKEN, "error"), (_SKIPPED, "skipped")):
        if outcome in outcomes:
            ET.SubElement(element, tag, message=_clean(f"{message}: {detail}"))
            return


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n\r" or " " <= c < "\ufffe" or c > "\uffff" else "?" for c in text)
