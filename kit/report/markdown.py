"""The report as short Markdown, to be pasted into a review form.

It is text for other people's renderers, so everything untrusted is escaped for Markdown and for
the HTML that Markdown lets through.
"""

from __future__ import annotations

import re
from typing import Any

from kit.manifest.expectation_types import Expectation
from kit.manifest.types import Manifest
from kit.plural import plural
from kit.report.content import content
from kit.report.files import Run
from kit.report.tables import Table
from kit.report.text import one_line
from kit.visible import shorten

MOST_ROWS = 40
"""Of a table, whose gravest lines are kept."""
MOST_TABLES = 12
MOST_ITEMS = 20
"""Of any other list."""
LONGEST = 400
MAX_NAME = 80
MAX_NUMBER = 40
MAX_INTERVAL = 60
MAX_SUMMARY = 160
"""Characters: of any text, and in a table of a name, a number, an interval and a comparison."""
_MARKUP = re.compile(
    r"([\\`*|~$])"  # always
    r"|(?<![^\W_])(_)|(_)(?![^\W_])"  # not inside of a word
    r"|((?<=\])[(\[:])"  # links and link definitions
    r"|(^(?:[-+#=](?=[-=#\s]|$)|\d+(?=[.)](?:\s|$))))"  # headings and lists
)


def escape(text: str, limit: int = LONGEST) -> str:
    """Untrusted text on one line, with nothing left that Markdown or HTML would act on."""
    shown = shorten(one_line(text), limit).replace("&", "&amp;")
    shown = shown.replace("<", "&lt;").replace(">", "&gt;")
    shown = _MARKUP.sub(_literal, shown)
    # No renderer shall make a link of a bare address.
    return re.sub(r"(?i)\b(https?|ftp|javascript|data)(:)|\b(www)(\.)", _unlink, shown)


def _literal(match: re.Match[str]) -> str:
    matched = match.group()
    return f"{matched}\\" if matched[0].isdigit() else f"\\{matched}"


def _unlink(match: re.Match[str]) -> str:
    word, sign = match.group(1) or match.group(3), match.group(2) or match.group(4)
    return f"{word}&#{ord(sign)};"


def code(text: str) -> str:
    """``text`` as a code span, whatever backticks it holds."""
    shown = shorten(one_line(text), LONGEST)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def render_markdown(
    run: Run, *, manifest: Manifest | None = None, expectation: Expectation | None = None
) -> str:
    """The report in short; the same run gives the same bytes."""
    page = content(run, manifest=manifest, expectation=expectation, figures=False)
    parts = [*_head(page), *_claims(page), *_tables(page), *_origin(page), *_rest(page)]
    return "\n".join(parts).rstrip() + "\n"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table of cells that are escaped already."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _head(page: dict[str, Any]) -> list[str]:
    banner = page["banner"]
    lines = [f"# {escape(page['title'])}: {banner.word}", ""]
    lines += [f"**{banner.word} {escape(banner.headline)}**", ""]
    lines += [*(f"- {escape(caveat)}" for caveat in banner.caveats), ""] if banner.caveats else []
    lines += [f"{banner.meaning} {banner.covers} {banner.omits}", ""]
    for mark, why in banner.marks:
        lines += [f"**{mark}**: {escape(why)}", ""]
    lines += [*(f"- {escape(reason)}" for reason in banner.reasons), ""] if banner.reasons else []
    facts = "; ".join(f"{name} {escape(value)}" for name, value in banner.facts)
    counts = ", ".join(f"{count} {word.replace('-', ' ')}" for word, count in banner.counts)
    return [*lines, f"{facts}. Cells: {counts or 'none'}.", ""]


def _claims(page: dict[str, Any]) -> list[str]:
    rows = []
    for claim in page["claims"][:MOST_ROWS]:
        said, outcome = claim.said, claim.said.outcome.replace("-", " ")
        rows.append(
            [
                f"**{outcome}**" + (" (primary)" if said.primary else ""),
                escape(claim.tested),
                f"\u201c{escape(said.sentence)}\u201d ({escape(said.place)})"
                + (f" {escape(said.published)}" if said.published else ""),
                escape(claim.evidence) or "\u2014",
            ]
        )
    return ["## Claims", "", *table(["Outcome", "Tested", "Sentence", "Evidence"], rows)]


def _tables(page: dict[str, Any]) -> list[str]:
    lines = ["## Tables", ""]
    for each in page["tables"][:MOST_TABLES]:
        lines += _table(each)
    if len(page["tables"]) > MOST_TABLES:
        left = len(page["tables"]) - MOST_TABLES
        lines += [f"{plural(left, 'further table')} in verdict.json.", ""]
    return lines


def _table(each: Table) -> list[str]:
    rows = each.gravest(MOST_ROWS)
    unit = f" ({escape(each.unit)})" if each.unit else ""
    lines = [f"### {escape(each.name)}{unit}", ""]
    if each.omnibus:
        lines += [escape(each.omnibus), ""]
    cells = [
        [
            escape(row.title or row.name, MAX_NAME),
            *(escape(text, MAX_NUMBER) for text in (row.published, row.reference, row.value)),
            escape(row.interval, MAX_INTERVAL),
            escape(row.summary, MAX_SUMMARY),
            row.word,
        ]
        for row in rows
    ]
    head = ["Cell", "Published", "Reference", "This run", "95 % interval", "How they compare"]
    lines += table([*head, "Verdict"], cells)
    left = len(each.rows) + each.left_out - len(rows)
    return [*lines, f"{plural(left, 'further cell')} in verdict.json.", ""] if left else lines


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _origin(page: dict[str, Any]) -> list[str]:
    lines = ["## Environment", ""]
    for name, rows in page["environment"]:
        said = "; ".join(f"{escape(a)} {escape(b)}" for a, b in rows)
        lines.append(f"- {name}: {said}")
    lines += ["", "## Inputs", ""]
    for each in page["inputs"]:
        marks = "".join(f" **{mark}**: {escape(why)}." for mark, why in each.marks)
        lines.append(
            f"- {escape(each.title)} ({code(each.origin)}), licence {escape(each.licence)}, "
            f"{each.files}.{marks}"
        )
    return [*lines, *([] if page["inputs"] else ["No plan lists the inputs of this run."]), ""]


def _rest(page: dict[str, Any]) -> list[str]:
    lines = ["## Deviations", ""]
    for each in page["deviations"][:MOST_ITEMS]:
        said = " ".join(_sentence(part) for part in (each.detail, each.evidence, each.why) if part)
        lines.append(f"- {code(each.name)} **{escape(each.word)}**: {escape(said)}")
    left = len(page["deviations"]) - MOST_ITEMS + page["more_deviations"]
    if left > 0:
        lines.append(f"- and {left} more, in verdict.json")
    lines += [*([] if page["deviations"] else ["None."]), "", "## Not run", ""]
    for what, why in page["not_run"][:MOST_ITEMS]:
        lines.append(f"- {code(what) + ' ' if what else ''}{escape(why)}")
    if len(page["not_run"]) > MOST_ITEMS:
        lines.append(f"- and {len(page['not_run']) - MOST_ITEMS} more, in verdict.json")
    lines += [*([] if page["not_run"] else ["Everything was run."]), "", "## Commands", ""]
    lines += [f"- {what}: {code(command)}" for what, command in page["commands"]]
    if page["notes"]:
        lines += ["", "## Known departures", ""]
        lines += [f"- {escape(note)}" for note in page["notes"]]
    return lines
