"""The figures that an expectation asks for: grids of two settings, trade-offs of two metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from kit.manifest.expectation_types import Expectation, ExpectedCell, Figure
from kit.plural import plural
from kit.report.expected_points import expected_number, mark, spots
from kit.report.figures.cache import drawn
from kit.report.figures.curves import Spot, curve, remarks_on
from kit.report.figures.grid import Square, grid
from kit.report.figures.trade_off import Setting, trade_off
from kit.report.gallery import Picture
from kit.report.text import unit_word
from kit.results.asks import with_answers
from kit.results.ids import matches
from kit.results.types import Cell, Curve, Point, Results, Series
from kit.verify.measurement import Measurement, measure
from kit.verify.numbers import rounded, scale_of, show
from kit.verify.trajectory import value_interval
from kit.verify.verdict import CellReport, Verdict

MOST_ROWS = 40
MAX_COLUMNS = 14
MOST_POINTS = 120
MAX_BESIDE = 4
"""Columns of a grid that can be read in half a page."""
HALF, WHOLE = (5.2, 3.9), (7.2, 4.2)
"""Inches: of the first figure, which stands beside the claims, and of the others."""


@dataclass(frozen=True)
class Numbers:
    """What is known about the cells of a run, by id."""

    measured: Mapping[str, Measurement]
    expected: Mapping[str, ExpectedCell]
    reports: Mapping[str, CellReport]


def declared(
    results: Results | None,
    verdict: Verdict,
    expectation: Expectation | None,
    published: Expectation | None = None,
) -> list[Picture]:
    """The figures, in the order of the expectation; ``published`` holds the documents' numbers."""
    if expectation is None or results is None:
        return []
    made = []
    for i, figure in enumerate(expectation.figures):
        size = WHOLE if i else HALF
        if figure.kind == "steps":
            made.append(_steps(f"figure-{i}", figure, results, published, size))
            continue
        numbers = _numbers(results, verdict, expectation, figure)
        if figure.kind == "grid":
            made.append(_grid(f"figure-{i}", figure, numbers))
        else:
            made.append(_trade_off(f"figure-{i}", figure, numbers, published, size))
    return made


def _steps(
    name: str,
    figure: Figure,
    results: Results,
    published: Expectation | None,
    size: tuple[float, float],
) -> Picture:
    """Measured lines by step, what was there before the first step at 0, published points over."""
    series = {each.id: each for each in results.series}
    cells = {cell.id: cell for cell in results.cells}
    lines, unit = {}, "number"
    for line in figure.lines:
        curves = series[line.series].lines.get(line.line, []) if line.series in series else []
        if curves:
            unit = series[line.series].unit
            start = cells.get(line.start or "")
            lines[line.name] = [_from_start(curve, start) for curve in curves]
    marks = {}
    if published is not None and figure.published is not None:
        known = {cell.id: cell for cell in published.cells}
        points = [(0.0, known.get(figure.published.start or ""))]
        points += [
            (float(key[0]), known[id])
            for key, id in matches(figure.published.cells, known).items()
            if key[0].replace(".", "", 1).isdigit()
        ]
        scale = f", {published.scale}" if published.scale else ""
        marks = {f"published{scale}": [m for x, c in points if c for m in mark(x, c, unit)]}
    whole = Series(
        id=name, title=figure.title, x_label=figure.x_label, y_label=figure.y_label, unit=unit,
        lines=lines,
    )  # fmt: skip
    svg = drawn(curve, name, whole, marks, size)
    caption = " ".join(remarks_on(whole, marks))
    return Picture(title=figure.title, caption=caption, svg=svg, wide=size != HALF)


def _from_start(line: Curve, start: Cell | None) -> Curve:
    """The curve with its own replicate's number before the first step at 0."""
    seeds = start.seeds if start is not None else []
    first = next((seed for seed in seeds if seed.seed == line.seed), None)
    if first is None:
        return line
    point = Point(0.0, first.value, first.k, first.n)
    return structs.replace(line, points=[point, *line.points])


def _numbers(
    results: Results, verdict: Verdict, expectation: Expectation, figure: Figure
) -> Numbers:
    expected = {cell.id: cell for cell in expectation.cells}
    wanted: list[str] = []
    for pattern in figure.cells:
        question = pattern.partition(":")[2]
        suffix = f":{question}" if question else ""
        ids = [f"{cell.id}{suffix}" for cell in results.cells]
        wanted += matches(pattern, [*expected, *ids]).values()
    cells, _ = with_answers(results, wanted)
    measured = {}
    for id in wanted:
        if id in cells and cells[id].not_run is None:
            unit = expected[id].unit if id in expected else cells[id].unit
            measured[id] = measure(cells[id], unit, "results.json", None, results.series)
    return Numbers(measured, expected, {report.id: report for report in verdict.cells})


def _ids(numbers: Numbers) -> list[str]:
    return list(dict.fromkeys([*numbers.expected, *numbers.measured]))


def _grid(name: str, figure: Figure, numbers: Numbers) -> Picture:
    matched = matches(figure.cells[0], _ids(numbers))
    rows = _in_order(row for row, _ in matched)
    columns = _in_order(column for _, column in matched)
    values = [
        float(cell.value)
        for cell in (numbers.measured.get(id) for id in matched.values())
        if cell is not None and cell.value is not None
    ]
    units = dict.fromkeys(_unit(id, numbers) for id in matched.values())
    unit = next(iter(units), "number")
    low, high = (0.0, scale_of(unit)) if unit in ("percent", "fraction") else _span(values)
    shown = {
        key: id
        for key, id in matched.items()
        if key[0] in rows[:MOST_ROWS] and key[1] in columns[:MAX_COLUMNS]
    }
    squares = [
        _square(rows.index(row), columns.index(column), id, numbers, (low, high))
        for (row, column), id in shown.items()
    ]
    labels = (figure.x_label, figure.y_label)
    svg = drawn(grid, name, rows[:MOST_ROWS], columns[:MAX_COLUMNS], squares, labels)
    caption = _grid_caption(unit, (low, high), squares, len(matched))
    return Picture(title=figure.title, caption=caption, svg=svg, wide=len(columns) > MAX_BESIDE)


def _grid_caption(
    unit: str, span: tuple[float, float], squares: Sequence[Square], count: int
) -> str:
    words = [f"{plural(count, 'cell')}{f' ({unit_word(unit)})' if unit_word(unit) else ''}."]
    words.append(f"Shaded from {show(span[0])} to {show(span[1])}.")
    if any(square.published for square in squares):
        words.append("Small: what the expectation says (published, or mean of reference runs).")
    if any(square.verdict in ("deviates", "inconclusive", "invalid") for square in squares):
        words.append("Framed: deviates or invalid; dashed: open.")
    if len(squares) < count:
        words.append(f"{len(squares)} of them are drawn.")
    return " ".join(words)


def _square(row: int, column: int, id: str, numbers: Numbers, span: tuple[float, float]) -> Square:
    cell, expected, report = (
        numbers.measured.get(id), numbers.expected.get(id), numbers.reports.get(id)
    )  # fmt: skip
    interval = None if cell is None or cell.value is None else value_interval(cell)
    half = interval.half if interval is not None else 0.0
    published = ""
    if expected is not None and expected.value is not None:
        published = f"({expected.value})"
    elif expected is not None and (mean := expected_number(expected)) is not None:
        published = f"({rounded(mean, half, expected.unit)})"
    elif expected is not None and expected.status != "unreported":
        published = f"({expected.status})"
    verdict = report.verdict if report is not None else ""
    shade: float | None = None
    text: str = verdict or "not measured"
    if cell is not None and cell.value is not None:
        low, high = span
        shade = 0.5 if high == low else (float(cell.value) - low) / (high - low)
        text = rounded(cell.value, half, cell.unit)
    elif cell is not None and cell.censored:
        never = min(seed.value for seed in cell.seeds if seed.beyond)
        shade, text = 1.0, f"> {show(never)}"
    return Square(
        row=row, column=column, text=text, shade=shade, published=published, verdict=verdict
    )


def _trade_off(
    name: str,
    figure: Figure,
    numbers: Numbers,
    published: Expectation | None,
    size: tuple[float, float],
) -> Picture:
    ids = _ids(numbers)
    across, upward = (matches(pattern, ids) for pattern in figure.cells)
    both = [key for key in across if key in upward]
    every = [_setting(" ".join(key), across[key], upward[key], numbers) for key in both]
    settings = [each for each in every if each.measured or each.published]
    drawn_ = settings[:MOST_POINTS]
    units = [_unit(next(iter(ids.values()), ""), numbers) for ids in (across, upward)]
    labels = tuple(
        given or f"{pattern}{f' ({unit_word(unit)})' if unit_word(unit) else ''}"
        for given, pattern, unit in zip(
            (figure.x_label, figure.y_label), figure.cells, units, strict=True
        )
    )
    pair = (labels[0], labels[1])
    over = _over(figure, published, units)
    svg = drawn(trade_off, name, drawn_, pair, over, size)
    words = [f"{plural(len(drawn_), 'setting')}; lines are 95 % intervals."]
    if any(setting.published is not None for setting in drawn_):
        words.append(
            "Hollow marks: what the expectation says (published, or mean of reference runs), "
            "joined to what was measured here."
        )
    if over and published is not None and figure.published is not None:
        scale = f" ({published.scale})" if published.scale else ""
        words.append(
            f"Grey: {plural(len(over), 'published setting')}{scale}, {figure.published.cells} and "
            f"{figure.published.upward}; other questions of another model: only the shape compares."
        )
    if len(drawn_) < len(settings):
        words.append(f"The first {MOST_POINTS} of {len(settings)} are drawn.")
    return Picture(title=figure.title, caption=" ".join(words), svg=svg, wide=size != HALF)


def _over(
    figure: Figure, published: Expectation | None, units: Sequence[str]
) -> list[tuple[Spot, Spot]]:
    """Points of the documents' own scale that the figure asks for, in the units of its axes."""
    asked = figure.published
    if published is None or asked is None or asked.upward is None:
        return []
    known = {cell.id: cell for cell in published.cells}
    across, upward = (matches(pattern, known) for pattern in (asked.cells, asked.upward))
    return [
        (x, y)
        for key in across
        if key in upward
        for x in spots(known[across[key]], units[0])
        for y in spots(known[upward[key]], units[1])
    ]


def _setting(name: str, across: str, upward: str, numbers: Numbers) -> Setting:
    x, y = (_measured(numbers.measured.get(id)) for id in (across, upward))
    cells = [numbers.expected.get(id) for id in (across, upward)]
    u, v = (next(iter(spots(cell, cell.unit)), None) if cell else None for cell in cells)
    return Setting(
        name=name,
        measured=None if x is None or y is None else (x, y),
        published=None if u is None or v is None else (u, v),
    )


def _measured(cell: Measurement | None) -> Spot | None:
    if cell is None or cell.value is None:
        return None
    span = value_interval(cell)
    interval = None if span is None else (span.low, span.high)
    return Spot(value=float(cell.value), interval=interval)


def _unit(id: str, numbers: Numbers) -> str:
    if id in numbers.expected:
        return numbers.expected[id].unit
    return numbers.measured[id].unit if id in numbers.measured else "number"


def _span(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 0.0)


def _in_order(names: Iterable[str]) -> list[str]:
    """Each name once: by size where all are numbers, else as they come."""
    seen = list(dict.fromkeys(names))
    try:
        return sorted(seen, key=float)
    except ValueError:
        return seen
